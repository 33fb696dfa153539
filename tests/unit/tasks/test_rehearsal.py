"""A rehearsal of what the task engine took gives what the task engine did."""

import contextlib
import logging
import sqlite3
from collections import Counter as Count

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from manual_engine import BEGIN, IDS, Catalogue, ManualEngine, S, rule

from appliance.config.tables import AllowConfig
from appliance.model import REPLAYED, ExecutionState, MessageProperties
from appliance.tasks.past import read
from appliance.tasks.rehearsal import Rehearsal
from appliance.tasks.rehearsed import Tally, really


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


def by_hour(tally, word):
    return {hour: getattr(one, word) for hour, one in tally.hours.items() if getattr(one, word)}


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
    for word in "starts", "merged", "rejected":
        assert by_hour(would, word) == by_hour(real, word)
    assert Count({r.label: r.count for r in would.reasons.values()}).keys() == {
        r.label for r in real.reasons.values()
    }


@pytest.mark.campaign
def test_what_was_rehearsed_is_what_happened_in_many_scenarios(tmp_path_factory):
    """The same, three times as often."""
    inner = test_what_was_rehearsed_is_what_happened.hypothesis.inner_test
    scenario = st.tuples(EVENTS, LASTS, st.sampled_from([None, 1, 2]), st.booleans())

    @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
    @given(scenario)
    def many(one):
        inner(tmp_path_factory, *one)

    many()


# --- what the property does not say ---------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tasks.db"


def with_rules(engine, *rules):
    return msgspec.structs.replace(engine.setting, triggers=rules)


def test_a_new_rule_runs_as_long_as_the_task_usually_takes(path):
    """Of three messages within the usual four minutes, the later two make one further run."""
    engine = ManualEngine(path)
    engine.lasts = [(240, ExecutionState.SUCCEEDED)] * 3
    for _ in range(3):
        engine.put("press", b"1")
        engine.settle()
        engine.wait_until(engine.now + 1000 * S)
    for _ in range(3):
        engine.put("order", b"1")
        engine.wait_until(engine.now + 60 * S)
    engine.wait_until(engine.now + 3600 * S)
    new = with_rules(engine, rule("order", {"name": "Press"}, name="new"))
    rehearsal, _ = rehearsed(engine, path, setting=new)
    assert rehearsal.tally.pairs["new", "Press"].starts == 2
    assert rehearsal.tally.pairs["new", "Press"].merged == 1
    assert not rehearsal.guessed


def test_what_others_start_holds_a_rehearsed_start_back_as_it_did(path):
    """A run that an operator or the console began blocks, although no message asked for it."""
    engine = ManualEngine(path, (rule("press", {"name": "Press"}, name="press"),), outcomes=())
    engine.lasts = [(600, ExecutionState.SUCCEEDED)] * 2
    engine.start_by_operator(IDS[3])
    engine.settle()
    engine.wait_until(BEGIN + 700 * S)
    engine.start_elsewhere(IDS[3])
    engine.settle()
    for at in 710, 720:
        engine.wait_until(BEGIN + at * S)
        engine.put("press", b"1")
        engine.settle()
    engine.wait_until(BEGIN + 7200 * S)
    rehearsal, real = rehearsed(engine, path)
    assert rehearsal.tally.total == real.total
    assert (real.total.starts, real.total.merged) == (1, 1)
    # Without the past, the first message starts the task at once, and the second waits for it.
    rehearsal, _ = rehearsed(engine, path, with_past=False)
    assert rehearsal.tally.total.starts == 2


def test_a_stretch_that_begins_in_the_middle_knows_what_came_before(path):
    """A cooldown since a start, a run and a redelivery reach over the beginning of the stretch."""
    rules = (
        rule("sales", {"name": "Sales"}, name="cools", cooldown=3600),
        rule("stock", {"name": "Stock"}, name="waits"),
        rule("plan", {"name": "Plan"}, name="again"),
    )
    engine = ManualEngine(path, rules, outcomes=())
    engine.lasts = [(10, ExecutionState.SUCCEEDED), (1200, ExecutionState.SUCCEEDED)]
    for topic in "sales", "stock", "plan":
        engine.put(topic, b"1", packet_id=3)
        engine.settle()
    since = BEGIN + 600 * S
    engine.wait_until(since)
    for topic in "sales", "stock":
        engine.put(topic, b"2", packet_id=4)
        engine.settle()
    engine.put("plan", b"1", packet_id=3, dup=True)
    engine.wait_until(since + 900 * S)
    rehearsal, real = rehearsed(engine, path, since=since)
    assert rehearsal.tally.total == real.total
    assert (real.total.starts, real.total.skipped) == (1, 1)
    assert rehearsal.waiting == 1
    engine.wait_until(since + 7200 * S)
    rehearsal, real = rehearsed(engine, path, since=since)
    assert starts(rehearsal.tally) == starts(real)
    assert real.total.starts == 2


def test_a_replayed_message_starts_nothing(path):
    engine = ManualEngine(path)
    mark = MessageProperties(user_properties=((REPLAYED, "7"),)).encoded()
    engine.put("press", b"1", properties=mark)
    engine.wait_until(engine.now + S)
    rehearsal, real = rehearsed(engine, path)
    assert rehearsal.tally.total == real.total
    assert real.total.skipped == 1


def test_tasks_that_nobody_knows_are_taken_for_granted_only_without_the_servers_list(
    path, monkeypatch
):
    """With the list, a name that is not there is rejected; without it, it is said."""
    engine = ManualEngine(path)
    for payload in b'{"taskName": "Nobody"}', b'{"tag": "none"}', b'{"app": "App"}':
        engine.put("start", payload)
    unknown = "10000000-0000-0000-0000-000000000009"
    engine.put("start", unknown.encode())
    engine.wait_until(engine.now + S)
    rehearsal, _ = rehearsed(engine, path, with_past=False)
    assert rehearsal.tally.total.rejected == 4
    assert not rehearsal.assumed

    class Partly(Catalogue):
        is_complete = False

    rehearsal, _ = rehearsed(engine, path, with_past=False, catalogue=Partly())
    assert rehearsal.tally.total.starts == 4
    assert len(rehearsal.assumed) == 4
    assert len(rehearsal.guessed) == 4
    engine.put("start", b'{"tasks": ["Sales", {"taskName": "Else"}], "allOrNothing": true}')
    engine.put(
        "start", b'{"tasks": [{"taskName": "Sales"}, {"taskName": "Else"}], "allOrNothing": true}'
    )
    engine.wait_until(engine.now + S)
    rehearsal, _ = rehearsed(engine, path, with_past=False, catalogue=Partly())
    assert rehearsal.tally.pairs["payload", "Else"].starts == 1
    assert rehearsal.tally.pairs["payload", "Sales"].starts == 1
    monkeypatch.setattr("appliance.tasks.rehearsal_tasks.MOST_ASSUMED", 2)
    rehearsal, _ = rehearsed(engine, path, with_past=False, catalogue=Partly())
    assert len(rehearsal.assumed) == 2
    assert rehearsal.tally.total.rejected > 0


def test_a_configuration_without_a_server_starts_nothing(path):
    engine = ManualEngine(path)
    engine.put("press", b"1")
    bare = msgspec.structs.replace(engine.setting, has_server=False)
    rehearsal, _ = rehearsed(engine, path, setting=bare)
    assert rehearsal.tally.total.rejected == 1
    assert {one.label for one in rehearsal.tally.reasons.values()} == {"no Qlik"}


def test_a_disabled_task_is_not_started(path):
    engine = ManualEngine(path)
    engine.put("press", b"1")

    class Disabled(Catalogue):
        def tasks(self):
            return [msgspec.structs.replace(one, enabled=False) for one in super().tasks()]

    rehearsal, _ = rehearsed(engine, path, with_past=False, catalogue=Disabled())
    assert rehearsal.tally.total.rejected == 1


def test_a_chain_that_never_ends_ends_with_the_stretch(path):
    """Two tasks that start each other: as often as the time lets them, and no more."""
    chain = (
        rule("go", {"name": "Sales"}, name="go"),
        rule(f"appliance/tasks/{IDS[0]}/last", {"name": "Stock"}, name="there"),
        rule(f"appliance/tasks/{IDS[1]}/last", {"name": "Sales"}, name="back"),
    )
    engine = ManualEngine(path, ())
    engine.put("go", b"")
    engine.wait_until(BEGIN + 3600 * S)
    rehearsal, _ = rehearsed(engine, path, setting=with_rules(engine, *chain))
    assert rehearsal.tally.total.starts == 3600 // 60 + 1


def test_made_up_names_are_counted_together_beyond_a_bound(monkeypatch):
    monkeypatch.setattr("appliance.tasks.rehearsed.MOST_NAMES", 3)
    tally = Tally()
    for number in range(10):
        tally.count("rejected", "payload", f"task {number}", BEGIN)
        tally.because("payload", f"label {number}", "", number)
    assert len(tally.tasks) == 4
    assert tally.tasks["(others)"].rejected == 7
    assert tally.total.rejected == 10


def test_rows_that_cannot_be_decoded_are_left_out(path):
    """A damaged row of ``tasks.db`` costs itself alone."""
    engine = ManualEngine(path)
    for _ in range(2):
        engine.put("press", b"1")
        engine.settle()
        engine.wait_until(engine.now + 60 * S)
    engine.close()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE executions SET record = x'c1' WHERE id = 1")
        connection.execute("UPDATE answers SET seq = 'x' WHERE rowid = 1")
        connection.execute("UPDATE histories SET history = x'c1'")
    past = read(path, BEGIN, engine.now)
    assert [run.id for run in past.runs] == [2]
    assert all(isinstance(one.seq, int) for one in past.answers)
