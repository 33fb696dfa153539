"""Questions to the Qlik server that a request has to wait for: few at a time, each bounded.

They have threads of their own: a server that hangs takes none of the others, and holds up no stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

from appliance.errors import UnavailableError
from appliance.qlik import deadlines

T = TypeVar("T")
AT_ONCE = 2
LIMIT_S = 10.0
"""So long the server may take, and so long a request waits."""


class ServerCalls:
    """The questions of one HTTP server. On its loop."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(AT_ONCE)

    async def ask(self, work: Callable[[], T]) -> T:
        """Run a function that asks the server, in a thread.

        Raises:
            UnavailableError: that takes too long; what ``work`` raises otherwise.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def finish(result: T | None, error: BaseException | None) -> None:
            self._free.release()
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result)  # type: ignore[arg-type]  # there is one without an error

        def run() -> None:
            result, problem = None, None
            try:
                with deadlines.within(LIMIT_S):
                    result = work()
            except BaseException as error:  # noqa: BLE001 - it is raised where the answer is awaited
                problem = error
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(finish, result, problem)

        try:
            async with asyncio.timeout(LIMIT_S):
                await self._free.acquire()
                threading.Thread(target=run, name="http qlik", daemon=True).start()
                return await answer
        except TimeoutError:
            raise UnavailableError(
                f"The Qlik server did not answer within {LIMIT_S:g} s."
            ) from None
