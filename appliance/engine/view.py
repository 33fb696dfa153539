"""The engine as the terminal UI sees it: ``engine_api.Engine`` over a running appliance.

Every act of an operator is logged with the operator's name. It goes through the same commands and
rules as every other entrance. Not for: drawing anything, or deciding anything.
"""

from __future__ import annotations

import collections
import itertools
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from appliance import __version__
from appliance.bridge.bridges import Bridges
from appliance.broker.door import Door
from appliance.broker.server import MqttBroker
from appliance.broker.subscriptions import Retained
from appliance.config.tables import Config
from appliance.counters import ACTIVITY, Counter
from appliance.engine import run_limit, values
from appliance.engine.attention import Attention
from appliance.engine.bites import Bites
from appliance.engine.disk_floor import DiskFloor
from appliance.engine.live import LiveView
from appliance.engine.loop_lag import LoopLag
from appliance.engine.losses import Losses
from appliance.engine.memory_ceiling import MemoryCeiling
from appliance.engine_api import (
    Acknowledgement,
    AskedValues,
    ClientState,
    Engine,
    Explanation,
    Found,
    Holds,
    HoldState,
    ListenerState,
    LogLine,
    Mark,
    RecorderState,
    ServerTasks,
    Setup,
    Snapshot,
    TaskFreshness,
    TimerState,
    TopicState,
    Values,
)
from appliance.errors import ApplianceError, UsageError
from appliance.journal.indexer import Indexer
from appliance.journal.journal import Journal
from appliance.journal.search import History
from appliance.log.logs import Log
from appliance.message_filter import MessageFilter
from appliance.model import Execution, Message, Task
from appliance.mqtt.topics import reserved_problem, topic_problem
from appliance.recorders.recorders import Recorders
from appliance.recorders.uploads import Uploads
from appliance.tasks.engine import TaskEngine

logger = logging.getLogger("appliance.operator")

_SHOWN_EXECUTIONS = 200
_SHOWN_PAYLOAD = 500
"""Characters of a request that the log has."""
_CALL_S = 10.0


class ViewedAppliance(Protocol):
    """The parts of an appliance that the view reads or calls."""

    config: Config
    data_dir: Path
    clock_ns: Callable[[], int]
    started_ns: int
    stopping: threading.Event
    counters: collections.Counter[Counter]
    run_limit: run_limit.RunLimit | None
    log: Log | None
    live: LiveView
    loop_lag: LoopLag
    bites: Bites
    attention: Attention
    memory: MemoryCeiling
    disk: DiskFloor
    journal: Journal
    history: History
    index: Indexer
    losses: Losses
    recorders: Recorders
    uploads: Uploads
    tasks: TaskEngine
    door: Door
    broker: MqttBroker
    bridges: Bridges
    retained: Retained

    @property
    def is_first_run(self) -> bool:
        """Whether no client has published yet."""

    @property
    def users_known(self) -> int:
        """How many users the users file has."""

    def call(self, function: Callable[[], Any], timeout_s: float) -> Any:
        """Run a function on the engine's loop and return its result."""

    def port_states(self) -> tuple[ListenerState, ...]:
        """The HTTP ports."""

    def wait_settled(self, timeout_s: float) -> None:
        """Wait until everything that has entered so far is on disk."""

    def stop(self) -> None:
        """Begin the ordered stop."""


class View(Engine):
    """Read by the UI's thread ten times a second; see ``engine_api.Engine`` for each method."""

    def __init__(self, appliance: ViewedAppliance) -> None:
        self._appliance = appliance

    # --- at once ------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        appliance = self._appliance
        door = appliance.door
        counters = self.counters()
        rate_in, rate_out, history = appliance.live.rates()
        failing = appliance.tasks.failing()
        waiting_count, waiting = appliance.tasks.waiting_long()
        stale = appliance.tasks.stale()
        latency_buckets, latency_sum_s = appliance.tasks.latencies()
        return Snapshot(
            taken_ns=appliance.clock_ns(),
            name=appliance.config.service.name,
            version=__version__,
            started_ns=appliance.started_ns,
            listeners=appliance.broker.listener_states(),
            http=appliance.port_states(),
            bridges=appliance.bridges.states(),
            clients_connected=appliance.broker.clients_connected,
            journal=appliance.journal.stats(),
            qlik=appliance.tasks.qlik_state(),
            recorders=self._recorders(),
            rules=appliance.tasks.rules(),
            timers=self._timers(),
            executions=appliance.tasks.executions(_SHOWN_EXECUTIONS),
            messages_in=door.messages_in,
            messages_out=door.messages_out,
            bytes_in=door.bytes_in,
            rate_in=rate_in,
            rate_out=rate_out,
            rate_history=history,
            counters=_named(counters, counters.keys() - ACTIVITY),
            activity=_named(counters, counters.keys() & ACTIVITY),
            run_until_ns=None if appliance.run_limit is None else appliance.run_limit.until_ns,
            stopping=appliance.stopping.is_set(),
            config_path=appliance.config.file,
            data_dir=str(appliance.data_dir),
            first_run=appliance.is_first_run,
            loop_lag_ms=appliance.loop_lag.p99_ms,
            topics_known=appliance.live.known_topics,
            topics_forgotten=appliance.live.forgotten_topics,
            memory_bytes=appliance.memory.bytes,
            memory=appliance.memory.health,
            disk=appliance.disk.health,
            failing=failing.named,
            failing_count=failing.total,
            failing_acknowledged=failing.acknowledged,
            acknowledged=appliance.tasks.acknowledgements.listed(),
            bites=appliance.bites.states(),
            waiting_long=waiting,
            waiting_long_count=waiting_count,
            users=appliance.users_known,
            setup=self._setup() if appliance.is_first_run else None,
            data=appliance.losses.health,
            waits=appliance.tasks.waits(),
            holds=appliance.tasks.holding.holds().holds,
            stale=stale.tasks,
            stale_count=stale.stale,
            late_count=stale.late,
            freshness_since_ns=appliance.tasks.freshness_since_ns,
            latency_buckets=latency_buckets,
            latency_sum_s=latency_sum_s,
        )

    def _recorders(self) -> tuple[RecorderState, ...]:
        uploads = self._appliance.uploads.states()
        return tuple(
            msgspec.structs.replace(one, upload=uploads[one.path]) if one.path in uploads else one
            for one in self._appliance.recorders.states()
        )

    def _timers(self) -> tuple[TimerState, ...]:
        timers = self._appliance.tasks.timers()
        limit = self._appliance.run_limit
        return timers if limit is None else (limit.state(), *timers)

    def _setup(self) -> Setup:
        config = self._appliance.config
        qlik, users_file = config.qlik, config.access.users_file
        return Setup(
            users_file=str(users_file or ""),
            users=self._appliance.users_known,
            qlik_edition="" if qlik is None else qlik.edition,
            qlik_url=str(qlik.url or "") if qlik is not None else "",
            start_topic=next((str(one.topic) for one in config.trigger), ""),
            recorded_topic=next((str(one.topic_filter) for one in config.recorder), ""),
        )

    def counters(self) -> dict[Counter, int]:
        """How often what happened, since the start."""
        appliance = self._appliance
        return {
            **appliance.counters,
            **appliance.tasks.counters(),
            **appliance.journal.counters(),
            **appliance.index.counters(),
            **appliance.recorders.counters(),
            **appliance.uploads.counters(),
            Counter.TOPICS_FORGOTTEN: appliance.live.forgotten_topics,
            Counter.TOPIC_VALUES_FORGOTTEN: appliance.live.forgotten_values,
        }

    def live(self, after_seq: int, limit: int) -> Sequence[Message]:
        return self._appliance.live.newest(after_seq, limit)

    def full_size(self, seq: int) -> int | None:
        return self._appliance.live.full_size(seq)

    def marks(self, seqs: Sequence[int]) -> dict[int, Mark]:
        return self._appliance.tasks.marks(seqs)

    def clients(self) -> tuple[ClientState, ...]:
        return self._appliance.broker.clients()

    def log(self, after_number: int, limit: int) -> Sequence[LogLine]:
        log = self._appliance.log
        return () if log is None else log.lines(after_number, limit)

    def execution(self, execution: int) -> Execution | None:
        return self._appliance.tasks.execution(execution)

    def topics(self, limit: int) -> Sequence[TopicState]:
        retained = self._appliance.retained
        counted = self._appliance.live.topics(limit, lambda topic: retained.get(topic) is not None)
        if len(counted) >= limit:
            return counted
        known = {one.topic for one in counted}
        silent = [topic for topic in retained.topics() if topic not in known]
        # Of an earlier run, or forgotten since: subscribers still get them, so they are listed.
        for topic in silent[: limit - len(counted)]:
            if (kept := retained.get(topic)) is not None:
                counted.append(
                    TopicState(
                        topic,
                        0,
                        0.0,
                        kept.received_ns,
                        kept.seq,
                        retained=True,
                        size=len(kept.payload),
                    )
                )
        return counted

    # --- may wait -----------------------------------------------------------------------------

    def last_values(self, topics: Sequence[str]) -> dict[str, Message]:
        found = self._appliance.live.last_values(topics)
        for topic in topics:
            if topic not in found and (kept := self._appliance.retained.get(topic)) is not None:
                found[topic] = kept
        return found

    def message(self, seq: int) -> Message | None:
        return self._appliance.journal.get(seq)

    def explain(self, seq: int) -> Explanation:
        return self._appliance.tasks.explain(self._kept(seq))

    def explain_message(
        self, topic: str, payload: bytes, retain: bool, client_id: str
    ) -> Explanation:
        appliance = self._appliance
        name = appliance.config.service.name
        if problem := topic_problem(topic):
            raise UsageError(f"Topic {topic!r}: {problem}.")
        if problem := reserved_problem(topic, name):
            if client_id:
                raise UsageError(f"Topic {topic!r}: {problem}.")
            client_id = f"${name}"  # nobody else publishes there
        self._check_size(payload)
        message = Message(
            0, appliance.clock_ns(), topic, payload, retain=retain, client_id=client_id
        )
        return appliance.tasks.explain(message)

    def _kept(self, seq: int) -> Message:
        """A message of the journal. Raises ``ApplianceError`` for one that it has no more."""
        message = self._appliance.journal.get(seq)
        if message is None:
            raise ApplianceError(f"Message {seq} is not in the journal any more.")
        return message

    def history(self, before_seq: int, limit: int) -> Sequence[Message]:
        found: list[Message] = []
        for chunk in self._appliance.journal.back_from(before_seq):
            found.extend(itertools.islice(chunk, limit - len(found)))
            if len(found) >= limit:
                break
        found.reverse()
        return found

    def search(self, asked: MessageFilter, before_seq: int, limit: int) -> Found:
        marked = self._appliance.tasks.marked() if asked.with_outcome else None
        return self._appliance.history.step(asked, before_seq, limit, marked)

    def values(self, asked: AskedValues, before_seq: int) -> Values:
        values.check(asked)
        first_seq = self._appliance.journal.seq_at(asked.since_ns)
        return values.step(self._appliance.history, asked, before_seq, first_seq)

    def seq_at(self, time_ns: int) -> int:
        return self._appliance.journal.seq_at(time_ns)

    def retained(self, topic: str) -> Message | None:
        return self._appliance.retained.get(topic)

    def freshness(self) -> Sequence[TaskFreshness]:
        return self._appliance.tasks.freshness()

    def freshness_day(self, task_id: str) -> Sequence[tuple[int, float]]:
        return self._appliance.tasks.freshness_day(task_id)

    def executions(self, before_id: int, limit: int, task_id: str = "") -> Sequence[Execution]:
        return self._appliance.tasks.history(before_id, limit, task_id)

    def tasks(self) -> Sequence[Task]:
        return self._appliance.tasks.tasks()

    def server_tasks(self) -> ServerTasks:
        return self._appliance.tasks.server_tasks()

    def start_task(self, task_id: str, by: str) -> int:
        logger.info("%s asks to start task %s", by, task_id)
        return self._appliance.tasks.start_task(task_id, by)

    def request_starts(self, payload: str, by: str) -> Sequence[int]:
        logger.info("%s asks to start %s", by, payload[:_SHOWN_PAYLOAD])
        return self._appliance.tasks.request_starts(payload.encode(), by)

    def find_executions(self, numbers: Sequence[int]) -> Sequence[Execution]:
        tasks = self._appliance.tasks
        found = []
        for number in numbers:
            execution = tasks.execution(number) or next(iter(tasks.history(number + 1, 1)), None)
            if execution is not None and execution.id == number:
                found.append(execution)
        return found

    def repeat(self, seq: int, by: str) -> int:
        message = self._kept(seq)
        logger.info("%s asks to repeat what message %d on %s started", by, seq, message.topic)
        return self._appliance.tasks.repeat(message, by)

    def stop_execution(self, execution: int, by: str) -> None:
        logger.info("%s asks to stop execution %d", by, execution)
        self._appliance.tasks.stop_execution(execution, by)

    def pause_timer(self, name: str, paused: bool, by: str) -> None:
        logger.info("%s %s timer %s", by, "pauses" if paused else "continues", name)
        limit = self._appliance.run_limit
        if limit is not None and name == run_limit.NAME:
            limit.pause(paused)
        else:
            self._appliance.tasks.pause_timer(name, paused, by)

    def fire_timer(self, name: str, by: str) -> None:
        logger.info("%s fires timer %s", by, name)
        limit = self._appliance.run_limit
        if limit is not None and name == run_limit.NAME:
            limit.fire()
        else:
            self._appliance.tasks.fire_timer(name, by)

    def holds(self) -> Holds:
        return self._appliance.tasks.holding.holds()

    def hold(  # noqa: PLR0917 - what an operator says, in one
        self, kind: str, name: str, until_ns: int | None, reason: str, drop: bool, by: str
    ) -> HoldState:
        try:
            return self._appliance.tasks.holding.hold(kind, name, until_ns, reason, drop, by)
        finally:
            # Also if it counts and could not be noted.
            if kind == "client" and self._appliance.tasks.holding.held_client(name) is not None:
                broker = self._appliance.broker
                self._appliance.call(lambda: broker.disconnect(name), _CALL_S)

    def release(self, kind: str, name: str, by: str) -> HoldState:
        return self._appliance.tasks.holding.release(kind, name, by)

    def connect_bridge(self, name: str, by: str) -> None:
        bridges = self._appliance.bridges
        if not self._appliance.call(lambda: bridges.connect_now(name), _CALL_S):
            raise ApplianceError(f"The configuration has no bridge {name}.")
        logger.info("%s lets bridge %s connect now", by, name)

    def check_server(self, by: str) -> None:
        self._appliance.tasks.check_server(by)

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool, by: str) -> int:
        if problem := topic_problem(topic):
            raise UsageError(f"Topic {topic!r}: {problem}.")
        if problem := reserved_problem(topic, self._appliance.config.service.name):
            raise UsageError(f"Topic {topic!r}: {problem}.")
        self._check_size(payload)
        logger.info("%s publishes %d bytes to %s", by, len(payload), topic)
        door = self._appliance.door
        return int(
            self._appliance.call(
                lambda: door.publish(topic, payload, qos=qos, retain=retain), _CALL_S
            )
        )

    def _check_size(self, payload: bytes) -> None:
        limit = int(self._appliance.config.limits.max_packet_size)
        if len(payload) > limit:
            raise UsageError(f"The payload has {len(payload)} bytes, at most {limit} are allowed.")

    def clear_retained(self, topic: str, by: str) -> None:
        name = self._appliance.config.service.name
        problem = reserved_problem(topic, name)
        # The last outcomes of tasks that the server has no more may be cleared.
        if problem and not topic.startswith(f"{name}/tasks/"):
            raise UsageError(f"Topic {topic!r}: {problem}.")
        logger.info("%s clears the retained message of %s", by, topic)
        door = self._appliance.door
        self._appliance.call(lambda: door.publish(topic, b"", retain=True), _CALL_S)

    def acknowledge(self, by: str, note: str = "") -> Sequence[str]:
        losses = self._appliance.attention.acknowledge_losses(note, by)
        of_bridges = self._appliance.call(self._appliance.bridges.acknowledge, _CALL_S)
        for loss in (*losses, *of_bridges):
            logger.warning("%s acknowledges: %s", by, loss)
        return [*losses, *of_bridges]

    def acknowledge_problem(
        self, kind: str, name: str, occurrence: str, note: str, by: str
    ) -> Acknowledgement:
        return self._appliance.attention.acknowledge(kind, name, occurrence, note, by)

    def unacknowledge_problem(self, kind: str, name: str, by: str) -> None:
        self._appliance.attention.take_back(kind, name, by)

    def disconnect(self, client_id: str, by: str) -> None:
        logger.info("%s disconnects client %s", by, client_id)
        broker = self._appliance.broker
        if not self._appliance.call(lambda: broker.disconnect(client_id), _CALL_S):
            raise ApplianceError(f"Client {client_id} is not connected.")

    def end_session(self, client_id: str, by: str) -> int:
        broker = self._appliance.broker
        dropped: int | None = self._appliance.call(lambda: broker.end_session(client_id), _CALL_S)
        if dropped is None:
            raise ApplianceError(f"Client {client_id} has no session.")
        logger.warning(
            "%s ends the session of client %s; messages dropped: %d", by, client_id, dropped
        )
        # After a crash it must not be there again.
        self._appliance.wait_settled(_CALL_S)
        return dropped

    def stop(self, by: str = "operator") -> None:
        logger.info("%s asks to stop the appliance", by)
        self._appliance.stop()


def _named(
    counters: Mapping[Counter, int], wanted: Iterable[Counter]
) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((one.metric, counters[one]) for one in wanted if counters[one]))
