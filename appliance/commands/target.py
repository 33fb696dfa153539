"""The broker and the user of a command: from its options, else from a configuration.

Not for: connecting (mqtt/client.py, remote/link.py).
"""

from __future__ import annotations

import argparse
import getpass
import re
import secrets
import ssl
from pathlib import Path

from appliance.commands.user import read_password
from appliance.config.reading import load_tables
from appliance.config.tables import ListenerConfig
from appliance.config.values import parse_bind, parse_duration
from appliance.errors import ConfigError, UsageError
from appliance.mqtt.client import Target
from appliance.secret import Secret

_LOCAL = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  compared with, not bound to


_USUAL_CONFIG = "config.toml"


def config_of(options: argparse.Namespace) -> str | None:
    """The configuration for what the options leave open, if there is one.

    Without one and without a host, the host is this machine.
    """
    if options.config is not None:
        return str(options.config)
    if options.host is None:
        if Path(_USUAL_CONFIG).is_file():
            return _USUAL_CONFIG
        options.host = "127.0.0.1"
    return None


def client_name(command: str) -> str:
    """What a made-up client id begins with: the log names the user of this machine by it."""
    try:
        user = getpass.getuser()
    except (OSError, ImportError, KeyError):  # a user without a name, as in containers
        user = ""
    return "-".join(filter(None, (command, re.sub(r"[^A-Za-z0-9_.-]", "_", user)[:40])))


def target_of(
    options: argparse.Namespace,
    *,
    config: str | None,
    client: str,
    timeout_s: float | None = None,
) -> Target:
    """The broker that the options name; what they leave open is the first listener's.

    ``config`` is a configuration file, or ``None`` if only the options count, which then name the
    host. ``client`` is what the made-up client id begins with. ``timeout_s`` is for a command whose
    ``--timeout`` means something else. Asks for a password, or reads it, if there is a user name.
    Raises ``ApplianceError`` for what can't be.
    """
    try:
        timeout_s = parse_duration(options.timeout) if timeout_s is None else timeout_s
    except ValueError as error:
        raise UsageError(f"--timeout {options.timeout}: {error}") from None
    listener: ListenerConfig | None = None
    if config is not None:
        listener, host, port = _address(options, config)
    else:
        host = options.host
        port = 8883 if _wants_tls(options) else 1883
    if options.port is not None:
        if not 0 < options.port < 65536:
            raise UsageError(f"--port {options.port}: a port is a number from 1 to 65535")
        port = options.port
    password = None
    if options.username is not None:
        typed = read_password(options, f"Password for {options.username}: ", twice=False)
        password = Secret(typed.decode("utf-8", "surrogateescape"))
    return Target(
        host=host,
        port=port,
        # A broker need not accept an empty client id in MQTT 3.1.1 (section 3.1.3.1).
        client_id=options.client_id or f"{client}-{secrets.token_hex(4)}",
        username=options.username,
        password=password,
        tls=_tls(options, listener),
        timeout_s=timeout_s,
    )


def _address(options: argparse.Namespace, config: str) -> tuple[ListenerConfig | None, str, int]:
    """The configuration's first listener that this client can speak to, host and port."""
    listeners = load_tables(config, listener=()).listener
    if not listeners and options.host is not None:
        return None, options.host, 8883 if _wants_tls(options) else 1883
    if not listeners:
        raise UsageError(
            f"{config} has listener = [], so its appliance has no address to connect to; add "
            "[[listener]], or name another broker (--host and --port; attach: HOST)"
        )
    for listener in listeners:
        try:
            host, port = parse_bind(listener.bind)
        except ValueError as error:
            raise ConfigError(f"{config}: [[listener]] `bind`: {error}") from None
        if listener.transport == "tcp" and (port or options.port):
            return listener, options.host or _LOCAL.get(host, host), port
    raise UsageError(
        f"{config} has no listener with transport tcp and a fixed port; name host and port "
        "(--host and --port; attach: HOST and --port)"
    )


def _wants_tls(options: argparse.Namespace) -> bool:
    return bool(options.tls or options.ca_file or options.certfile)


def _tls(options: argparse.Namespace, listener: ListenerConfig | None) -> ssl.SSLContext | None:
    own = listener.tls if listener is not None else None
    if own is None and not _wants_tls(options):
        return None
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    try:
        if options.ca_file:
            context.load_verify_locations(options.ca_file)
        elif own is not None:
            # The listener of this configuration: its certificate itself is trusted. So it may be
            # for another name than 127.0.0.1, and it may lack extensions of RFC 5280, which Python
            # 3.13 requires by default.
            context.load_verify_locations(own.certfile)
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            context.check_hostname = False
        if options.certfile:
            context.load_cert_chain(options.certfile, options.keyfile)
    except OSError as error:  # ssl.SSLError is one too
        raise ConfigError(
            f"the certificates can't be used: {error.strerror or error}; check --ca-file, "
            "--certfile, --keyfile and [[listener]] tls"
        ) from None
    return context
