"""Requests that wait for the end of executions: none has a thread, none asks again and again.

The task engine tells which executions changed, and the requests that wait for them look again.
Not for: what is answered (starting.py, executions.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from appliance.counters import Counter
from appliance.http_api.context import Context
from appliance.http_api.described import is_over
from appliance.http_api.problem import ProblemError
from appliance.model import Execution
from appliance.storage.sqlite import explain

T = TypeVar("T")
LOG_S = 5.0
"""So long the script log of a failed run is waited for; it comes a moment after the outcome."""


class Waits:
    """All requests of one server that wait. On the server's loop."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news: dict[int, set[asyncio.Event]] = {}
        self.count = 0
        """How many wait now."""

    def _hear(self, executions: Sequence[Execution]) -> None:
        """Any thread: it holds up the tasks for a moment only."""
        news = self._news
        if news and self._loop and (changed := [one.id for one in executions if one.id in news]):
            with contextlib.suppress(RuntimeError):  # the server has stopped
                self._loop.call_soon_threadsafe(self._wake, changed)

    def _wake(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            for event in self._news.get(number, ()):
                event.set()

    async def present(self, numbers: Sequence[int]) -> list[Execution]:
        """These executions as they are now; those that are not kept any more are left out."""
        tasks = self._context.appliance.tasks
        found = [tasks.execution(number) for number in numbers]
        if None in found:
            view = self._context.view
            return list(await self.read(lambda: view.find_executions(numbers)))
        return [one for one in found if one is not None]

    async def read(self, work: Callable[[], T]) -> T:
        """Read the task database.

        Raises:
            ProblemError: 503, that can't be read.
        """
        try:
            return await self._context.in_worker(work)
        except sqlite3.Error as error:
            raise ProblemError(503, f"The task database can't be read: {explain(error)}.") from None

    async def outcomes(self, numbers: Sequence[int], seconds: float) -> list[Execution]:
        """These executions once they have ended, or when the time is over.

        In the place of one that another one answers stands that other one.

        Raises:
            ProblemError: 503, the appliance stops.
        """
        if seconds <= 0:
            return await self._answered(numbers)
        if self.count >= self._context.config.http.max_waiting:
            self._context.count(Counter.HTTP_REQUESTS_NOT_WAITED_FOR)
            return await self._answered(numbers)
        loop = asyncio.get_running_loop()
        if self._loop is None:  # the first that waits
            self._loop = loop
            self._context.appliance.tasks.hear_executions(self._hear)
        self.count += 1
        news = asyncio.Event()
        # A client that goes away ends the task in which this runs.
        stop = asyncio.ensure_future(self._context.stopping.wait())
        stop.add_done_callback(lambda _: news.set())
        wait = _Wait(self, news, loop.time() + seconds)
        try:
            found = await wait.until_over(numbers, stop)
        finally:
            self.count -= 1
            wait.forget()
            stop.cancel()
        if self._context.stopping.is_set():
            raise ProblemError(
                503,
                "The appliance stops. What was started goes on, and is found after its next start.",
                headers={"Retry-After": "10"},
                executions=[one.id for one in found],
            )
        return found

    async def _answered(self, numbers: Sequence[int]) -> list[Execution]:
        """These executions, with those that answer them in their place."""
        found = await self.present(numbers)
        while any(one.answered_by for one in found):
            numbers = list(dict.fromkeys(one.answered_by or one.id for one in found))
            found = await self.present(numbers)
        return found

    def listen(self, number: int, event: asyncio.Event) -> None:
        """Have an event set when this execution changes."""
        self._news.setdefault(number, set()).add(event)

    def unlisten(self, number: int, event: asyncio.Event) -> None:
        """No longer."""
        events = self._news.get(number, set())
        events.discard(event)
        if not events:
            self._news.pop(number, None)


class _Wait:
    """One request's wait."""

    def __init__(self, waits: Waits, news: asyncio.Event, end: float) -> None:
        self._waits = waits
        self._news = news
        self._end = end
        self._log_end: float | None = None
        self._heard: set[int] = set()

    async def until_over(
        self, numbers: Sequence[int], stop: asyncio.Future[Any]
    ) -> list[Execution]:
        loop = asyncio.get_running_loop()
        while True:
            self._news.clear()
            # First heard, then looked at: a change between the two is not missed.
            self._hear(numbers)
            found = await self._waits.present(numbers)
            answered = [one.answered_by or one.id for one in found]
            if answered != [one.id for one in found]:
                numbers = list(dict.fromkeys(answered))
                continue
            left_s = self._left_s(found, loop.time())
            if left_s <= 0 or stop.done():
                return found
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), left_s)

    def _left_s(self, found: Sequence[Execution], now: float) -> float:
        """How long there is still something to wait for."""
        if all(map(is_over, found)):
            return 0.0
        if all(one.state.is_final for one in found):  # only script logs are missing
            self._log_end = self._log_end or now + LOG_S
            return min(self._end, self._log_end) - now
        return self._end - now

    def _hear(self, numbers: Sequence[int]) -> None:
        for number in set(numbers) - self._heard:
            self._heard.add(number)
            self._waits.listen(number, self._news)

    def forget(self) -> None:
        """It is over."""
        for number in self._heard:
            self._waits.unlisten(number, self._news)
