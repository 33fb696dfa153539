"""The snapshot of an appliance that is well, to be changed by a test, and its metrics."""

from __future__ import annotations

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from appliance.engine_api import (
    BridgeState,
    FailingTask,
    Health,
    JournalState,
    ListenerState,
    QlikState,
    Snapshot,
)
from appliance.model import ExecutionState
from appliance.ops.metrics import exposition

OK = Health("ok")
NOW = 1_795_000_000_000_000_000
WELL = Snapshot(
    taken_ns=NOW,
    name="appliance",
    version="1",
    started_ns=NOW,
    listeners=(ListenerState("mqtt", "127.0.0.1:1883", "tcp", tls=False, health=OK),),
    clients_connected=3,
    journal=JournalState(OK, last_seq=7, disk_free_bytes=38_000_000_000),
    qlik=QlikState("client-managed", "qlik01", OK, engine=OK, database=OK),
    recorders=(),
    rules=(),
    timers=(),
    executions=(),
)
replace = msgspec.structs.replace


def failing(number: int, name: str, state: ExecutionState = ExecutionState.FAILED) -> FailingTask:
    return FailingTask(f"id-{number}", name, state, f"Table {number} is missing", number, NOW)


def bridge(**fields) -> BridgeState:
    """A bridge that is connected and well, but for what is given."""
    fields = {"health": OK, "connected": True, "since_ns": NOW - 600 * 10**9} | fields
    return BridgeState("plant", "mqtt.example.com:1883", "3.1.1", **fields)


def metrics(snapshot: Snapshot) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *map(sample.labels.get, sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(exposition(snapshot).decode())
        for sample in family.samples
    }
