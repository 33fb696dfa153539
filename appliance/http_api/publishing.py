"""Publishes messages for a caller: allowed, within the limits, once for each key, on disk.

Not for: how requests name topic and payload (messages.py, batch.py, butler/messages.py).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import msgspec

from appliance.broker import publication_keys
from appliance.broker.topic_limits import TopicLimitError, check_topic
from appliance.counters import Counter
from appliance.http_api.entrance import Draft, Key
from appliance.http_api.idempotency import digest_of, reused
from appliance.http_api.problem import ProblemError
from appliance.http_api.under_way import UnderWay
from appliance.model import encode_hook
from appliance.mqtt.topics import reserved_problem, topic_problem

if TYPE_CHECKING:
    from appliance.http_api.caller import Caller
    from appliance.http_api.context import Context

T = TypeVar("T")
_LOOK_EACH = 1000
"""Keys between two looks for those that are overdue."""


class Accepted(msgspec.Struct, frozen=True):
    """Messages that are on disk."""

    first_seq: int
    last_seq: int
    is_replayed: bool = False
    """An earlier request with the same key brought them in."""


class Publishing:
    """One for each HTTP server. The server's loop only."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._under_way: UnderWay[Accepted] = UnderWay()
        self._keys = 0

    async def publish(
        self, caller: Caller, drafts: Sequence[Draft], key: str | None = None
    ) -> Accepted:
        """Publish messages, all or none; returns when they are on disk.

        Raises:
            ProblemError: they are not allowed, too large, can't be taken now; or the key is that of
                another request.
        """
        for draft in drafts:
            self._check_size(draft)
        for topic in dict.fromkeys(draft.topic for draft in drafts):
            self.check_topic(topic)
            await caller.allow_publish(topic)
        if key is None:
            first = await self._enter(caller, drafts, None)
            return Accepted(first, first + len(drafts) - 1)
        user = caller.username or ""
        digest = _digest(drafts)
        told, is_first = await self._under_way.once(
            user, key, digest, lambda: self._first(caller, drafts, Key(user, key, digest))
        )
        return told if is_first else msgspec.structs.replace(told, is_replayed=True)

    def check_topic(self, topic: str) -> None:
        """Whether anybody could publish there.

        Raises:
            ProblemError: 400 or 403, the topic is none, too long, or the appliance's own.
        """
        config = self._context.config
        if wrong := topic_problem(topic):
            raise ProblemError(400, f"The topic {topic[:80]!r} can't be published to: {wrong}.")
        try:
            check_topic(topic.encode(), config.limits, self._context.count)
        except TopicLimitError as error:
            raise ProblemError(400, f"The {error}.") from None
        if wrong := reserved_problem(topic, config.service.name):
            self._context.count(Counter.PUBLISHES_REFUSED_NOT_ALLOWED)
            raise ProblemError(403, f"The topic {topic[:80]!r} is not for clients: {wrong}.")

    def _check_size(self, draft: Draft) -> None:
        largest = self._context.config.limits.max_packet_size
        size = len(draft.payload) + len(draft.topic.encode("utf-8", "replace"))
        if size > largest:
            raise ProblemError(
                413,
                f"A message of {size} bytes to {draft.topic[:80]!r} is larger than"
                f" limits.max_packet_size ({int(largest)}).",
            )

    async def _enter(self, caller: Caller, drafts: Sequence[Draft], key: Key | None) -> int:
        return await self._context.entrance.enter(drafts, caller.username, caller.address, key)

    async def _first(self, caller: Caller, drafts: Sequence[Draft], key: Key) -> Accepted:
        context = self._context
        journal = context.appliance.journal
        since_ns = self._since_ns()
        known = await self._read(
            lambda: publication_keys.find(journal, key.user, key.key, since_ns)
        )
        if known is not None:
            if known.digest != key.digest:
                raise reused()
            return Accepted(known.first_seq, known.last_seq, is_replayed=True)
        if self._keys % _LOOK_EACH == 0:
            await self._forget_old()
        self._keys += 1
        first = await self._enter(caller, drafts, key)
        return Accepted(first, first + len(drafts) - 1)

    def _since_ns(self) -> int:
        # The clock by which messages grow old: one that was set forward by mistake forgets nothing.
        age_ns = int(publication_keys.KEPT_S * 1e9)
        return self._context.appliance.clock.settled_ns() - age_ns

    async def _forget_old(self) -> None:
        context, since_ns = self._context, self._since_ns()
        appliance = context.appliance
        found = await self._read(lambda: publication_keys.overdue(appliance.journal, since_ns))
        if found is None:
            return

        async def forget() -> None:
            appliance.door.record((publication_keys.forget(found),))
            appliance.counters[Counter.HTTP_KEYS_FORGOTTEN] += found.early

        await context.on_engine(forget)

    async def _read(self, work: Callable[[], T]) -> T:
        try:
            return await self._context.in_worker(work)
        except (sqlite3.Error, ValueError):
            raise ProblemError(
                503, "The journal can't be read now; send it again.", headers={"Retry-After": "5"}
            ) from None


def _digest(drafts: Sequence[Draft]) -> bytes:
    return digest_of(msgspec.msgpack.encode(drafts, enc_hook=encode_hook))
