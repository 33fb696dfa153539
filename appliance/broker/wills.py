"""Wills that wait: delayed wills (MQTT 5, section 3.1.3.2.2), over restarts too.

A delayed will of a session that outlives its connection is kept from CONNECT on, so that neither
an ordered stop nor a crash of the appliance loses it: after the restart its delay runs, and a
client that is back in time has it dropped. Not for: wills without delay, which are published when
their connection ends (server.py), SQL (session_store.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from appliance.broker.session_store import KeptWill, SessionStore

SECOND_NS = 1_000_000_000


class Wills:
    """All delayed wills. ``publish`` is called when one is due."""

    def __init__(self, store: SessionStore, publish: Callable[[KeptWill], None]) -> None:
        self._store = store
        self._publish = publish
        self._waiting: dict[str, KeptWill] = {}

    def announce(self, kept: KeptWill) -> None:
        """A client with a delayed will is here; its session outlives the connection."""
        self._store.keep_will(kept)

    def begin(self, kept: KeptWill, now_ns: int) -> None:
        """Its connection has ended: the delay begins."""
        kept.due_ns = now_ns + kept.will.delay_s * SECOND_NS
        self._waiting[kept.client_id] = kept
        self._store.keep_will(kept)

    def returned(self, client_id: str) -> None:
        """The client is back in its session: what waits is not published."""
        if self._waiting.pop(client_id, None) is not None:
            self._store.forget_will(client_id)

    def drop(self, client_id: str) -> None:
        """The client has said goodbye."""
        self._store.forget_will(client_id)

    def end(self, client_id: str) -> None:
        """The session ends: what waits is published now (MQTT 5, section 3.1.3.2.2)."""
        kept = self._waiting.pop(client_id, None)
        if kept is not None:
            self._publish(kept)
            self._store.forget_will(client_id)

    def publish_due(self, now_ns: int) -> None:
        """Publish what has waited long enough."""
        for client_id, kept in list(self._waiting.items()):
            if now_ns >= kept.due_ns:
                self.end(client_id)

    def load(self, wills: Iterable[KeptWill], has_session: Callable[[str], bool], now: int) -> None:
        """Take over what the last run left (``session_store.wills``).

        Where that run was killed, the connection has ended with it. Without a session, there is
        nothing to wait for.
        """
        for kept in wills:
            self._waiting[kept.client_id] = kept
            if not kept.due_ns:
                self.begin(kept, now)
            if not has_session(kept.client_id):
                self.end(kept.client_id)
