"""One HTTP port on its loop: accepts connections, sees to their times, stops in order.

Not for: the thread and the sockets (server.py), one connection (connection.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from email.utils import formatdate
from functools import partial
from typing import TYPE_CHECKING, Any

from appliance.broker.guard import Guard
from appliance.broker.tls import TlsServer
from appliance.counters import Counter
from appliance.http_api.app import make_app
from appliance.http_api.bounds import Kind
from appliance.http_api.butler.errors import refusal
from appliance.http_api.connection import Connection
from appliance.http_api.context import Context
from appliance.http_api.problem import FAILURE, ProblemError
from appliance.http_api.shared import Shared
from appliance.listening import serve_each

if TYPE_CHECKING:
    from appliance.broker.certificate_files import CertificateFiles
    from appliance.engine.service import Appliance

logger = logging.getLogger(__name__)

_BACKLOG = 512
_SWEEP_S = 1.0
_FINISH_S = 2.0
"""For so long, requests that are under way at the stop are worked on."""
_LEAVE_S = 1.0
"""For so long, their answers may then take to leave."""

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Port:
    """For the loop that it is made on."""

    def __init__(
        self, appliance: Appliance, kind: Kind, certificates: CertificateFiles | None
    ) -> None:
        self._certificates = certificates
        self._context = Context(appliance)
        self._app = make_app(self._context, kind)
        self._shared = Shared(self._context, kind, self._answer, is_tls=certificates is not None)
        self.connections = self._shared.connections

    async def serve(self, sockets: list[socket.socket], stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set, and stop in order."""
        self._tell_date()
        servers = await serve_each(
            sockets,
            partial(asyncio.get_running_loop().create_server, self._accept, backlog=_BACKLOG),
        )
        sweeper = asyncio.create_task(self._sweep())
        await stop.wait()
        self._context.stopping.set()
        for server in servers:
            server.close()
        for each in self.connections:
            each.shutdown()
        if self._shared.state.tasks:
            await asyncio.wait(self._shared.state.tasks, timeout=_FINISH_S)
        for task in tuple(self._shared.state.tasks):
            task.cancel()
        if self._shared.state.tasks:
            await asyncio.wait(self._shared.state.tasks, timeout=_LEAVE_S)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.connections.all_ended(), _LEAVE_S)
        for each in self.connections:
            each.end_at_once()
        await asyncio.sleep(0)
        sweeper.cancel()
        self._context.close()

    def _accept(self) -> asyncio.Protocol:
        connection = Connection(self._shared)
        outermost: asyncio.Protocol = connection
        if self._certificates is not None:
            outermost = TlsServer(
                connection,
                self._certificates.context,
                identity_as_username=False,
                unusable_list=logger.warning,
                count=self._context.count,
            )
        return Guard(outermost, connection.fail)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            try:
                await self._sweep_once()
            except Exception:
                logger.exception("HTTP sweep")

    async def _sweep_once(self) -> None:
        self._tell_date()
        now = asyncio.get_running_loop().time()
        for each in self.connections:
            each.end_if_late(now)
        if self._certificates is not None and (
            said := await self._context.in_worker(self._certificates.reload)
        ):
            logger.warning("%s", said)

    def _tell_date(self) -> None:
        self._shared.state.default_headers = [(b"date", formatdate(usegmt=True).encode())]

    async def _answer(self, scope: Scope, receive: Any, send: Send) -> None:
        """The application, for ASGI; a failure of ours or the stop is an answer too."""
        has_begun = False

        async def watched(message: MutableMapping[str, Any]) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except asyncio.CancelledError:
            # The client has gone, and hears nothing, or the appliance stops.
            if not has_begun:
                stopping = ProblemError(503, "The appliance is stopping.")
                await refusal(scope["path"], stopping)(scope, receive, send)
        except Exception:
            logger.exception("HTTP: %s %s: internal error", scope["method"], scope["path"])
            self._context.count(Counter.HTTP_REQUESTS_FAILED)
            if not has_begun:
                await refusal(scope["path"], FAILURE)(scope, receive, send)
