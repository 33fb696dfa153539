"""File operations that differ between operating systems.

The lock of a data directory, opening, atomic replacement, syncing to the disk, free space, how
many files may be open, and setting a file aside instead of destroying it. Not for: the contents
of those files.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeVar

from appliance.errors import NoPermissionError, UnavailableError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl
    import resource

_LOCK_NAME = "appliance.lock"
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
"""Another user who may write into the directory could have left a link there, to any file.
On Windows only administrators make links."""
# Windows locks are mandatory: the locked byte is far after the pid, so that others can read the
# pid.
_LOCK_OFFSET = 1 << 20
_LONGEST_WINDOWS_PATH = 259  # MAX_PATH without the NUL, learn.microsoft.com "Maximum Path Length"
# On Windows, a reader (virus scanner, indexer) may hold a file for a moment, and a file that is
# being replaced can't be opened for a still shorter one.
_CHANGE_ATTEMPTS = 20
_READ_ATTEMPTS = 3
_ATTEMPT_PAUSE_S = 0.05

_Result = TypeVar("_Result")


class DirectoryLock:
    """Keeps a second appliance out of a data directory.

    The operating system releases the lock when the process ends, however it ends, so a crash
    leaves nothing to clean up. The lock file itself stays; it holds the pid of the last holder.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Create the directory if need be and take the lock, without waiting.

        Raises:
            UnavailableError: another process holds it; the text names the directory and its pid.
            NoPermissionError: the directory can't be created or written.
        """
        path = self._directory / _LOCK_NAME
        try:
            make_directory(self._directory)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o600)
        except PermissionError as error:
            raise NoPermissionError(
                f"The data directory {self._directory} can't be used: {error.strerror}."
                " Give this user write access to it, or set data_dir in [service]."
            ) from error
        except OSError as error:
            if error.errno == errno.ELOOP and path.is_symlink():
                raise UnavailableError(
                    f"The data directory {self._directory} can't be used: {path} is a link, and its"
                    " target would be overwritten. Remove the link."
                ) from error
            raise UnavailableError(
                f"The data directory {self._directory} can't be used:"
                f" {error.strerror}{long_path_hint(path)}."
                " Set data_dir in [service] to a folder that can be written."
            ) from error
        try:
            _lock(descriptor)
        except OSError as error:
            os.close(descriptor)
            if error.errno not in {errno.EACCES, errno.EAGAIN, errno.EDEADLK}:
                raise UnavailableError(
                    f"The data directory {self._directory} can't be locked: {error.strerror}."
                    " Use a local disk for data_dir."
                ) from error
            raise UnavailableError(
                f"The data directory {self._directory} is in use by another appliance"
                f" ({_holder(path)}). Stop that one, or give this one its own data_dir."
            ) from error
        self._descriptor = descriptor
        with contextlib.suppress(OSError):  # the pid is a help for people; a full disk may lack it
            os.ftruncate(descriptor, 0)
            os.write(descriptor, b"%d\n" % os.getpid())

    @property
    def is_replaced(self) -> bool:
        """Whether the lock file was deleted or replaced, so that another process may lock too.

        For a worker thread: it asks the disk.
        """
        if self._descriptor is None:
            return False
        held = os.fstat(self._descriptor)
        try:
            found = (self._directory / _LOCK_NAME).stat()
        except FileNotFoundError:
            return True
        except OSError:  # a disk that fails says nothing about the file
            return False
        return not os.path.samestat(held, found)

    def release(self) -> None:
        """Give the lock back; does nothing if it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        os.lseek(descriptor, _LOCK_OFFSET, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _holder(path: Path) -> str:
    try:
        text = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        text = ""
    return f"pid {text}" if text.isdigit() else "its pid is not known"


def real_path(path: Path | str) -> str:
    """The absolute path with links followed; where the system can't follow them, as it is written.

    ``os.path.realpath`` does not raise on POSIX. On Windows it lets some errors through, for
    example for a long path.
    """
    try:
        return os.path.realpath(path)
    except OSError:
        return os.path.abspath(path)  # noqa: PTH100 - resolve() raises the same error


def long_path_hint(path: Path | str) -> str:
    """For the text of an error: that the path may be too long for Windows; else ``""``.

    The system itself says "not found" for it.
    """
    length = len(str(path))
    if sys.platform != "win32" or length <= _LONGEST_WINDOWS_PATH:
        return ""
    return (
        f" (the path has {length} characters; Windows allows {_LONGEST_WINDOWS_PATH}, or more"
        " where long paths are enabled)"
    )


def sync_file(descriptor: int) -> None:
    """Return when the file's bytes are on the disk. Raises ``OSError`` if they are not.

    On macOS ``fsync`` leaves them in the drive's cache; ``F_FULLFSYNC`` does not (fsync(2) there).
    """
    if sys.platform == "darwin":
        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        except OSError:  # some network file systems don't know it
            os.fsync(descriptor)
    elif sys.platform == "linux":
        os.fdatasync(descriptor)
    else:
        os.fsync(descriptor)


def sync_directory(directory: Path) -> None:
    """Make created, renamed and removed names in a directory durable, where that is possible.

    Windows has no such call for directories; NTFS journals its metadata by itself.
    """
    if sys.platform == "win32":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # some file systems don't offer it
            raise
    finally:
        os.close(descriptor)


def make_directory(directory: Path) -> None:
    """Create a directory and its parents if need be; the names of new ones are durable.

    Raises:
        OSError: it can't be created.
    """
    new: list[Path] = []
    each = directory
    while not each.exists() and each != each.parent:
        new.append(each)
        each = each.parent
    directory.mkdir(parents=True, exist_ok=True)
    for made in new:
        with contextlib.suppress(OSError):  # the parent may be closed to this user for reading
            sync_directory(made.parent)


def replace_file(path: Path, content: bytes) -> None:
    """Write a whole file so that a reader or a crash sees the old one or the new one, never half.

    Raises:
        OSError: the file could not be written; the old one is untouched.
    """
    temporary = path.with_name(f"{path.name}.new")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            sync_file(file.fileno())
        rename(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_directory(path.parent)


def rename(source: Path, target: Path) -> None:
    """Rename a file or folder; a file ``target`` is replaced.

    Windows refuses this while another program has either of them open: it is tried for a second.

    Raises:
        OSError: it could not be renamed.
    """
    _retried(lambda: source.replace(target), _CHANGE_ATTEMPTS)


def remove(path: Path) -> None:
    """Remove a file; on Windows, another program that has it open is waited for as in ``rename``.

    Raises:
        OSError: it could not be removed.
    """
    _retried(path.unlink, _CHANGE_ATTEMPTS)


def open_to_read(path: Path) -> BinaryIO:
    """Open a file for reading, in binary.

    Raises:
        IsADirectoryError: it is a folder, on Windows too, which says "permission denied".
        OSError: it can't be opened.
    """

    def attempt() -> BinaryIO:
        try:
            return path.open("rb")
        except PermissionError:
            if sys.platform == "win32" and path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "Is a directory", str(path)) from None
            raise

    return _retried(attempt, _READ_ATTEMPTS)


def _retried(action: Callable[[], _Result], attempts: int) -> _Result:
    if sys.platform == "win32":
        for _attempt in range(attempts - 1):
            try:
                return action()
            except PermissionError:
                time.sleep(_ATTEMPT_PAUSE_S)
    return action()


def set_aside(path: Path, label: str, now_ns: int) -> Path:
    """Rename ``x`` to ``x.<label>-<UTC time>`` and return the new path; nothing is overwritten.

    Raises:
        OSError: the file could not be renamed.
    """
    moment = datetime.fromtimestamp(now_ns // 1_000_000_000, UTC).strftime("%Y%m%dT%H%M%SZ")
    target = path.with_name(f"{path.name}.{label}-{moment}")
    number = 1
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}.{label}-{moment}-{number}")
    rename(path, target)
    sync_directory(path.parent)
    return target


def free_bytes(directory: Path) -> int:
    """Space on the directory's disk that this user may still fill, in bytes.

    Raises:
        OSError: the directory can't be looked at.
    """
    return shutil.disk_usage(directory).free


def disk_bytes(directory: Path) -> int:
    """The size of the directory's disk, in bytes.

    Raises:
        OSError: the directory can't be looked at.
    """
    return shutil.disk_usage(directory).total


def allow_open_files(wanted: int) -> bool:
    """Raise the limit of open files and sockets of this process; returns whether it is enough.

    Where the operating system counts sockets as files, a process often has a limit of 1024 and
    may raise it. Windows does not count them.
    """
    if sys.platform != "win32":
        unlimited = resource.RLIM_INFINITY
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != unlimited and soft < wanted:
            most = wanted if hard == unlimited else min(wanted, hard)
            # macOS has a further limit (kern.maxfilesperproc) that the hard one does not show.
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
                soft = most
            return soft >= wanted
    return True
