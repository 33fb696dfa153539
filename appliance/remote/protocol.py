"""What travels between an attached terminal and the desk: requests, answers and frames.

A request is JSON, since an act stands in the journal as people read it; frames and answers are
MessagePack, since ten a second of them are made. A frame carries what has changed since the
terminal's last one. Not for: making or applying any of it.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from appliance.engine_api import ClientState, LogLine, Mark, TopicState
from appliance.model import Execution, Message

PROTOCOL = 2
"""Grows when an older terminal or engine could not make sense of what is sent."""
FRAMES_A_SECOND = 10
WINDOW = 2
"""Frames on their way that the terminal has not confirmed: a slow line gets fewer frames, never
older ones."""
FRAME_BYTES = 96 * 1024
"""About the size of the largest frame; what does not fit goes into the next."""
SHOWN_BYTES = 512
"""A live message's payload is cut to this length; the whole one is had by asking."""
LIVE_PER_FRAME = 300
"""The newest messages of a frame; those before are left out, and the gap shows how many."""
LARGEST_ANSWER = 2 * 1024 * 1024
"""Bytes."""
MAX_OPEN_REQUESTS = 8
"""Requests of one terminal that are being answered."""


class Ask(msgspec.Struct, frozen=True, tag_field="ask", tag=True):
    """A request. ``is_act``: it changes something, so it needs an operator and is journaled."""

    is_act: ClassVar[bool] = False


class Attach(Ask, frozen=True, tag="attach"):
    """Begin to send frames, going on where an earlier connection ended."""

    protocol: int
    after_seq: int = 0
    engine_started_ns: int = 0
    """Which run of the engine ``after_log`` belongs to."""
    after_log: int = 0


class Seen(Ask, frozen=True, tag="seen"):
    """A frame has arrived."""

    frame: int


class GetMessage(Ask, frozen=True, tag="message"):
    seq: int


class GetTasks(Ask, frozen=True, tag="tasks"):
    """The server's task list."""


class GetHistory(Ask, frozen=True, tag="history"):
    before_seq: int
    limit: int


class GetSeqAt(Ask, frozen=True, tag="seq_at"):
    time_ns: int


class GetRetained(Ask, frozen=True, tag="retained"):
    topic: str


class GetExecutions(Ask, frozen=True, tag="executions"):
    before_id: int
    limit: int
    task_id: str = ""


class GetMarks(Ask, frozen=True, tag="marks"):
    """What messages led to that are too old for the frames."""

    seqs: tuple[int, ...]


class Act(Ask, frozen=True):
    """A request that changes something."""

    is_act: ClassVar[bool] = True


class StartTask(Act, frozen=True, tag="start_task"):
    task_id: str


class Repeat(Act, frozen=True, tag="repeat"):
    seq: int


class StopExecution(Act, frozen=True, tag="stop_execution"):
    execution: int


class Publish(Act, frozen=True, tag="publish"):
    topic: str
    payload: bytes
    qos: int
    retain: bool


class ClearRetained(Act, frozen=True, tag="clear_retained"):
    topic: str


class Disconnect(Act, frozen=True, tag="disconnect"):
    client_id: str


class PauseTimer(Act, frozen=True, tag="pause_timer"):
    name: str
    paused: bool


class FireTimer(Act, frozen=True, tag="fire_timer"):
    name: str


class StopAppliance(Act, frozen=True, tag="stop"):
    """Stop the whole appliance."""


AnyAsk = (
    Attach
    | Seen
    | GetMessage
    | GetTasks
    | GetHistory
    | GetSeqAt
    | GetRetained
    | GetExecutions
    | GetMarks
    | StartTask
    | Repeat
    | StopExecution
    | Publish
    | ClearRetained
    | Disconnect
    | PauseTimer
    | FireTimer
    | StopAppliance
)


class Request(msgspec.Struct, frozen=True):
    """One request with its number, which the answer repeats; 0 wants no answer."""

    number: int
    ask: AnyAsk


class Answer(msgspec.Struct, frozen=True):
    """The answer to a request: a value, or an error for the operator."""

    number: int
    value: msgspec.Raw = msgspec.Raw(b"\xc0")
    error: str = ""
    kind: str = ""
    """The error's class in appliance.errors."""


class Frame(msgspec.Struct, frozen=True):
    """What has changed, as the terminal reads it. ``None`` stands for what is gone.

    The first frame of a connection (``number`` 1) begins anew: what is in none of the following
    frames does not exist any more, but for messages and log lines, which go on.
    """

    number: int
    snapshot: dict[str, msgspec.Raw]
    """Fields of ``state.Snapshot``; executions are sent one by one instead."""
    executions: dict[int, Execution | None]
    marks: dict[int, Mark | None]
    clients: dict[str, ClientState | None]
    topics: dict[str, TopicState | None]
    messages: list[Message]
    sizes: dict[int, int]
    """Payload length of the messages whose payload was cut, by sequence number."""
    log: list[LogLine]


class EncodedFrame(msgspec.Struct, frozen=True):
    """The same frame as the desk puts it together, of parts that are encoded once for all."""

    number: int
    snapshot: dict[str, msgspec.Raw]
    executions: dict[int, msgspec.Raw]
    marks: dict[int, msgspec.Raw]
    clients: dict[str, msgspec.Raw]
    topics: dict[str, msgspec.Raw]
    messages: list[Message]
    sizes: dict[int, int]
    log: list[LogLine]


def _plain(value: object) -> object:
    """Values of the configuration (topic filters, paths, durations) as what they are made of."""
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(f"{type(value).__name__} does not travel")


encode = msgspec.msgpack.Encoder(enc_hook=_plain).encode
"""Encode frames, answers and parts of them. Raises ``TypeError``."""


def audit(ask: AnyAsk) -> bytes:
    """An act as it stands in the journal: JSON, a payload as its length alone.

    What was published stands in the journal as a message of its own.
    """
    body: dict[str, Any] = msgspec.to_builtins(ask)
    if isinstance(ask, Publish):
        body["payload"] = f"{len(ask.payload)} bytes"
    return msgspec.json.encode(body)
