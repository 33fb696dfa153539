"""Long answers: sent as fast as the client takes them, a bounded number at a time.

Not for: what is in them (history.py), clients that go away or take nothing (connection.py, which
cancels what makes the answer).
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

    If ``parts`` raises ``CutError``, it ends without its end, so that the client sees that.
    """

    def __init__(
        self,
        parts: AsyncGenerator[bytes],
        release: Callable[[], None],
        headers: Mapping[str, str],
    ) -> None:
        """``release`` is called at the end, whatever that is."""
        super().__init__(headers=headers)
        if "content-length" not in headers:
            del self.headers["content-length"]
        self._parts = parts
        self._release = release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        start = {"status": self.status_code, "headers": self.raw_headers}
        try:
            async with contextlib.aclosing(self._parts) as parts:
                await send({"type": "http.response.start", **start})
                async for part in parts:
                    for at in range(0, len(part), _SLICE):
                        body = part[at : at + _SLICE]
                        await send({"type": "http.response.body", "body": body, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except CutError:
            return
        finally:
            self._release()
