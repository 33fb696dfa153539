"""Makes frames: reads the engine, keeps changes in tables, and fills each terminal's next frame.

The engine is read once for all terminals that are ready for a frame. Each terminal has a cursor of
its own in the tables. Blocks for about a millisecond, so a worker thread does it, one at a time.
Not for: when a frame is due, or sending it (server.py).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import msgspec

from appliance.engine_api import Engine, LogLine, Mark, Snapshot
from appliance.model import Message
from appliance.remote import protocol
from appliance.remote.tables import Key, Table

T = TypeVar("T")

_SLOW_S = 1.0
"""Seconds between two reads of clients, topics and bridges: the engine counts them as often."""
_SLOW_FIELDS = ("bridges",)
"""Fields of the snapshot that change with each message and may be large."""
_TOPICS = 2000
_WATCHED = 3000
"""How many of the newest sent messages have their marks looked up for each frame."""
_OPEN_MARKS = 1000
"""How many older messages whose executions have not ended are watched."""
_MARKS = 5000
_LOG_LINES = 200
_FIRST_LINES = 1000
_LOG_BYTES = 16 * 1024
_MESSAGE_BYTES = 48 * 1024
_TABLES = ("snapshot", "executions", "marks", "clients", "topics")
"""The fields of a frame that carry changes, in the order in which they fill it."""


class Cursor:
    """How far one terminal has been sent the state: a position in each table."""

    __slots__ = ("at", "log", "number", "seq")

    def __init__(self, after_seq: int, after_log: int) -> None:
        self.number = 0
        self.seq = after_seq
        self.log = after_log
        self.at = dict.fromkeys(_TABLES, 0)
        """The last change of each table that it has been sent."""


def newest_within(items: Sequence[T], budget: int, cost: Callable[[T], int]) -> tuple[list[T], int]:
    """The newest of ``items`` (oldest first) that fit, at least one; and their size in bytes."""
    found: list[T] = []
    size = 0
    for item in reversed(items):
        size += cost(item)
        if found and size > budget:
            break
        found.append(item)
    found.reverse()
    return found, size


class Frames:
    """The tables of one engine, and frames made from them."""

    def __init__(self, engine: Engine, clock: Callable[[], float]) -> None:
        self._engine = engine
        self._clock = clock
        self._slow_due = 0.0
        self._tables: dict[str, Table] = {name: Table() for name in _TABLES}
        self._watched: OrderedDict[int, Mark | None] = OrderedDict()
        self._open_marks: OrderedDict[int, Mark] = OrderedDict()

    # --- reading the engine -------------------------------------------------------------------

    def refresh(self, cursors: Iterable[Cursor]) -> None:
        """Read the engine. ``cursors`` are the cursors of all attached terminals."""
        snapshot, tables = self._engine.snapshot(), self._tables
        now = self._clock()
        is_slow_due = now >= self._slow_due
        for name in Snapshot.__struct_fields__:
            if name == "executions" or (name in _SLOW_FIELDS and not is_slow_due):
                continue
            tables["snapshot"].put(name, getattr(snapshot, name))
        for execution in reversed(snapshot.executions):
            tables["executions"].put(execution.id, execution)
        tables["executions"].keep_only(execution.id for execution in snapshot.executions)
        self._look_up_marks()
        if is_slow_due:
            self._slow_due = now + _SLOW_S
            self._refresh_slowly(list(cursors))

    def _refresh_slowly(self, cursors: Sequence[Cursor]) -> None:
        clients, tables = self._engine.clients(), self._tables
        for client in clients:
            tables["clients"].put(client.client_id, client)
        tables["clients"].keep_only(client.client_id for client in clients)
        for topic in self._engine.topics(_TOPICS):
            tables["topics"].put(topic.topic, topic)
        tables["topics"].bound(2 * _TOPICS)
        if cursors:
            for name in ("clients", "executions"):
                tables[name].forget_gone(min(cursor.at[name] for cursor in cursors))

    def _look_up_marks(self) -> None:
        found = self._engine.marks((*self._open_marks, *self._watched))
        for seq, mark in found.items():
            self._tables["marks"].put(seq, mark)
            if mark.state.is_final:
                self._open_marks.pop(seq, None)
            elif seq in self._open_marks:
                self._open_marks[seq] = mark
            else:
                self._watched[seq] = mark
        while len(self._watched) > _WATCHED:
            seq, last = self._watched.popitem(last=False)
            if last is not None and not last.state.is_final:
                self._open_marks[seq] = last
        while len(self._open_marks) > _OPEN_MARKS:
            self._open_marks.popitem(last=False)
        self._tables["marks"].bound(_MARKS)

    # --- filling a frame ----------------------------------------------------------------------

    def frame(self, cursor: Cursor) -> bytes:
        """The next frame for a terminal. The cursor counts it as sent."""
        cursor.number += 1
        left = protocol.FRAME_BYTES

        def changes(name: str) -> dict[Key, msgspec.Raw]:
            nonlocal left
            found, cursor.at[name], size = self._tables[name].since(cursor.at[name], left)
            left -= size
            return found

        snapshot = changes("snapshot")
        log, log_size = self._log(cursor)
        messages, sizes, size = self._messages(cursor)
        left -= log_size + size
        return protocol.encode(
            {
                "number": cursor.number,
                "snapshot": snapshot,
                "messages": messages,
                "sizes": sizes,
                "log": log,
                **{name: changes(name) for name in _TABLES if name != "snapshot"},
            }
        )

    def _messages(self, cursor: Cursor) -> tuple[list[Message], dict[int, int], int]:
        messages: list[Message] = []
        sizes: dict[int, int] = {}
        size = 0
        for message in reversed(self._engine.live(cursor.seq, protocol.LIVE_PER_FRAME)):
            shown = message
            if len(message.payload) + len(message.properties or b"") > protocol.SHOWN_BYTES:
                sizes[message.seq] = self._engine.full_size(message.seq) or len(message.payload)
                shown = msgspec.structs.replace(
                    message, payload=message.payload[: protocol.SHOWN_BYTES], properties=None
                )
            size += protocol.size_of(shown)
            if messages and size > _MESSAGE_BYTES:
                sizes.pop(message.seq, None)
                break
            messages.append(shown)
        messages.reverse()
        if messages:
            cursor.seq = messages[-1].seq
        for message in messages:
            self._watched.setdefault(message.seq, None)
        return messages, sizes, size

    def _log(self, cursor: Cursor) -> tuple[list[LogLine], int]:
        if cursor.log == 0:
            # The first time all lines that are kept; later only the newer ones.
            newest = self._engine.log(0, _FIRST_LINES)
        else:
            newest = self._engine.log(cursor.log, _LOG_LINES)
        lines, size = newest_within(
            newest, _LOG_BYTES, lambda line: len(line.text) + len(line.source) + protocol.OVERHEAD
        )
        if lines:
            cursor.log = lines[-1].number
        return lines, size
