"""Whatever bytes a publisher sends: each rule reads them or not, and no message is set aside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tasks_rig import Rig, client_of

from appliance.config.tables import TriggerConfig
from appliance.counters import Counter
from appliance.qlik.simulated import SimulatedQlik

TASK = "5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b10"
TOPIC = "line/7"
WHENS = (
    {"state": "done"},
    {"batch.rows": {">": 0, "<=": 1e300}, "a.0.b": {"exists": False}},
    {"payload": "Online"},
    {"payload": {">=": 5}},
    {"line": {"in": [7, "M\u00fcller", True]}, "x": {"!=": 1.5}},
)
RULES = (
    TriggerConfig(topic=TOPIC, task=TASK, name="plain"),
    TriggerConfig(topic="line/#", task="payload", name="named"),
    *(
        TriggerConfig(topic="line/+", task=TASK, name=f"when {number}", when=when)
        for number, when in enumerate(WHENS)
    ),
)
HARD = [
    "M\u00fcller".encode("latin-1"),
    b'{"line": "M\xfcller"}',
    '{"state": "done"}'.encode("utf-16-le"),
    '{"state": "done"}'.encode("utf-16-be"),
    '{"state": "done"}'.encode("utf-16"),
    '{"state": "done"}'.encode("utf-32"),
    b"\xef\xbb\xbf" + TASK.encode() + b"\0",
    TASK.encode("utf-16-le"),
    b"[" * 60_000,
    b'{"a":' * 10_000,
    b"[" * 900 + b"]" * 900,
    b'{"state":' * 900 + b"1" + b"}" * 900,
    b"9" * 60_000,
    b'{"batch": {"rows": ' + b"9" * 5000 + b"}}",
    b'{"batch": {"rows": 1e999}}',
    b'{"batch": {"rows": -1e-999}}',
    b"NaN",
    b"Infinity",
    b'{"x": NaN}',
    rb'{"state": "\ud800", "\udc00": "\ud800\ud800"}',
    rb'{"taskName": "\udfff"}',
    rb'"\u0000"',
    b'{"taskId": "a", "taskId": "b"}',
    b'{"state": "done", "state": "done", "state": {"": ""}}',
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xc0\x80",
    b"\x00" * 100,
    b"x" * 70_000,
    b"",
    json.dumps([{"tag": str(number)} for number in range(200)]).encode(),
    b'{"type": [], "payload": {}}',
    b'{"type": "starttaskid", "payload": {"taskId": {"taskId": []}}}',
    b'{"customProperty": {"name": [], "value": {}}}',
    b'{"taskName": "x", "partial": "yes", "variables": {"": "\\ud800", "a": [1e999]}}',
    b"5" * 4301,
    "\u0665".encode(),
    "\uff15e5".encode(),
]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "state",
                    "batch",
                    "rows",
                    "line",
                    "x",
                    "taskId",
                    "taskName",
                    "tag",
                    "type",
                    "payload",
                ]
                + ["customProperty", "name", "value", "partial", "variables", ""]
            )
            | st.text(st.characters(exclude_categories=()), max_size=8),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
TEXTS = JSON.map(lambda value: json.dumps(value, ensure_ascii=True).encode()) | st.builds(
    lambda value, encoding: json.dumps(value, ensure_ascii=False).encode(encoding, "surrogatepass"),
    JSON,
    st.sampled_from(["utf-8", "utf-16-le", "utf-16-be", "utf-32"]),
)
PAYLOADS = st.binary(max_size=200) | TEXTS | st.tuples(TEXTS, st.binary(max_size=3)).map(b"".join)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder: Path = tmp_path_factory.mktemp("tasks")
    with SimulatedQlik() as qlik:
        qlik.add_task("Reload sales", id=TASK, duration_s=0.0)
        with Rig(folder / "tasks.db", client_of(qlik), *RULES) as running:
            yield running


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(payloads=st.lists(PAYLOADS, min_size=10, max_size=30))
@example(payloads=HARD)
def test_no_payload_is_set_aside(rig: Rig, payloads: list[bytes]) -> None:
    """A rule that reads no payload starts its task for each message, whatever is in it."""
    before = {one.name: one.matched for one in rig.engine.rules()}
    seqs = [rig.source.put(TOPIC, payload).seq for payload in payloads]
    rig.wait_until(lambda: rig.engine._state.cursors.durable >= seqs[-1])
    after = {one.name: one.matched for one in rig.engine.rules()}
    assert after["plain"] - before["plain"] == len(payloads)
    assert Counter.INTERNAL_ERRORS not in rig.engine.counters()
    assert rig.engine.qlik_state().engine.level == "ok"
    marks = rig.engine.marks(seqs)
    assert all(marks[seq].execution for seq in seqs)
