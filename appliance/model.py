"""The values that the parts of the appliance exchange: frozen, with almost no behaviour.

Not for: code that reads, writes, waits or knows the configuration. This module imports no other
module of the appliance, so every module may import it. ``msgspec.Struct`` is used because a message
is made for every PUBLISH and must cost a fraction of a microsecond (a frozen dataclass costs ten
times that), and because ``array_like`` structs are the journal's on-disk form.

Times are integers in nanoseconds since the Unix epoch (UTC) and end in ``_ns``; durations are
floats in seconds and end in ``_s``.
"""

from __future__ import annotations

import enum

import msgspec

LARGEST_SEQ = 2**62
"""A larger sequence number can't come from an appliance. SQLite stores up to 2**63 - 1."""


class MessageProperties(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The MQTT 5 properties of a PUBLISH that outlive the packet (MQTT 5, section 3.3.2.3)."""

    payload_format: int = 0
    message_expiry_s: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    user_properties: tuple[tuple[str, str], ...] = ()
    payload_format_is_0: bool = False
    """The publisher sent indicator 0. Without one, ``payload_format`` is 0 as well."""

    def encoded(self) -> EncodedProperties:
        """The form in which a message holds them."""
        return EncodedProperties(_encode(self))


class EncodedProperties(bytes):
    """A message's properties as the bytes that the journal stores (MessagePack).

    Most messages are never asked for their properties. As objects these take ten times as much
    memory, so a message holds the bytes, and ``decoded`` makes objects for as long as they are
    used. An encoder or decoder of messages needs ``encode_hook`` or ``decode_hook``.
    """

    __slots__ = ()

    def decoded(self) -> MessageProperties:
        """The properties; they are decoded by each call."""
        return _decode(self)

    @property
    def may_expire(self) -> bool:
        """Whether there is a message expiry interval; asked for each delivery, without decoding.

        It is the second value, behind a payload format of one byte; ``nil`` stands for none.
        """
        return self[2] != _NIL


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One accepted message, as the journal stores it.

    ``seq`` is the journal's sequence number: 1 for the first message, without gaps within one
    run of the appliance, never reused once acknowledged. ``client_id`` is the MQTT client that
    sent it; messages that the appliance itself publishes carry a client id that starts with
    ``$`` (for example ``$appliance``), which no outside client may use; those that a bridge
    brought in have the bridge's (``bridge_client_id``), those that came by HTTP ``HTTP_CLIENT``.
    ``address`` is
    ``"host:port"`` of the sender or an empty string. New fields go at the end and have a
    default: old journals must stay readable.
    """

    seq: int
    received_ns: int
    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    dup: bool = False
    client_id: str = ""
    username: str | None = None
    address: str = ""
    properties: EncodedProperties | None = None
    packet_id: int = 0
    """The PUBLISH's packet identifier, 0 for QoS 0 or where it is not known. A redelivery has the
    packet identifier of the original (MQTT 3.1.1, section 4.4), so the task starter can tell it
    from a second message with the same payload. A message that a bridge brought in has a number of
    the bridge's here instead (``numbered``)."""


_BRIDGE = "$bridge/"


def bridge_client_id(name: str) -> str:
    """The client id of messages that the bridge of this name brought in."""
    return _BRIDGE + name


def bridge_of(client_id: str) -> str:
    """The name of the bridge that brought a message in, empty if none did."""
    return client_id[len(_BRIDGE) :] if client_id.startswith(_BRIDGE) else ""


HTTP_CLIENT = "$http"
"""The client id of what comes in over HTTP, in messages and for ``[[access.rule]] client_id``. No
MQTT client can have it, and no service name may be ``http``."""


BRIDGED_CLIENT = "appliance-client"
"""The user property by which an appliance's bridge tells another one the publisher's client id."""


def bridged_publisher(message: Message) -> str:
    """The client that published a bridged message at the other broker; empty if it is unknown."""
    if message.properties is None:
        return ""
    found = message.properties.decoded().user_properties
    return next((value for name, value in found if name == BRIDGED_CLIENT), "")


REPLAYED = "appliance-replay"
"""The user property of a message that ``appliance replay`` sent: its number in the journal that it
came from. Such a message starts nothing."""
_REPLAYED = REPLAYED.encode()

OUTCOME_OF = "appliance-task"
"""The user property of a message that an ``[[outcome]]`` made: the id of its task."""
_OUTCOME_OF = OUTCOME_OF.encode()


def is_replayed(message: Message) -> bool:
    """Whether a message was replayed. Messages without properties cost nothing."""
    properties = message.properties
    if properties is None or properties.find(_REPLAYED) < 0:
        return False
    return any(name == REPLAYED for name, _ in properties.decoded().user_properties)


def outcome_of(message: Message) -> str:
    """The task whose outcome an ``[[outcome]]`` of this appliance tells; empty if it is none."""
    properties = message.properties
    if properties is None or properties.find(_OUTCOME_OF) < 0 or not is_own(message.client_id):
        return ""
    found = properties.decoded().user_properties
    return next((value for name, value in found if name == OUTCOME_OF), "")


def sender(client_id: str) -> str:
    """A message's sender for people: the client id, ``bridge NAME``, ``HTTP``, or empty."""
    if client_id == HTTP_CLIENT:
        return "HTTP"
    name = bridge_of(client_id)
    return f"bridge {name}" if name else client_id


def numbered(seq: int, packet_id: int) -> int:
    """What a bridge's message of QoS 1 has as ``Message.packet_id``: a number that is its own.

    Other brokers use packet identifiers again at once. A repeat has the number of its original.

    Args:
        seq: the original's sequence number.
        packet_id: the packet identifier with which it first came.
    """
    return seq << 16 | packet_id


def seq_of(number: int) -> int:
    """The sequence number of the original, from what ``numbered`` made."""
    return number >> 16


def packet_id_of(number: int) -> int:
    """The packet identifier with which the original first came, from what ``numbered`` made."""
    return number & 0xFFFF


def is_own(client_id: str) -> bool:
    """Whether the appliance itself published a message with this client id."""
    return client_id[:1] == "$" and client_id != HTTP_CLIENT and not client_id.startswith(_BRIDGE)


_NIL = 0xC0
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(MessageProperties).decode


def encode_hook(value: object) -> msgspec.Raw:
    """``enc_hook`` of a MessagePack encoder of messages.

    Raises:
        TypeError: the value is no part of a message.
    """
    if isinstance(value, EncodedProperties):
        return msgspec.Raw(value)
    raise TypeError(f"a {type(value).__name__} can't be stored")


def decode_hook(kind: type, value: object) -> EncodedProperties:
    """``dec_hook`` of a MessagePack decoder of messages.

    Raises:
        msgspec.ValidationError: the value is not what properties are stored as.
        TypeError: the type is no part of a message.
    """
    if kind is not EncodedProperties:
        raise TypeError(f"{kind.__name__} can't be read")
    encoded = EncodedProperties(_encode(value))
    encoded.decoded()
    return encoded


class TaskKind(enum.IntEnum):
    """QRS ``taskType`` (docs/qlik.md, status table)."""

    RELOAD = 0
    EXTERNAL_PROGRAM = 1
    USER_SYNC = 2
    DISTRIBUTE = 3
    PRELOAD = 4

    @property
    def text(self) -> str:
        """In words, for people."""
        return _KIND_TEXTS[self]


_KIND_TEXTS = {
    TaskKind.RELOAD: "reload",
    TaskKind.EXTERNAL_PROGRAM: "external program",
    TaskKind.USER_SYNC: "user synchronisation",
    TaskKind.DISTRIBUTE: "distribute",
    TaskKind.PRELOAD: "preload",
}

APP = "app:"
"""How the id of a ``Task`` begins that stands for an app without a task of its own. A start of it
reloads the app, for which the server makes a task (docs/qlik.md)."""


MAX_VARIABLES = 20
"""Variables of one reload, and ``MAX_VARIABLE`` the characters of a name or value: the limits of
Qlik Cloud (docs/qlik.md)."""
MAX_VARIABLE = 256


class ReloadOptions(msgspec.Struct, frozen=True, array_like=True):
    """What a start call says of the reload beyond its task. New fields go at the end.

    Two starts with other options are two reloads. So they are compared, and ``variables`` is
    sorted by name.
    """

    partial: bool = False
    variables: tuple[tuple[str, str], ...] = ()
    """Script variables as (name, value) pairs, each name once."""

    def __bool__(self) -> bool:
        """Whether anything is asked for beyond the plain reload."""
        return self.partial or bool(self.variables)

    @property
    def text(self) -> str:
        """In words, for people: ``"partial, vDay = 2026-11-29"``."""
        return ", ".join(
            [*(["partial"] if self.partial else []), *(f"{k} = {v}" for k, v in self.variables)]
        )

    @property
    def problem(self) -> str:
        """What Qlik would not take, for people; an empty text if nothing is wrong."""
        if len(self.variables) > MAX_VARIABLES:
            return f"{len(self.variables)} variables; Qlik takes at most {MAX_VARIABLES}"
        for name, value in self.variables:
            if not name.strip() or len(name) > MAX_VARIABLE:
                return f"the name of a variable must have 1 to {MAX_VARIABLE} characters"
            if len(value) > MAX_VARIABLE:
                return (
                    f"the value of a variable has {len(value)} characters; "
                    f"Qlik takes at most {MAX_VARIABLE}"
                )
        return ""


class Task(msgspec.Struct, frozen=True):
    """A Qlik task that the server lists, or a Qlik Cloud app that can be reloaded."""

    id: str
    name: str
    kind: TaskKind = TaskKind.RELOAD
    enabled: bool = True
    app_id: str = ""
    app_name: str = ""
    tags: tuple[str, ...] = ()
    properties: tuple[tuple[str, str], ...] = ()
    """Custom properties as (name, value) pairs; one name may come more than once."""
    max_retries: int = 0
    timeout_min: int = 0
    partial: bool = False
    """Whether it makes a partial reload."""
    manual: bool = False
    """Whether the server made it for a reload by hand, which belongs to no schedule."""
    last_duration_s: float | None = None
    """Duration of the last finished run as the server reports it, if it ever ran."""
    last_state: ExecutionState | None = None
    """How its last run ended as the server reports it, whoever started it."""
    last_ended_ns: int | None = None
    """When that was, by the server's clock."""
    next_ns: int | None = None
    """When the server's own schedule starts it next, if the server says so."""


class ExecutionState(enum.StrEnum):
    """The state of a requested start, from the message to its outcome.

    ``REQUESTED`` to ``STARTING`` are the appliance's (before Qlik accepted the task); ``QUEUED``
    and ``RUNNING`` are Qlik's; the others are outcomes.
    """

    REQUESTED = "requested"  # durable, waits for its turn
    WAITING = "waiting"  # debounce, cooldown, or the present run must end first
    STARTING = "starting"  # the start call is under way
    RETRYING = "retrying"  # the start call failed and will be repeated
    QUEUED = "queued"  # Qlik accepted it, its scheduler has it in a queue
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # the run ended with an error
    ABORTED = "aborted"
    SKIPPED = "skipped"  # Qlik skipped it, or if_running = "skip" did
    REFUSED = "refused"  # Qlik answered that it did not start it (zero id)
    REJECTED = "rejected"  # never asked: bad payload, not allowed, unknown task, 4xx answer
    EXPIRED = "expired"  # was not wanted any more when its turn came
    LOST = "lost"  # it may have run; its outcome can't be read

    @property
    def is_final(self) -> bool:
        """Whether this is an outcome, after which the state does not change."""
        return self in _FINAL

    @property
    def is_bad(self) -> bool:
        """Whether an operator should look at it."""
        return self in _BAD


_FINAL = frozenset(
    {
        ExecutionState.SUCCEEDED,
        ExecutionState.FAILED,
        ExecutionState.ABORTED,
        ExecutionState.SKIPPED,
        ExecutionState.REFUSED,
        ExecutionState.REJECTED,
        ExecutionState.EXPIRED,
        ExecutionState.LOST,
    }
)
_BAD = frozenset(
    {
        ExecutionState.FAILED,
        ExecutionState.ABORTED,
        ExecutionState.REFUSED,
        ExecutionState.REJECTED,
        ExecutionState.EXPIRED,
        ExecutionState.LOST,
    }
)


class Cause(msgspec.Struct, frozen=True):
    """The cause of a request: the link from an execution to its message."""

    kind: str
    """``"message"``, ``"timer"``, ``"operator"``, ``"http"`` (a request over HTTP) or
    ``"elsewhere"`` (QMC, Qlik's own schedule)."""
    seq: int = 0
    """Sequence number of the message, 0 if there was none."""
    topic: str = ""
    client_id: str = ""
    rule: str = ""
    """The trigger or timer: its name, or its topic filter. The operator, or the user over HTTP (its
    address, if it did not sign in)."""
    about: str = ""
    """The task whose outcome the message tells, if an ``[[outcome]]`` made it."""


class Step(msgspec.Struct, frozen=True):
    """One event of an execution, for the detail view."""

    at_ns: int
    text: str


class Execution(msgspec.Struct, frozen=True):
    """A requested start and its outcome.

    ``id`` is the appliance's number of the request: it grows, also over restarts. ``execution_id``
    is Qlik's, empty until the server gave one.
    """

    id: int
    task_id: str
    task_name: str
    state: ExecutionState
    cause: Cause
    requested_ns: int
    execution_id: str = ""
    started_ns: int | None = None
    ended_ns: int | None = None
    attempts: int = 0
    """How many times the start call was made."""
    next_attempt_ns: int | None = None
    """When a waiting or retrying request continues."""
    usual_s: float | None = None
    """Usual duration of this task (median of its recent successful runs), if it is known."""
    reason: str = ""
    """The reason of the state, for people: the error, and what to do."""
    merged: int = 0
    """The number of further requests that this start answers."""
    steps: tuple[Step, ...] = ()
    log_tail: tuple[str, ...] = ()
    """The script log's last lines after a failure, secrets masked."""
    reload: ReloadOptions = ReloadOptions()
    answered_by: int = 0
    """The execution that answers this request too, where both waited for the same task; else 0."""
    log_problem: str = ""
    """Why there is no ``log_tail`` although the run failed, once it is not asked for any more."""
    node: str = ""
    """The node of the server that executes the run, if the server says so."""
    queued_ns: int | None = None
    """When the server put the run into its queue, by the server's clock."""
    queued_s: float | None = None
    """How long the run waited in the server's queue, once it was taken out."""
    details: tuple[Step, ...] = ()
    """The server's own notes on the run, by time, secrets masked; of the newest attempt."""
    log_file: str = ""
    """The name of the file in ``script-logs`` that the whole script log was kept in."""
