"""One recorder at run time: its target, its cursor, its health.

Not for: the thread that runs it (worker.py), and what the target makes of messages.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from pathlib import Path

from appliance.config.database_url import target_text
from appliance.config.path_placeholders import has_placeholders
from appliance.config.tables import RecorderConfig
from appliance.engine_api import Health, RecorderState
from appliance.errors import ApplianceError
from appliance.recorders.formats import is_of_parts
from appliance.recorders.progress import Progress
from appliance.recorders.target import Figures, Target, key_of
from appliance.storage.files import long_path_hint

RETRY_S = 1.0

_log = logging.getLogger(__name__)


class Recorder:
    """One recorder at run time. Only its thread changes it."""

    def __init__(self, config: RecorderConfig, data_dir: Path) -> None:
        self.config = config
        self.name = config.used_name
        is_file = config.database is None
        self.key = key_of(Path(config.path), data_dir) if is_file else f"database:{self.name}"
        """Of its row in ``recorders.db``."""
        self.place = str(config.path) if is_file else f"recorder {self.name}"
        """For texts."""
        self._shown = target_text(config)
        self._is_counted = is_file and not (
            config.mode != "append"
            or config.flatten
            or config.rotate is not None
            or is_of_parts(config.format)
            or has_placeholders(config.path, str(data_dir))
        )
        self.target: Target | None = None
        """``None`` until it is open."""
        self.stored: Progress | None = None
        """The row in the database, as it was before the target was made."""
        self.behind = True
        """Whether it reads the journal separately, because it is behind the other recorders."""
        self.health = Health("ok")
        self.is_paused = False
        """Whether it writes nothing because its disk has too little free space."""
        self.retry_at = 0.0
        self.failures = 0

    @property
    def cursor(self) -> int:
        """The last message that it has processed."""
        if self.target is not None:
            return self.target.cursor
        return self.stored.seq if self.stored else 0

    @property
    def durable_cursor(self) -> int:
        """The message up to which the journal need not keep anything for it."""
        if self.target is not None:
            return self.target.durable_cursor
        return self.stored.seq if self.stored else 0

    def fail(self, error: BaseException) -> None:
        text = str(error)
        if isinstance(error, OSError):
            text = f"{error.strerror or error}{long_path_hint(self.config.path)}"
        health = Health("bad", text)
        if health != self.health:
            is_expected = isinstance(error, OSError | sqlite3.Error | ApplianceError)
            _log.error(
                "%s can't be recorded: %s. No message is lost; the recorder tries again by itself",
                self.place,
                text,
                exc_info=None if is_expected else error,
            )
        self.health = health
        self.behind = True
        self.failures += 1
        self.retry_at = time.monotonic() + RETRY_S

    @property
    def folder(self) -> Path:
        """The folder of its file, or the first one whose name a message decides."""
        return next(each for each in Path(self.config.path).parents if "{" not in each.name)

    def pause(self, why: str) -> None:
        """Write nothing from now on, for this reason; ``""``: go on, if it paused."""
        if why:
            if not self.is_paused:
                _log.warning("%s is not recorded now: %s", self.place, why)
            self.is_paused = self.behind = True
            self.health = Health("bad", why)
        elif self.is_paused:
            self.is_paused = False
            self.retry_at = 0.0

    def recover(self) -> None:
        note = self.target.note if self.target else ""
        if self.health.level == "bad":
            _log.warning("%s is recorded again", self.place)
        self.health = Health("warn", note) if note else Health("ok")

    def state(self, last_seq: int) -> RecorderState:
        """For the UI; ``last_seq`` is the journal's newest message."""
        figures = self.figures()
        return RecorderState(
            topic=self.config.topic_filter,
            path=self.config.path,
            format=self.config.format,
            health=self.health,
            recorded=figures.recorded,
            lag=max(0, last_seq - self.cursor),
            looked_at=self.cursor,
            size_bytes=figures.size_bytes,
            name=self.name,
            target=self._shown,
            mode=self.config.mode,
            files=figures.files,
            is_counted=self._is_counted,
            details=tuple(figures.details.items()),
        )

    def figures(self) -> Figures:
        """What is shown of its target. Any thread."""
        if self.target is not None:
            return self.target.figures()
        if self.stored is not None:
            return Figures(recorded=self.stored.count, size_bytes=self.stored.length)
        return Figures()
