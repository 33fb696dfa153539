"""The HTTP ports: each on a loop and thread of its own, so that no request delays the engine.

uvicorn and Starlette are loaded in that thread, so an appliance without such a port does not have
them. Not for: what is answered (app.py), what clients may do (port.py, connection.py).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING

from appliance.broker.certificate_files import CertificateFiles
from appliance.config.tables import TlsConfig
from appliance.config.values import parse_bind
from appliance.engine.service import loop_factory
from appliance.engine_api import Health, ListenerState
from appliance.errors import ApplianceError, NoPermissionError, UnavailableError
from appliance.http_api.bounds import METRICS_KIND, Kind, http_kind
from appliance.listening import RESERVED, bound_sockets, is_taken
from appliance.storage.files import allow_open_files

if TYPE_CHECKING:
    import socket

    from appliance.engine.service import Appliance
    from appliance.http_api.port import Port

logger = logging.getLogger(__name__)
_STOP_S = 6.0
_BACKLOG = 512
_OTHER_FILES = 1024


class HttpServer:
    """One port. ``start`` and ``stop`` are for the engine's loop."""

    def __init__(
        self, appliance: Appliance, bind: str, kind: Kind, tls: TlsConfig | None = None
    ) -> None:
        self._appliance = appliance
        self._bind = bind
        self._kind = kind
        self._certificates = None if tls is None else CertificateFiles(kind.table, tls)
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._port: Port | None = None
        self._health = Health("off", "not started")
        self.address = ""
        """``host:port``, once started."""

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: the certificate can't be used.
            UnavailableError: the port is in use, or this machine does not have the address.
            NoPermissionError: the operating system refuses the port to this user.
        """
        try:
            if self._certificates is not None:
                await asyncio.to_thread(self._certificates.load)
            sockets = await self._sockets()
        except ApplianceError as error:
            self._health = Health("warn", str(error))
            if not self._kind.only_monitoring:
                raise
            logger.error("there is no monitoring: %s", error)  # noqa: TRY400  no traceback for this
            return
        for each in sockets:
            each.listen(_BACKLOG)  # whoever connects before the thread serves is kept by the system
        address = sockets[0].getsockname()
        shown = f"[{address[0]}]" if ":" in address[0] else address[0]
        self.address = f"{shown}:{address[1]}"
        self._thread = threading.Thread(
            target=self._run, args=(sockets,), name=f"http {self.address}", daemon=True
        )
        self._health = Health("ok")
        self._thread.start()
        if self._kind.only_monitoring:
            logger.info("monitoring on http://%s/healthz and /metrics", self.address)
        else:
            scheme = "http" if self._certificates is None else "https"
            logger.info("HTTP on %s://%s", scheme, self.address)

    async def _sockets(self) -> list[socket.socket]:
        config = self._appliance.config
        most = sum(each.max_connections for each in config.listener) + config.http.max_connections
        allow_open_files(min(most, config.limits.max_connections + most) + _OTHER_FILES)
        host, port = parse_bind(self._bind)
        about = f"{self._kind.table} bind {self._bind}"
        try:
            return await bound_sockets(host, port)
        except OSError as error:
            if is_taken(error):
                raise UnavailableError(
                    f"{about}: the port is in use by another program{RESERVED}; choose another"
                    " address or port."
                ) from None
            if isinstance(error, PermissionError):
                raise NoPermissionError(
                    f"{about}: the system refuses this port; choose one above 1023."
                ) from None
            raise UnavailableError(
                f"{about}: {error.strerror}; choose another address or port."
            ) from None

    async def stop(self) -> None:
        """Answer what is under way, then close."""
        loop, stop, thread = self._loop, self._stop, self._thread
        if thread is None:
            return
        if loop is not None and stop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)
        await asyncio.to_thread(thread.join, _STOP_S)

    def state(self) -> ListenerState:
        """How it is. From any thread."""
        health, port, certificates = self._health, self._port, self._certificates
        if certificates is not None and certificates.health.level != "ok" and health.level == "ok":
            health = certificates.health
        return ListenerState(
            name=self._kind.table.strip("[]"),
            bind=self.address or self._bind,
            transport="http",
            tls=certificates is not None,
            health=health,
            connections=0 if port is None else len(port.connections),
        )

    def _run(self, sockets: list[socket.socket]) -> None:
        try:
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                runner.run(self._serve(sockets))
            self._health = Health("off", "stopped")
        except Exception as error:
            self._health = Health("bad", f"it has ended by a defect: {error}")
            logger.critical("the HTTP port %s has failed", self.address, exc_info=error)

    async def _serve(self, sockets: list[socket.socket]) -> None:
        # Loaded only where there is a port.
        from appliance.http_api.port import Port  # noqa: PLC0415

        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._port = Port(self._appliance, self._kind, self._certificates)
        await self._port.serve(sockets, self._stop)


def attach(appliance: Appliance) -> HttpServer | None:
    """Give an appliance that has not started its HTTP ports, if the configuration has any.

    Returns that of ``[http]``.
    """
    config = appliance.config
    if config.metrics.bind is not None:
        appliance.attach(HttpServer(appliance, config.metrics.bind, METRICS_KIND))
    if config.http.bind is None:
        return None
    tls = config.http.tls
    wanted = None if tls is None else TlsConfig(certfile=tls.certfile, keyfile=tls.keyfile)
    server = HttpServer(appliance, config.http.bind, http_kind(config), wanted)
    appliance.attach(server)
    return server
