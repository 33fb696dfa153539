"""``appliance web``: the terminal UI in a browser, for an appliance that runs already."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import signal
import sys
import time

import msgspec

from appliance.broker.certificate_files import CertificateFiles
from appliance.commands.target import config_of, target_of
from appliance.config.tables import TlsConfig
from appliance.config.values import ReadPath, is_loopback, parse_bind, parse_duration
from appliance.errors import EXIT_OK, NoPermissionError, UnavailableError, UsageError
from appliance.listening import RESERVED, bound_sockets, is_taken
from appliance.log import logs
from appliance.mqtt.client import Target
from appliance.secret import Secret

_SHORTEST_IDLE_S = 60
_MOST_SESSIONS = 30
"""An appliance takes 32 terminals."""


def execute(options: argparse.Namespace) -> int:
    """Serve until Ctrl+C or SIGTERM; returns the exit code."""
    _bind(options)
    _idle_s(options)
    if not 1 <= options.sessions <= _MOST_SESSIONS:
        raise UsageError(
            f"--sessions {options.sessions}: write a number from 1 to {_MOST_SESSIONS}"
        )
    if importlib.util.find_spec("textual_serve") is None:
        raise UsageError(
            "the UI in a browser needs textual-serve; install it with: "
            "pip install 'qlik-mqtt-appliance[web]'"
        )
    options.username, options.password_stdin, options.client_id = None, False, ""
    config = config_of(options)
    target = target_of(options, config=config, client="terminal-web")
    certificates = None
    if options.server_cert is not None:
        tls = TlsConfig(ReadPath(options.server_cert), ReadPath(options.server_key))
        certificates = CertificateFiles("appliance web", tls)
        certificates.load()
    log = logs.start("info", stream=sys.stderr)
    try:
        asyncio.run(_serve(options, target, config, certificates))
    finally:
        log.close()
    return EXIT_OK


def _bind(options: argparse.Namespace) -> tuple[str, int]:
    try:
        host, port = parse_bind(options.bind)
    except ValueError as error:
        raise UsageError(f"--bind {options.bind}: {error}") from None
    if (options.server_cert is None) != (options.server_key is None):
        raise UsageError("--server-cert and --server-key belong together; give both")
    if options.server_cert is None and not is_loopback(host):
        raise UsageError(
            f"--bind {options.bind}: other machines would send passwords in clear text; add "
            "--server-cert FILE and --server-key FILE"
        )
    return host, port


def _idle_s(options: argparse.Namespace) -> float:
    try:
        idle_s = float(parse_duration(options.idle))
    except ValueError as error:
        raise UsageError(f"--idle {options.idle}: {error}") from None
    if idle_s < _SHORTEST_IDLE_S:
        raise UsageError(f'--idle {options.idle}: write at least "1m"')
    return idle_s


async def _serve(
    options: argparse.Namespace,
    target: Target,
    config: str | None,
    certificates: CertificateFiles | None,
) -> None:
    from appliance.web.admission import Admission  # noqa: PLC0415  aiohttp takes its time
    from appliance.web.server import WebServer  # noqa: PLC0415
    from appliance.web.sessions import Sessions  # noqa: PLC0415

    def first_line(username: str | None, password: Secret | None) -> bytes:
        known = {"host": options.host, "port": options.port, "tls": options.tls,
                 "ca_file": options.ca_file, "certfile": options.certfile,
                 "keyfile": options.keyfile, "timeout": options.timeout, "config": config,
                 "username": username,
                 "password": None if password is None else password.reveal()}  # fmt: skip
        return msgspec.json.encode(known)

    host, port = _bind(options)
    try:
        sockets = await bound_sockets(host, port)
    except OSError as error:
        if is_taken(error):
            said = f"the port is in use by another program{RESERVED}; choose another"
            raise UnavailableError(f"--bind {options.bind}: {said}") from None
        if isinstance(error, PermissionError):
            raise NoPermissionError(
                f"--bind {options.bind}: the system refuses this port; choose one above 1023"
            ) from None
        raise UnavailableError(f"--bind {options.bind}: {error.strerror}") from None
    for each in sockets:
        each.listen()  # whoever connects before the server serves is kept by the system
    tls = certificates is not None
    server = WebServer(
        target,
        first_line,
        Admission([*options.hosts, host], tls=tls),
        Sessions(options.sessions, _idle_s(options), time.monotonic),
        certificates,
        # --hosts: a proxy or tunnel brings others.
        only_here=is_loopback(host) and not options.hosts,
    )
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows: Ctrl+C ends asyncio.run
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    address = sockets[0].getsockname()
    shown = f"[{address[0]}]" if ":" in address[0] else address[0]
    sys.stdout.write(
        f"The terminal UI of {target.shown} is at {'https' if tls else 'http'}://{shown}:"
        f"{address[1]}/ until Ctrl+C.\n"
    )
    sys.stdout.flush()
    await server.serve(sockets, stop)
