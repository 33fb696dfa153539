"""What each request of an attached terminal asks of the engine. Blocks: for worker threads.

Not for: who may ask for what (server.py), how an act is carried out (state.Engine).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from appliance.engine_api import Engine
from appliance.errors import ApplianceError
from appliance.model import Message
from appliance.remote import protocol

_MOST_MESSAGES = 2000
_MOST_EXECUTIONS = 500
_MOST_SEQS = 5000
_HISTORY_BYTES = 512 * 1024
_OVERHEAD = 128

_Do = Callable[[Engine, Any, str], object]


def _message(engine: Engine, ask: protocol.GetMessage, _by: str) -> Message | None:
    message = engine.message(ask.seq)
    if message is not None and len(message.payload) > protocol.LARGEST_ANSWER // 2:
        raise ApplianceError(
            f"The payload of message {ask.seq} has {len(message.payload)} bytes, more than is sent "
            "to an attached terminal. On the appliance's machine, appliance export has it whole."
        )
    return message


def _retained(engine: Engine, ask: protocol.GetRetained, _by: str) -> Message | None:
    message = engine.retained(ask.topic)
    if message is not None and len(message.payload) > protocol.SHOWN_BYTES:
        return msgspec.structs.replace(message, payload=message.payload[: protocol.SHOWN_BYTES])
    return message


def _history(engine: Engine, ask: protocol.GetHistory, _by: str) -> Sequence[Message]:
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


_DO: dict[type[protocol.Ask], _Do] = {
    protocol.GetMessage: _message,
    protocol.GetTasks: lambda engine, _ask, _by: engine.tasks(),
    protocol.GetHistory: _history,
    protocol.GetSeqAt: lambda engine, ask, _by: engine.seq_at(ask.time_ns),
    protocol.GetRetained: _retained,
    protocol.GetExecutions: lambda engine, ask, _by: engine.executions(
        ask.before_id, min(ask.limit, _MOST_EXECUTIONS), ask.task_id
    ),
    protocol.GetMarks: lambda engine, ask, _by: engine.marks(ask.seqs[:_MOST_SEQS]),
    protocol.StartTask: lambda engine, ask, by: engine.start_task(ask.task_id, by),
    protocol.Repeat: lambda engine, ask, by: engine.repeat(ask.seq, by),
    protocol.StopExecution: lambda engine, ask, by: engine.stop_execution(ask.execution, by),
    protocol.Publish: lambda engine, ask, by: engine.publish(
        ask.topic, ask.payload, ask.qos, ask.retain, by
    ),
    protocol.ClearRetained: lambda engine, ask, by: engine.clear_retained(ask.topic, by),
    protocol.Disconnect: lambda engine, ask, by: engine.disconnect(ask.client_id, by),
    protocol.PauseTimer: lambda engine, ask, by: engine.pause_timer(ask.name, ask.paused, by),
    protocol.FireTimer: lambda engine, ask, by: engine.fire_timer(ask.name, by),
    protocol.StopAppliance: lambda engine, _ask, by: engine.stop(by),
}


def carry_out(engine: Engine, ask: protocol.Ask, by: str) -> object:
    """Do what a request asks for and return its result.

    Raises:
        ApplianceError: the engine refuses, or can't.
    """
    if isinstance(ask, protocol.Publish) and ask.qos not in (0, 1, 2):
        raise ApplianceError(f"QoS {ask.qos}: there are 0, 1 and 2.")
    return _DO[type(ask)](engine, ask, by)
