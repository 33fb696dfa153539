"""What an explanation says of a message is what happens when that message comes.

A real task engine without its threads: its own consumer, planner and runner take the messages, with
a clock that the test sets and a server that starts what it is told to start.
"""

from __future__ import annotations

import itertools
import logging
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from tasks_rig import MemorySource

from appliance.config.tables import (
    AllowConfig,
    TriggerConfig,
)
from appliance.engine_api import Explanation
from appliance.model import ExecutionState, Message, Task
from appliance.qlik.server import QlikError, Report, RetryPolicy, Started
from appliance.tasks.engine import TaskEngine
from appliance.tasks.holds import Hold
from appliance.tasks.jobs import Limits
from appliance.tasks.runner import Runner
from appliance.tasks.views import WAITS_FOR_RUN, WAITS_FOR_SERVER
from appliance.ui.explanation_text import conclusions

S = 1_000_000_000
IDS = [f"00000000-0000-0000-0000-00000000000{number}" for number in range(1, 5)]
UNKNOWN = IDS[3]
TASKS = [
    Task(IDS[0], "One", tags=("all", "first"), last_duration_s=30.0),
    Task(IDS[1], "Two", tags=("all",)),
    Task(IDS[2], "Three", tags=("all",)),
]
AWAY = QlikError("refused", label="refused", retry=RetryPolicy.SAFE)
HORIZON_S = 100_000


class Server:
    """Starts tasks at once; the runs end when the test says so."""

    label = "test"

    def __init__(self) -> None:
        self.started: list[tuple[str, int]] = []
        self.now = lambda: 0
        self._numbers = itertools.count(1)

    def tasks(self) -> list[Task]:
        return TASKS

    def apps(self) -> list[Task]:
        return []

    def start(self, task_id: str, *, options: object = None) -> Started:
        if all(one.id != task_id for one in TASKS):
            raise QlikError("no such task", label="404", retry=RetryPolicy.NEVER)
        self.started.append((task_id, self.now()))
        return Started(f"run-{next(self._numbers)}")

    def own_time_ns(self, server_ns: int) -> int:
        return server_ns

    def clock_doubt_s(self) -> float:
        return 0.0


class World:
    """One appliance, its clock, and the messages that came."""

    def __init__(self, folder: Path, rules: list[TriggerConfig], allow: AllowConfig) -> None:
        self.now = 1_700_000_000 * S
        self.source = MemorySource()
        self.server = Server()
        self.server.now = lambda: self.now
        self.engine = TaskEngine(
            service_name="appliance",
            triggers=rules,
            allow=allow,
            server=self.server,
            database=folder / "tasks.db",
            publish=lambda publications: 0,
            clock_ns=lambda: self.now,
            sync="os",
            limits=Limits(slots=50),
            boot_ns=0,
        )
        self.engine.open()
        self.state = self.engine._state
        self.planner = self.state.planner
        self.state.take_up(self.source, "appliance")
        self.runner = Runner(self.state, self.server, self.engine._resolution, self.state._outcomes)

    def close(self) -> None:
        self.state.close()

    def work(self) -> None:
        """What the clock and the workers do now."""
        with self.state.change():
            pass
        while not self.state.jobs.empty():
            self.runner.do(self.state.jobs.get())

    def pass_time(self, seconds: int) -> None:
        end = self.now + seconds * S
        for _ in range(1000):
            due = self.planner.next_due()
            if due is None or due > end:
                break
            self.now = max(self.now, due)
            self.work()
        else:
            raise AssertionError("the clock of the planner does not come to rest")
        self.now = end
        self.work()

    def message(self, topic: str, payload: bytes) -> Message:
        message = self.source.put(topic, payload, received_ns=self.now)
        self.engine._consumer.take([message])
        self.work()
        return message

    def explained(self, topic: str, payload: bytes) -> Explanation:
        return self.engine.explain(Message(0, self.now, topic, payload, client_id="plc-1"))

    def end_runs(self) -> None:
        for record in list(self.planner.running.values()):
            one = record.execution
            with self.state.change() as planner:
                report = Report(one.execution_id, one.task_id, ExecutionState.SUCCEEDED)
                planner.report(record, report, self.now)
        self.work()

    def go_away(self) -> None:
        for _ in range(3):
            self.state.circuit.failed(AWAY)
        self.work()

    def hold(self, kind: str, name: str, for_s: int | None, drop: bool) -> None:
        until = None if for_s is None else self.now + for_s * S
        with self.state.change() as planner:
            planner.hold(Hold(kind, name, until, "", "ann", self.now, drop), self.now)
        self.work()


_waits = st.sampled_from([None, None, 5.0, 60.0])
RULES = st.lists(
    st.builds(
        lambda number, **fields: TriggerConfig(name=f"rule {number}", **fields),
        st.integers(0, 10**6),
        topic=st.sampled_from(["a/+", "a/1", "b"]),
        task=st.sampled_from(
            [IDS[0], IDS[1], "payload", {"name": "One"}, {"name": "Two"}, {"name": "None"},
             {"tag": "all"}, {"tag": "first"}]
        ),
        when=st.sampled_from([None, None, {"state": "done"}, {"rows": {">": 3}}]),
        debounce=_waits,
        cooldown=_waits,
        if_running=st.sampled_from(["queue_one", "queue_one", "skip", "start"]),
        expire=st.sampled_from([86400.0, 30.0]),
    ),
    min_size=1,
    max_size=3,
)  # fmt: skip
ALLOWED = st.sampled_from(
    [AllowConfig(), AllowConfig(), AllowConfig(tasks=(IDS[0],)), AllowConfig(names=("Two",))]
)
PAYLOADS = st.sampled_from(
    [IDS[0].encode(), b'{"taskName": "Two"}', b'{"state": "done", "taskId": "%s"}' % IDS[1].encode(),
     b'{"state": "done", "rows": 5, "tag": "all"}', b"nonsense", b"", UNKNOWN.encode()]
)  # fmt: skip
TOPICS = st.sampled_from(["a/1", "a/2", "b", "c"])
MESSAGES = st.tuples(st.just("message"), TOPICS, PAYLOADS)
EVENTS = st.one_of(
    MESSAGES,
    MESSAGES,
    st.tuples(st.just("pass_time"), st.integers(1, 70)),
    st.tuples(st.just("end_runs")),
    st.tuples(st.just("go_away")),
    st.tuples(
        st.just("hold"),
        st.sampled_from([("everything", ""), ("task", IDS[0]), ("task", IDS[1])]),
        st.sampled_from([None, 10, 100]),
        st.booleans(),
    ),
)


def do(world: World, event: tuple) -> None:
    name, *arguments = event
    if name == "hold":
        (kind, held), for_s, drop = arguments
        world.hold(kind, held, for_s, drop)
    else:
        getattr(world, name)(*arguments)


Fate = tuple[str, str, int | None]
"""A task, whether it starts or waits, and when it starts."""


def foretold(found: Explanation) -> set[Fate]:
    """What becomes of each start; those that neither start nor wait are left out."""
    said: set[Fate] = set()
    for one in found.starts:
        if one.effect == "nothing" or one.reason == "A start of the same message answers it, too.":
            continue
        is_start = one.at_ns is not None and not one.is_guess
        key = one.task_id or one.what
        said.add((key, "starts", one.at_ns) if is_start else (key, "waits", None))
    return said


def refused(found: Explanation) -> set[str]:
    """The tasks that [allow] does not have, and the names of those that the server does not."""
    return {
        start.task_id or start.what
        for start in found.starts
        for check in start.checks
        if check.field in ("[allow]", "task") and not check.ok
    }


_WAITED = (f"Last: {WAITS_FOR_RUN}", f"Last: {WAITS_FOR_SERVER}")
"""Ends of the reason of a request that waited for what did not come, until it expired."""


def begun(world: World) -> set[int]:
    """The executions whose start call was made, or that are over."""
    return {one.id for one in world.engine.executions(1000) if one.attempts or one.state.is_final}


def named(world: World) -> set[tuple[int, str]]:
    """What asked for the requests whose tasks are not found yet: message and rule."""
    records = world.planner.open.values()
    causes = (one.execution.cause for one in records if not one.execution.task_id)
    return {(one.seq, one.rule) for one in causes}


def happened(world: World, seq: int, before: set[int], names: set[tuple[int, str]]) -> set[Fate]:
    """What became of the executions that answer a message, in the same form.

    ``before``: those that had begun when it came, ``names``: what asked for those that had no task.
    """
    done: set[Fate] = set()
    numbers = {one.execution for one in world.engine._views._answers.get(seq, ()) if one.execution}
    # A request for a tag that an earlier message asked for becomes one of each task: in the views
    # they answer that message.
    answers = map(world.engine.execution, numbers)
    causes = {(one.cause.seq, one.cause.rule) for one in answers} & names
    numbers |= {
        one.id for one in world.engine.executions(1000) if (one.cause.seq, one.cause.rule) in causes
    }
    for number in sorted(numbers - before):
        one = world.engine.execution(number)
        called = [step.at_ns for step in one.steps if step.text.startswith("Start call")]
        key = one.task_id or one.task_name
        if one.state is ExecutionState.REJECTED:
            continue  # by [allow], which is asked last
        if called:
            done.add((key, "starts", called[0]))
        elif not one.state.is_final or one.reason.endswith(_WAITED):
            done.add((key, "waits", None))
    return done


CASES = (RULES, ALLOWED, st.lists(EVENTS, max_size=8), TOPICS, PAYLOADS)
QUIET = settings(
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@given(*CASES)
@settings(QUIET, max_examples=40)
def test_what_is_foretold_happens(rules, allow, before, topic, payload) -> None:
    """Random rules, [allow] and a random past: tasks start when it was said, wait where it was said
    that they wait, and nothing starts where something was said to stand in the way."""
    compare(rules, allow, before, topic, payload)


@pytest.mark.campaign
@given(*CASES)
@settings(QUIET, max_examples=800)
def test_what_is_foretold_happens_also_in_rare_cases(rules, allow, before, topic, payload) -> None:
    compare(rules, allow, before, topic, payload)


def compare(rules, allow, before, topic, payload) -> None:
    rules = [
        msgspec.structs.replace(one, name=f"rule {number}") for number, one in enumerate(rules)
    ]
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), rules, allow)
        logging.disable(logging.CRITICAL)
        try:
            for event in before:
                do(world, event)
            found = world.explained(topic, payload)
            assert world.explained(topic, payload) == found  # and it changes nothing
            assume(not found.unforeseen)  # it says itself that this is not foreseen
            past, names = begun(world), named(world)
            message = world.message(topic, payload)
            world.pass_time(HORIZON_S)
            # What is not to be had may wait for its turn, and is refused then.
            done = happened(world, message.seq, past, names) - {
                (one, "waits", None) for one in refused(found)
            }
            assert foretold(found) == done, found
        finally:
            logging.disable(logging.NOTSET)
            world.close()


def test_what_may_come_before_unforeseen_is_said(tmp_path) -> None:
    """A request by tag waits, which may mean the same task; once it has its tasks, it is followed."""
    by_tag = TriggerConfig(topic="tag", task={"tag": "all"}, debounce=60.0)
    world = World(tmp_path, [by_tag, TriggerConfig(topic="b", task=IDS[0])], AllowConfig())
    try:
        assert world.explained("b", b"").unforeseen == 0
        world.message("tag", b"")
        found = world.explained("b", b"")
        (_, start), (_, doubt) = conclusions(found, str)
        assert start == "Would start One now."
        assert doubt == "Not foreseen: 1 request waits that may start one of these tasks before."
        assert world.explained("elsewhere", b"").unforeseen == 0
        assert world.explained("tag", b"").unforeseen == 0  # it would be merged into that one
        world.pass_time(60)
        assert world.explained("b", b"").unforeseen == 0
    finally:
        world.close()
