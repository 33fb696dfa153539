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

    _ends_with_connection = False

    @property
    def is_silent(self) -> bool:
        """Whether its client waits to be told that it may send the body."""
        is_before = self.turn is not None and not self.turn.is_set()
        return self.waiting_for_100_continue and is_before

    async def send(self, message: Any) -> None:
        """ASGI's, in turn."""
        if self.turn is not None:
            await self.turn.wait()
            self.turn = None
        if self.more_body and not self.response_started:
            self.keep_alive = False  # the rest of the body is not waited for
        if self.scope["http_version"] == "1.0":
            self._leave_chunks_out(message)
        await super().send(message)

    def _leave_chunks_out(self, message: Any) -> None:
        """A client of HTTP/1.0 knows no chunks: the connection ends with the body.

        RFC 9112, sections 6.1 and 6.3.
        """
        if message["type"] == "http.response.start":
            names = {name.lower() for name, _ in message.get("headers", ())}
            self._ends_with_connection = b"content-length" not in names
            if self._ends_with_connection:
                self.chunked_encoding = False
        elif self._ends_with_connection:
            self.expected_content_length = len(message.get("body", b""))

    async def receive(self) -> Any:
        """ASGI's. Raises ``ProblemError`` if the body is too large, too slow or malformed."""
        if self.turn is not None and self.is_silent:
            await self.turn.wait()  # "100 Continue" must not stand within another's answer
            self.began = asyncio.get_running_loop().time()
        if self.broken is None:
            found = await super().receive()
        if self.broken is not None:
            raise self.broken
        return found

    def fail(self, why: ProblemError) -> None:
        """Its body can't be had."""
        self.broken = self.broken or why
        self.message_event.set()
