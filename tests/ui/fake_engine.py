"""An engine made by hand: deterministic, driven by an injected clock, at any rate.

It is what the UI is built and tested against. Run as a script it shows the UI in this terminal:
``python tests/ui/fake_engine.py --rate 1000``.
"""

from __future__ import annotations

import argparse
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

from msgspec.structs import replace

import msgspec

from appliance.errors import NoPermissionError
from appliance import matching
from appliance.message_filter import MessageFilter
from appliance.model import Cause, Execution, ExecutionState, Message, Step, Task
from appliance.problems import problems
from appliance.engine import values
from appliance.journal.search import History, Piece
from appliance.engine_api import (
    Acknowledgement,
    AskedValues,
    BridgeState,
    BridgeSubscriptionState,
    ClientState,
    Engine,
    ExplainedCheck,
    ExplainedRule,
    ExplainedStart,
    Explanation,
    Found,
    Health,
    Holds,
    HoldState,
    JournalState,
    ListenerState,
    LogLine,
    Mark,
    QlikState,
    RecorderState,
    RuleState,
    ServerTask,
    ServerTasks,
    Snapshot,
    Starter,
    TaskFreshness,
    TimerState,
    TopicState,
    Values,
)

T0 = 1_795_000_000_000_000_000
"""2026-11-18 11:06:40 UTC."""
S = 10**9
RING = 10_000

TASKS = tuple(
    Task(
        id=f"{number:08x}-1111-4222-8333-444444444444",
        name=name,
        tags=("nightly",) if number % 2 else (),
        enabled=number != 6,
        last_duration_s=usual,
    )
    for number, (name, usual) in enumerate(
        [
            ("Reload Sales", 12.0),
            ("Reload Stock", 44.0),
            ("Reload HR", 3.0),
            ("Export Finance", 88.0),
            ("Nightly sync", 300.0),
            ("Retired report", None),
        ],
        1,
    )
)

TEMPLATES = (
    ("plant/line1/sensor7/state", b'{"value":21.4,"unit":"C"}', 0, False, "plc-01"),
    ("plant/line2/sensor1/state", b'{"value":19.0,"unit":"C"}', 0, True, "plc-02"),
    ("/demo/integers", b'{"Generated number": "7"}', 1, False, "demo"),
    ("plant/line1/sensor8/state", b'{"value":20.9,"unit":"C"}', 0, False, "plc-01"),
    ("plant/cam1/frame", b"\xff\xd8\xff\xe0" + bytes(4092), 0, False, "cam1"),
    ("hall/east/door", "geöffnet ✓ 扉".encode(), 0, False, "hmi-east"),
    ("plant/line3/sensor2/state", b'{"value":18.2,"unit":"C"}', 2, False, "plc-03"),
)
HOSTILE = (
    "evil/\x1b[2J\x1b[31mtopic\u202egnp.exe",
    b"\x1b]0;owned\x07 \x9b2J payload \xe2\x80\xae txt\r\nline two \xe2\x80\x8b hidden",
    "plc-\u200b01\x1b[H",
)


class Clock:
    """A clock that stands still until it is told to go."""

    def __init__(self, now_ns: int = T0 + 3727 * S) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        return self.now_ns

    def go(self, seconds: float) -> None:
        self.now_ns += int(seconds * S)


class _History(History):
    """The messages of the fake as a journal: one stretch."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = messages

    def back(self, asked: MessageFilter, before_seq: int, first_seq: int = 0) -> Generator[Piece]:
        found = [one for one in self._messages if first_seq <= one.seq < before_seq]
        yield Piece(matching.select(asked, found), first_seq, before_seq - 1)

    def step(self, asked: MessageFilter, before_seq: int, limit: int, **_how: object) -> Found:
        (piece,) = self.back(asked, before_seq)
        return Found(tuple(piece.messages[-limit:]), 0)


class FakeEngine(Engine):
    """The UI sees what a test sets."""

    def __init__(self, clock_ns: Callable[[], int] | None = None, *, rate: float = 0.0) -> None:
        self.clock_ns = clock_ns or Clock()
        self.rate = rate
        self.started_ns = T0
        self._produced_ns = self.clock_ns()
        self._owed = 0.0
        self.ring: deque[Message] = deque(maxlen=RING)
        self.whole: dict[int, Message] = {}
        self.sizes: dict[int, int] = {}
        self.seq = 0
        self.story_seq = 1 << 62
        """Messages after this one are made by ``rate``."""
        self.mark_of: dict[int, Mark] = {}
        self.runs: dict[int, Execution] = {}
        self.log_lines: deque[LogLine] = deque(maxlen=2000)
        self.changes: dict[str, object] = {}
        """Fields of the snapshot that a test sets."""
        self.stopping = False
        self.held: dict[tuple[str, str], HoldState] = {}
        self.explanations: dict[int, Explanation] = {}
        """By the number of a message; 0: of one that is not published."""
        self.calls: list[tuple[object, ...]] = []
        """Everything that the UI asked for, in order."""
        self.called = threading.Event()
        self.lock = threading.Lock()
        self.fail_with: Exception | None = None
        self.client_list: tuple[ClientState, ...] = ()
        self.old: list[Message] = []

    # --- making things happen ------------------------------------------------------------------

    def publish_from(
        self,
        topic: str,
        payload: bytes,
        *,
        client_id: str = "plc-01",
        qos: int = 0,
        retain: bool = False,
        full_size: int | None = None,
    ) -> int:
        self.seq += 1
        whole = Message(
            self.seq,
            self.clock_ns(),
            topic,
            payload,
            qos=qos,
            retain=retain,
            client_id=client_id,
            address="10.0.4.17:50122",
        )
        self.ring.append(whole)
        if full_size is not None:
            self.sizes[self.seq] = full_size
        return self.seq

    def put(self, execution: Execution, label: str = "", count: int = 1) -> None:
        """Let an execution be, with the mark beside its message."""
        self.runs[execution.id] = execution
        if execution.cause.seq:
            self.mark_of[execution.cause.seq] = Mark(execution.state, label, execution.id, count)

    def say(self, level: int, source: str, text: str) -> None:
        number = self.log_lines[-1].number + 1 if self.log_lines else 1
        self.log_lines.append(LogLine(number, self.clock_ns(), level, source, text))

    def _produce(self) -> None:
        if not self.rate:
            return
        now = self.clock_ns()
        self._owed += (now - self._produced_ns) / 1e9 * self.rate
        self._produced_ns = now
        count, self._owed = int(self._owed), self._owed % 1
        skipped = max(0, count - RING)  # they would leave the ring before the UI looks
        self.seq += skipped
        for number in range(count - skipped):
            self.seq += 1
            topic, payload, qos, retain, client = TEMPLATES[self.seq % len(TEMPLATES)]
            at = now - (count - skipped - number) * 100_000
            self.ring.append(
                Message(
                    self.seq,
                    at,
                    topic,
                    payload,
                    qos,
                    retain,
                    False,
                    client,
                    None,
                    "10.0.4.11:50010",
                )
            )

    # --- what the UI reads ---------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        with self.lock:
            if self.fail_with is not None:
                raise self.fail_with
            self._produce()
            now = self.clock_ns()
            runs = sorted(self.runs.values(), key=lambda one: -one.id)
            fields: dict[str, object] = {
                "taken_ns": now,
                "name": "appliance",
                "version": "1.0.0",
                "started_ns": self.started_ns,
                "listeners": (
                    ListenerState("plain", "127.0.0.1:1883", "tcp", False, Health("ok"), 12),
                    ListenerState("tls", "0.0.0.0:8883", "tcp", True, Health("ok"), 0),
                ),
                "clients_connected": 12,
                "journal": JournalState(
                    Health("ok"), self.seq, 1, 0, 5000, 2.1, 88_000_000, 38_000_000_000
                ),
                "qlik": QlikState(
                    "client-managed",
                    "qlik01.example.com",
                    Health("ok"),
                    running=sum(1 for one in runs if one.state is ExecutionState.RUNNING),
                    waiting=sum(
                        1
                        for one in runs
                        if not one.state.is_final and one.state is not ExecutionState.RUNNING
                    ),
                    failed_24h=sum(1 for one in runs if one.state.is_bad),
                    succeeded_24h=sum(1 for one in runs if one.state is ExecutionState.SUCCEEDED),
                ),
                "recorders": (
                    RecorderState(
                        "/demo/integers",
                        "/srv/appliance/data/recordings/integers.json",
                        "json",
                        Health("ok"),
                        1204,
                        0,
                        88_000,
                        looked_at=self.seq,
                    ),
                ),
                "rules": (
                    RuleState(
                        "qliksense/start_task",
                        "qliksense/start_task",
                        "the task that the payload names",
                        matched=412,
                        started=405,
                        rejected=7,
                        last_ns=now - 3 * S,
                    ),
                    RuleState(
                        "stock", "plant/+/stock/done", "task Reload Stock", 31, 31, 0, now - 90 * S
                    ),
                ),
                "timers": (
                    TimerState(
                        "nightly-sync", "schedule", now + 98 * S, False, "task Nightly sync"
                    ),
                    TimerState("hourly-stock", "schedule", now + 3398 * S),
                    TimerState("weekly-hr", "schedule", now + 300_000 * S),
                ),
                "executions": tuple(runs[:50]),
                "messages_in": self.seq,
                "messages_out": self.seq // 2,
                "bytes_in": self.seq * 60,
                "rate_in": self.rate,
                "rate_out": self.rate / 2,
                "rate_history": tuple(self.rate * (0.5 + (n % 7) / 14) for n in range(60)),
                "counters": (("refused: wrong password", 3), ("slow subscriber dropped", 0)),
                "run_until_ns": None,
                "stopping": self.stopping,
                "config_path": "/etc/appliance/config.toml",
                "data_dir": "/srv/appliance/data",
                "first_run": False,
                "holds": tuple(self.held.values()),
            }
            fields.update(self.changes)
            return Snapshot(**fields)  # type: ignore[arg-type]

    def live(self, after_seq: int, limit: int) -> Sequence[Message]:
        with self.lock:
            found: list[Message] = []
            for message in reversed(self.ring):
                if message.seq <= after_seq or len(found) >= limit:
                    break
                found.append(message)
            return found[::-1]

    def full_size(self, seq: int) -> int | None:
        if seq > self.story_seq and seq % len(TEMPLATES) == 4:
            return 512_000
        return self.sizes.get(seq)

    def marks(self, seqs: Sequence[int]) -> dict[int, Mark]:
        marks = self.mark_of
        return {seq: marks[seq] for seq in seqs if seq in marks}

    def clients(self) -> tuple[ClientState, ...]:
        return self.client_list

    def log(self, after_number: int, limit: int) -> Sequence[LogLine]:
        found = [line for line in self.log_lines if line.number > after_number]
        return found[-limit:]

    def execution(self, execution: int) -> Execution | None:
        return self.runs.get(execution)

    # --- what the UI asks for ------------------------------------------------------------------

    def _called(self, *call: object) -> None:
        self.calls.append(call)
        self.called.set()

    def explain(self, seq: int) -> Explanation:
        found = self.explanations.get(seq)
        return super().explain(seq) if found is None else found

    def explain_message(
        self, topic: str, payload: bytes, retain: bool, client_id: str
    ) -> Explanation:
        self._called("explain_message", topic, payload, retain, client_id)
        return self.explanations[0]

    def message(self, seq: int) -> Message | None:
        if seq in self.whole:
            return self.whole[seq]
        return next((one for one in [*self.old, *self.ring] if one.seq == seq), None)

    def tasks(self) -> Sequence[Task]:
        return TASKS

    def server_tasks(self) -> ServerTasks:
        newest: dict[str, Execution] = {}
        for run in sorted(self.runs.values(), key=lambda one: one.id):
            newest[run.task_id] = run
        rows = [
            ServerTask(
                task,
                state=run.state if (run := newest.get(task.id)) else None,
                since_ns=(run.ended_ns or run.started_ns or run.requested_ns) if run else None,
                execution=run.id if run else 0,
                reason=run.reason if run else "",
                usual_s=task.last_duration_s,
                next_ns=min((s.next_ns for s in starters if s.next_ns), default=None),
                starters=starters,
            )
            for task, starters in zip(TASKS, self._starters(), strict=True)
        ]
        return ServerTasks(tuple(rows), len(rows), any_task=("qliksense/start_task",))

    def freshness(self) -> Sequence[TaskFreshness]:
        """Sales is late while it runs; stock is stale; HR fails; finance is fresh."""
        now = self.clock_ns()
        week = {"messages": 312, "runs": 96, "merged": 216}
        return [
            TaskFreshness(
                TASKS[0].id,
                TASKS[0].name,
                app="Sales",
                stale_since_ns=now - 1260 * S,
                oldest_seq=min(3, self.seq),
                waiting=18,
                fresh_within_s=900.0,
                late_ns=now - 360 * S,
                is_late=True,
                kind="running",
                why="It runs.",
                execution=1,
                fresh_ns=now - 3000 * S,
                p50_s=130.0,
                p95_s=480.0,
                worst_s=3720.0,
                usual_s=150.0,
                **week,
            ),
            TaskFreshness(
                TASKS[2].id,
                TASKS[2].name,
                app="HR",
                stale_since_ns=now - 7300 * S,
                oldest_seq=1,
                waiting=2,
                kind="failed",
                why="The last start ended as failed: Table 'HR.Employees' not found",
                fresh_ns=now - 90000 * S,
                messages=4,
                runs=3,
                p50_s=61.0,
                p95_s=88.0,
                worst_s=88.2,
                usual_s=40.0,
            ),
            TaskFreshness(
                TASKS[1].id,
                TASKS[1].name,
                app="Stock",
                stale_since_ns=now - 40 * S,
                oldest_seq=2,
                waiting=1,
                fresh_within_s=3600.0,
                late_ns=now + 3560 * S,
                kind="debounce",
                why="Waits for quiet (debounce).",
                fresh_ns=now - 700 * S,
                messages=12,
                runs=12,
                p50_s=20.0,
                p95_s=30.0,
                worst_s=31.0,
                usual_s=12.0,
            ),
            TaskFreshness(
                TASKS[3].id, TASKS[3].name, app="Finance", fresh_ns=now - 100 * S, messages=1,
                runs=1, p50_s=9.0, p95_s=9.0, worst_s=9.0, usual_s=5.0,
            ),
        ]  # fmt: skip

    def freshness_day(self, task_id: str) -> Sequence[tuple[int, float]]:
        if task_id != TASKS[0].id:
            return ()
        first = self.clock_ns() // (900 * S) * 900 * S - 86400 * S
        return [
            (first + slot * 900 * S, 60.0 + slot * 37 % 11 * 60.0 + (2400.0 if slot == 60 else 0))
            for slot in range(4, 92, 4)
        ]

    def _starters(self) -> Sequence[tuple[Starter, ...]]:
        """Sales, then stock, then finance; HR by a rule; a nightly timer."""
        now = self.clock_ns()
        sales, stock = TASKS[0].id, TASKS[1].id
        return (
            (Starter("schedule", "Hourly", "every hour", next_ns=now + 600 * S),),
            (
                Starter("rule", "stock", "plant/+/stock/done"),
                Starter("chain", "After sales", "within 6 h", after=((sales, "succeeded"),)),
            ),
            (Starter("rule", "hr", "hr/changed"),),
            (
                Starter(
                    "outcome", "finance", "appliance/tasks/+/last", after=((stock, "succeeded"),)
                ),
            ),
            (
                Starter("timer", "nightly-sync", "0 3 * * * UTC", next_ns=now + 98 * S),
                Starter("timer", "weekly-sync", "0 5 * * 0 UTC", enabled=False),
            ),
            (),
        )

    def request_starts(self, payload: str, by: str) -> tuple[int, ...]:
        self._called("request_starts", payload, by)
        return (max(self.runs, default=0) + 1,)

    def start_task(self, task_id: str, by: str) -> int:
        self._called("start_task", task_id, by)
        task = next(one for one in TASKS if one.id == task_id)
        if not task.enabled:
            raise NoPermissionError(f"The task {task.name} is disabled on the server: enable it.")
        number = max(self.runs, default=0) + 1
        self.put(
            Execution(
                number,
                task_id,
                task.name,
                ExecutionState.REQUESTED,
                Cause("operator", client_id=by),
                self.clock_ns(),
            )
        )
        return number

    def repeat(self, seq: int, by: str) -> int:
        self._called("repeat", seq, by)
        return 1

    def retained(self, topic: str) -> Message | None:
        return next((one for one in reversed(self.ring) if one.retain and one.topic == topic), None)

    def stop(self, by: str = "operator") -> None:
        self._called("stop")
        self.stopping = True

    def topics(self, limit: int) -> Sequence[TopicState]:
        counts: dict[str, list[Message]] = {}
        for message in self.ring:
            counts.setdefault(message.topic, []).append(message)
        states = [
            TopicState(
                topic,
                len(found),
                len(found) / 10,
                found[-1].received_ns,
                found[-1].seq,
                any(one.retain for one in found),
                sum(len(one.payload) + len(topic) for one in found),
                sum(len(one.payload) + len(topic) for one in found) / 10,
                len(found[-1].payload),
            )
            for topic, found in counts.items()
        ]
        return sorted(states, key=lambda one: -one.rate)[:limit]

    def history(self, before_seq: int, limit: int) -> Sequence[Message]:
        self._called("history", before_seq, limit)
        known = [one for one in [*self.old, *self.ring] if one.seq < before_seq]
        return known[-limit:]

    def search(self, asked: MessageFilter, before_seq: int, limit: int) -> Found:
        self._called("search", asked, before_seq, limit)
        known = [one for one in [*self.old, *self.ring] if one.seq < before_seq][-2000:]
        passed = matching.select(asked, known)
        own = asked.without_own
        found = [one for one in passed if not (own and matching.is_own_news(one, own))]
        rest = known[0].seq if known and known[0].seq > 1 else 0
        at = known[0].received_ns if known else 0
        return Found(tuple(found), rest, at, len(passed) - len(found))

    def values(self, asked: AskedValues, before_seq: int) -> Values:
        self._called("values", asked, before_seq)
        values.check(asked)
        return values.step(_History([*self.old, *self.ring]), asked, before_seq)

    def seq_at(self, time_ns: int) -> int:
        known = [*self.old, *self.ring]
        return next((one.seq for one in known if one.received_ns >= time_ns), self.seq + 1)

    def executions(self, before_id: int, limit: int, task_id: str = "") -> Sequence[Execution]:
        found = [
            one
            for one in sorted(self.runs.values(), key=lambda one: -one.id)
            if one.id < before_id and task_id in ("", one.task_id)
        ]
        return found[:limit]

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool, by: str) -> int:
        self._called("publish", topic, payload, qos, retain, by)
        return self.publish_from(topic, payload, client_id="$terminal", qos=qos, retain=retain)

    def stop_execution(self, execution: int, by: str) -> None:
        self._called("stop_execution", execution, by)

    def disconnect(self, client_id: str, by: str) -> None:
        self._called("disconnect", client_id, by)

    def end_session(self, client_id: str, by: str) -> int:
        self._called("end_session", client_id, by)
        return 3

    def pause_timer(self, name: str, paused: bool, by: str) -> None:
        self._called("pause_timer", name, paused, by)

    def fire_timer(self, name: str, by: str) -> None:
        self._called("fire_timer", name, by)

    def holds(self) -> Holds:
        return Holds(self.clock_ns(), tuple(self.held.values()))

    def hold(
        self, kind: str, name: str, until_ns: int | None, reason: str, drop: bool, by: str
    ) -> HoldState:
        self._called("hold", kind, name, until_ns, reason, drop, by)
        title = next((one.name for one in TASKS if one.id == name), "")
        found = HoldState(kind, name, until_ns, reason, by, self.clock_ns(), drop, title)
        self.held[kind, name] = found
        return found

    def release(self, kind: str, name: str, by: str) -> HoldState:
        self._called("release", kind, name, by)
        return self.held.pop((kind, name))

    def connect_bridge(self, name: str, by: str) -> None:
        self._called("connect_bridge", name, by)

    def acknowledge(self, by: str) -> Sequence[str]:
        self._called("acknowledge", by)
        return ["A loss."]

    def acknowledge_problem(
        self, kind: str, name: str, occurrence: str, note: str, by: str
    ) -> Acknowledgement:
        self._called("acknowledge_problem", kind, name, occurrence, note, by)
        present = next(
            one for one in problems(self.snapshot()) if (one.kind, one.name) == (kind, name)
        )
        made = Acknowledgement(
            kind, name, occurrence, by, self.clock_ns(), note, present.text, present.title
        )
        self.changes["acknowledged"] = (made, *self.snapshot().acknowledged)
        return made

    def unacknowledge_problem(self, kind: str, name: str, by: str) -> None:
        self._called("unacknowledge_problem", kind, name, by)
        self.changes["acknowledged"] = tuple(
            one for one in self.snapshot().acknowledged if (one.kind, one.name) != (kind, name)
        )

    def clear_retained(self, topic: str, by: str) -> None:
        self._called("clear_retained", topic, by)


def story(clock: Clock | None = None, *, rate: float = 0.0) -> FakeEngine:
    """An engine in the middle of an ordinary day: running, failed, retried, done."""
    clock = clock or Clock()
    engine = FakeEngine(clock, rate=0.0)
    engine.client_list = _clients(clock())

    def message(number: int, ago: float, **more: object) -> int:
        topic, payload, qos, retain, client = TEMPLATES[number]
        clock.go(-ago)
        seq = engine.publish_from(
            topic, payload, qos=qos, retain=retain, client_id=client, full_size=more.get("full")
        )
        clock.go(ago)
        return seq

    def ask(task: int, ago: float, client: str, state: ExecutionState, **more: object) -> int:
        clock.go(-ago)
        asked = TASKS[task]
        seq = engine.publish_from(
            "qliksense/start_task", asked.id.encode(), qos=1, client_id=client
        )
        label = str(more.pop("label", ""))
        engine.put(
            Execution(
                seq,
                asked.id,
                asked.name,
                state,
                Cause("message", seq, "qliksense/start_task", client, "qliksense/start_task"),
                clock(),
                usual_s=asked.last_duration_s,
                **more,
            ),
            label,
        )
        clock.go(ago)
        return seq

    now = clock()
    for _ in range(3):
        message(0, 130.0)
        message(1, 129.5)
    ask(
        0,
        128.0,
        "plc-01",
        ExecutionState.SUCCEEDED,
        started_ns=now - 127 * S,
        ended_ns=now - int(115.2 * S),
        attempts=1,
        execution_id="8f2c0000-0000-4000-8000-000000000001",
        label="11.8 s",
    )
    ask(
        3,
        60.0,
        "plc-02",
        ExecutionState.RETRYING,
        attempts=2,
        next_attempt_ns=now + 14 * S,
        reason="timeout after 30 s at qlik01.example.com:4242; it is tried again",
        label="2 tries",
    )
    message(2, 31.0)
    message(4, 20.5, full=512_000)
    ask(
        1,
        20.0,
        "plc-07",
        ExecutionState.RUNNING,
        started_ns=now - 19 * S,
        attempts=1,
        execution_id="8f2c0000-0000-4000-8000-000000000002",
        label="0:19",
        steps=(
            Step(now - 20 * S, "requested by plc-07"),
            Step(now - 19 * S, "POST /qrs/task/00000002/start/synchronous: 201 in 12 ms"),
        ),
    )
    message(3, 12.0)
    ask(
        2,
        8.0,
        "plc-02",
        ExecutionState.FAILED,
        started_ns=now - int(7.9 * S),
        ended_ns=now - int(4.5 * S),
        attempts=1,
        reason="The reload failed: table HR.Employees was not found\nCheck the connection HR.",
        log_tail=("10:21:07 Connecting to HR", "10:21:10 Error: table HR.Employees not found"),
        label="failed",
    )
    message(5, 4.0)
    message(6, 1.0)
    message(0, 0.2)
    engine.say(20, "broker", "listening on 127.0.0.1:1883")
    engine.say(20, "tasks", "Reload Sales done in 11.8 s (plc-01)")
    engine.say(30, "broker", "hmi-east: send queue 300, slow subscriber")
    engine.say(40, "tasks", "Reload HR failed: table HR.Employees was not found (plc-02)")
    engine.rate = rate
    engine.story_seq = engine.seq
    engine._produced_ns = clock()
    return engine


def press_hour(engine: FakeEngine) -> None:
    """An hour of a press: two numbers and a counter, with a stop in between."""
    now = engine.clock_ns()
    for minute in (*range(25), *range(32, 60)):
        payload = b'{"bar": %.1f, "oil": {"temp": %.2f}, "parts": %d, "ok": true}' % (
            180 + 25 * math.sin(minute / 6),
            61 + minute / 8,
            1_204_000 + 7 * minute,
        )
        for second in range(0, 60, 20):
            engine.publish_from("plant/press12/state", payload)
            at = now - (3600 - 60 * minute - second) * S
            engine.ring.append(replace(engine.ring.pop(), received_ns=at))


def earlier_runs(engine: FakeEngine) -> None:
    """Thirty hourly runs of the task that was asked for last, two of them failed."""
    last = max(engine.runs.values(), key=lambda one: one.id)
    for number in range(1, 31):
        bad = number in (7, 22)
        began = engine.clock_ns() - number * 3600 * S
        engine.put(
            replace(
                last,
                id=-number,
                state=ExecutionState.FAILED if bad else ExecutionState.SUCCEEDED,
                cause=Cause("timer", rule="hourly-hr"),
                requested_ns=began,
                started_ns=began,
                ended_ns=began + (2 + number * 7 % 11) * S,
                reason="timeout" if bad else "",
                log_tail=(),
            )
        )


def _clients(now: int) -> tuple[ClientState, ...]:
    return (
        ClientState(
            "plc-01", "10.0.4.11:50010", "3.1.1", True, now - 187_200 * S, "plc",
            "plain", (("plant/#", 0),), 210_000, 0,
        ),
        ClientState(
            "plc-07", "10.0.4.17:50122", "3.1.1", True, now - 11_520 * S, "plc",
            "plain", (("plant/line7/#", 1),), 208_000, 2,
        ),
        ClientState(
            "hmi-east", "10.0.9.3:61000", "5.0", True, now - 720 * S, "hmi",
            "tls", (("plant/#", 0), ("appliance/tasks/#", 1)), 4, 90_204, 311, 17,
        ),
        ClientState("cam1", "10.0.7.2:40000", "3.1.1", False, now - 4 * S, None, "plain", (), 9, 0, 9),
    )  # fmt: skip


def bridges(now: int) -> tuple[BridgeState, ...]:
    """One that works with a filter refused, one that waits for its broker."""
    return (
        BridgeState(
            "plant",
            "mqtt.example.com:8883",
            "5.0",
            Health("ok"),
            connected=True,
            since_ns=now - 11_520 * S,
            client_id="appliance-plant-0a1b2c",
            tls=True,
            messages_in=20_418,
            messages_out=311,
            repeats=3,
            unacknowledged=12,
            lag=7,
            last_error="the connection was lost",
            last_error_ns=now - 11_533 * S,
            subscriptions=(
                BridgeSubscriptionState("plant/+/state", 1, "", 20_104),
                BridgeSubscriptionState("$share/appliances/orders/#", 1, "", 314),
                BridgeSubscriptionState(
                    "secret/#",
                    None,
                    "not authorised: check `username` and `password`, and what the broker "
                    "permits this user and client id",
                ),
            ),
            publishes=("appliance/tasks/#", "hall/east/#"),
        ),
        BridgeState(
            "hq",
            "10.1.0.5:1883",
            "3.1.1",
            Health("warn", "nothing listens there: check host and port, and that the broker runs"),
            since_ns=now - 95 * S,
            next_attempt_ns=now + 7 * S,
            client_id="appliance-hq-0a1b2c",
            attempts=6,
            lag=1_204,
            last_error="nothing listens there: check host and port, and that the broker runs",
            last_error_ns=now - 8 * S,
            publishes=("appliance/#",),
        ),
    )


def main() -> None:
    from appliance.ui.session import run_ui
    from appliance.ui.settings import UiSettings

    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=5.0)
    parser.add_argument("--first", action="store_true")
    parser.add_argument("--bad", action="store_true")
    parser.add_argument("--bridges", action="store_true")
    parser.add_argument("--run-for", type=float, default=600.0)
    parser.add_argument("--remember", type=Path)
    parser.add_argument("--report", type=Path, help="a file for why the UI ended")
    parser.add_argument("--crash", action="store_true", help="one fault while drawing")
    parser.add_argument("--still", action="store_true", help="the clock stands still")
    parser.add_argument("--queue", type=int, help="writes that wait for a slow terminal at most")
    wanted = parser.parse_args()
    if wanted.queue:
        from textual.drivers import _writer_thread

        _writer_thread.MAX_QUEUED_WRITES = wanted.queue
    clock = Clock() if wanted.still else Clock(time.time_ns())
    engine = story(clock, rate=wanted.rate)
    if wanted.first:
        engine = FakeEngine(clock)
        engine.changes["first_run"] = True
    if not wanted.still:
        engine.clock_ns = time.time_ns
        engine.started_ns = time.time_ns() - 11_527 * S
        engine.changes["run_until_ns"] = time.time_ns() + int(wanted.run_for * S)
    if wanted.bridges:
        engine.changes["bridges"] = bridges(engine.clock_ns())
    if wanted.bad:
        engine.changes["qlik"] = QlikState(
            "client-managed", "qlik01", Health("bad", "403 for user INTERNAL\\sa_repository: check"
            " the user in [qlik]"), failed_24h=3,
        )  # fmt: skip
    if wanted.crash:
        good = engine.marks

        def fails_once(seqs: Sequence[int]) -> dict[int, Mark]:
            engine.marks = good  # type: ignore[method-assign]
            raise ZeroDivisionError("secret=hunter2")

        def break_it() -> None:
            engine.marks = fails_once  # type: ignore[method-assign]

        threading.Timer(1.5, break_it).start()
    limit = threading.Timer(wanted.run_for, engine.stop)
    limit.daemon = True
    limit.start()
    end = run_ui(engine, settings=UiSettings(remember=wanted.remember), clock_ns=engine.clock_ns)
    if wanted.report:
        wanted.report.write_text(end.value)
    else:
        print(f"UI ended: {end}")


if __name__ == "__main__":
    main()


def explanation(engine: FakeEngine, **more: object) -> Explanation:
    """A rule that asks for two tasks: one waits for quiet, the other is not allowed."""
    now = engine.clock_ns()
    allowed = ExplainedCheck("[allow]", ok=True, found="may be started")
    quiet = ExplainedCheck(
        "debounce", True, "5 s without a further message", "not over", waits=True,
        until_ns=now + 5 * S,
    )  # fmt: skip
    refused = "Task Reload HR may not be started: the [allow] table does not have it."
    starts = (
        ExplainedStart(
            "Reload Sales", "start", "sales", now + 5 * S, "Waits for quiet (debounce).",
            checks=(ExplainedCheck("task", True, "tasks with tag daily", "Reload Sales"), allowed, quiet),
        ),
        ExplainedStart(
            "Reload \x1b[31mHR", "nothing", "hr", reason=refused,
            checks=(ExplainedCheck("[allow]", False, "", "does not have it", refused),),
        ),
    )  # fmt: skip
    rule = ExplainedRule(
        "quality", "plant/+/done", "tasks with tag daily",
        (
            ExplainedCheck("topic", True, "plant/+/done", "plant/7/done"),
            ExplainedCheck("when", True, 'state = "done"', '"done"'),
        ),
        starts,
    )  # fmt: skip
    elsewhere = (ExplainedCheck("topic", False, "hall/#", "plant/7/done"),)
    other = ExplainedRule("hall", "hall/#", "task x", elsewhere)
    found = Explanation(
        "plant/7/done", now, checks=(ExplainedCheck("redelivery", True, found="new"),),
        rules=(rule,), others=(other,), others_count=1,
    )  # fmt: skip
    return msgspec.structs.replace(found, **more)
