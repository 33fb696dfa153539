"""Calls the engine for each operation of an attached terminal. Blocks: for worker threads.

Not for: permissions (server.py), how an action is carried out (engine_api.Engine).
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


def _message(engine: Engine, operation: protocol.GetMessage, _by: str) -> Message | None:
    message = engine.message(operation.seq)
    if message is not None and len(message.payload) > protocol.LARGEST_ANSWER // 2:
        raise ApplianceError(
            f"The payload of message {operation.seq} has {len(message.payload)} bytes, "
            "more than is sent to an attached terminal. appliance export on the appliance's "
            "machine has it whole."
        )
    return message


def _retained(engine: Engine, operation: protocol.GetRetained, _by: str) -> Message | None:
    message = engine.retained(operation.topic)
    if message is not None and len(message.payload) > protocol.SHOWN_BYTES:
        return msgspec.structs.replace(message, payload=message.payload[: protocol.SHOWN_BYTES])
    return message


def _history(engine: Engine, operation: protocol.GetHistory, _by: str) -> Sequence[Message]:
    """The newest messages that fit into one answer. The terminal can request older ones."""
    found: list[Message] = []
    size = 0
    for message in reversed(
        engine.history(operation.before_seq, min(operation.limit, _MOST_MESSAGES))
    ):
        size += len(message.payload) + len(message.topic) + _OVERHEAD
        if found and size > _HISTORY_BYTES:
            break
        found.append(message)
    found.reverse()
    return found


_DO: dict[type[protocol.Operation], _Do] = {
    protocol.GetMessage: _message,
    protocol.GetTasks: lambda engine, _operation, _by: engine.tasks(),
    protocol.GetHistory: _history,
    protocol.GetSeqAt: lambda engine, operation, _by: engine.seq_at(operation.time_ns),
    protocol.GetRetained: _retained,
    protocol.GetExecutions: lambda engine, operation, _by: engine.executions(
        operation.before_id, min(operation.limit, _MOST_EXECUTIONS), operation.task_id
    ),
    protocol.GetMarks: lambda engine, operation, _by: engine.marks(operation.seqs[:_MOST_SEQS]),
    protocol.StartTask: lambda engine, operation, by: engine.start_task(operation.task_id, by),
    protocol.Repeat: lambda engine, operation, by: engine.repeat(operation.seq, by),
    protocol.StopExecution: lambda engine, operation, by: engine.stop_execution(
        operation.execution, by
    ),
    protocol.Publish: lambda engine, operation, by: engine.publish(
        operation.topic, operation.payload, operation.qos, operation.retain, by
    ),
    protocol.ClearRetained: lambda engine, operation, by: engine.clear_retained(
        operation.topic, by
    ),
    protocol.Disconnect: lambda engine, operation, by: engine.disconnect(operation.client_id, by),
    protocol.PauseTimer: lambda engine, operation, by: engine.pause_timer(
        operation.name, operation.paused, by
    ),
    protocol.FireTimer: lambda engine, operation, by: engine.fire_timer(operation.name, by),
    protocol.StopAppliance: lambda engine, _operation, by: engine.stop(by),
}


def carry_out(engine: Engine, operation: protocol.Operation, by: str) -> object:
    """Carry out an operation and return its result.

    Raises:
        ApplianceError: the engine refuses it, or it failed.
    """
    if isinstance(operation, protocol.Publish) and operation.qos not in (0, 1, 2):
        raise ApplianceError(f"QoS {operation.qos}: there are 0, 1 and 2.")
    return _DO[type(operation)](engine, operation, by)
