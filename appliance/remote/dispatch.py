"""Calls the engine for each operation of an attached terminal. Blocks: for worker threads.

Not for: permissions (server.py), how an action is carried out (engine_api.Engine).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from appliance.engine_api import Engine, Found, ServerTask, ServerTasks
from appliance.errors import ApplianceError
from appliance.model import Message
from appliance.remote import protocol
from appliance.remote.frames import newest_within

_MOST_MESSAGES = 2000
_MOST_EXECUTIONS = 500
_MOST_SEQS = 5000
_MOST_VALUES = 200
_MOST_WORDS = 50
_TASKS_BYTES = 40 * 1024
"""Of the server's tasks in one answer: a line of 64 kbit/s carries it in 5 seconds, and the state
of the appliance, which waits for it, is no older."""
_HISTORY_BYTES = 512 * 1024
_OVERHEAD = 128


def _message(engine: Engine, operation: protocol.GetMessage) -> Message | None:
    message = engine.message(operation.seq)
    if message is not None and len(message.payload) > protocol.LARGEST_ANSWER // 2:
        raise ApplianceError(
            f"The payload of message {operation.seq} has {len(message.payload)} bytes, "
            "more than is sent to an attached terminal. appliance export on the appliance's "
            "machine has it whole."
        )
    return message


def _retained(engine: Engine, operation: protocol.GetRetained) -> Message | None:
    message = engine.retained(operation.topic)
    if message is not None and len(message.payload) > protocol.SHOWN_BYTES:
        return msgspec.structs.replace(message, payload=message.payload[: protocol.SHOWN_BYTES])
    return message


def _last_values(engine: Engine, operation: protocol.GetLastValues) -> dict[str, Message]:
    found = engine.last_values(operation.topics[:_MOST_VALUES])
    return {
        topic: msgspec.structs.replace(
            message, payload=message.payload[: protocol.SHOWN_BYTES], properties=None
        )
        for topic, message in found.items()
    }


def _server_tasks(engine: Engine, operation: protocol.GetServerTasks) -> ServerTasks:
    """The tasks that fit into one answer. The terminal requests those behind them."""
    found = engine.server_tasks()
    part: list[ServerTask] = []
    room = _TASKS_BYTES
    for one in found.tasks[operation.first :]:
        room -= len(protocol.encode(one))
        if room < 0 and part:
            break
        part.append(one)
    return msgspec.structs.replace(found, tasks=tuple(part))


def _history(engine: Engine, operation: protocol.GetHistory) -> Sequence[Message]:
    """The newest messages that fit into one answer. The terminal can request older ones."""
    messages = engine.history(operation.before_seq, min(operation.limit, _MOST_MESSAGES))
    found, _ = newest_within(
        messages, _HISTORY_BYTES, lambda one: len(one.payload) + len(one.topic) + _OVERHEAD
    )
    return found


def _search(engine: Engine, operation: protocol.Search) -> Found:
    """One step, cut to the newest messages that fit into one answer."""
    asked = operation.asked
    if (
        sum(len(part) for part in msgspec.structs.astuple(asked) if isinstance(part, tuple))
        > _MOST_WORDS
    ):
        raise ApplianceError(f"A search takes at most {_MOST_WORDS} words; leave some out.")
    found = engine.search(asked, operation.before_seq, min(operation.limit, _MOST_MESSAGES))
    kept, _ = newest_within(
        found.messages, _HISTORY_BYTES, lambda one: len(one.payload) + len(one.topic) + _OVERHEAD
    )
    # A list shows the beginning of a payload.
    kept = [
        msgspec.structs.replace(one, payload=one.payload[: protocol.SHOWN_BYTES])
        if len(one.payload) > _HISTORY_BYTES
        else one
        for one in kept
    ]
    if len(kept) == len(found.messages):
        return msgspec.structs.replace(found, messages=tuple(kept))
    return msgspec.structs.replace(
        found,
        messages=tuple(kept),
        before_seq=kept[0].seq,
        reached_ns=kept[0].received_ns,
        own_left_out=0,
    )


def carry_out(engine: Engine, operation: protocol.Operation, by: str) -> object:
    """Carry out an operation and return its result.

    Raises:
        ApplianceError: the engine refuses it, or it failed.
    """
    match operation:
        case protocol.GetMessage():
            return _message(engine, operation)
        case protocol.GetRetained():
            return _retained(engine, operation)
        case protocol.GetServerTasks():
            return _server_tasks(engine, operation)
        case protocol.GetHistory():
            return _history(engine, operation)
        case protocol.Search():
            return _search(engine, operation)
        case protocol.GetLastValues():
            return _last_values(engine, operation)
        case protocol.GetExecutions(before_id, limit, task_id):
            return engine.executions(before_id, min(limit, _MOST_EXECUTIONS), task_id)
        case protocol.GetMarks(seqs):
            return engine.marks(seqs[:_MOST_SEQS])
        case protocol.Explain(seq, is_whole):
            found = engine.explain(seq)
            return found if is_whole else found.reasons
        case protocol.Publish(qos=qos) if qos not in (0, 1, 2):
            raise ApplianceError(f"QoS {qos}: there are 0, 1 and 2.")
    # The tag names the engine's method (protocol.Operation).
    method = getattr(engine, str(operation.__struct_config__.tag))
    fields = msgspec.structs.astuple(operation)
    return method(*fields, by) if operation.is_action else method(*fields)
