"""A rehearsal of what the task engine took gives what the task engine did."""

import logging
from collections import Counter as Count

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from manual_engine import BEGIN, IDS, Catalogue, ManualEngine, S

from appliance.config.tables import AllowConfig
from appliance.model import ExecutionState
from appliance.tasks.past import read
from appliance.tasks.rehearsal import Rehearsal
from appliance.tasks.rehearsed import really


@pytest.fixture(autouse=True)
def quiet():
    logging.getLogger("appliance.tasks").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("appliance.tasks").setLevel(logging.NOTSET)


def rehearsed(engine, path, *, setting=None, since=BEGIN, with_past=True, catalogue=None):
    with engine.state.change():
        pass
    past = read(path if with_past else path.with_name("none.db"), since, engine.now)
    rehearsal = Rehearsal(setting or engine.setting, catalogue or Catalogue(), past, since)
    rehearsal.take([one for one in engine.journal if one.received_ns >= since])
    rehearsal.finish(engine.now)
    return rehearsal, really(past, since, engine.now)


def starts(tally):
    return {pair: one.starts for pair, one in tally.pairs.items() if one.starts}


EVENTS = st.lists(
    st.tuples(
        st.integers(1, 400),  # seconds since the one before
        st.sampled_from(
            [
                ("sales/a", b"{}"),
                ("sales/b", b'{"state": "done"}'),
                ("stock", b""),
                ("press", b"1"),
                ("press/all", b"1"),
                ("start", IDS[0].encode()),
                ("start", f'["{IDS[1]}", "{IDS[3]}"]'.encode()),
                ("start", b'{"taskName": "Plan"}'),
                ("start", b'{"taskName": "Nobody"}'),
                (
                    "start",
                    f'{{"tasks": [{{"taskName": "Plan"}}, "{IDS[0]}"], '
                    '"allOrNothing": true}'.encode(),
                ),
                ("start", b"nonsense"),
                (f"start/{IDS[2]}", b""),
                ("start/Stock", b""),
                ("nobody", b""),
                ("again", b""),
                ("elsewhere", b""),
            ]
        ),
        st.integers(0, 4),
    ),
    max_size=30,
)
LASTS = st.lists(
    st.tuples(
        st.integers(1, 900),
        st.sampled_from([ExecutionState.SUCCEEDED, ExecutionState.FAILED, ExecutionState.ABORTED]),
    ),
    max_size=30,
)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)
@given(EVENTS, LASTS, st.sampled_from([None, 1, 2]), st.booleans())
def test_what_was_rehearsed_is_what_happened(
    tmp_path_factory, events, lasts, max_running, only_some_allowed
):
    """Starts, merges, rejections, by rule, task and hour, for messages of every kind."""
    path = tmp_path_factory.mktemp("rehearsed") / "tasks.db"
    allow = AllowConfig(tasks=(IDS[0], IDS[3], IDS[4])) if only_some_allowed else None
    engine = ManualEngine(path, max_running=max_running, allow=allow)
    engine.lasts = list(lasts)
    for gap, (topic, payload), choice in events:
        engine.wait_until(engine.now + gap * S)
        if topic == "elsewhere":
            if not engine.planner.dispatcher.queues.active(IDS[choice]):
                engine.start_elsewhere(IDS[choice])
        elif topic == "again" and engine.journal:
            before = engine.journal[-1]
            if before.client_id == "plc":
                engine.put(before.topic, before.payload, dup=True, packet_id=before.packet_id)
        else:
            engine.put(topic, payload)
        engine.settle()
    engine.wait_until(engine.now + 3600 * S)

    rehearsal, real = rehearsed(engine, path)
    would = rehearsal.tally
    assert starts(would) == starts(real), (starts(would), starts(real))
    assert would.total == real.total, (would, real)
    assert {hour: one.starts for hour, one in would.hours.items() if one.starts} == {
        hour: one.starts for hour, one in real.hours.items() if one.starts
    }
    assert Count({r.label: r.count for r in would.reasons.values()}).keys() == {
        r.label for r in real.reasons.values()
    }
