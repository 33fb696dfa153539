"""What each request of an attached terminal asks of the engine. Blocks: for worker threads.

Not for: who may ask for what (desk.py), how an act is carried out (state.Engine).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from appliance.desk import wire
from appliance.errors import ApplianceError
from appliance.model import Message
from appliance.state import Engine

_MOST_MESSAGES = 2000
_MOST_EXECUTIONS = 500
_MOST_SEQS = 5000
_HISTORY_BYTES = 512 * 1024
_OVERHEAD = 128

_Do = Callable[[Engine, Any, str], object]


def _message(engine: Engine, ask: wire.GetMessage, _by: str) -> Message | None:
    message = engine.message(ask.seq)
    if message is not None and len(message.payload) > wire.LARGEST_ANSWER // 2:
        raise ApplianceError(
            f"The payload of message {ask.seq} has {len(message.payload)} bytes, more than is sent "
            "to an attached terminal. On the appliance's machine, appliance export has it whole."
        )
    return message


def _retained(engine: Engine, ask: wire.GetRetained, _by: str) -> Message | None:
    message = engine.retained(ask.topic)
    if message is not None and len(message.payload) > wire.SHOWN_BYTES:
        return msgspec.structs.replace(message, payload=message.payload[: wire.SHOWN_BYTES])
    return message


def _history(engine: Engine, ask: wire.GetHistory, _by: str) -> Sequence[Message]:
    """The newest messages that fit into one answer: the terminal asks on if it wants more."""
    found: list[Message] = []
    size = 0
    for message in reversed(engine.history(ask.before_seq, min(ask.limit, _MOST_MESSAGES))):
        size += len(message.payload) + len(message.topic) + _OVERHEAD
        if found and size > _HISTORY_BYTES:
            break
        found.append(message)
    found.reverse()
    return found


_DO: dict[type[wire.Ask], _Do] = {
    wire.GetMessage: _message,
    wire.GetTasks: lambda engine, _ask, _by: engine.tasks(),
    wire.GetHistory: _history,
    wire.GetSeqAt: lambda engine, ask, _by: engine.seq_at(ask.time_ns),
    wire.GetRetained: _retained,
    wire.GetExecutions: lambda engine, ask, _by: engine.executions(
        ask.before_id, min(ask.limit, _MOST_EXECUTIONS), ask.task_id
    ),
    wire.GetMarks: lambda engine, ask, _by: engine.marks(ask.seqs[:_MOST_SEQS]),
    wire.StartTask: lambda engine, ask, by: engine.start_task(ask.task_id, by),
    wire.Repeat: lambda engine, ask, by: engine.repeat(ask.seq, by),
    wire.StopExecution: lambda engine, ask, by: engine.stop_execution(ask.execution, by),
    wire.Publish: lambda engine, ask, by: engine.publish(
        ask.topic, ask.payload, ask.qos, ask.retain, by
    ),
    wire.ClearRetained: lambda engine, ask, by: engine.clear_retained(ask.topic, by),
    wire.Disconnect: lambda engine, ask, by: engine.disconnect(ask.client_id, by),
    wire.PauseTimer: lambda engine, ask, by: engine.pause_timer(ask.name, ask.paused, by),
    wire.FireTimer: lambda engine, ask, by: engine.fire_timer(ask.name, by),
    wire.StopAppliance: lambda engine, _ask, by: engine.stop(by),
}


def carry_out(engine: Engine, ask: wire.Ask, by: str) -> object:
    """Do what a request asks for and return its result.

    Raises:
        ApplianceError: the engine refuses, or can't.
    """
    if isinstance(ask, wire.Publish) and ask.qos not in (0, 1, 2):
        raise ApplianceError(f"QoS {ask.qos}: there are 0, 1 and 2.")
    return _DO[type(ask)](engine, ask, by)
