"""One recorder with many files: the placeholders of its path say which one a message belongs to.

Each path has a target of its own with a row of its own in ``recorders.db``; the recorder's row says
up to where all of them are safe. After a crash the messages behind it come again, and each target
leaves out those that it has: so each message is in one file, once.
A bounded number of targets is open; another one closes the one that was used least lately, which
goes on later where it was. The number of paths is bounded too, because clients choose topics: the
messages of further ones go to one file for all others.
Not for: the text of a path (paths.py), what a target does with its messages.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol, runtime_checkable

import msgspec

from appliance.config.path_placeholders import PathTemplate
from appliance.config.values import WritePath
from appliance.counters import Counter
from appliance.errors import ApplianceError
from appliance.model import Message
from appliance.recorders.closed_files import ClosedFiles
from appliance.recorders.formats import is_of_parts
from appliance.recorders.paths import PathMaker
from appliance.recorders.progress import Progress
from appliance.recorders.target import (
    KEY_MARK,
    Context,
    Figures,
    Later,
    Target,
    Unsaved,
    key_of,
    path_of,
)

MAX_OPEN = 500
"""Targets of text files that are open at a time: what they know is in memory, no file is open."""
MAX_OPEN_PARTS = 200
"""The same for formats that gather rows in memory, and have a file open each."""
MAX_GATHERED_BYTES = 64 * 1024 * 1024
"""Payloads that open parts may have gathered together; beyond it the largest are closed."""
MAX_PATHS = 10_000
"""Files that are not closed. Each has a row, and is looked for in its folder by people."""

ROW_FORMAT = "spread"
"""Of the recorder's own row."""
_GRACE_NS = 5_000_000_000
"""A message may be committed so long after it was received."""
_ENDED_A_TICK = 100

_MANY_PATHS = 20
_BACKLOG = 1000
_MOST_HELD = 50_000
_MOST_HELD_BYTES = 16 * 1024 * 1024
"""With many paths and more messages to come, so much is gathered before it is shared out."""
_LONGEST_S = 300.0
"""The same for more paths than parts may be open, as long as a part is open by default."""

_ERRORS = (OSError, sqlite3.Error, ApplianceError)

MakeFileTarget = Callable[[Context, Progress, str, Path, ClosedFiles], Target]
"""Makes the target of one path: the recorder's context, the row, its key, the path, and what takes
over closed files."""


@runtime_checkable
class Preparing(Protocol):
    """A target that makes a file before its first message, so that rows are stored together."""

    def prepare(self, first: Message) -> None:
        """Make the file that a message begins, if there is none."""


@runtime_checkable
class Ending(Protocol):
    """A target whose file is closed for good when its time is over. Others are finished."""

    def end(self) -> None:
        """Close the file for good although no bound is reached."""


class _Memory(msgspec.Struct, frozen=True, omit_defaults=True):
    seen: int = 0
    """The newest message that was counted; those up to it may come again."""
    is_finished: bool = False
    """Whether all files were brought to an end: an ordered stop."""


class Spread:
    """The files of one recorder.

    Args:
        context: of the recorder.
        stored: the recorder's row; ``format`` is ``""`` for one that begins.
        template: the path.
        make: makes the target of a path.
        max_open: targets that are open at a time.
        max_paths: paths that have a target.
    """

    def __init__(
        self,
        context: Context,
        stored: Progress,
        template: PathTemplate,
        make: MakeFileTarget,
        *,
        max_open: int,
        max_paths: int,
    ) -> None:
        self._context = context
        self._prefix = f"{context.key}{KEY_MARK}"
        self._stored = stored
        self._cursor = stored.seq
        self._done = stored.seq
        """Up to here the targets have their messages; the others are in ``_held``."""
        self._held: list[Message] = []
        self._held_bytes = 0
        self._held_from_s = 0.0
        self._is_crowded = False
        """Whether parts were closed for others when messages were shared out last."""
        rotate = context.config.rotate
        every_s = None if rotate is None else rotate.every
        self._longest_s = _LONGEST_S if every_s is None else min(_LONGEST_S, every_s)
        self._paths_at_once = 0
        """In how many files the last messages went together."""
        memory = msgspec.json.decode(stored.memory, type=_Memory) if stored.memory else _Memory()
        self._seen = max(memory.seen, stored.seq)
        self._was_finished = self._is_finished = memory.is_finished or not stored.format
        self._count = stored.count
        self._maker = PathMaker(template, dict(context.config.levels))
        self._is_timed = template.is_timed
        self._is_of_topics = template.has_value
        self._is_gathering = is_of_parts(context.config.format) and context.config.mode == "append"
        self._gathered: dict[Target, int] = {}
        """Bytes of payloads that each open part has, at most."""
        self._make = make
        self._max_open, self._max_paths = max_open, max_paths
        self._closed = ClosedFiles(context, Path(template.folder))
        self._later: Later = _none
        self._open: OrderedDict[str, Target] = OrderedDict()
        """The least lately used one first."""
        self._known: dict[str, tuple[int, int]] = {}
        """Every path that is not ended: the number of its last message, the length of its file."""
        self._length = 0
        """All lengths together."""
        self._ended: dict[str, int] = {}
        """Paths whose row may go once the recorder's row is past this message."""
        self._touched: dict[int, Target] = {}
        """Targets that may have unsaved rows."""
        self._last_ns = 0
        """When the newest message was received."""
        self._over: deque[str] = deque()
        """Paths to be looked at: their date may be over."""
        self._over_period = -1
        self._of_others: list[str] = []
        """The paths of the present messages that are for further topics."""
        self.note = ""

    @property
    def cursor(self) -> int:
        return self._cursor

    @property
    def durable_cursor(self) -> int:
        return self._stored.seq

    # --- opening -------------------------------------------------------------------------------

    def open(self, later: Later) -> None:
        self._later = later
        self._closed.open()
        for key, progress in self._context.store.positions(self._prefix).items():
            self._know(key, progress)
        if not self._was_finished:
            # A crash may have left any of them unfinished.
            for key in self._known:
                if key not in self._open:
                    self._make_room(1)
                    self._target(key, self._path_of(key))
        self._is_finished = False

    def _know(self, key: str, progress: Progress) -> None:
        self._length += progress.length - self._known.get(key, (0, 0))[1]
        self._known[key] = (progress.seq, progress.length)

    def _key(self, topic: str, period: int, seq: int) -> tuple[str, Path]:
        """The row of the path for messages on a topic in a period from a number on, and the path.

        A message that comes again gets the path that it had.
        """
        path = self._maker.path(topic, period)
        key = self._row_key(path, period)
        if key not in self._known and key not in self._ended:
            others = self._maker.path_of_others(period)
            key_of_others = self._row_key(others, period)
            # Files that were ended since may have made room for the topic.
            was_there = seq <= self._reached(key_of_others)
            if was_there or len(self._known) >= self._max_paths:
                return key_of_others, others
        return key, path

    def _reached(self, key: str) -> int:
        """The last message that a path has."""
        target = self._open.get(key)
        if target is not None:
            return target.cursor
        return self._ended.get(key) or self._known.get(key, (0, 0))[0]

    def _row_key(self, path: Path, period: int) -> str:
        return row_key(self._context.key, period, path, self._context.data_dir)

    def _target(self, key: str, path: Path) -> Target:
        """The open target of a path."""
        target = self._open.get(key)
        if target is not None:
            self._open.move_to_end(key)
            return target
        stored = self._context.store.position(key) if key in self._known else None
        if stored is None:
            stored = Progress("", self._done)
        config = msgspec.structs.replace(self._context.config, path=WritePath(path))
        one_topic = self._maker.is_of_one_topic(path, config.topic_filter)
        context = msgspec.structs.replace(self._context, config=config, has_one_topic=one_topic)
        target = self._make(context, stored, key, path, self._closed)
        target.open(lambda after_seq: self._of_path(key, after_seq))
        self._ended.pop(key, None)
        self._open[key] = target
        self._know(key, stored)
        return target

    def _of_path(self, key: str, after_seq: int) -> Iterator[list[Message]]:
        """The journal's messages of a path behind a number."""
        period = self._maker.period
        for messages in self._later(max(after_seq, self._stored.seq)):
            yield [
                each
                for each in messages
                if each.seq > after_seq
                and self._key(each.topic, period(each.received_ns), each.seq)[0] == key
            ]

    def _make_room(self, wanted: int) -> None:
        """Close targets that were not used lately, so that so many more can be open."""
        number = len(self._open) - max(0, self._max_open - wanted)
        leaving = list(islice(self._open.items(), max(0, number)))
        finished: list[Target] = []
        try:
            for _, target in leaving:
                with self._going_back(target):
                    target.finish()
                finished.append(target)
        finally:
            self._save(finished)
        for key, _ in leaving:
            self._close(key)
            self._is_crowded = self._is_gathering
            self._context.count(Counter.RECORDER_FILES_CLOSED_FOR_OTHERS)

    @contextlib.contextmanager
    def _going_back(self, target: Target) -> Iterator[None]:
        """If the target loses what it had taken, all messages behind that come again."""
        before = target.cursor
        try:
            yield
        finally:
            if target.cursor < before:
                self._cursor = self._done = min(self._done, target.cursor)
                self._held.clear()
                self._held_bytes = 0

    def _close(self, key: str) -> None:
        target = self._open.pop(key)
        self._touched.pop(id(target), None)
        self._gathered.pop(target, None)

    def _bound_gathered(self) -> None:
        """Close the largest parts when all together are too large."""
        left = sum(self._gathered.values())
        if left <= MAX_GATHERED_BYTES:
            return
        for target, size in sorted(self._gathered.items(), key=lambda each: -each[1]):
            if left <= MAX_GATHERED_BYTES // 2:
                break
            with self._going_back(target):
                target.finish()
            del self._gathered[target]
            left -= size

    # --- appending -----------------------------------------------------------------------------

    def append(self, messages: Sequence[Message], seq: int) -> None:
        if not self._held:
            self._held_from_s = time.monotonic()
        self._held.extend(messages)
        self._held_bytes += sum([len(message.payload) for message in messages])
        self.skip(seq)
        if not self._may_wait():
            self._share_out()

    def _may_wait(self) -> bool:
        """Whether messages are held, so that more of them go into each file together."""
        if len(self._held) >= _MOST_HELD or self._held_bytes >= _MOST_HELD_BYTES:
            return False
        if self._is_crowded:
            # More paths than parts may be open: else parts would be closed with a few rows each.
            # The journal keeps what is held, as it keeps what an open part has.
            held_s = time.monotonic() - self._held_from_s
            return held_s < self._longest_s and not self._context.is_pressed()
        # Each file costs a wait for the disk, however little it gets. Only while more is in the
        # journal, so nothing is recorded later for it.
        is_backlog = self._context.last_seq() - self._cursor >= _BACKLOG
        return is_backlog and self._paths_at_once >= _MANY_PATHS

    def _share_out(self) -> None:
        """Let each path have the messages that are held."""
        if not self._held:
            self._done = self._cursor
            return
        messages, self._held, self._held_bytes = self._held, [], 0
        groups = self._grouped(messages)
        self._paths_at_once = len(groups)
        self._is_crowded = False
        failed = self._append_to_all({k: v for k, v in groups.items() if k not in self._of_others})
        if self._of_others and failed is None:
            # The last: when they have theirs, each other path has a row. So a message without one
            # that comes again was among them.
            self._save([each for each in self._open.values() if each.unsaved().is_durable])
            failed = self._append_to_all({key: groups[key] for key in self._of_others})
        if failed is not None:
            # They come again, and those paths that have theirs leave them out.
            self._cursor = min(self._cursor, self._done)
            raise failed
        self._count += (
            len(messages)
            if messages[0].seq > self._seen
            else sum(each.seq > self._seen for each in messages)
        )
        self._seen = max(self._seen, messages[-1].seq)
        self._last_ns = messages[-1].received_ns
        self._done = self._cursor

    def _append_to_all(self, groups: Mapping[str, tuple[Path, list[Message]]]) -> Exception | None:
        failed: Exception | None = None
        for start in range(0, len(groups), self._max_open):
            share = dict(islice(groups.items(), start, start + self._max_open))
            failed = self._append_to(share) or failed
        return failed

    def _grouped(self, messages: Sequence[Message]) -> dict[str, tuple[Path, list[Message]]]:
        period = self._maker.period
        keys: dict[tuple[str, int], list[Message]] = {}
        groups: dict[str, tuple[Path, list[Message]]] = {}
        for message in messages:
            place = (message.topic, period(message.received_ns))
            group = keys.get(place)
            if group is None:
                key, path = self._key(*place, message.seq)
                if key not in groups:
                    groups[key] = (path, [])
                    self._begin(key)
                group = keys[place] = groups[key][1]
            group.append(message)
        self._of_others = []
        for key, (path, group) in groups.items() if self._is_of_topics else ():
            if path == self._maker.path_of_others(period(group[0].received_ns)):
                self._of_others.append(key)
                self._count_others(path, len(group))
        return groups

    def _begin(self, key: str) -> None:
        if key not in self._known:
            self._known[key] = (self._done, 0)
            if self._is_timed:
                self._over.append(key)  # it may be of a date that is over

    def _count_others(self, path: Path, messages: int) -> None:
        self.note = f"more than {self._max_paths} files: further topics are in {path.name}"
        for _ in range(messages):
            self._context.count(Counter.RECORDER_PATHS_BEYOND_LIMIT)

    def _append_to(self, groups: dict[str, tuple[Path, list[Message]]]) -> Exception | None:
        """Let each path have its messages; returns the first error."""
        failed: Exception | None = None
        for key in groups.keys() & self._open.keys():
            self._open.move_to_end(key)
        self._make_room(len(groups.keys() - self._open.keys()))
        ready: list[tuple[Target, list[Message]]] = []
        for key, (path, messages) in groups.items():
            try:
                target = self._target(key, path)
                new = [each for each in messages if each.seq > target.cursor]
                if new and isinstance(target, Preparing):
                    target.prepare(new[0])
            except _ERRORS as error:
                failed = failed or error
                continue
            if new:
                ready.append((target, new))
        begun = [target for target, _ in ready if target.unsaved().is_durable]
        if begun:
            self._save(begun)
        for target, new in ready:
            try:
                self._touched[id(target)] = target
                with self._going_back(target):
                    target.append(new, new[-1].seq)
                if self._is_gathering:
                    size = sum([len(message.payload) for message in new])
                    self._gathered[target] = self._gathered.get(target, 0) + size
            except _ERRORS as error:
                failed = failed or error
            if target.note:
                self.note = target.note
        return failed

    def _save(self, targets: Sequence[Target]) -> None:
        """Store positions of some paths. The recorder's own row stays, which is always safe."""
        found = [(target, target.unsaved()) for target in targets]
        rows = [row for _, unsaved in found for row in unsaved.rows]
        if rows:
            self._context.store.save(rows, durable=any(each.is_durable for _, each in found))
            for target, unsaved in found:
                self._take_saved(target, unsaved.rows)

    def skip(self, seq: int) -> None:
        # The targets need not know: each leaves out what it has, and nothing waits for the others.
        self._cursor = max(self._cursor, seq)
        if not self._held:
            self._done = self._cursor

    # --- time ----------------------------------------------------------------------------------

    def tick(self, now_ns: int) -> None:
        if self._held and not (self._may_wait() and self._is_same_period(now_ns)):
            self._share_out()
        self._bound_gathered()
        for target in self._open.values():
            with self._going_back(target):
                target.tick(now_ns)
        self._end_old(now_ns)
        self._forget_ended()
        self._closed.tick(now_ns)

    def _is_same_period(self, now_ns: int) -> bool:
        period = self._maker.period
        return period(self._held[0].received_ns) == period(now_ns - _GRACE_NS)

    def _end_old(self, now_ns: int) -> None:
        """Close the files of dates and hours that are over."""
        if not self._is_timed:
            return
        is_complete = not self._held and self._cursor >= self._context.last_seq()
        reached_ns = now_ns if is_complete else self._last_ns
        period = self._maker.period(reached_ns - _GRACE_NS)
        present = {period, self._maker.period(reached_ns)}
        if period != self._over_period and reached_ns:
            self._over_period = period
            self._over = deque(self._known)
        for _ in range(min(len(self._over), _ENDED_A_TICK)):
            key = self._over[0]
            if key in self._known and self._period_of(key) not in present:
                self._end(key)
            self._over.popleft()

    def _end(self, key: str) -> None:
        if key not in self._open:
            self._make_room(1)
        target = self._target(key, self._path_of(key))
        with self._going_back(target):
            if isinstance(target, Ending):
                target.end()
            else:
                target.finish()
        self._save([target])
        self._close(key)
        _, length = self._known.pop(key)
        self._length -= length
        self._ended[key] = target.cursor

    def _period_of(self, key: str) -> int:
        return int(key.removeprefix(self._prefix).split(KEY_MARK, 1)[0])

    def _path_of(self, key: str) -> Path:
        return path_of(key, self._context.data_dir)

    def finish(self) -> None:
        self._closed.finish()
        self._share_out()
        failed: Exception | None = None
        for target in self._open.values():
            self._touched[id(target)] = target
            try:
                with self._going_back(target):
                    target.finish()
            except _ERRORS as error:
                failed = failed or error
        if failed is not None:
            raise failed
        self._is_finished = True

    # --- positions and figures -----------------------------------------------------------------

    def unsaved(self) -> Unsaved:
        rows: list[tuple[str, Progress]] = []
        is_urgent = is_durable = False
        safe_seq = self._done
        for target in self._open.values():
            safe = target.durable_cursor
            if id(target) in self._touched:
                found = target.unsaved()
                rows.extend(found.rows)
                is_urgent |= found.is_urgent
                is_durable |= found.is_durable
                safe = max([safe, *(row.seq for _, row in found.rows)])
            if safe < target.cursor:
                safe_seq = min(safe_seq, safe)
        memory = _Memory(self._seen if self._seen > safe_seq else 0, self._is_finished)
        row = Progress(
            ROW_FORMAT,
            max(safe_seq, self._stored.seq),
            count=self._count,
            memory="" if memory == _Memory() else msgspec.json.encode(memory).decode(),
        )
        if row != self._stored:
            rows.append((self._context.key, row))
            is_urgent |= row.count != self._stored.count
            # A crash from now on must not find files that count as finished.
            is_durable |= not self._stored.format or (self._was_finished and not self._is_finished)
        return Unsaved(rows, is_urgent, is_durable)

    def saved(self, rows: Sequence[tuple[str, Progress]]) -> None:
        own = {key: row for key, row in rows if key == self._context.key}
        for key, row in rows:
            if key != self._context.key and key in self._open:
                self._take_saved(self._open[key], [(key, row)])
        if own:
            self._stored = own[self._context.key]
            self._was_finished = self._is_finished
            self._forget_ended()

    def _take_saved(self, target: Target, rows: Sequence[tuple[str, Progress]]) -> None:
        target.saved(rows)
        self._touched.pop(id(target), None)
        for key, row in rows:
            if key in self._known:
                self._know(key, row)

    def _forget_ended(self) -> None:
        done = [key for key, seq in self._ended.items() if seq <= self._stored.seq]
        if done:
            self._context.store.remove(done)
            for key in done:
                del self._ended[key]

    def figures(self) -> Figures:
        files, size = self._closed.figures
        return Figures(
            recorded=self._count,
            size_bytes=size + self._length,
            files=files + len(self._known),
        )


def row_key(recorder: str, period: int, path: Path, data_dir: Path) -> str:
    """The name of a path's row in ``recorders.db``.

    Args:
        recorder: the name of the recorder's own row.
        period: ``PathMaker.period`` of the path's messages.
        path: the path.
        data_dir: the data directory.
    """
    return f"{recorder}{KEY_MARK}{period}{KEY_MARK}{key_of(path, data_dir)}"


def _none(_after_seq: int) -> Iterator[list[Message]]:
    yield from ()
