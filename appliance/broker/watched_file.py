"""A small text file that commands write and a running appliance reads anew when it has changed.

Not for: what its lines mean (users.py, tokens.py).
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from appliance.errors import ConfigError, NoPermissionError
from appliance.storage import files

_REVISIONS = itertools.count(1)
_LARGEST_FILE = 64 * 1024 * 1024

T = TypeVar("T")


class WatchedFile(Generic[T]):
    """One file. Every method may be called from any thread.

    A file that does not exist is an empty one. What was read once stays when the file can't be read
    any more or has mistakes; when it is gone, with ``may_vanish`` it is empty.

    Args:
        path: the file.
        what: its name in messages: ``"users file"``.
        parse: makes the content of lines; raises ``ConfigError``.
        log: where a running appliance complains about the file.
        content: called "its users" in messages.
        may_vanish: whether a file that is gone means an empty one.
        like: a file whose owner and mode a new one gets.
    """

    def __init__(
        self,
        path: Path,
        what: str,
        parse: Callable[[list[str], Path], T],
        *,
        log: logging.Logger,
        content: str,
        may_vanish: bool,
        like: Path | None = None,
    ) -> None:
        self.path = path
        self._what = what
        self._parse = parse
        self._log = log
        self._named = content
        self._may_vanish = may_vanish
        self._like = like
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._complained = ""
        self.content: T = parse([], path)
        """What was read last. It is replaced, never changed."""
        self.revision = 0
        """The number of what was read last. No two files, and no two contents of one, have the
        same."""

    @property
    def was_read(self) -> bool:
        """Whether there is or was a file."""
        return self._seen is not None

    def reload_if_changed(self) -> bool:
        """Read the file again if it is not the one that was read last; tells whether it was.

        Raises:
            ConfigError, NoPermissionError: it has mistakes or can't be read, or is gone.
        """
        signature = self._signature()
        with self._lock:
            if signature == self._seen:
                return False
            if signature is None and not self._may_vanish:
                raise ConfigError(
                    f"{self.path}: the {self._what} is gone; its {self._named} stay valid until a"
                    " restart"
                )
        content = self._parse([] if signature is None else self.read(), self.path)
        with self._lock:
            self.content, self._seen, self._complained = content, signature, ""
            self.revision = next(_REVISIONS)
        return True

    def refresh(self) -> int:
        """``reload_if_changed`` for a running appliance: a problem is logged once.

        Returns ``revision``, so that a caller sees a change that another caller noticed.
        """
        try:
            self.reload_if_changed()
        except (ConfigError, NoPermissionError) as error:
            self._complain(str(error))
        return self.revision

    def lines(self) -> list[str]:
        """The lines as they are now, none if there is no file. Raises as ``reload_if_changed``."""
        return self.read() if self.path.exists() else []

    def write(self, lines: Sequence[str]) -> None:
        """Put other lines in place. Raises as ``reload_if_changed``."""
        try:
            _replace(self.path, "".join(f"{line}\n" for line in lines), self._like)
        except PermissionError:
            raise NoPermissionError(
                f"{self.path}: this user may not write it; run as the user who owns it"
            ) from None
        except OSError as error:
            raise ConfigError(f"{self.path}: it can't be written: {error.strerror}") from None
        self.reload_if_changed()

    def read(self) -> list[str]:
        """The file's lines. Raises as ``reload_if_changed``."""
        path, what = self.path, self._what
        try:
            with files.open_to_read(path) as file:
                data = file.read(_LARGEST_FILE + 1)
        except PermissionError:
            raise NoPermissionError(
                f"{path}: this user may not read the {what}; change its rights or owner"
            ) from None
        except OSError as error:
            raise ConfigError(f"{path}: the {what} can't be read: {error.strerror}") from None
        if len(data) > _LARGEST_FILE:
            raise ConfigError(f"{path}: longer than 64 MiB, so this is no {what}; name another")
        try:
            return data.decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise ConfigError(
                f"{path}, line {line}: not UTF-8 text; save the file as UTF-8"
            ) from None

    def _signature(self) -> tuple[int, int, int] | None:
        """What differs when the file was written or replaced; ``None`` if there is none."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise NoPermissionError(
                f"{self.path}: the {self._what} is out of reach: {error.strerror}"
            ) from None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _complain(self, text: str) -> None:
        """Log a problem with the file once, not for every client that connects."""
        with self._lock:
            if self._complained == text:
                return
            self._complained = text
        self._log.error("%s; the %s read before stay valid", text, self._named)


def _replace(path: Path, text: str, like: Path | None) -> None:
    """Put a file in the place of another so that a reader sees the old or the new, never half.

    A new file is as ``like``, or else for its owner alone (mode 0600); an existing one keeps its
    owner and group and loses what rights the rest of the world had. Windows has no modes: there,
    the folder's rights count.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    before = None
    for each in (path, like):
        if before is None and each is not None:
            with contextlib.suppress(FileNotFoundError):
                before = each.stat()
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
            file.flush()
            files.sync_file(file.fileno())
        if before is not None and sys.platform != "win32":
            with contextlib.suppress(PermissionError):  # only root may give files away
                os.chown(temporary, before.st_uid, before.st_gid)
            Path(temporary).chmod(stat.S_IMODE(before.st_mode) & 0o660)
        files.rename(Path(temporary), path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    files.sync_directory(path.parent)
