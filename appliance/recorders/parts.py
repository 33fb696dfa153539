"""A target of complete files: formats that can't be appended to, one part after the other.

Rows go into ``.NAME.part`` in the same folder. At a bound the part is completed, forced to the disk
and announced in ``recorders.db``, gets its name, and then its row there counts, together with the
position. A reader sees complete files only, and no file changes once it has its name.

The position is the end of the last part that has its name. So the journal keeps what an open part
holds, and a crash costs nothing: a part that was announced gets its name at the next start, any
other is made again. The name has the numbers of the first and the last message, so that series
whose position is lost are found again.
Not for: the bytes of a file (part_writer.py), which files stay.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from appliance.config.tables import RotateConfig
from appliance.model import Message
from appliance.recorders.closed_files import ClosedFiles
from appliance.recorders.formats import make_part_writer
from appliance.recorders.part_names import DIGITS
from appliance.recorders.part_store import Part
from appliance.recorders.progress import Progress
from appliance.recorders.table_maker import TableMaker
from appliance.recorders.target import Context, Figures, Later, Target, Unsaved, key_of, path_of
from appliance.storage import files

_EVERY_S = 300.0
_SIZE = 64_000_000
_MESSAGES = {"qvd": 100_000}
_MOST_MESSAGES = 1_000_000
_MORE_ROOM_BYTES = 64_000
"""So much more must be free than when the disk was full, or a tenth, until it is tried again."""
_FULL_S = 60.0
"""It is tried again after that in any case: a quota does not show in the free space."""

_log = logging.getLogger(__name__)


class Bounds(msgspec.Struct, frozen=True):
    """When a part is closed: at the first that is reached."""

    size: int
    every_ns: int
    messages: int

    @classmethod
    def of(cls, kind: str, rotate: RotateConfig | None) -> Bounds:
        """The bounds of a configuration; one that is not given has its default."""
        rotate = rotate or RotateConfig()
        every_s = _EVERY_S if rotate.every is None else float(rotate.every)
        return cls(
            size=_SIZE if rotate.size is None else int(rotate.size),
            every_ns=int(every_s * 1e9),
            messages=rotate.messages or _MESSAGES.get(kind, _MOST_MESSAGES),
        )


class _Open(msgspec.Struct):
    """The open part."""

    first: Message
    last: Message
    began_s: float
    """By ``time.monotonic``."""
    messages: int = 0

    @property
    def first_seq(self) -> int:
        return self.first.seq

    @property
    def last_seq(self) -> int:
        return self.last.seq


class Parts(Target):
    """One series of parts, and its row in ``recorders.db``.

    Args:
        context: surroundings of the recorder.
        key: of the row, and of the path: the recorder's, or one of several if its path has
            placeholders.
        stored: the row; ``format`` is ``""`` for a series that begins.
        closed: the recorder's closed files.
    """

    def __init__(self, context: Context, key: str, stored: Progress, closed: ClosedFiles) -> None:
        config = context.config
        self.key = key
        self._note = ""
        self._context = context
        self._closed = closed
        self._path = path_of(key, context.data_dir)
        self._bounds = Bounds.of(config.format, config.rotate)
        self._writer = make_part_writer(config.format, context.name)
        self._maker = TableMaker(config)
        self._stored = stored
        self._progress = stored
        """The end of the last part that has its name, or later as long as no part is open."""
        self._cursor = stored.seq
        self._part: _Open | None = None
        self._announced: Part | None = None
        """A complete part whose row says ``pending``: it gets its name before another begins."""
        self._wanted_bytes = 0
        """Free space from which on it is tried again after the disk was full."""
        self._full_until_s = 0.0
        self._failure = OSError()
        """What was said when the disk was full."""
        self._open_bytes = 0

    @property
    def note(self) -> str:
        return self._note

    @property
    def cursor(self) -> int:
        return self._cursor

    @property
    def durable_cursor(self) -> int:
        return self._stored.seq

    @property
    def is_open(self) -> bool:
        """Whether a part is open."""
        return self._part is not None

    def open(self, later: Later) -> None:
        files.make_directory(self._path.parent)
        if not self._closed.is_settled:  # asks for all rows: once, not for each of many series
            settle(self._context)
            self._closed.is_settled = True
        kind = self._context.config.format
        self._stored = self._context.store.position(self.key) or self._stored
        self._progress = Progress(kind, self._stored.seq)
        if self._stored.format == kind:
            self._progress = self._stored
        try:
            self._maker.recall(self._progress.memory)
        except msgspec.MsgspecError as error:
            _log.error("The columns of %s are damaged and begin anew: %s", self._path, error)
            self._maker.recall("")
        self._cursor = self._progress.seq
        self._announced = self._part = None
        waiting = waiting_file(self._path)
        if waiting.exists():
            files.remove(waiting)
        if self.key == self._context.key:  # one of several series looks when a part is closed
            self._adopt(later)

    def _adopt(self, later: Later) -> None:
        """Take over files that are newer than the position, if they are what would be made now.

        ``recorders.db`` may come from a backup that was copied before they were closed.
        """
        example = _named(self._path, 0, 0, self._context.config.format)
        unknown = self._closed.unknown_parts
        for path, first_seq, last_seq in unknown.of_series(example):
            if last_seq <= self._progress.seq:
                continue
            messages = 0
            ends: list[Message] = []
            if last_seq <= self._context.last_seq():
                for few in later(self._progress.seq):
                    inside = [each for each in few if each.seq <= last_seq]
                    messages += len(inside)
                    ends = [*ends[:1], *inside[:1], *inside[-1:]]
                    if len(inside) < len(few):
                        break
            if not ends or (ends[0].seq, ends[-1].seq) != (first_seq, last_seq):
                self._set_aside(path, "excess" if self._stored.format else "before")
                unknown.forget(path)
                continue
            part = self._part_row(path, ends[0], ends[-1], messages, path.stat().st_size)
            progress = msgspec.structs.replace(
                self._progress,
                seq=last_seq,
                count=self._progress.count + messages,
                length=self._progress.length + part.bytes,
            )
            self._context.parts.close(part, [(self.key, progress)])
            unknown.forget(path)
            self._stored = self._progress = progress
            self._closed.count(1, part.bytes)
            self._cursor = last_seq
            _log.warning("%s was closed before recorders.db was copied; it counts again", path)

    def _set_aside(self, path: Path, label: str) -> None:
        target = files.set_aside(path, label, self._context.clock_ns())
        self._note = f"a file whose messages are recorded elsewhere is now {target.name}"
        _log.warning("%s holds messages that come in another file; it is now %s", path, target)

    # --- rows ------------------------------------------------------------------------------------

    def append(self, messages: Sequence[Message], seq: int) -> None:
        self._publish()
        self._check_room()
        try:
            for few in self._divided(messages):
                self._write(few)
        except BaseException as error:
            self._give_up(error)
            raise
        self.skip(seq)

    def skip(self, seq: int) -> None:
        self._cursor = seq
        if self._part is None and self._announced is None:
            self._progress = msgspec.structs.replace(self._progress, seq=seq)

    def _divided(self, messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
        """The messages, at most as many at a time as the open part still takes."""
        start = 0
        while start < len(messages):
            part = self._part
            taken, first_ns = (
                (part.messages, part.first.received_ns)
                if part
                else (0, messages[start].received_ns)
            )
            end = min(len(messages), start + self._bounds.messages - taken)
            end_ns = first_ns + self._bounds.every_ns
            if messages[end - 1].received_ns >= end_ns:
                late = (n for n in range(start, end) if messages[n].received_ns >= end_ns)
                end = next(late)
            if end == start:
                self._close()
            else:
                yield messages[start:end]
                start = end

    def _write(self, messages: Sequence[Message]) -> None:
        table = self._maker.take(messages)
        first, last = messages[0], messages[-1]
        if table.rows:
            if self._part is not None and not self._writer.takes(table.columns):
                self._close()
            if self._part is None:
                files.make_directory(self._path.parent)  # it may have been removed
                self._writer.begin(waiting_file(self._path), table.columns)
                self._part = _Open(first, last, time.monotonic())
                self._progress = msgspec.structs.replace(
                    self._progress, seq=max(self._progress.seq, first.seq - 1)
                )
            self._writer.write(table)
        self._cursor = last.seq
        part = self._part
        if part is not None:
            part.messages += len(messages)
            part.last = last
            # Noted for ``figures``, because other threads must not look into the writer.
            self._open_bytes = self._writer.size
            if part.messages >= self._bounds.messages or self._open_bytes >= self._bounds.size:
                self._close()

    def tick(self, now_ns: int) -> None:  # noqa: ARG002  # a step of the clock ends no part
        self._publish()
        part = self._part
        if part is not None:
            open_s = time.monotonic() - part.began_s
            if open_s * 1e9 >= self._bounds.every_ns or self._context.is_pressed():
                self._finish_part()

    def finish(self) -> None:
        self._publish()
        self._finish_part()

    def _finish_part(self) -> None:
        if self._part is not None:
            try:
                self._close()
            except BaseException as error:
                self._give_up(error)
                raise

    # --- a part's end ----------------------------------------------------------------------------

    def _close(self) -> None:
        """Complete the open part, announce it, and give it its name."""
        part = self._part
        assert part is not None
        self._writer.close(part.first_seq, part.last_seq)
        waiting = waiting_file(self._path)
        with io.FileIO(waiting, "r+") as file:
            files.sync_file(file.fileno())
            size = file.seek(0, io.SEEK_END)
        target = _named(self._path, part.first_seq, part.last_seq, self._context.config.format)
        unknown = self._closed.unknown_parts
        for path in unknown.overlapping(target, part.first_seq, part.last_seq):
            self._set_aside(path, "excess")
            unknown.forget(path)
        announced = msgspec.structs.replace(
            self._part_row(target, part.first, part.last, part.messages, size),
            state="pending",
            memory=self._maker.memory,
        )
        self._context.parts.announce(announced)
        self._announced, self._part = announced, None
        self._publish()

    def _part_row(
        self, path: Path, first: Message, last: Message, messages: int, size: int
    ) -> Part:
        return Part(
            path=key_of(path, self._context.data_dir),
            recorder=self._context.key,
            series=self.key,
            first_seq=first.seq,
            last_seq=last.seq,
            messages=messages,
            bytes=size,
            first_ns=first.received_ns,
            last_ns=last.received_ns,
            closed_ns=self._context.clock_ns(),
        )

    def _publish(self) -> None:
        """Give a complete part its name, if there is one. What fails is tried again."""
        announced = self._announced
        if announced is None:
            return
        before = msgspec.structs.replace(self._progress, seq=max(announced.last_seq, self._cursor))
        progress = publish(self._context, announced, before)
        self._announced = None
        if progress is None:
            self._cursor = self._progress.seq
            raise FileNotFoundError(
                errno.ENOENT, "a part was removed before it was complete", str(self._path)
            )
        self._stored = self._progress = progress
        self._closed.count(1, announced.bytes)

    def _give_up(self, error: BaseException) -> None:
        """Throw the open part away: it is made again from the journal."""
        if self._part is None:
            return
        self._part = None
        self._cursor = self._progress.seq
        self._writer.abandon()
        with contextlib.suppress(OSError):
            waiting_file(self._path).unlink(missing_ok=True)
            # A file that is gone is no question of room.
            if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                self._failure = error
                free = files.free_bytes(self._path.parent)
                self._wanted_bytes = free + max(_MORE_ROOM_BYTES, free // 10)
                self._full_until_s = time.monotonic() + _FULL_S

    def _check_room(self) -> None:
        """A part is made again from its beginning: not each second while the disk is full."""
        if not self._wanted_bytes:
            return
        is_over = time.monotonic() >= self._full_until_s
        if not is_over and files.free_bytes(self._path.parent) < self._wanted_bytes:
            said = self._failure
            code = said.errno or errno.ENOSPC
            raise OSError(code, said.strerror or str(said), str(self._path))
        self._wanted_bytes = 0

    # --- what is said ----------------------------------------------------------------------------

    def unsaved(self) -> Unsaved:
        if self._progress == self._stored:
            return Unsaved()
        return Unsaved(
            rows=((self.key, self._progress),),
            is_durable=self._progress.format != self._stored.format,
        )

    def saved(self, rows: Sequence[tuple[str, Progress]]) -> None:
        for key, progress in rows:
            if key == self.key:
                self._stored = progress

    def figures(self) -> Figures:
        part = self._part
        files_closed, size = self._closed.figures
        return Figures(
            recorded=self._progress.count + (part.messages if part else 0),
            size_bytes=size + (self._open_bytes if part else 0),
            files=files_closed,
            details={"open part": f"{part.messages} messages"} if part else {},
        )


def waiting_file(path: Path) -> Path:
    """The name of a part that is not complete yet: no wildcard of a reader matches it."""
    return path.with_name(f".{path.name}.part")


def settle(context: Context, series: str | None = None) -> None:
    """Give the parts their names that were announced before a crash, and note them.

    Args:
        context: surroundings of the recorder.
        series: only those of this series; ``None``: of all series of the recorder.

    Raises:
        OSError, sqlite3.Error: not possible now; try again.
    """
    for part in context.parts.of_recorder(context.key, ["pending"]):
        if series is None or part.series == series:
            stored = context.store.position(part.series)
            kind = context.config.format if stored is None or not stored.format else stored.format
            before = msgspec.structs.replace(
                stored or Progress(kind, 0),
                format=kind,
                seq=max(part.last_seq, stored.seq if stored else 0),
            )
            publish(context, part, before)


def publish(context: Context, part: Part, before: Progress) -> Progress | None:
    """Give an announced part its name, and store that it has it.

    Args:
        context: surroundings of the recorder.
        part: the part.
        before: where its series stood, with the number up to which it will stand.

    Returns where the series stands; ``None``: there is no complete file, so the part is forgotten.

    Raises:
        OSError, sqlite3.Error: not possible now; try again.
    """
    target = path_of(part.path, context.data_dir)
    waiting = waiting_file(path_of(part.series, context.data_dir))
    if not target.exists():
        if not waiting.exists() or waiting.stat().st_size != part.bytes:
            context.parts.remove([part.path])
            return None
        files.rename(waiting, target)
    files.sync_directory(target.parent)
    progress = msgspec.structs.replace(
        before,
        count=before.count + part.messages,
        length=before.length + part.bytes,
        memory=part.memory,
    )
    context.parts.close(part, [(part.series, progress)])
    return progress


def _named(path: Path, first_seq: int, last_seq: int, kind: str) -> Path:
    suffix = path.suffix or f".{kind}"
    return path.with_name(f"{path.stem}-{first_seq:0{DIGITS}}-{last_seq:0{DIGITS}}{suffix}")
