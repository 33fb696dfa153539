"""Long answers: sent as fast as the client takes them, a bounded number at a time.

Not for: what is in them (history.py).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from appliance.counters import Counter
from appliance.http_api.context import Context
from appliance.http_api.problem import ProblemError

MOST = 16
"""Long answers at one time."""
WAIT_S = 10.0
"""So long a request waits for its turn."""
STALLED_S = 60.0
"""A client that takes nothing for so long is left."""
_SLICE = 64 * 1024


class CutError(Exception):
    """An answer can't be completed: the client must see that it is not whole."""


class Slots:
    """Turns for long answers."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._free = asyncio.Semaphore(MOST)

    async def take(self) -> Callable[[], None]:
        """Wait for a turn; returns what gives it back.

        Raises:
            ProblemError: 503, there are too many.
        """
        try:
            async with asyncio.timeout(WAIT_S):
                await self._free.acquire()
        except TimeoutError:
            self._context.count(Counter.HTTP_READINGS_REFUSED)
            raise ProblemError(
                503,
                f"{MOST} answers of this kind are being sent; ask again.",
                headers={"Retry-After": "5"},
            ) from None
        return self._free.release


class Streamed(Response):
    """An answer whose parts are made when the client has taken those before.

    It ends early, and visibly so, when ``parts`` raises ``CutError``, when the client takes nothing
    for a minute, or when it goes away.
    """

    def __init__(
        self,
        context: Context,
        parts: AsyncGenerator[bytes],
        release: Callable[[], None],
        headers: Mapping[str, str],
    ) -> None:
        """``release`` is called at the end, whatever that is."""
        self.status_code = 200
        self.background = None
        self.media_type = None
        self.body = b""
        self.init_headers(headers)
        if "content-length" in self.headers and "content-length" not in headers:
            del self.headers["content-length"]
        self._context = context
        self._parts = parts
        self._release = release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(_left(receive))
        try:
            async with contextlib.aclosing(self._parts) as parts:
                await self._send(scope, send, parts, gone)
        except CutError:
            pass
        except TimeoutError:
            self._context.count(Counter.HTTP_READINGS_ENDED_SLOW)
        finally:
            gone.cancel()
            self._release()

    async def _send(
        self, scope: Scope, send: Send, parts: AsyncGenerator[bytes], gone: asyncio.Future[None]
    ) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        if scope["method"] != "HEAD":
            async for part in parts:
                for start in range(0, len(part), _SLICE):
                    body = part[start : start + _SLICE]
                    async with asyncio.timeout(STALLED_S):
                        await send({"type": "http.response.body", "body": body, "more_body": True})
                    if gone.done():
                        return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _left(receive: Receive) -> None:
    """Returns when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
