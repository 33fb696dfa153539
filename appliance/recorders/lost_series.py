"""Where the series of files of a recorder go on whose rows in ``recorders.db`` are lost.

The names of complete files say which messages are in them. Of a growing file the end says it
(locate.py). What a path with placeholders has in their place is read from the names that are there.
Not for: recorders of one file (lost_position.py).
"""

from __future__ import annotations

import gzip
import itertools
import os
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

import msgspec

from appliance.config.path_placeholders import PathTemplate
from appliance.config.tables import RecorderConfig
from appliance.model import Message
from appliance.recorders.formats import is_of_parts, make_format
from appliance.recorders.growing_files import SERIES, OpenFile
from appliance.recorders.locate import locate
from appliance.recorders.part_names import DIGITS
from appliance.recorders.part_store import Part, PartStore
from appliance.recorders.parts import Bounds
from appliance.recorders.paths import PathMaker
from appliance.recorders.progress import Progress
from appliance.recorders.spread import ROW_FORMAT, row_key
from appliance.recorders.target import key_of

_MAX_FILES = 200_000
_MAX_MESSAGES = 1_000_000
"""Messages of the journal that are looked at for growing files of many topics, the newest."""
_OF_ONE = 600
"""The same for each file: more than a place needs as its proof."""
_IN_DOUBT = 10_000
"""Messages that may be in some files and not in others: of two batches."""
_SLACK_NS = 60_000_000_000
_COMPRESSED = (".gz", ".zst")
_TIMES = {
    "date": r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})",
    "hour": r"(?P<hour>[0-9]{2})",
}


class _File(msgspec.Struct, frozen=True):
    path: Path
    first_seq: int
    last_seq: int
    """0: the name does not say it."""
    size: int
    written_ns: int


class _Series(msgspec.Struct):
    """The files of one path."""

    key: str
    path: Path
    files: list[_File]


class LostSeries:
    """Finds the series of one recorder.

    Args:
        config: of the recorder; its ``mode`` is ``append``.
        key: of its row.
        data_dir: the data directory.
        template: the path, if it has placeholders.
        parts: where files are noted that are found.
        last_seq: the journal's newest message.
    """

    def __init__(
        self,
        config: RecorderConfig,
        key: str,
        data_dir: Path,
        *,
        template: PathTemplate | None,
        parts: PartStore,
        last_seq: int,
    ) -> None:
        self._config = config
        self._key = key
        self._data_dir = data_dir
        self._template = template
        self._parts = parts
        self._last_seq = last_seq
        self._is_of_parts = is_of_parts(config.format)
        self._maker = None if template is None else PathMaker(template, dict(config.levels))

    def find(
        self,
        newest_first: Callable[[], Iterator[Message]],
        seq_at: Callable[[int], int],
        present: Mapping[str, Progress],
    ) -> tuple[dict[str, Progress], str, bool]:
        """Find the rows.

        Args:
            newest_first: the journal's messages of the recorder.
            seq_at: the journal's number of the first message that was received at a time or later.
            present: rows that are not lost.

        Returns the rows, a sentence for an operator, and whether something may be missing or twice.

        Raises:
            UnavailableError, sqlite3.Error: the journal or the database can't be used now.
        """
        what = f"The position of the recording {self._config.path} was lost"
        behind = f"behind message {self._last_seq}"
        try:
            all_series = self._series()
        except OSError as error:
            told = f"{what}, and its folder can't be read ({error.strerror or error})"
            return {self._key: self._begin()}, f"{told}: it goes on {behind}.", True
        if not all_series:
            told = f"{what}, and it has no file: it begins anew {behind}."
            told += " Earlier messages can be had with appliance export."
            return {self._key: self._begin()}, told, True
        if self._is_of_parts:
            rows, unclear = self._rows_of_parts(all_series), 0
            seq = self._seq_of_parts(all_series, rows, seq_at)
        else:
            rows, unclear = self._rows_of_growing(all_series, newest_first)
            newest = max((row.seq for row in rows.values()), default=self._last_seq)
            seq = newest if self._template is None else max(0, newest - _IN_DOUBT)
        if self._template is not None:
            rows[self._key] = Progress(ROW_FORMAT, seq)
        elif self._key not in rows:
            rows[self._key] = Progress("", seq)
        found = {key: row for key, row in rows.items() if key not in present}
        number = sum(len(each.files) for each in all_series)
        told = f"{what}. By its {number} files it goes on behind message {seq}"
        if unclear:
            told += (
                f"; the ends of {unclear} files are none that the journal's messages give: those"
                " files are set aside when another message comes for them"
            )
        return found, f"{told}.", unclear > 0

    def _begin(self) -> Progress:
        return Progress("", self._last_seq)

    # --- which files there are -------------------------------------------------------------------

    def _series(self) -> list[_Series]:
        found: dict[str, _Series] = {}
        for path, stat in self._files():
            name, numbers = self._taken_apart(path.name)
            if name is None:
                continue
            base = path.with_name(name)
            key = self._key_of(base)
            if key is not None:
                series = found.setdefault(key, _Series(key, base, []))
                series.files.append(_File(path, *numbers, stat.st_size, stat.st_mtime_ns))
        for series in found.values():
            series.files.sort(key=lambda each: (each.first_seq, each.path.name))
        return list(found.values())

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        if self._template is None:
            folders: Iterable[str] = [str(Path(self._config.path).parent)]
        else:
            folders = (folder for folder, _, _ in os.walk(self._template.folder))
        count = 0
        for folder in folders:
            try:
                entries = list(os.scandir(folder))
            except FileNotFoundError:
                continue
            for entry in entries:
                if count < _MAX_FILES and entry.is_file(follow_symlinks=False):
                    count += 1
                    yield Path(entry.path), entry.stat()

    def _taken_apart(self, name: str) -> tuple[str | None, tuple[int, int]]:
        """The name of the series, and the numbers in a file's name."""
        if self._is_of_parts:
            found = re.fullmatch(
                rf"(.*)-([0-9]{{{DIGITS},18}})-([0-9]{{{DIGITS},18}})(\.[^.]*)", name
            )
            if found is None:
                return None, (0, 0)
            return found[1] + found[4], (int(found[2]), int(found[3]))
        for ending in _COMPRESSED:
            name = name.removesuffix(ending)
        found = re.fullmatch(rf"(.*)-([0-9]{{{DIGITS},18}})(\.[^.]*|)", name)
        if found is not None:
            return found[1] + found[3], (int(found[2]), 0)
        return (name, (0, 0)) if self._config.rotate is None else (None, (0, 0))

    def _key_of(self, path: Path) -> str | None:
        """The key of the row of a series; ``None``: it is none of the recorder."""
        template, maker = self._template, self._maker
        if template is None or maker is None:
            wanted = Path(self._config.path)
            is_same = path == wanted or (
                self._is_of_parts and not wanted.suffix and path.stem == wanted.name
            )
            return self._key if is_same else None
        try:
            inside = path.relative_to(template.folder).parts
        except ValueError:
            return None
        if len(inside) != len(template.names):
            return None
        times: dict[str, str] = {}
        for name, text in zip(template.names, inside, strict=True):
            pattern = "".join(
                re.escape(piece)
                if isinstance(piece, str)
                else ".+"
                if piece.is_value
                else _TIMES[piece.name]
                for piece in name.pieces
            )
            found = re.fullmatch(pattern, text)
            if found is None:
                return None
            times |= found.groupdict()
        return row_key(self._key, maker.period(_time_ns(times)), path, self._data_dir)

    # --- complete files --------------------------------------------------------------------------

    def _rows_of_parts(self, all_series: list[_Series]) -> dict[str, Progress]:
        rows = {}
        for series in all_series:
            for file in series.files:
                self._note(series, file, file.last_seq)
            rows[series.key] = Progress(
                self._config.format,
                min(series.files[-1].last_seq, self._last_seq),
                length=sum(each.size for each in series.files),
            )
        return rows

    def _seq_of_parts(
        self,
        all_series: list[_Series],
        rows: Mapping[str, Progress],
        seq_at: Callable[[int], int],
    ) -> int:
        """The message behind which parts may have been open when the rows were lost."""
        if self._template is None:
            return rows[self._key].seq
        bounds = Bounds.of(self._config.format, self._config.rotate)
        newest_ns = max(each.files[-1].written_ns for each in all_series)
        since_ns = newest_ns - bounds.every_ns - _SLACK_NS
        ends = [rows[each.key].seq for each in all_series if each.files[-1].written_ns >= since_ns]
        return min(self._last_seq, max(0, seq_at(since_ns) - 1), *ends)

    # --- growing files ---------------------------------------------------------------------------

    def _rows_of_growing(
        self, all_series: list[_Series], newest_first: Callable[[], Iterator[Message]]
    ) -> tuple[dict[str, Progress], int]:
        """The rows, and how many series have an end that no message gives."""
        messages = self._messages_of_each(newest_first)
        rows: dict[str, Progress] = {}
        unclear = 0
        for series in all_series:
            firsts = sorted({each.first_seq for each in series.files})
            ends = {first: after - 1 for first, after in itertools.pairwise(firsts)}
            packed = {each.path.name for each in series.files if each.path.suffix in _COMPRESSED}
            for each in series.files:
                if each.first_seq in ends:
                    self._note_closed(series, each, ends[each.first_seq], packed)
            file = series.files[-1]
            row = self._row_of(file, messages(series.key))
            if row is None:
                unclear += file.size > len(make_format(self._config).empty)
                if not file.first_seq or file.path.suffix in _COMPRESSED:
                    continue
                # All before its first message is in other files, so it is made again.
                name = SERIES + make_format(self._config).name
                row = Progress(name, file.first_seq - 1, memory=_encoded(OpenFile()))
            if file.path.suffix in _COMPRESSED:  # of a plain one beside it, this is the copy
                for each in series.files:
                    if each.first_seq == file.first_seq:
                        self._note_closed(series, each, row.seq, packed)
                row = Progress(row.format, row.seq, memory=_encoded(OpenFile(earlier=row.count)))
            rows[series.key] = row
        return rows, unclear

    def _messages_of_each(
        self, newest_first: Callable[[], Iterator[Message]]
    ) -> Callable[[str], Iterable[Message]]:
        maker = self._maker
        if maker is None:
            return lambda _key: newest_first()
        found: dict[str, list[Message]] = defaultdict(list)
        for number, message in enumerate(newest_first()):
            if number >= _MAX_MESSAGES:
                break
            period = maker.period(message.received_ns)
            path = maker.path(message.topic, period)
            few = found[row_key(self._key, period, path, self._data_dir)]
            if len(few) < _OF_ONE:
                few.append(message)
        return lambda key: found.get(key, ())

    def _row_of(self, file: _File, newest_first: Iterable[Message]) -> Progress | None:
        file_format = make_format(self._config)
        with tempfile.TemporaryDirectory(dir=self._data_dir) as folder:
            try:
                path = _unpacked(file.path, Path(folder) / "file")
                if path is None or path.stat().st_size <= len(file_format.empty):
                    return None
                written = (each for each in newest_first if file_format.with_rows([each]))
                place = locate(path, file_format, written, self._last_seq)
            except (OSError, EOFError):
                return None
        if place is None:
            return None
        opened = OpenFile(
            file.path.name,
            first_seq=file.first_seq,
            first_ns=file.written_ns,
            last_ns=file.written_ns,
            format=place.progress.memory,
        )
        return msgspec.structs.replace(
            place.progress,
            format=SERIES + file_format.name,
            memory=_encoded(opened),
        )

    def _note_closed(
        self, series: _Series, file: _File, last_seq: int, packed: Collection[str]
    ) -> None:
        """Note a closed file; a plain one waits for its copy, or to go because it has one."""
        is_plain = file.path.suffix not in _COMPRESSED
        has_copy = any(file.path.name + ending in packed for ending in _COMPRESSED)
        waits = is_plain and (has_copy or self._config.compression != "none")
        self._note(series, file, last_seq, waits=waits)

    def _note(self, series: _Series, file: _File, last_seq: int, *, waits: bool = False) -> None:
        path = key_of(file.path, self._data_dir)
        if self._parts.has([path]):
            return
        part = Part(
            path=path,
            recorder=self._key,
            series=series.key,
            first_seq=file.first_seq,
            last_seq=last_seq,
            messages=0,
            bytes=file.size,
            first_ns=file.written_ns,
            last_ns=file.written_ns,
            closed_ns=file.written_ns,
        )
        if waits:
            self._parts.announce(part)
        else:
            self._parts.close(part, [])


def _time_ns(times: Mapping[str, str]) -> int:
    """The beginning of the day or hour of a path."""
    if "date" not in times:
        return 0
    text = f"{times['date']}T{times.get('hour', '00')}:00+00:00"
    try:
        return int(datetime.fromisoformat(text).timestamp()) * 1_000_000_000
    except ValueError:
        return 0


def _encoded(memory: OpenFile) -> str:
    return msgspec.json.encode(memory).decode()


def _unpacked(path: Path, target: Path) -> Path | None:
    """A file as it was before it was compressed; ``None``: there is no package for it."""
    if path.suffix == ".gz":
        with gzip.open(path) as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy)
    elif path.suffix == ".zst":
        try:
            import zstandard  # noqa: PLC0415  # optional
        except ImportError:
            return None
        with path.open("rb") as packed, target.open("wb") as copy:
            zstandard.ZstdDecompressor().copy_stream(packed, copy)
    else:
        return path
    return target
