"""What travels between an attached terminal and the terminal server: requests, answers, frames.

A request is JSON, because people read the journaled actions. Frames and answers are MessagePack,
because ten frames a second are made. A frame carries the changes since the terminal's last frame.
The tags and field names are the wire format. Not for: making or applying any of it.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec

from appliance import errors
from appliance.engine_api import AskedValues, ClientState, LogLine, Mark, TopicState
from appliance.errors import ApplianceError
from appliance.message_filter import MessageFilter
from appliance.model import EncodedProperties, Execution, Message, encode_hook

PROTOCOL = 2
"""The protocol's version. It grows when an older terminal or engine could not read the new form."""
FRAMES_A_SECOND = 10
WINDOW = 2
"""How many frames may be unconfirmed. A slow line gets fewer frames, never older ones."""
FRAME_BYTES = 96 * 1024
"""About the size of the largest frame, in bytes. The rest goes into the next frame."""
SHOWN_BYTES = 512
"""A live message with more bytes of payload and properties has its payload cut to this many and no
properties. ``GetMessage`` returns the whole one."""
OVERHEAD = 160
"""Bytes of a message or log line besides its texts."""
LIVE_PER_FRAME = 300
"""How many messages a frame has at most. Older ones are left out, and the gap shows how many."""
LARGEST_ANSWER = 2 * 1024 * 1024
"""Bytes."""
MAX_OPEN_REQUESTS = 8
"""Requests of one terminal that are being answered."""
LAST = 2**63 - 1
"""Larger than the number of any execution."""
MAX_FOUND = 50
"""Executions that one ``FindExecutions`` names."""


Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""A number of a request. A larger one would be no number for a database or an answer."""
Position = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""Where a terminal wants to go on; one that is not there is brought to the nearest that is."""


class Operation(msgspec.Struct, frozen=True, tag_field="ask", tag=True):
    """The content of a request. An action (``is_action``) needs an operator and is journaled.

    The tag is the name of the method of ``engine_api.Engine`` that carries it out, and the fields
    are the method's arguments.
    """

    is_action: ClassVar[bool] = False


class Attach(Operation, frozen=True, tag="attach"):
    """Begin to send frames, continuing where an earlier connection ended."""

    protocol: Number
    after_seq: Position = 0
    engine_started_ns: Number = 0
    """The start time of the engine whose numbers ``after_log`` counts by."""
    after_log: Position = 0
    frames: bool = True
    """``False``: a command, which wants answers to its requests and no frames."""


class Seen(Operation, frozen=True, tag="seen"):
    """Confirms a frame."""

    frame: Number


class GetMessage(Operation, frozen=True, tag="message"):
    seq: Number


class GetTasks(Operation, frozen=True, tag="tasks"):
    """The server's task list."""


class GetServerTasks(Operation, frozen=True, tag="server_tasks"):
    """The server's tasks with what is known of each, from a place of the list on."""

    first: Number = 0


class GetHistory(Operation, frozen=True, tag="history"):
    before_seq: Number
    limit: Number


class Search(Operation, frozen=True, tag="search"):
    """One step of a search in the journal."""

    asked: MessageFilter
    before_seq: Number
    limit: Number


class GetValues(Operation, frozen=True, tag="values"):
    """One step of reading the numbers of a topic."""

    asked: AskedValues
    before_seq: Number


class GetSeqAt(Operation, frozen=True, tag="seq_at"):
    time_ns: Number


class GetRetained(Operation, frozen=True, tag="retained"):
    topic: str


class GetLastValues(Operation, frozen=True, tag="last_values"):
    topics: tuple[str, ...]


class GetExecutions(Operation, frozen=True, tag="executions"):
    before_id: Number
    limit: Number
    task_id: str = ""


class FindExecutions(Operation, frozen=True, tag="find_executions"):
    numbers: Annotated[tuple[Number, ...], msgspec.Meta(max_length=MAX_FOUND)]


class GetFreshness(Operation, frozen=True, tag="freshness"):
    """How fresh each task is."""


class GetFreshnessDay(Operation, frozen=True, tag="freshness_day"):
    task_id: str


class GetMarks(Operation, frozen=True, tag="marks"):
    """The marks of messages that are too old for the frames."""

    seqs: tuple[Number, ...]


class Action(Operation, frozen=True):
    """An operation that changes something."""

    is_action: ClassVar[bool] = True


class StartTask(Action, frozen=True, tag="start_task"):
    task_id: str


class RequestStarts(Action, frozen=True, tag="request_starts"):
    payload: str
    """What to start, in the form of a message's payload."""


class Repeat(Action, frozen=True, tag="repeat"):
    seq: Number


class StopExecution(Action, frozen=True, tag="stop_execution"):
    execution: Number


class Publish(Action, frozen=True, tag="publish"):
    topic: str
    payload: bytes
    qos: Number
    retain: bool


class ClearRetained(Action, frozen=True, tag="clear_retained"):
    topic: str


class Acknowledge(Action, frozen=True, tag="acknowledge"):
    """The operator knows what a start found lost."""


class AcknowledgeProblem(Action, frozen=True, tag="acknowledge_problem"):
    """The operator knows a problem, as it was seen."""

    kind: str
    name: str
    occurrence: str
    note: str


class UnacknowledgeProblem(Action, frozen=True, tag="unacknowledge_problem"):
    kind: str
    name: str


class Disconnect(Action, frozen=True, tag="disconnect"):
    client_id: str


class EndSession(Action, frozen=True, tag="end_session"):
    client_id: str


class PauseTimer(Action, frozen=True, tag="pause_timer"):
    name: str
    paused: bool


class FireTimer(Action, frozen=True, tag="fire_timer"):
    name: str


class GetHolds(Operation, frozen=True, tag="holds"):
    """What is held."""


class Hold(Action, frozen=True, tag="hold"):
    """Hold something, or change its hold."""

    kind: str
    name: str
    until_ns: Number | None
    reason: str
    drop: bool


class Release(Action, frozen=True, tag="release"):
    """End a hold."""

    kind: str
    name: str


class ConnectBridge(Action, frozen=True, tag="connect_bridge"):
    name: str


class CheckServer(Action, frozen=True, tag="check_server"):
    """Ask the Qlik server now whether it answers."""


class Explain(Operation, frozen=True, tag="explain"):
    """Why a message started something or nothing."""

    seq: Number
    is_whole: bool = False
    """``False``: an older terminal, which is answered with the reasons alone."""


class ExplainMessage(Operation, frozen=True, tag="explain_message"):
    """What a message would start."""

    topic: str
    payload: bytes
    retain: bool = False
    client_id: str = ""


class StopAppliance(Action, frozen=True, tag="stop"):
    """Stop the whole appliance."""


AnyOperation = (
    Attach
    | Seen
    | GetMessage
    | GetTasks
    | GetServerTasks
    | GetHistory
    | Search
    | GetValues
    | GetSeqAt
    | GetRetained
    | GetLastValues
    | GetExecutions
    | FindExecutions
    | GetFreshness
    | GetFreshnessDay
    | GetMarks
    | StartTask
    | RequestStarts
    | Repeat
    | StopExecution
    | Publish
    | ClearRetained
    | Acknowledge
    | AcknowledgeProblem
    | UnacknowledgeProblem
    | Disconnect
    | EndSession
    | PauseTimer
    | FireTimer
    | GetHolds
    | Hold
    | Release
    | ConnectBridge
    | CheckServer
    | Explain
    | ExplainMessage
    | StopAppliance
)


class Request(msgspec.Struct, frozen=True):
    """One request. The answer repeats its number; a request with number 0 gets no answer."""

    number: Number
    operation: AnyOperation = msgspec.field(name="ask")


class Answer(msgspec.Struct, frozen=True):
    """The answer to a request: a value, or an error for the operator."""

    number: int
    value: msgspec.Raw = msgspec.Raw(b"\xc0")
    error: str = ""
    kind: str = ""
    """The error's class in appliance.errors."""


def kind_of(error: ApplianceError) -> str:
    """What an answer calls an error: its class in appliance.errors, or the nearest one there."""
    names = (each.__name__ for each in type(error).__mro__ if each.__module__ == errors.__name__)
    return next(names, ApplianceError.__name__)


def error_of(answer: Answer) -> ApplianceError:
    """The engine's error as it was raised there, or ``ApplianceError`` for an unknown class."""
    kind = getattr(errors, answer.kind, ApplianceError)
    if not (isinstance(kind, type) and issubclass(kind, ApplianceError)):
        kind = ApplianceError
    return kind(answer.error)


class Frame(msgspec.Struct, frozen=True):
    """The changes, as the terminal decodes them. ``None`` marks an entry as removed.

    The first frame of a connection (``number`` 1) starts from an empty state, except for messages
    and log lines, which continue.
    """

    number: int
    snapshot: dict[str, msgspec.Raw]
    """Fields of ``engine_api.Snapshot``, but for the executions, which have their own field."""
    executions: dict[int, Execution | None]
    marks: dict[int, Mark | None]
    clients: dict[str, ClientState | None]
    topics: dict[str, TopicState | None]
    messages: list[Message]
    sizes: dict[int, int]
    """The full payload length of each cut message in bytes, by sequence number."""
    log: list[LogLine]


def size_of(message: Message) -> int:
    """About the bytes of a message in a frame, with everything that its client chose."""
    return (
        OVERHEAD
        + len(message.payload)
        + len(message.properties or b"")
        + len(message.topic)
        + len(message.client_id)
        + len(message.username or "")
    )


def _plain(value: object) -> object:
    """The plain value of a configuration type (topic filter, path, duration), or properties."""
    if isinstance(value, EncodedProperties):
        return encode_hook(value)
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(f"{type(value).__name__} can't be sent to a terminal")


encode = msgspec.msgpack.Encoder(enc_hook=_plain).encode
"""Encode frames, answers and parts of them. Raises ``TypeError``."""


def audit(operation: AnyOperation) -> bytes:
    """An action as the journal keeps it: JSON, with a payload's length in place of the payload.

    The published message itself is in the journal, too.
    """
    body: dict[str, Any] = msgspec.to_builtins(operation)
    if isinstance(operation, Publish):
        body["payload"] = f"{len(operation.payload)} bytes"
    return msgspec.json.encode(body)
