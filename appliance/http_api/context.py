"""What the routes may use of the appliance, from the HTTP server's own loop and thread.

``on_engine`` is for what must run on the engine's loop and does not wait for a disk there;
``in_worker`` for what waits (databases, the Qlik server).
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from appliance.counters import Counter
from appliance.engine.view import View
from appliance.errors import UnavailableError
from appliance.http_api.entrance import Entrance
from appliance.http_api.problem import ProblemError

if TYPE_CHECKING:
    from appliance.config.tables import Config
    from appliance.engine.service import Appliance

T = TypeVar("T")
WORKERS = 8
ENGINE_S = 10.0


class Context:
    """One for each HTTP server. ``stopping``: set when requests that wait should be answered."""

    def __init__(self, appliance: Appliance) -> None:
        self.appliance = appliance
        self.view = View(appliance)
        self.entrance = Entrance(appliance)
        self.stopping = asyncio.Event()
        """Set on the server's loop when it stops: whoever waits there ends the wait."""
        self._counted: collections.Counter[Counter] = collections.Counter()
        self._lock = threading.Lock()
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="http worker")

    @property
    def config(self) -> Config:
        """The configuration that counts now."""
        return self.appliance.config

    def close(self) -> None:
        """No more work is taken."""
        self._workers.shutdown(wait=False, cancel_futures=True)

    async def on_engine(
        self, work: Callable[[], Coroutine[object, object, T]], timeout_s: float = ENGINE_S
    ) -> T:
        """Run a coroutine on the engine's loop and return its result.

        Raises:
            ProblemError: 503, the engine has stopped or does not answer in time.
        """
        loop = self.appliance.loop
        if loop is None or loop.is_closed():
            raise ProblemError(503, "The appliance is stopping.")
        future = asyncio.run_coroutine_threadsafe(work(), loop)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), timeout_s)
        except TimeoutError:
            raise ProblemError(503, "The engine does not answer.") from None

    async def in_worker(self, work: Callable[[], T]) -> T:
        """Run a function that may wait in a thread.

        Raises:
            ProblemError: 503, a resource can't be had; what ``work`` raises otherwise.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self._workers, work)
        except UnavailableError as error:
            raise ProblemError(503, str(error)) from None

    def count(self, counter: Counter) -> None:
        """Count one event. From any thread; a flood of them wakes the engine now and then."""
        with self._lock:
            is_first = not self._counted
            self._counted[counter] += 1
        loop = self.appliance.loop
        if is_first and loop is not None and not loop.is_closed():
            with contextlib.suppress(RuntimeError):  # closed since
                loop.call_soon_threadsafe(self._hand_on)

    def _hand_on(self) -> None:
        with self._lock:
            counted, self._counted = self._counted, collections.Counter()
        self.appliance.counters.update(counted)
