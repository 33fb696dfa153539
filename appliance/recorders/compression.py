"""Compressed copies of closed files: gzip from the standard library, zstd from a package.

A copy is made beside the file under a hidden name and gets its name when it is complete and on the
disk. Work is done in a thread of its own, one file at a time, because a large file takes seconds.
Not for: which files, and removing the plain one (closed_files.py).
"""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from appliance.storage import files

ENDINGS = {"none": "", "gzip": ".gz", "zstd": ".zst"}

_BLOCK_BYTES = 256 * 1024
_GZIP_LEVEL = 6
_ZSTD_LEVEL = 3


def missing_package(compression: str) -> str:
    """What to install for a value of ``compression``, for people; ``""`` if nothing."""
    if compression == "zstd" and importlib.util.find_spec("zstandard") is None:
        return (
            '`compression = "zstd"` needs zstandard, which is not installed:'
            " pip install 'qlik-mqtt-appliance[zstd]'"
        )
    return ""


class Compressor:
    """Compresses one file at a time. ``start``, ``result`` and ``stop`` are for one thread."""

    def __init__(self, compression: str) -> None:
        self._compression = compression
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._outcome: int | OSError | None = None

    @property
    def is_idle(self) -> bool:
        return self._thread is None

    def start(self, source: Path) -> None:
        """Begin to make the compressed copy of a file."""
        self._outcome = None
        self._thread = threading.Thread(
            target=self._run, args=(source,), name="recorders-compress", daemon=True
        )
        self._thread.start()

    def result(self) -> int | None:
        """The size of the copy in bytes; ``None``: it is not there yet.

        Raises:
            OSError: it could not be made.
        """
        thread = self._thread
        if thread is None or thread.is_alive():
            return None
        self._thread = None
        if isinstance(self._outcome, OSError):
            raise self._outcome
        return self._outcome

    def is_done_within(self, timeout_s: float) -> bool:
        """Wait for the present file; returns whether there is one that is done."""
        if self._thread is None:
            return False
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def stop(self) -> int | None:
        """Give the present file up; returns when nothing is written any more.

        Returns the size of the copy in bytes if it was complete by then.
        """
        self._stopping.set()
        size = None
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            size = self._outcome if isinstance(self._outcome, int) else None
        self._stopping.clear()
        return size

    def _run(self, source: Path) -> None:
        try:
            self._outcome = compress(source, self._compression, self._stopping.is_set)
        except OSError as error:
            self._outcome = error
        except Exception as error:  # noqa: BLE001  # of a package; the file stays as it is
            self._outcome = OSError(f"{type(error).__name__}: {error}")


def _temporary(target: Path) -> Path:
    return target.with_name(f".{target.name}.part")


def remove_unfinished(source: Path, compression: str) -> None:
    """Remove what a crash left of the compressed copy of a file. No error: it is made anew."""
    with contextlib.suppress(OSError):
        _temporary(compressed_path(source, compression)).unlink()


def remove_other_copies(source: Path, compression: str) -> None:
    """Remove copies in other forms that a crash left, before the configuration was changed.

    Raises:
        OSError: one can't be read or removed now.
    """
    for other, ending in ENDINGS.items():
        if ending and other != compression:
            path = compressed_path(source, other)
            if path.is_file() and _is_copy(path, other, source):
                path.unlink()


def _is_copy(path: Path, compression: str, source: Path) -> bool:
    """Whether a compressed file has the content of a plain one; ``False`` if that is not known."""
    if missing_package(compression):
        return False
    with path.open("rb") as file, source.open("rb") as plain:
        unpacked = _unpacked(file, compression)
        try:
            while block := plain.read(_BLOCK_BYTES):
                if _read(unpacked, len(block)) != block:
                    return False
            return not unpacked.read(1)
        except gzip.BadGzipFile:
            return False
        except OSError:
            raise
        except Exception:  # noqa: BLE001  # each package has errors of its own for damaged files
            return False


def _unpacked(file: BinaryIO, compression: str) -> BinaryIO:
    if compression == "gzip":
        return cast("BinaryIO", gzip.GzipFile(fileobj=file))
    import zstandard  # noqa: PLC0415 - an optional package

    return cast("BinaryIO", zstandard.ZstdDecompressor().stream_reader(file))


def _read(file: BinaryIO, size: int) -> bytes:
    """As many bytes as are there, at most ``size``."""
    found = bytearray()
    while len(found) < size and (more := file.read(size - len(found))):
        found += more
    return bytes(found)


def compressed_path(source: Path, compression: str) -> Path:
    return source.with_name(source.name + ENDINGS[compression])


def compress(source: Path, compression: str, is_stopped: Callable[[], bool]) -> int:
    """Make the compressed copy of a file and return its size; an older copy is replaced.

    Another file of that name is set aside.

    Raises:
        OSError: it could not be made, or was given up; nothing is left of it.
    """
    target = compressed_path(source, compression)
    temporary = _temporary(target)
    try:
        remove_other_copies(source, compression)
        if target.is_file() and not _is_copy(target, compression, source):
            files.set_aside(target, "before", time.time_ns())
        with source.open("rb") as plain, temporary.open("wb") as file:
            with _packed(file, compression) as packed:
                while block := plain.read(_BLOCK_BYTES):
                    if is_stopped():
                        raise InterruptedError("stopped")  # noqa: TRY301 - as any other error
                    packed(block)
            file.flush()
            files.sync_file(file.fileno())
            size = file.tell()
        files.rename(temporary, target)
        files.sync_directory(target.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    return size


@contextlib.contextmanager
def _packed(file: BinaryIO, compression: str) -> Iterator[Callable[[bytes], object]]:
    """What writes blocks to a file, compressed. The same blocks always give the same bytes."""
    if compression == "gzip":
        with gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) as packed:
            yield packed.write
        return
    import zstandard  # noqa: PLC0415 - an optional package

    compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True)
    with compressor.stream_writer(file, closefd=False) as stream:
        yield stream.write
