"""Wills on disk: those of connected clients, and those that wait (MQTT 5, section 3.1.3.2.2).

The will of each connected client is kept from CONNECT on, so that neither an ordered stop nor a
crash of the appliance loses it. After the restart its client has a time of grace to come back
before it is published. A delayed will waits for its delay, over restarts too.

A will goes into the journal's next group commit in the step of the loop behind the CONNECT, before
anything that its client sends after the CONNACK is read. CONNECT does not wait for the disk.
Commits keep the order, so what a client publishes after its CONNACK is acknowledged when its will
is on disk; a crash before that commit loses the will. A client that comes and leaves at once costs
nothing. Not for: when a will is due because its connection has ended (session_binding.py), SQL
(session_store.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from appliance.broker.session_store import KeptWill, SessionStore
from appliance.broker.work import Steps
from appliance.journal.message_cost import OVERHEAD_BYTES, properties_bytes, text_bytes

SECOND_NS = 1_000_000_000


def cost_of_will(kept: KeptWill) -> int:
    """Bytes that a will costs in memory: the message that it will be, and its client's names."""
    will = kept.will
    names = (will.topic, kept.client_id, kept.username or "")
    return (
        OVERHEAD_BYTES
        + len(will.payload)
        + properties_bytes(will.properties)
        + sum(text_bytes(name) for name in names)
    )


class Publish(Protocol):
    """Publishes a will.

    ``announce`` is called with the message's sequence number before the journal has the message. It
    is not called where the will may not be published.
    """

    def __call__(self, kept: KeptWill, announce: Callable[[int], None]) -> None: ...


class Wills:
    """All wills that are on disk, or will be in a moment. Engine's loop only."""

    def __init__(
        self, store: SessionStore, publish: Publish, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._store = store
        self._publish = publish
        self._loop = loop
        self._waiting: dict[str, KeptWill] = {}
        self._graced: set[str] = set()
        """Clients of ``_waiting`` whose connection the end of the last run has ended."""
        self._changed: dict[str, KeptWill | None] = {}
        """What is not written yet; ``None``: the will is to be forgotten."""
        self._kept: set[str] = set()
        """Clients whose will is on disk, or on its way there."""
        self._costs: dict[str, int] = {}
        """What the will of each client costs in memory, from CONNECT to its end."""
        self.bytes = 0
        """What all of them cost."""
        self._is_timed = False

    # --- a client's connection ------------------------------------------------------------------

    def has_room(self, kept: KeptWill, limit: int) -> bool:
        """Whether all wills stay within so many bytes with this one in place of its client's."""
        return self.bytes + cost_of_will(kept) - self._costs.get(kept.client_id, 0) <= limit

    def _note_cost(self, client_id: str, cost: int) -> None:
        self.bytes += cost - self._costs.pop(client_id, 0)
        if cost:
            self._costs[client_id] = cost

    def announce(self, kept: KeptWill) -> None:
        """A client with a will is here."""
        self._keep(kept)

    def returned(self, kept_by: str, username: str | None, *, resumes: bool) -> None:
        """A client connects: what waits for it is not published, or is published now.

        A will that waits for its delay is dropped when its session is resumed, and published when
        that ends. One that waits for its client to come back after a restart is dropped either way
        if the client is the same user's.

        Args:
            kept_by: the client id.
            username: its user.
            resumes: whether it goes on with the session that it had.
        """
        kept = self._waiting.get(kept_by)
        if kept is None:
            return
        is_back = resumes or (kept_by in self._graced and kept.username == username)
        if is_back:
            self._forget_waiting(kept_by)
            self._forget(kept_by)
        else:
            self.end(kept_by)

    def drop(self, client_id: str) -> None:
        """The client has said goodbye."""
        self._forget(client_id)

    def begin(self, kept: KeptWill, now_ns: int) -> None:
        """Its connection has ended: the delay begins."""
        kept.due_ns = now_ns + kept.will.delay_s * SECOND_NS
        self._waiting[kept.client_id] = kept
        self._keep(kept)

    def publish(self, kept: KeptWill) -> None:
        """Its connection has ended, and there is nothing to wait for."""
        self._changed.pop(kept.client_id, None)
        self._note_cost(kept.client_id, 0)
        is_kept = kept.client_id in self._kept

        def announce(seq: int) -> None:
            # Message and removal may be in two commits. A crash between them leaves this note.
            if is_kept:
                kept.seq = seq
                self._store.keep_will(kept)

        self._publish(kept, announce)
        if is_kept:
            self._kept.discard(kept.client_id)
            self._store.forget_will(kept.client_id)

    # --- what waits -----------------------------------------------------------------------------

    def end(self, client_id: str) -> None:
        """The session ends: what waits is published now (MQTT 5, section 3.1.3.2.2)."""
        kept = self._forget_waiting(client_id)
        if kept is not None:
            self.publish(kept)

    def publish_due(self, now_ns: int) -> Steps[None]:
        """Publish what has waited long enough."""
        for client_id, kept in list(self._waiting.items()):
            if now_ns >= kept.due_ns and self._waiting.get(client_id) is kept:
                self.end(client_id)
                yield

    def follow_step(self, step_ns: int) -> None:
        """The clock was set by this: a will waits for as long as before."""
        for client_id, kept in self._waiting.items():
            kept.due_ns += step_ns
            if client_id not in self._graced:
                self._keep(kept)

    def _forget_waiting(self, client_id: str) -> KeptWill | None:
        self._graced.discard(client_id)
        return self._waiting.pop(client_id, None)

    # --- on disk --------------------------------------------------------------------------------

    def _keep(self, kept: KeptWill) -> None:
        self._note_cost(kept.client_id, cost_of_will(kept))
        self._change(kept.client_id, kept)

    def _forget(self, client_id: str) -> None:
        self._note_cost(client_id, 0)
        if client_id in self._kept:
            self._change(client_id, None)
        else:
            self._changed.pop(client_id, None)

    def _change(self, client_id: str, kept: KeptWill | None) -> None:
        self._changed[client_id] = kept
        if not self._is_timed:
            self._is_timed = True
            self._loop.call_soon(self._write_gathered)

    def _write_gathered(self) -> None:
        self._is_timed = False
        self.write()

    def write(self) -> None:
        """Put what has changed into the journal's next commit."""
        changed, self._changed = self._changed, {}
        for client_id, kept in changed.items():
            if kept is None:
                self._kept.discard(client_id)
                self._store.forget_will(client_id)
            else:
                self._kept.add(client_id)
                self._store.keep_will(kept)

    def load(
        self,
        wills: Iterable[KeptWill],
        has_session: Callable[[str], bool],
        now_ns: int,
        *,
        last_seq: int,
        grace_s: float,
    ) -> None:
        """Take over what the last run left (``session_store.wills``).

        Connections that were open have ended with that run. Their clients get the grace time to
        come back, or the will's delay if that is longer. A will that waited already goes on
        waiting, for the grace time at least; it is published at once if its session is gone.

        Args:
            wills: what was kept.
            has_session: whether a client has a session.
            now_ns: present time in ns since 1970.
            last_seq: number of the last message in the journal.
            grace_s: the grace time in seconds.
        """
        for kept in wills:
            client_id = kept.client_id
            self._kept.add(client_id)
            if 0 < kept.seq <= last_seq:
                # It is in the journal; the run ended before the note was removed.
                self._forget(client_id)
                continue
            if kept.seq:
                # The number may be another message's from now on.
                kept.seq = 0
                self._store.keep_will(kept)
            self._waiting[client_id] = kept
            self._note_cost(client_id, cost_of_will(kept))
            soonest = now_ns + int(grace_s * SECOND_NS)
            if not kept.due_ns:
                self._graced.add(client_id)
                kept.due_ns = max(soonest, now_ns + kept.will.delay_s * SECOND_NS)
            elif has_session(client_id):
                # Due later than its delay allows: the clock was set back since.
                latest = now_ns + kept.will.delay_s * SECOND_NS
                kept.due_ns = max(soonest, min(latest, kept.due_ns))
            else:
                self.end(client_id)
