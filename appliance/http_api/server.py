"""The HTTP server: uvicorn on a loop and thread of its own, so that no request delays the engine.

Not for: what is answered (app.py).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING

from appliance.config.values import parse_bind
from appliance.errors import NoPermissionError, UnavailableError
from appliance.listening import RESERVED, bound_sockets, is_taken

if TYPE_CHECKING:
    import socket

    from appliance.engine.service import Appliance

logger = logging.getLogger(__name__)
_STOP_S = 5.0


class HttpServer:
    """One port. ``start`` and ``stop`` are for the engine's loop."""

    def __init__(
        self, appliance: Appliance, bind: str, where: str, *, only_monitoring: bool = False
    ) -> None:
        self._appliance = appliance
        self._bind = bind
        self._where = where
        self._only_monitoring = only_monitoring
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.address = ""
        """``host:port``, once started."""

    async def start(self) -> None:
        """Listen.

        Raises:
            UnavailableError: the port is in use, or this machine does not have the address.
            NoPermissionError: the operating system refuses the port to this user.
        """
        host, port = parse_bind(self._bind)
        try:
            sockets = await bound_sockets(host, port)
        except OSError as error:
            about = f"{self._where} bind {self._bind}"
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
        for each in sockets:
            each.listen()  # whoever connects before the thread serves is kept by the system
        address = sockets[0].getsockname()
        shown = f"[{address[0]}]" if ":" in address[0] else address[0]
        self.address = f"{shown}:{address[1]}"
        self._thread = threading.Thread(
            target=self._run, args=(sockets,), name=f"http {self.address}", daemon=True
        )
        self._thread.start()
        logger.info("HTTP on http://%s", self.address)

    async def stop(self) -> None:
        loop, stop, thread = self._loop, self._stop, self._thread
        if thread is None:
            return
        if loop is not None and stop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)
        await asyncio.to_thread(thread.join, _STOP_S)

    def _run(self, sockets: list[socket.socket]) -> None:
        asyncio.run(self._serve(sockets))

    async def _serve(self, sockets: list[socket.socket]) -> None:
        # Loaded only where there is a port.
        import uvicorn  # noqa: PLC0415

        from appliance.http_api.app import make_app  # noqa: PLC0415
        from appliance.http_api.context import Context  # noqa: PLC0415

        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        context = Context(self._appliance)
        app = make_app(context, only_monitoring=self._only_monitoring)
        server = uvicorn.Server(
            uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws="none")
        )
        serving = asyncio.create_task(server.serve(sockets))
        stopped = asyncio.create_task(self._stop.wait())
        await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
        context.close()


def attach(appliance: Appliance) -> HttpServer | None:
    """Give an appliance that has not started its HTTP port, if the configuration has one."""
    bind = appliance.config.http.bind
    if bind is None:
        return None
    server = HttpServer(appliance, bind, "[http]")
    appliance.attach(server)
    return server
