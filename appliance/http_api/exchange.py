"""One request on an HTTP connection and its answer, which waits for its turn.

Not for: reading requests (connection.py), what is answered (app.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from appliance.http_api.problem import ProblemError


class Flow(FlowControl):
    """``is_held``: reading goes on when requests are answered, not when a handler wants a body."""

    is_held = False

    def resume_reading(self) -> None:
        if not self.is_held:
            super().resume_reading()


class Answers:
    """The transport, as an answer sees it: closing waits for a client that still sends."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, transport: asyncio.Transport, finish: Callable[[], None]) -> None:
        self.close = finish
        self.write = transport.write
        self.is_closing = transport.is_closing


class Exchange(RequestResponseCycle):
    """A request and its answer."""

    turn: asyncio.Event | None = None
    """Set once the requests before it on the connection are answered."""
    broken: ProblemError | None = None
    """Why its body can't be had."""
    received = 0
    """Bytes of its body that came."""
    began: float
    task: asyncio.Task[None] | None = None

    async def send(self, message: Any) -> None:
        """ASGI's, in turn."""
        if self.turn is not None:
            await self.turn.wait()
            self.turn = None
        if self.more_body and not self.response_started:
            self.keep_alive = False  # the rest of the body is not waited for
        await super().send(message)

    async def receive(self) -> Any:
        """ASGI's. Raises ``ProblemError`` if the body is too large, too slow or malformed."""
        if self.broken is None:
            found = await super().receive()
        if self.broken is not None:
            raise self.broken
        return found

    def fail(self, why: ProblemError) -> None:
        """Its body can't be had."""
        self.broken = self.broken or why
        self.message_event.set()
