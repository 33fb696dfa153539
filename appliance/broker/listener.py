"""Listeners: sockets that clients connect to, with TLS and WebSocket where configured.

Not for: what a connection does (connection.py), how many connections there may be (server.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from appliance.broker.certificate_files import CertificateFiles, reason
from appliance.broker.guard import Guard, GuardedProtocol
from appliance.broker.revocation import certificate_name
from appliance.broker.tls import TlsServer
from appliance.broker.websocket import WebSocketServer
from appliance.broker.work import Turns
from appliance.config.tables import ListenerConfig
from appliance.config.values import parse_bind
from appliance.counters import Count
from appliance.engine_api import Health, ListenerState
from appliance.errors import ApplianceError, ConfigError, NoPermissionError, UnavailableError
from appliance.listening import RESERVED, bound_sockets, is_taken, serve_each

logger = logging.getLogger(__name__)

_BACKLOG = 512
_SMALLEST_FRAME = 64 * 1024
_PROBES = {"TCP_KEEPIDLE": 60, "TCP_KEEPALIVE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
"""When the operating system asks a silent peer whether it is there: seconds, seconds, times.

The first has another name on macOS. Nothing else watches a client with MQTT keepalive 0, and its
machine may have vanished without a word.
"""


_WINDOWS_PROBES = (1, 60_000, 6_000)
"""On; milliseconds of silence, milliseconds between the ten probes. Windows hands them to no other
socket, and its default is two hours
(https://learn.microsoft.com/windows/win32/winsock/sio-keepalive-vals)."""


class Listener:
    """One ``[[listener]]``. ``is_open``: whether clients may come in without a password now."""

    def __init__(
        self,
        config: ListenerConfig,
        make_connection: Callable[[], GuardedProtocol],
        *,
        largest_packet: int,
        is_open: Callable[[], bool],
        count: Count,
        turns: Turns,
    ) -> None:
        self.config = config
        self._turns = turns
        self.connections = 0
        self.max_connections = config.max_connections
        self._make_connection = make_connection
        self._largest_frame = max(largest_packet, _SMALLEST_FRAME)
        self._is_open = is_open
        self._count = count
        self._servers: tuple[asyncio.Server, ...] = ()
        self._files: CertificateFiles | None = None
        if config.tls is not None:
            self._files = CertificateFiles(f"listener {self.name}", config.tls)
        self._health = Health("off", "not started")

    @property
    def name(self) -> str:
        return self.config.name or self.config.bind

    @property
    def port(self) -> int:
        """The port it listens on, also where the configuration said 0."""
        sockets = [each for server in self._servers for each in server.sockets]
        return int(sockets[0].getsockname()[1]) if sockets else 0

    async def start(self) -> None:
        """Open the socket.

        Raises:
            ConfigError: a certificate can't be used, or the address is not this machine's.
            UnavailableError: the port is in use.
            NoPermissionError: the operating system refused the port.
        """
        host, port = parse_bind(self.config.bind)
        loop = asyncio.get_running_loop()
        if self._files is not None:
            self._files.load()
        try:
            sockets = await bound_sockets(host, port)
        except OSError as error:
            raise _explain(self.config.bind, error) from error
        for listening in sockets:
            _probe_peers(listening)
        self._servers = await serve_each(
            sockets, partial(loop.create_server, self._accept, backlog=_BACKLOG)
        )
        self._health = Health("ok")

    def _accept(self) -> asyncio.Protocol:
        connection = self._make_connection()
        outermost: asyncio.Protocol = connection
        if self.config.transport == "websocket":
            outermost = WebSocketServer(
                connection,
                largest_frame=self._largest_frame,
                allow_mqtt31=self.config.allow_mqtt31,
                is_open=self._is_open,
                count=self._count,
                turns=self._turns,
            )
        if self._files is not None and self.config.tls is not None:
            outermost = TlsServer(
                outermost,
                self._files.context,
                identity_as_username=self.config.tls.identity_as_username,
                unusable_list=self._note_unusable_list,
                count=self._count,
            )
        return _DoorGuard(outermost, connection.fail)

    def is_revoked(self, ssl_object: Any) -> bool:
        """Whether the certificate that a client has shown is on a list now (``crl_file``)."""
        if ssl_object is None or self._files is None or not self._files.revoked:
            return False
        shown = ssl_object.getpeercert(binary_form=True)
        return shown is not None and certificate_name(shown) in self._files.revoked

    def reload_certificates(self) -> str | None:
        """Take changed certificate files into use; see ``CertificateFiles.reload``."""
        if self._files is None or (said := self._files.reload()) is None:
            return None
        self._health = self._files.health
        return said

    def _note_unusable_list(self, text: str) -> None:
        """Clients of an authority can't come in; said once until the files change."""
        if self._health.level == "ok" and self.config.tls is not None:
            message = f"clients can't connect: {text} (crl_file {self.config.tls.crl_file})"
            self._health = Health("warn", message)
            logger.error("listener %s: %s; put a current list there", self.name, message)

    def bound(self, max_connections: int, largest_packet: int) -> None:
        """Let other bounds count for connections that are made from now on."""
        self.max_connections = max_connections
        self._largest_frame = max(largest_packet, _SMALLEST_FRAME)

    def stop(self) -> None:
        """Close the socket: no new connections. Those that are there stay."""
        if self._servers:
            for server in self._servers:
                server.close()
            self._health = Health("off", "stopped")

    def state(self) -> ListenerState:
        return ListenerState(
            name=self.name,
            bind=self.config.bind,
            transport=self.config.transport,
            tls=self.config.tls is not None,
            health=self._health,
            connections=self.connections,
        )


class _ProbingGuard(Guard):
    """Has its own connection probed, where the listening socket can't have it done."""

    __slots__ = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if sys.platform == "win32":
            borrowed = socket.socket(fileno=transport.get_extra_info("socket").fileno())
            with contextlib.suppress(OSError):
                borrowed.ioctl(socket.SIO_KEEPALIVE_VALS, _WINDOWS_PROBES)
            borrowed.detach()
        super().connection_made(transport)


_DoorGuard = _ProbingGuard if sys.platform == "win32" else Guard


def _probe_peers(listening: socket.socket) -> None:
    """Have connections that come in from here probed; they inherit it from the listening socket."""
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _PROBES.items():
        if (option := getattr(socket, name, None)) is not None:
            with contextlib.suppress(OSError):  # a system that knows the name and not the option
                listening.setsockopt(socket.IPPROTO_TCP, option, value)


def _explain(bind: str, error: OSError) -> ApplianceError:
    if is_taken(error):
        return UnavailableError(
            f"listener {bind}: the port is in use by another program{RESERVED}. Stop that"
            " program (another broker, another appliance?) or set another port in [[listener]]"
            " bind."
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return NoPermissionError(
            f"listener {bind}: the operating system does not let this user open the port."
            " Use a port above 1023, or grant the right to the service's user."
        )
    return ConfigError(
        f"listener {bind}: can't listen there: {reason(error)}. Set [[listener]] bind to an"
        ' address of this machine, for example "127.0.0.1:1883", or "0.0.0.0:1883" for all.'
    )
