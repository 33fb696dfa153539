"""One recorder at run time: its file, its cursor, its health.

Not for: the thread that runs all of them (recorders.py) and the file's content (recording.py).
"""

from __future__ import annotations

import logging
import sqlite3
import time
from pathlib import Path

from appliance.config.tables import RecorderConfig
from appliance.engine_api import Health, RecorderState
from appliance.recorders.progress import Progress
from appliance.recorders.recording import Recording
from appliance.storage.files import long_path_hint

RETRY_S = 1.0

_log = logging.getLogger(__name__)


class Recorder:
    """One recorder at run time. Only the recorders' thread changes it."""

    def __init__(self, config: RecorderConfig, data_dir: Path) -> None:
        self.config = config
        self.key = _key(Path(config.path), data_dir)
        self.recording: Recording | None = None
        """``None`` until its file is prepared."""
        self.stored: Progress | None = None
        """The row in the database."""
        self.behind = True
        """Whether it reads the journal separately, because it is behind the other recorders."""
        self.health = Health("ok")
        self.retry_at = 0.0
        self.failures = 0

    @property
    def cursor(self) -> int:
        """The last message that it has processed."""
        progress = self.recording.progress if self.recording else self.stored
        return progress.seq if progress else 0

    def fail(self, error: BaseException) -> None:
        text = str(error)
        if isinstance(error, OSError):
            text = f"{error.strerror or error}{long_path_hint(self.config.path)}"
        health = Health("bad", text)
        if health != self.health:
            _log.error(
                "%s can't be recorded: %s. No message is lost; the recorder tries again by itself",
                self.config.path,
                text,
                exc_info=None if isinstance(error, OSError | sqlite3.Error) else error,
            )
        self.health = health
        self.behind = True
        self.failures += 1
        self.retry_at = time.monotonic() + RETRY_S

    def recover(self) -> None:
        note = self.recording.note if self.recording else ""
        if self.health.level == "bad":
            _log.warning("%s is recorded again", self.config.path)
        self.health = Health("warn", note) if note else Health("ok")

    def state(self, last_seq: int) -> RecorderState:
        """For the UI; ``last_seq`` is the journal's newest message."""
        progress = self.recording.progress if self.recording else self.stored
        return RecorderState(
            topic=self.config.topic_filter,
            path=self.config.path,
            format=self.config.format,
            health=self.health,
            recorded=progress.count if progress else 0,
            lag=max(0, last_seq - (progress.seq if progress else 0)),
            looked_at=progress.seq if progress else 0,
            size_bytes=progress.length if progress else 0,
        )


def _key(path: Path, data_dir: Path) -> str:
    """The key of a recording's cursor in the database.

    Below the data directory, which may be moved, the path within it; elsewhere the whole path.
    """
    if path.is_relative_to(data_dir):
        return path.relative_to(data_dir).as_posix()
    return str(path)
