"""``appliance publish``: from options and configuration to one message sent."""

from __future__ import annotations

import argparse
import secrets
import ssl
import sys
from pathlib import Path

from appliance.commands.mqtt_client import Client, Target
from appliance.commands.user import read_password
from appliance.config import ListenerConfig, Secret, load, parse_bind, parse_duration
from appliance.errors import EXIT_OK, ConfigError, UsageError
from appliance.topics import topic_problem

_LOCAL = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  compared with, not bound to


def execute(options: argparse.Namespace) -> int:
    """Send one message; returns the exit code."""
    problem = topic_problem(options.topic)
    if problem:
        raise UsageError(f"-t {options.topic}: {problem}")
    payload = _payload(options)
    target = _target(options)
    with Client(target) as client:
        client.publish(options.topic, payload, qos=options.qos, retain=options.retain)
    return EXIT_OK


def _payload(options: argparse.Namespace) -> bytes:
    if options.message is not None:
        return str(options.message).encode("utf-8", "surrogateescape")
    if options.file != "-":
        try:
            return Path(options.file).read_bytes()
        except OSError as error:
            raise UsageError(f"--file {options.file}: {error.strerror}") from None
    if options.password_stdin:
        raise UsageError("--file - and --password-stdin can't both read the input; use a file")
    return sys.stdin.buffer.read()


def _target(options: argparse.Namespace) -> Target:
    try:
        timeout_s = parse_duration(options.timeout)
    except ValueError as error:
        raise UsageError(f"--timeout {options.timeout}: {error}") from None
    listener: ListenerConfig | None = None
    if options.host is None:
        listener, host, port = _listener(options)
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
        client_id=options.client_id or f"appliance-publish-{secrets.token_hex(4)}",
        username=options.username,
        password=password,
        tls=_tls(options, listener),
        timeout_s=timeout_s,
    )


def _listener(options: argparse.Namespace) -> tuple[ListenerConfig, str, int]:
    """The configuration's first listener that this client can speak to."""
    config = load(options.config)
    for listener in config.listener:
        host, port = parse_bind(listener.bind)
        if listener.transport == "tcp" and (port or options.port):
            return listener, _LOCAL.get(host, host), port
    raise UsageError(
        f"{options.config} has no listener with transport tcp and a fixed port; name the broker "
        "with --host and --port"
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
            # The listener of this very configuration: its certificate itself is what is trusted,
            # so it matters neither that it is for another name than 127.0.0.1 nor that it may
            # lack what RFC 5280 wants (Python 3.13 is strict about that by default).
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
