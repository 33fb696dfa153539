"""``<name>/status``: the retained status of the appliance.

Published every half a minute, at the start and the end, when the journal fails or recovers, and
when a bridge has lost or found its broker, and when something is held or released.
While the journal fails, the message bypasses it, because subscribers must learn of the failure.
Not for: health for programs on the machine (ops/health.py), figures (ops/metrics.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from appliance.broker.door import Door
from appliance.broker.subscriptions import Retained
from appliance.counters import published_label_of
from appliance.engine_api import BridgeState, Health, HoldState, RecorderState, Snapshot
from appliance.model import Message
from appliance.problems import bridge_level
from appliance.tasks.outcomes import time_text

EVERY_S = 30
MAX_HOLDS_TOLD = 100
"""Holds in one status, the oldest; ``holdCount`` counts all."""


class StatusTopic:
    """Publishes the status. For the engine's loop only."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        journal_health: Callable[[], Health],
        connected: Callable[[], Sequence[str]],
        door: Door,
        retained: Retained,
        *,
        holds: Callable[[], Sequence[HoldState]],
    ) -> None:
        """``connected``: the names of the bridges that are connected; ``holds``: what is held."""
        self._snapshot = snapshot
        self._connected = connected
        self._were_connected: Sequence[str] = ()
        self._holds = holds
        self._were_held: Sequence[tuple[object, ...]] = ()
        self._journal_health = journal_health
        self._door = door
        self._retained = retained
        self._was_bad = False

    def tick(self, seconds: int) -> None:
        """Called once a second; ``seconds`` counts the calls."""
        is_bad = self._journal_health().level == "bad"
        has_changed = (
            is_bad != self._was_bad
            or self._connected() != self._were_connected
            or _without_waiting(self._holds()) != self._were_held
        )
        if seconds % EVERY_S == 0 or has_changed:
            self.publish("online")

    def publish(self, status: str) -> None:
        """Publish now: ``"online"`` or ``"offline"``."""
        found = self._snapshot()
        self._were_connected = self._connected()
        self._were_held = _without_waiting(found.holds)
        health = found.journal.health
        journal = {"health": health.level, "lastSequence": found.journal.last_seq}
        if health.text:
            journal["reason"] = health.text
        body = {
            "status": status,
            "name": found.name,
            "version": found.version,
            "startedAt": time_text(found.started_ns),
            "time": time_text(found.taken_ns),
            "clients": found.clients_connected,
            "messagesIn": found.messages_in,
            "messagesOut": found.messages_out,
            "journal": journal,
            "bridges": [_bridge(one, found.taken_ns) for one in found.bridges],
            "holds": [_hold(one) for one in found.holds[:MAX_HOLDS_TOLD]],
            "holdCount": len(found.holds),
            "recorders": [_recorder(one) for one in found.recorders],
            "counters": {published_label_of(name): value for name, value in found.counters},
        }
        topic, payload = f"{found.name}/status", json.dumps(body).encode()
        self._was_bad = health.level == "bad"
        if not self._was_bad:
            self._door.publish(topic, payload, retain=True)
            return
        self._door.hand(topic, payload)
        # For later subscribers; only in memory, until the next status is in the journal.
        self._retained.keep(Message(0, found.taken_ns, topic, payload, retain=True))


def _without_waiting(holds: Sequence[HoldState]) -> Sequence[tuple[object, ...]]:
    """What is told at once if it changes; how much waits is told with the next status."""
    return [(one.kind, one.name, one.until_ns, one.reason, one.by, one.drop) for one in holds]


def _hold(hold: HoldState) -> dict[str, Any]:
    body: dict[str, Any] = {
        "kind": hold.kind,
        "by": hold.by,
        "since": time_text(hold.since_ns),
        "until": None if hold.until_ns is None else time_text(hold.until_ns),
        "reason": hold.reason,
        "drops": hold.drop,
        "waiting": hold.waiting,
    }
    if hold.name:
        body["name"] = hold.name
    if hold.title:
        body["title"] = hold.title
    return body


def _recorder(recorder: RecorderState) -> dict[str, Any]:
    body: dict[str, Any] = {
        "name": recorder.name,
        "health": recorder.health.level,
        "messages": recorder.recorded,
        "lag": recorder.lag,
        "files": recorder.files,
        "bytes": recorder.size_bytes,
    }
    if recorder.health.text:
        body["reason"] = recorder.health.text
    if recorder.upload is not None:
        upload = recorder.upload
        last_ns = upload.last_ns
        body["upload"] = {
            "health": upload.health.level,
            "waiting": upload.waiting,
            "files": upload.uploaded,
            "last": None if last_ns is None else time_text(last_ns),
        }
        if upload.health.text:
            body["upload"]["reason"] = upload.health.text
    return body


def _bridge(bridge: BridgeState, now_ns: int) -> dict[str, Any]:
    body: dict[str, Any] = {
        "name": bridge.name,
        "address": bridge.address,
        "connected": bridge.connected,
        "health": bridge_level(bridge, now_ns),
        "since": None if bridge.since_ns is None else time_text(bridge.since_ns),
        "messagesIn": bridge.messages_in,
        "messagesOut": bridge.messages_out,
        "repeats": bridge.repeats,
        "lag": bridge.lag,
        "parked": bridge.parked,
        "gaps": bridge.gaps,
    }
    if bridge.health.text:
        body["reason"] = bridge.health.text
    return body
