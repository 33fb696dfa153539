"""The last state that a remote appliance has sent, merged from its frames.

Bounded like the engine's own view: 10,000 messages or 32 MiB of them, 2,000 log lines; the engine
bounds the rest.
The connection's thread writes, the UI's thread reads, under one lock. Not for: the connection
(link.py), anything that needs a request (client_engine.py).
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, get_type_hints

import msgspec

from appliance.clock import STEP_NS
from appliance.engine_api import ClientState, LogLine, Mark, Snapshot, TopicState
from appliance.model import Execution, Message, decode_hook
from appliance.remote.protocol import Frame, size_of

KEPT_MESSAGES = 10_000
KEPT_BYTES = 32 * 1024 * 1024
"""Bytes of the messages (``protocol.size_of``); beyond it, the oldest are dropped."""
KEPT_LINES = 2_000
KEPT_MARKS = 20_000
_KEPT_SIZES = 10_000
_KEPT_TOPICS = 5_000
_KEPT_EXECUTIONS = 2_000
_CLOCK_FRAMES = 50
"""The difference of the clocks is that of the fastest of so many frames."""

K = TypeVar("K", int, str)
V = TypeVar("V")

_HINTS = get_type_hints(Snapshot)
_FIELDS = {
    field.name: msgspec.msgpack.Decoder(_HINTS[field.name])
    for field in msgspec.structs.fields(Snapshot)
    if field.name != "executions"
}
_NEEDED = frozenset(
    field.name
    for field in msgspec.structs.fields(Snapshot)
    if field.required and field.name != "executions"
)


class Mirror:
    """The known state of one remote engine. Safe to use from any thread.

    ``clock_ns`` is a steady clock of this machine in nanoseconds. The remote time is computed from
    it and the frames.
    """

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._decoder = msgspec.msgpack.Decoder(Frame, dec_hook=decode_hook)
        self._fields: dict[str, Any] = {}
        self._executions: dict[int, Execution] = {}
        self._older: OrderedDict[int, Execution] = OrderedDict()
        """Executions from answers, because frames have only recent ones."""
        self._marks: OrderedDict[int, Mark] = OrderedDict()
        self._clients: dict[str, ClientState] = {}
        self._topics: OrderedDict[str, TopicState] = OrderedDict()
        self._messages: deque[Message] = deque()
        self._message_bytes = 0
        self._sizes: OrderedDict[int, int] = OrderedDict()
        self._log: deque[LogLine] = deque(maxlen=KEPT_LINES)
        self._log_number = 0
        self._differences: deque[int] = deque(maxlen=_CLOCK_FRAMES)
        self._difference = 0
        self._next_frame = 1
        self._engine_ns = 0
        self.heard_ns = 0
        """When the last frame arrived, by ``clock_ns``; 0 before the first."""
        self.after_log = 0
        """The engine's own number of the last log line that arrived."""

    # --- what comes in ------------------------------------------------------------------------

    def begin(self) -> None:
        """A connection begins: the next accepted frame is its first."""
        with self._lock:
            self._next_frame = 1

    def apply(self, data: bytes) -> int:
        """Apply a frame; returns its number, or 0 if it is not the next one.

        Raises:
            msgspec.MsgspecError: it is not a frame.
        """
        frame = self._decoder.decode(data)
        fields = {
            name: _FIELDS[name].decode(raw)
            for name, raw in frame.snapshot.items()
            if name in _FIELDS
        }
        with self._lock:
            if frame.number != self._next_frame:
                return 0
            self._next_frame += 1
            if frame.number == 1:
                self._forget()
            self._fields.update(fields)
            self._note_time(fields)
            _merge(self._executions, frame.executions)
            _merge(self._clients, frame.clients)
            _merge(self._topics, frame.topics)
            _bound(self._topics, _KEPT_TOPICS)
            _merge(self._marks, frame.marks)
            _bound(self._marks, KEPT_MARKS)
            self._add_messages(frame.messages)
            self._sizes.update(frame.sizes)
            _bound(self._sizes, _KEPT_SIZES)
            for line in frame.log:
                # Numbered here, because the engine's own numbers restart with each run.
                self._log_number += 1
                self._log.append(msgspec.structs.replace(line, number=self._log_number))
                self.after_log = line.number
        return frame.number

    def _add_messages(self, messages: Iterable[Message]) -> None:
        kept = self._messages
        for message in messages:
            kept.append(message)
            self._message_bytes += size_of(message)
        while len(kept) > KEPT_MESSAGES or self._message_bytes > KEPT_BYTES:
            self._message_bytes -= size_of(kept.popleft())

    def _forget(self) -> None:
        self._executions.clear()
        self._marks.clear()
        self._clients.clear()
        self._topics.clear()
        self._differences.clear()

    def _note_time(self, fields: Mapping[str, Any]) -> None:
        self.heard_ns = self._clock_ns()
        if "taken_ns" in fields:
            difference = fields["taken_ns"] - self.heard_ns
            if self._differences and difference < self._difference - STEP_NS:
                self._differences.clear()  # its clock was set back, or this frame is very late
            self._differences.append(difference)
            self._difference = max(self._differences)
        self._engine_ns = fields.get("started_ns", self._engine_ns)

    def add_executions(self, found: Iterable[Execution]) -> None:
        """Keep executions from an answer."""
        with self._lock:
            for execution in found:
                self._older[execution.id] = execution
            _bound(self._older, _KEPT_EXECUTIONS)

    def add_marks(self, found: Mapping[int, Mark]) -> None:
        """Keep marks from an answer."""
        with self._lock:
            self._marks.update(found)
            _bound(self._marks, KEPT_MARKS)

    # --- what is read -------------------------------------------------------------------------

    @property
    def is_complete(self) -> bool:
        """Whether enough has arrived for a snapshot."""
        with self._lock:
            return self._fields.keys() >= _NEEDED

    @property
    def resume(self) -> tuple[int, int, int]:
        """Where to continue after a break: last message, start of the engine, its last log line."""
        with self._lock:
            last = self._messages[-1].seq if self._messages else 0
            return last, self._engine_ns, self.after_log

    def now_ns(self) -> int:
        """The engine's time now in nanoseconds, as far as known; 0 before the first frame."""
        return self._clock_ns() + self._difference if self.heard_ns else 0

    def snapshot(self, **changes: Any) -> Snapshot:
        """The last snapshot, with some fields replaced. Only once ``is_complete``."""
        with self._lock:
            executions = tuple(sorted(self._executions.values(), key=_newest_first))
            return Snapshot(**{**self._fields, **changes}, executions=executions)

    def live(self, after_seq: int, limit: int) -> list[Message]:
        """As ``engine_api.Engine.live``."""
        with self._lock:
            newer = itertools.takewhile(lambda one: one.seq > after_seq, reversed(self._messages))
            found = list(itertools.islice(newer, limit))
        found.reverse()
        return found

    def full_size(self, seq: int) -> int | None:
        """As ``engine_api.Engine.full_size``."""
        return self._sizes.get(seq)

    def marks(self, seqs: Sequence[int]) -> dict[int, Mark]:
        """As ``engine_api.Engine.marks``."""
        with self._lock:
            return {seq: self._marks[seq] for seq in seqs if seq in self._marks}

    def clients(self) -> tuple[ClientState, ...]:
        """As ``engine_api.Engine.clients``."""
        with self._lock:
            return tuple(self._clients.values())

    def topics(self, limit: int) -> list[TopicState]:
        """As ``engine_api.Engine.topics``."""
        with self._lock:
            found = sorted(self._topics.values(), key=lambda one: (-one.rate, -one.count))
        return found[:limit]

    def log(self, after_number: int, limit: int) -> list[LogLine]:
        """As ``engine_api.Engine.log``, with this terminal's own numbers."""
        with self._lock:
            wanted = max(0, min(self._log_number - after_number, limit, len(self._log)))
            return [self._log[index] for index in range(-wanted, 0)]

    def execution(self, number: int) -> Execution | None:
        """As ``engine_api.Engine.execution``."""
        with self._lock:
            return self._executions.get(number) or self._older.get(number)


def _newest_first(execution: Execution) -> int:
    return -execution.id


def _merge(kept: dict[K, V], changes: Mapping[K, V | None]) -> None:
    for key, value in changes.items():
        if value is None:
            kept.pop(key, None)
        else:
            kept[key] = value


def _bound(kept: OrderedDict[K, V], most: int) -> None:
    while len(kept) > most:
        kept.popitem(last=False)
