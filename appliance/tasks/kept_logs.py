"""Script logs of failed reloads as files: written, found again, deleted.

``script-logs/20261129T234012Z_123_Reload_sales.log`` in the data directory: when the run ended, the
appliance's number of the execution, its task. The name alone says how old a log is, so a restart or
a copied folder loses nothing. Files go when they are older than ``keep_script_logs``; the oldest go
early where there are more than ``MAX_FILES`` or ``MAX_BYTES`` of them. Below
``limits.min_free_disk`` no log is written, long before anything slows publishers.
A log that is only to be attached to a notice is kept for an hour.
Not for: when a log is asked for (script_logs.py); its last lines, which the outcome has.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from appliance.counters import Count, Counter
from appliance.model import Execution
from appliance.storage import files

_log = logging.getLogger(__name__)
FOLDER = "script-logs"
MAX_FILES = 10_000
MAX_BYTES = 1_000_000_000
ATTACHED_S = 3600.0
"""How long a log is there to be attached, where none is kept."""
_NS = 1_000_000_000
_TIME = "%Y%m%dT%H%M%SZ"
_NAME = re.compile(r"(\d{8}T\d{6}Z)_\d+(?:_[\w-]*)?\.log")
_UNFINISHED = ".log.new"
_UNSAFE = re.compile(r"[^\w-]+")
_LONGEST_TASK = 40
"""Characters of a task's name in the name of a file; each may have four bytes."""


class KeptLogs:
    """The folder of script logs. Thread-safe; every method may wait for the disk."""

    def __init__(
        self,
        folder: Path,
        count: Count,
        *,
        has_room: Callable[[], bool] = lambda: True,
        max_files: int = MAX_FILES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Nothing is read or written.

        Args:
            folder: it need not exist.
            count: counts.
            has_room: whether the disk has as much free space as the configuration asks for.
            max_files: of which the oldest go beyond this.
            max_bytes: of all files together, likewise.
        """
        self._folder = folder
        self._count = count
        self._has_room = has_room
        self._max_files = max_files
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._keep_s: float | None = None
        self._is_attached = False
        self._sizes: dict[str, int] | None = None
        """Every file with its bytes, oldest first; ``None``: the folder was not read yet."""

    def take(self, keep_s: float | None, *, is_attached: bool) -> None:
        """Keep logs for so many seconds from now on (``None``: none).

        ``is_attached``: a notice may attach one.
        """
        self._keep_s = keep_s
        self._is_attached = is_attached

    @property
    def is_wanted(self) -> bool:
        """Whether logs are to be handed to ``keep``."""
        return self._keep_s is not None or self._is_attached

    def keep(self, execution: Execution, text: str) -> str:
        """Write a log; returns the name of its file, empty if it could not be written."""
        name = _name_of(execution)
        with self._lock:
            content = text.encode("utf-8", "replace")
            if problem := self._write(name, content):
                self._count(Counter.SCRIPT_LOGS_NOT_KEPT)
                _log.warning("Execution %d: its script log is not kept: %s", execution.id, problem)
                return ""
            sizes = self._read()
            sizes[name] = len(content)
            self._bound(sizes)
        return name

    def _write(self, name: str, content: bytes) -> str:
        """Write a file; returns why it was not written, empty if it was."""
        try:
            if not self._has_room():
                return "less disk space is free than limits.min_free_disk asks for"
            files.make_directory(self._folder)
            files.replace_file(self._folder / name, content)
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def path_of(self, name: str) -> Path | None:
        """The file of this name, if it is there."""
        if not _NAME.fullmatch(name):
            return None
        path = self._folder / name
        return path if path.is_file() else None

    def tidy(self, now_ns: int) -> None:
        """Delete what is older than it may be; ``now_ns`` are nanoseconds since the epoch."""
        keep_s = ATTACHED_S if self._keep_s is None else self._keep_s
        bound = _time_text(now_ns - int(keep_s * _NS))
        with self._lock:
            sizes = self._read()
            old = [name for name in sizes if name.partition("_")[0] < bound]
            for name in old:
                self._remove(name, sizes)

    def _bound(self, sizes: dict[str, int]) -> None:
        while sizes and (len(sizes) > self._max_files or sum(sizes.values()) > self._max_bytes):
            self._count(Counter.SCRIPT_LOGS_DELETED_EARLY)
            self._remove(min(sizes), sizes)

    def _remove(self, name: str, sizes: dict[str, int]) -> None:
        try:
            files.remove(self._folder / name)
        except FileNotFoundError:
            pass
        except OSError as error:
            _log.warning("%s can't be deleted: %s", self._folder / name, error.strerror)
        # One that can't be deleted is found again by the next start.
        del sizes[name]

    def _read(self) -> dict[str, int]:
        if self._sizes is None:
            try:
                names = sorted(path.name for path in self._folder.iterdir())
                for name in names:
                    if name.endswith(_UNFINISHED):
                        files.remove(self._folder / name)  # A crash left it.
                self._sizes = {
                    name: (self._folder / name).stat().st_size
                    for name in names
                    if _NAME.fullmatch(name)
                }
            except OSError:
                return {}  # There is no folder yet, or the write says what is wrong with it.
        return self._sizes


def _name_of(execution: Execution) -> str:
    at_ns = execution.ended_ns or execution.started_ns or execution.requested_ns
    task = _UNSAFE.sub("_", execution.task_name or execution.task_id)[:_LONGEST_TASK].strip("_")
    return f"{_time_text(at_ns)}_{execution.id}{task and f'_{task}'}.log"


def _time_text(at_ns: int) -> str:
    return datetime.fromtimestamp(max(at_ns, 0) // _NS, UTC).strftime(_TIME)
