"""What a disk holds after a crash at any instant: the files of a folder, from a process's trace.

``disk_trace.c`` is preloaded into the process and notes every write, sync, rename and removal. A
``Disk`` is the state after some of these: after a kill all of them, after a power cut those that
were synced, and of the others any part, sector by sector.
Not for: memory maps. SQLite's only one, ``-shm``, is made anew by every start.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).with_name("disk_trace.c")
SECTOR_BYTES = 512
_HEADER_BYTES = 41


class Operation(NamedTuple):
    kind: str
    """c create, w write, t truncate, s sync, r rename, u unlink, d mkdir, m mark of the test"""
    path: str
    data: bytes
    offset: int


class Tracer:
    """Environment of a traced process, and its operations afterwards."""

    def __init__(self, folder: Path, build: Path) -> None:
        compiler = shutil.which("cc")
        if sys.platform != "linux" or compiler is None:
            pytest.skip("a C compiler on Linux makes the library that sees writes")
        library = build / "disk_trace.so"
        if not library.exists():
            subprocess.run(
                [compiler, "-shared", "-fPIC", "-w", "-o", library, SOURCE, "-ldl", "-lpthread"],
                check=True,
            )
        self.path = build / "trace"
        self.environment = {
            "LD_PRELOAD": str(library),
            "DISK_TRACE": str(self.path),
            "DISK_TRACE_FOLDER": str(folder),
        }
        self.path.touch()

    def mark(self, text: str) -> None:
        """Note what the test knows by now: the record stands behind what led to it."""
        data = text.encode()
        with self.path.open("ab", buffering=0) as file:
            file.write(b"m %8d %12d %16d\n" % (0, len(data), 0) + data)

    def operations(self) -> list[Operation]:
        return list(_parse(self.path.read_bytes()))


def _parse(trace: bytes) -> Iterator[Operation]:
    at = 0
    while at < len(trace):
        kind, path_size, data_size, offset = trace[at : at + _HEADER_BYTES].split()
        at += _HEADER_BYTES
        middle, end = at + int(path_size), at + int(path_size) + int(data_size)
        yield Operation(kind.decode(), trace[at:middle].decode(), trace[middle:end], int(offset))
        at = end


class _File:
    """A file's bytes as programs see them, as the disk has them, and the writes in between."""

    def __init__(self) -> None:
        self.seen = bytearray()
        self.safe = b""
        self.loose: list[tuple[int, bytes] | int] = []

    def write(self, offset: int, data: bytes) -> None:
        _write(self.seen, offset, data)
        self.loose.append((offset, data))

    def cut(self, size: int) -> None:
        _cut(self.seen, size)
        self.loose.append(size)

    def sync(self) -> None:
        self.safe = bytes(self.seen)
        self.loose.clear()

    def after_power_cut(self, rng: random.Random) -> bytes:
        """The synced bytes; each sector that was written since as it was after one of the writes.

        A write that shares its sector with an earlier one takes that one's bytes along.
        """
        sectors: dict[int, list[bytes]] = {}
        now, sizes = bytearray(self.safe), [len(self.safe)]
        for change in self.loose:
            if isinstance(change, int):
                _cut(now, change)
            else:
                offset, data = change
                _write(now, offset, data)
                first = offset - offset % SECTOR_BYTES
                for start in range(first, offset + len(data), SECTOR_BYTES):
                    states = sectors.setdefault(start, [self.safe[start : start + SECTOR_BYTES]])
                    states.append(bytes(now[start : start + SECTOR_BYTES]))
            sizes.append(len(now))
        found = bytearray(self.safe)
        for start, states in sectors.items():
            _write(found, start, rng.choice(states))
        _cut(found, rng.choice(sizes))
        return bytes(found)


class Disk:
    """A folder's files while operations are replayed."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._files: dict[str, _File] = {}
        self._names: dict[str, _File] = {}
        """The names that are on the disk: a directory keeps its entries when it is synced."""
        self._folders: set[str] = set()
        self.marks: list[str] = []

    def do(self, operation: Operation) -> None:
        kind, path, data, offset = operation
        if kind == "m":
            self.marks.append(data.decode())
        elif kind == "c":
            self._files[path] = _File()
        elif kind == "w":
            self._files[path].write(offset, data)
        elif kind == "t":
            self._files[path].cut(offset)
        elif kind == "r":
            target = data.decode()
            for name in [each for each in self._files if each == path]:
                self._files[target] = self._files.pop(name)
        elif kind == "u":
            self._files.pop(path, None)
        elif kind == "d":
            self._folders.add(path)
        elif path in self._files:
            self._files[path].sync()
            # ext4, XFS, NTFS and APFS: a synced new file has its name.
            self._names[path] = self._files[path]
        else:
            inside = [name for name in (*self._files, *self._names) if _parent(name) == path]
            for name in inside:
                self._names.pop(name, None)
                if name in self._files:
                    self._names[name] = self._files[name]

    def after_kill(self, target: Path) -> None:
        """Write what a process that is started next finds after ``kill -9``."""
        self._write(target, {name: bytes(file.seen) for name, file in self._files.items()})

    def after_power_cut(self, target: Path, rng: random.Random) -> None:
        """Write what it may find after a power cut."""
        found: dict[str, bytes] = {}
        for name in {*self._files, *self._names}:
            new, old = self._files.get(name), self._names.get(name)
            # A name that was made, replaced or removed since the directory was synced.
            file = new if new is old or rng.random() < 0.5 else old
            if file is not None:
                found[name] = file.after_power_cut(rng)
        self._write(target, found)

    def _write(self, target: Path, found: dict[str, bytes]) -> None:
        target.mkdir(parents=True, exist_ok=True)
        for folder in self._folders:
            (target / folder.removeprefix(self._folder).lstrip("/")).mkdir(
                parents=True, exist_ok=True
            )
        for name, data in found.items():
            path = target / name.removeprefix(self._folder).lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def _write(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def _cut(content: bytearray, size: int) -> None:
    del content[size:]
    content.extend(bytes(size - len(content)))


def _parent(name: str) -> str:
    return name.rpartition("/")[0]
