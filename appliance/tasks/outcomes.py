"""What is published about executions: which topics, and the JSON on them (docs/triggers.md).

Not for: publishing (engine.py hands it to the broker) or keeping it until then (store.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from appliance.model import Cause, Execution, ExecutionState, Message, bridge_of, sender
from appliance.mqtt.topics import topic_problem
from appliance.tasks.payloads import Rejection
from appliance.tasks.records import Record, Reply
from appliance.tasks.store import Publication

_log = logging.getLogger(__name__)
_NS = 1_000_000_000


class _Ended(msgspec.Struct):
    ended: datetime | None = None


class Outcomes:
    """Makes publications of executions.

    ``concerns`` says whether a trigger listens on a topic; ``answer_topic`` under which topic the
    sender of a message gets what is meant for its response topic, ``None`` if it may not have it.
    """

    def __init__(
        self,
        service_name: str,
        concerns: Callable[[str], bool],
        answer_topic: Callable[[Message, str], str | None] = lambda _message, topic: topic,
    ) -> None:
        self._own = f"{service_name}/"
        self._prefix = f"{service_name}/tasks/"
        self.forms: Callable[[Execution], list[Publication]] = lambda _: []
        """Makes the further publications of an outcome (outcome_forms.py)."""
        self._concerns = concerns
        self._answer_topic = answer_topic

    def is_about(self, topic: str, task: str) -> bool:
        """Whether a topic is one on which this task's outcomes are published."""
        return topic.startswith(f"{self._prefix}{task}/")

    def ended_ns(self, message: Message) -> int | None:
        """When the run ended whose outcome a message is, by the server's clock.

        ``None`` if it is no outcome, or does not say.
        """
        if not message.topic.startswith(self._prefix):
            return None
        try:
            ended = msgspec.json.decode(message.payload, type=_Ended).ended
            return None if ended is None else round(ended.timestamp() * _NS)
        except (msgspec.MsgspecError, ValueError, OverflowError):
            return None

    def of(self, record: Record, execution: Execution) -> list[Publication]:
        """Publications of a state change: on the task's topics and, at the end, to the senders."""
        _log_change(execution)
        payload = msgspec.json.encode(describe(execution))
        publications: list[Publication] = []
        task = execution.task_id
        amended = _is_amended(execution)
        if execution.state.is_final and not amended:
            # First: where the next one is in the journal, a restart takes all for published.
            publications += self.forms(execution)
        if task and not amended:
            publications.append(Publication(f"{self._prefix}{task}/execution", payload))
        if not execution.state.is_final:
            return publications
        if task and (execution.execution_id or execution.state != ExecutionState.SKIPPED):
            publications.append(Publication(f"{self._prefix}{task}/last", payload, retain=True))
        if not amended:
            publications.extend(
                Publication(reply.topic, payload, correlation=reply.correlation)
                for reply in record.reply_to
            )
        return publications

    def of_rejection(self, reply: Reply, cause: Cause, rejection: Rejection) -> Publication:
        """The answer to a message that started nothing."""
        state = ExecutionState.SKIPPED if rejection.harmless else ExecutionState.REJECTED
        answer = {
            "state": state.value,
            "reason": rejection.reason,
            "cause": _cause(cause),
        }
        return Publication(reply.topic, msgspec.json.encode(answer), correlation=reply.correlation)

    def reply_to(self, message: Message) -> Reply | None:
        """The response topic of a message, if it names one that may be used.

        A response topic on which a trigger listens gets no answer: the outcome names the task,
        so it would be read as the next request.
        """
        if message.properties is None:
            return None
        properties = message.properties.decoded()
        if not properties.response_topic:
            return None
        topic = properties.response_topic
        problem = topic_problem(topic)
        if problem is None and (found := self._answer_topic(message, topic)) is not None:
            topic = found
        elif problem is None:
            problem = (
                "no `publish` of its bridge leads to it"
                if bridge_of(message.client_id)
                else "its client may not subscribe to it"
            )
        if problem is None and topic.startswith("$"):
            problem = "topics that begin with $ are the broker's own"
        if problem is None and f"{topic}/".startswith(self._own):
            problem = "topics below the appliance's own name are its own"
        if problem is None and self._concerns(topic):
            problem = "a trigger listens on it"
        if problem is not None:
            _log.warning("Message %d: no answer to its response topic: %s", message.seq, problem)
            return None
        return Reply(topic, properties.correlation_data, message.seq)


def _is_amended(execution: Execution) -> bool:
    """Whether the outcome was told before, without what became of the script log."""
    return bool(execution.log_tail or execution.log_problem)


def _log_change(execution: Execution) -> None:
    """One line for each change, so that the log alone tells the whole story."""
    if _is_amended(execution):
        return
    state, cause = execution.state, execution.cause
    if state.is_bad or state is ExecutionState.RETRYING:
        level = logging.WARNING
    elif state.is_final or state is ExecutionState.RUNNING:
        level = logging.INFO
    else:
        level = logging.DEBUG
    if not _log.isEnabledFor(level):
        return
    text = f"{execution.task_name or execution.task_id or 'a task'}: {state.value}"
    if state.is_final and execution.started_ns is not None and execution.ended_ns is not None:
        text += f" after {max(execution.ended_ns - execution.started_ns, 0) / _NS:.1f} s"
    if execution.reason:
        text += f": {execution.reason}"
    if cause.seq:
        by = f"{sender(cause.client_id)} on {cause.topic}, message {cause.seq}"
    else:
        by = f"{cause.kind} {cause.rule}".rstrip()
    _log.log(level, "%s (execution %d, asked for by %s)", text, execution.id, by)


def describe(execution: Execution) -> dict[str, Any]:
    """An execution as the JSON on its topics has it."""
    began, ended = execution.started_ns, execution.ended_ns
    took = (ended - began) / _NS if began is not None and ended is not None else None
    described: dict[str, Any] = {
        "execution": execution.id,
        "taskId": execution.task_id,
        "taskName": execution.task_name,
        "state": execution.state.value,
        "executionId": execution.execution_id,
        "requested": time_text(execution.requested_ns),
        "started": time_text(began),
        "ended": time_text(ended),
        "durationSeconds": None if took is None else round(max(took, 0.0), 3),
        "attempts": execution.attempts,
        "merged": execution.merged,
        "reason": execution.reason,
        "cause": _cause(execution.cause),
        "node": execution.node,
        "queued": time_text(execution.queued_ns),
        "queuedSeconds": None if execution.queued_s is None else round(execution.queued_s, 3),
    }
    if execution.reload.partial:
        described["partial"] = True
    if execution.reload.variables:
        described["variables"] = dict(execution.reload.variables)
    if execution.details:
        described["details"] = [
            {"at": time_text(one.at_ns), "text": one.text} for one in execution.details
        ]
    if execution.log_tail:
        described["logTail"] = execution.log_tail
    if execution.log_file:
        described["logFile"] = execution.log_file
    if execution.log_problem:
        described["logProblem"] = execution.log_problem
    return described


def _cause(cause: Cause) -> dict[str, Any]:
    return {
        "kind": cause.kind,
        "topic": cause.topic,
        "seq": cause.seq,
        "client": cause.client_id,
        "rule": cause.rule,
    }


def time_text(at_ns: int | None) -> str | None:
    """ISO 8601 in UTC with milliseconds."""
    if at_ns is None:
        return None
    seconds, rest = divmod(at_ns, _NS)
    text = datetime.fromtimestamp(seconds, UTC).isoformat()  # faster than strftime
    return f"{text[:19]}.{rest // 1_000_000:03d}Z"
