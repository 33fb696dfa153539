"""Requests with a key that are under way: a repeat gets what comes of the first.

Not for: the header (idempotency.py), what is kept on disk (broker/publication_keys.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from appliance.http_api.idempotency import reused
from appliance.http_api.problem import ProblemError

T = TypeVar("T")


class LateError(ProblemError):
    """The outcome is not known yet; ``known`` is done once it is."""

    known: asyncio.Future[int]


class UnderWay(Generic[T]):
    """Requests with a key that are not answered yet. One loop only.

    The work of a request goes on when its client leaves, so that a repeat finds what came of it.
    """

    def __init__(self) -> None:
        self._running: dict[tuple[str, str], tuple[bytes, asyncio.Task[T]]] = {}

    async def once(
        self, user: str, key: str, digest: bytes, work: Callable[[], Awaitable[T]]
    ) -> tuple[T, bool]:
        """The result of ``work``, or that of the same request which is under way.

        Returns the result and whether this call began the work.

        Raises:
            ProblemError: 422, the key is that of another request; what ``work`` raises.
        """
        name = (user, key)
        found = self._running.get(name)
        if found is not None:
            if found[0] != digest:
                raise reused()
            return await asyncio.shield(found[1]), False
        task = asyncio.ensure_future(_awaited(work))
        self._running[name] = (digest, task)
        task.add_done_callback(lambda _: self._done(name, task))
        return await asyncio.shield(task), True

    def _done(self, name: tuple[str, str], task: asyncio.Task[T]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, LateError):
            error.known.add_done_callback(lambda _: self._running.pop(name, None))
        else:
            self._running.pop(name, None)


async def _awaited(work: Callable[[], Awaitable[T]]) -> T:
    return await work()
