"""The ``engine_api.Engine`` of an attached terminal: reads the mirror, requests through the link.

Not for: permissions; the appliance checks each request.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from appliance.engine_api import (
    Acknowledgement,
    AskedValues,
    ClientState,
    Engine,
    Explanation,
    Found,
    Health,
    Holds,
    HoldState,
    LogLine,
    Mark,
    ServerTasks,
    Snapshot,
    TaskFreshness,
    TopicState,
    Values,
)
from appliance.message_filter import MessageFilter
from appliance.model import Execution, Message, Task, decode_hook
from appliance.mqtt.client import Target
from appliance.remote import protocol
from appliance.remote.link import Link
from appliance.remote.mirror import Mirror

_OPEN_S = 10.0
_SILENT_S = 3.0
"""Frames come ten times a second. After so many seconds without one, the operator is told."""
_ATTACH_AGAIN_S = 6.0
"""After so many seconds the terminal attaches again: a broker may drop messages of QoS 0."""


def _decoder(kind: Any) -> Callable[[bytes], Any]:
    return msgspec.msgpack.Decoder(kind, dec_hook=decode_hook).decode


_MESSAGE: Callable[[bytes], Message | None] = _decoder(Message | None)
_MESSAGES: Callable[[bytes], list[Message]] = _decoder(list[Message])
_FOUND: Callable[[bytes], Found] = _decoder(Found)
_TASKS: Callable[[bytes], list[Task]] = _decoder(list[Task])
_SERVER_TASKS: Callable[[bytes], ServerTasks] = _decoder(ServerTasks)
_EXECUTIONS: Callable[[bytes], list[Execution]] = _decoder(list[Execution])
_MARKS: Callable[[bytes], dict[int, Mark]] = _decoder(dict[int, Mark])
_VALUES: Callable[[bytes], dict[str, Message]] = _decoder(dict[str, Message])
_EXPLANATION: Callable[[bytes], Explanation | list[str]] = _decoder(Explanation | list[str])
_WOULD: Callable[[bytes], Explanation] = _decoder(Explanation)
_READ_VALUES: Callable[[bytes], Values] = _decoder(Values)
_NUMBER: Callable[[bytes], int] = _decoder(int)
_NUMBERS: Callable[[bytes], list[int]] = _decoder(list[int])
_HOLD: Callable[[bytes], HoldState] = _decoder(HoldState)
_HOLDS: Callable[[bytes], Holds] = _decoder(Holds)
_FRESHNESS: Callable[[bytes], list[TaskFreshness]] = _decoder(list[TaskFreshness])
_SLOTS: Callable[[bytes], list[tuple[int, float]]] = _decoder(list[tuple[int, float]])
_ACKNOWLEDGEMENT: Callable[[bytes], Acknowledgement] = _decoder(Acknowledgement)
_TEXTS: Callable[[bytes], list[str]] = _decoder(list[str])


class AttachedEngine(Engine):
    """See ``engine_api.Engine`` for each method. Call ``open`` first and ``close`` at the end.

    The argument ``by`` of the methods is not sent: the appliance uses the name of the signed-in
    user.
    """

    is_remote = True

    def __init__(self, target: Target) -> None:
        self._target = target
        self._mirror = Mirror(time.monotonic_ns)
        self._link = Link(target, self._mirror)
        self._tried_ns = 0

    def open(self, timeout_s: float = _OPEN_S) -> None:
        """Attach; returns when the first state has arrived.

        Raises:
            NoPermissionError: the user may not attach.
            UnavailableError: the appliance is out of reach, or another program answers.
        """
        self._link.open(timeout_s)

    def close(self) -> None:
        """Detach; the appliance goes on."""
        self._link.close()

    def clock_ns(self) -> int:
        """The time by the appliance's clock, in nanoseconds since the epoch."""
        return self._mirror.now_ns()

    @property
    def role(self) -> str:
        """``"operator"`` or ``"viewer"``."""
        return self._link.role

    # --- at once ------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        # A stopping appliance may start again soon, so the terminal waits for it.
        return self._mirror.snapshot(
            link=self._health(),
            stopping=False,
            user=self._target.username or "",
            role=self.role or "viewer",
        )

    def _health(self) -> Health:
        trouble = self._link.trouble
        if trouble:
            return Health("bad", trouble)
        now_ns = time.monotonic_ns()
        silent_s = (now_ns - self._mirror.heard_ns) / 1e9
        if silent_s > _ATTACH_AGAIN_S and now_ns - self._tried_ns > _ATTACH_AGAIN_S * 1e9:
            self._tried_ns = now_ns
            self._link.attach_again()
        if silent_s > _SILENT_S:
            return Health("warn", f"nothing heard for {silent_s:.0f} s")
        return Health("ok", f"{self._target.shown} as {self.role or 'viewer'}")

    def live(self, after_seq: int, limit: int) -> Sequence[Message]:
        return self._mirror.live(after_seq, limit)

    def full_size(self, seq: int) -> int | None:
        return self._mirror.full_size(seq)

    def marks(self, seqs: Sequence[int]) -> dict[int, Mark]:
        return self._mirror.marks(seqs)

    def clients(self) -> tuple[ClientState, ...]:
        return self._mirror.clients()

    def log(self, after_number: int, limit: int) -> Sequence[LogLine]:
        return self._mirror.log(after_number, limit)

    def execution(self, execution: int) -> Execution | None:
        return self._mirror.execution(execution)

    def topics(self, limit: int) -> Sequence[TopicState]:
        return self._mirror.topics(limit)

    # --- may wait -----------------------------------------------------------------------------

    def message(self, seq: int) -> Message | None:
        return self._link.request(protocol.GetMessage(seq), _MESSAGE)

    def history(self, before_seq: int, limit: int) -> Sequence[Message]:
        found = self._link.request(protocol.GetHistory(before_seq, limit), _MESSAGES)
        self._know_marks(found)
        return found

    def _know_marks(self, messages: Sequence[Message]) -> None:
        """Have the marks of messages that are too old for the frames."""
        known = self._mirror.marks([message.seq for message in messages])
        unknown = tuple(message.seq for message in messages if message.seq not in known)
        if unknown:
            self._mirror.add_marks(self._link.request(protocol.GetMarks(unknown), _MARKS))

    def search(self, asked: MessageFilter, before_seq: int, limit: int) -> Found:
        found = self._link.request(protocol.Search(asked, before_seq, limit), _FOUND)
        self._know_marks(found.messages)
        return found

    def values(self, asked: AskedValues, before_seq: int) -> Values:
        return self._link.request(protocol.GetValues(asked, before_seq), _READ_VALUES)

    def seq_at(self, time_ns: int) -> int:
        return self._link.request(protocol.GetSeqAt(time_ns), _NUMBER)

    def retained(self, topic: str) -> Message | None:
        return self._link.request(protocol.GetRetained(topic), _MESSAGE)

    def last_values(self, topics: Sequence[str]) -> dict[str, Message]:
        return self._link.request(protocol.GetLastValues(tuple(topics)), _VALUES)

    def executions(self, before_id: int, limit: int, task_id: str = "") -> Sequence[Execution]:
        found = self._link.request(protocol.GetExecutions(before_id, limit, task_id), _EXECUTIONS)
        self._mirror.add_executions(found)
        return found

    def tasks(self) -> Sequence[Task]:
        return self._link.request(protocol.GetTasks(), _TASKS)

    def freshness(self) -> Sequence[TaskFreshness]:
        return self._link.request(protocol.GetFreshness(), _FRESHNESS)

    def freshness_day(self, task_id: str) -> Sequence[tuple[int, float]]:
        return self._link.request(protocol.GetFreshnessDay(task_id), _SLOTS)

    def explain(self, seq: int) -> Explanation:
        found = self._link.request(protocol.Explain(seq, is_whole=True), _EXPLANATION)
        if isinstance(found, Explanation):
            return found
        # An older appliance gives the reasons alone.
        return Explanation("", seq=seq, reasons=tuple(found), is_whole=False)

    def explain_message(
        self, topic: str, payload: bytes, retain: bool, client_id: str
    ) -> Explanation:
        return self._link.request(
            protocol.ExplainMessage(topic, payload, retain, client_id), _WOULD
        )

    def holds(self) -> Holds:
        return self._link.request(protocol.GetHolds(), _HOLDS)

    def server_tasks(self) -> ServerTasks:
        part = self._link.request(protocol.GetServerTasks(), _SERVER_TASKS)
        # A task that moves in the list while its parts come is taken once.
        tasks = {one.task.id: one for one in part.tasks}
        first = len(part.tasks)
        while part.tasks and first < part.total:
            part = self._link.request(protocol.GetServerTasks(first), _SERVER_TASKS)
            tasks |= {one.task.id: one for one in part.tasks}
            first += len(part.tasks)
        return msgspec.structs.replace(part, tasks=tuple(tasks.values()), total=len(tasks))

    # --- actions: for operators ----------------------------------------------------------------

    def start_task(self, task_id: str, by: str) -> int:  # noqa: ARG002 - the appliance knows the user
        return self._link.request(protocol.StartTask(task_id), _NUMBER)

    def request_starts(self, payload: str, by: str) -> Sequence[int]:  # noqa: ARG002 - as above
        return self._link.request(protocol.RequestStarts(payload), _NUMBERS)

    def repeat(self, seq: int, by: str) -> int:  # noqa: ARG002 - the appliance knows the user
        return self._link.request(protocol.Repeat(seq), _NUMBER)

    def stop_execution(self, execution: int, by: str) -> None:  # noqa: ARG002 - as above
        self._link.request(protocol.StopExecution(execution))

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool, by: str) -> int:  # noqa: ARG002 - as above
        return self._link.request(protocol.Publish(topic, payload, qos, retain), _NUMBER)

    def clear_retained(self, topic: str, by: str) -> None:  # noqa: ARG002 - as above
        self._link.request(protocol.ClearRetained(topic))

    def acknowledge(self, by: str) -> Sequence[str]:  # noqa: ARG002 - as above
        return self._link.request(protocol.Acknowledge(), _TEXTS)

    def acknowledge_problem(
        self,
        kind: str,
        name: str,
        occurrence: str,
        note: str,
        by: str,  # noqa: ARG002 - as above
    ) -> Acknowledgement:
        asked = protocol.AcknowledgeProblem(kind, name, occurrence, note)
        return self._link.request(asked, _ACKNOWLEDGEMENT)

    def unacknowledge_problem(self, kind: str, name: str, by: str) -> None:  # noqa: ARG002 - as above
        self._link.request(protocol.UnacknowledgeProblem(kind, name))

    def disconnect(self, client_id: str, by: str) -> None:  # noqa: ARG002 - as above
        self._link.request(protocol.Disconnect(client_id))

    def end_session(self, client_id: str, by: str) -> int:  # noqa: ARG002 - as above
        return self._link.request(protocol.EndSession(client_id), _NUMBER)

    def pause_timer(self, name: str, paused: bool, by: str) -> None:  # noqa: ARG002 - as above
        self._link.request(protocol.PauseTimer(name, paused))

    def fire_timer(self, name: str, by: str) -> None:  # noqa: ARG002 - as above
        self._link.request(protocol.FireTimer(name))

    def hold(  # noqa: PLR0917 - as the engine has it
        self,
        kind: str,
        name: str,
        until_ns: int | None,
        reason: str,
        drop: bool,
        by: str,  # noqa: ARG002 - as above
    ) -> HoldState:
        return self._link.request(protocol.Hold(kind, name, until_ns, reason, drop), _HOLD)

    def release(self, kind: str, name: str, by: str) -> HoldState:  # noqa: ARG002 - as above
        return self._link.request(protocol.Release(kind, name), _HOLD)

    def connect_bridge(self, name: str, by: str) -> None:  # noqa: ARG002 - as above
        self._link.request(protocol.ConnectBridge(name))

    def check_server(self, by: str) -> None:  # noqa: ARG002 - as above
        self._link.request(protocol.CheckServer())

    def stop(self, by: str = "operator") -> None:  # noqa: ARG002 - as above
        self._link.request(protocol.StopAppliance())
