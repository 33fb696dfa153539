"""The way of messages from requests to the door, and of the word that they are on disk back.

Crossing from one thread to another wakes the other, which takes longer than a message. So what
gathered meanwhile crosses together, both ways. The HTTP port is one publisher to the door, which
pauses it as any other. Not for: whether a message is allowed (caller.py, publishing.py).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from appliance.broker import publication_keys
from appliance.broker.publication_keys import Published
from appliance.broker.work import Slice
from appliance.counters import Counter
from appliance.http_api.problem import ProblemError
from appliance.http_api.under_way import LateError
from appliance.model import HTTP_CLIENT, EncodedProperties, Message

if TYPE_CHECKING:
    from appliance.engine.service import Appliance

PATIENCE_S = 10.0
"""How long a request waits for the door, and then for the disk."""
_HELD_BYTES = 2
"""What all requests together may hold while they wait, in parts of ``limits.max_pending``."""
_RETRY = {"Retry-After": "5"}


class Draft(msgspec.Struct, frozen=True):
    """A message before it has a number."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    properties: EncodedProperties | None = None


class Key(msgspec.Struct, frozen=True):
    """By which a request is known again, and what it asks for."""

    user: str
    key: str
    digest: bytes


class _Crossing:
    """Messages of one request on their way."""

    __slots__ = ("_unclaimed", "address", "drafts", "first_seq", "key", "refusal", "told", "user")

    def __init__(
        self,
        drafts: Sequence[Draft],
        user: str | None,
        address: str,
        key: Key | None,
        told: asyncio.Future[int],
    ) -> None:
        self.drafts = drafts
        self.user = user
        self.address = address
        self.key = key
        self.told = told
        """Gets the number of the first message, once all are on disk."""
        self.first_seq = 0
        self.refusal = ""
        self._unclaimed = [True]

    def claim(self) -> bool:
        """True for one caller only, of any thread: the engine takes it, or the request gave up."""
        try:
            return self._unclaimed.pop()
        except IndexError:
            return False


class Entrance:
    """One for each HTTP server. ``enter`` is for the server's loop, all else for the engine's."""

    def __init__(self, appliance: Appliance) -> None:
        self._appliance = appliance
        self._waiting: deque[_Crossing] = deque()
        self._settled: deque[_Crossing] = deque()
        self._is_called = self._is_telling = False
        self._is_paused = False
        self._held_bytes = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    async def enter(
        self, drafts: Sequence[Draft], user: str | None, address: str, key: Key | None = None
    ) -> int:
        """Publish messages, all or none; returns the number of the first when all are on disk.

        They have consecutive numbers.

        Raises:
            ProblemError: 503 or 507, they can't be taken now, or are not on disk in time.
        """
        if self._appliance.door.is_disk_full:
            self._call(self._appliance.count, Counter.HTTP_PUBLISHES_REFUSED_BEHIND)
            raise ProblemError(
                507,
                "The disk of the appliance is nearly full (limits.min_free_disk), so no message is"
                " taken. Make room there, and send it again.",
                headers={"Retry-After": "60"},
            )
        size = sum([len(draft.payload) + len(draft.topic) for draft in drafts])
        most = _HELD_BYTES * self._appliance.config.limits.max_pending
        if self._held_bytes and self._held_bytes + size > most:
            raise self._behind()
        loop = self._loop = asyncio.get_running_loop()
        crossing = _Crossing(drafts, user, address, key, loop.create_future())
        self._held_bytes += size
        try:
            self._waiting.append(crossing)
            if not self._is_called:
                self._is_called = True
                self._call(self._take)
            async with asyncio.timeout(PATIENCE_S):
                first = await asyncio.shield(crossing.told)
        except TimeoutError:
            raise self._late(crossing) from None
        except BaseException:
            crossing.claim()
            raise
        finally:
            self._held_bytes -= size
        if crossing.refusal:
            raise ProblemError(503, crossing.refusal, headers=_RETRY)
        return first

    def _late(self, crossing: _Crossing) -> ProblemError:
        if crossing.claim():
            return self._behind()
        late = LateError(
            503,
            f"The message is not on disk after {PATIENCE_S:.0f} s. It may still be stored: send it"
            " again with the same Idempotency-Key, so that it counts once.",
            headers=_RETRY,
        )
        late.known = crossing.told
        return late

    def _behind(self) -> ProblemError:
        self._call(self._appliance.count, Counter.HTTP_PUBLISHES_REFUSED_BEHIND)
        return ProblemError(
            503,
            "The appliance takes no messages now, because its journal or disk is behind or its"
            " memory is short. Nothing was stored; send it again.",
            headers=_RETRY,
        )

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        """Have the engine's loop call something.

        Raises:
            ProblemError: 503, it has ended.
        """
        engine = self._appliance.loop
        try:
            if engine is not None:
                engine.call_soon_threadsafe(function, *arguments)
                return
        except RuntimeError:
            pass
        raise ProblemError(503, "The appliance is stopping.", headers=_RETRY)

    # --- the engine's loop ----------------------------------------------------------------------

    def _take(self) -> None:
        self._is_called = False
        slice_ = Slice()
        while self._waiting and not self._is_paused:
            crossing = self._waiting.popleft()
            if crossing.claim():
                self._put_in(crossing)
            if slice_.is_over and self._waiting:
                self._is_called = True
                asyncio.get_running_loop().call_soon(self._take)
                return

    def _put_in(self, crossing: _Crossing) -> None:
        door = self._appliance.door
        now_ns = door.clock_ns()
        messages = [
            Message(
                door.next_seq(),
                now_ns,
                draft.topic,
                draft.payload,
                draft.qos,
                draft.retain,
                False,
                HTTP_CLIENT,
                crossing.user,
                crossing.address,
                draft.properties,
            )
            for draft in crossing.drafts
        ]
        crossing.first_seq = messages[0].seq
        rows = []
        if (key := crossing.key) is not None:
            published = Published(messages[0].seq, messages[-1].seq, key.digest)
            rows.append(publication_keys.save(key.user, key.key, published, now_ns))
        try:
            door.enter_as_one(messages, rows, self, partial(self._settle, crossing))
        except RuntimeError:  # the journal is closed
            crossing.refusal = "The appliance is stopping."
            self._settle(crossing)

    def _settle(self, crossing: _Crossing) -> None:
        self._settled.append(crossing)
        if not self._is_telling and self._loop is not None:
            self._is_telling = True
            with contextlib.suppress(RuntimeError):  # the server has stopped
                self._loop.call_soon_threadsafe(self._tell)

    def queue(self, data: bytes) -> None:
        """Nothing: acknowledgements are those of ``enter``."""

    def pause(self) -> None:
        self._is_paused = True

    def resume(self) -> None:
        self._is_paused = False
        self._take()

    # --- the server's loop ----------------------------------------------------------------------

    def _tell(self) -> None:
        self._is_telling = False
        while self._settled:
            crossing = self._settled.popleft()
            if not crossing.told.done():
                crossing.told.set_result(crossing.first_seq)
