"""What a start found missing or damaged in the data directory, until an operator acknowledges it.

A line in the log is soon forgotten. The file ``losses.json`` keeps the health bad over restarts.
Not for: finding out what is missing (journal, storage/database.py and the other stores).
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import msgspec

from appliance.engine_api import Health
from appliance.storage import files

FILE_NAME = "losses.json"
_LARGEST_FILE = 1024 * 1024
_MOST = 100
"""Texts that are kept; the log has every one."""

_log = logging.getLogger(__name__)


class _Record(msgspec.Struct):
    losses: list[str] = []
    acknowledged: list[str] = []
    """The newest that an operator knows: what is found again is not said again."""


class Losses:
    """The file. Safe to use from any thread that may wait for the disk."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / FILE_NAME
        self._lock = threading.Lock()
        self._record = self._read()
        self._keep_health()
        for loss in self._record.losses:
            _log.warning("not acknowledged yet, from an earlier start: %s", loss)

    @property
    def health(self) -> Health | None:
        """``None`` if nothing waits for an operator. Any thread, at once."""
        return self._health

    def note(self, text: str) -> None:
        """Keep a loss, which the caller has logged. One that is known already is left out."""
        with self._lock:
            record = self._record
            if text in record.losses or text in record.acknowledged:
                return
            if len(record.losses) == _MOST:
                return
            record.losses.append(text)
            try:
                self._write(record)
            except OSError as error:
                _log.warning("%s can't be written: %s", self._path, error.strerror or error)
            self._keep_health()

    def acknowledge(self) -> list[str]:
        """An operator knows the losses; returns them.

        Raises:
            OSError: it can't be written; nothing is acknowledged.
        """
        with self._lock:
            losses = self._record.losses
            if losses:
                known = [*self._record.acknowledged, *losses][-_MOST:]
                record = _Record(acknowledged=known)
                self._write(record)
                self._record = record
                self._keep_health()
            return losses

    def _keep_health(self) -> None:
        losses = self._record.losses
        self._health: Health | None = None
        if losses:
            more = f" And {len(losses) - 1} more." if len(losses) > 1 else ""
            self._health = Health(
                "bad", f"{losses[0]}{more} If you know it, run: appliance acknowledge"
            )

    def _read(self) -> _Record:
        try:
            with files.open_to_read(self._path) as file:
                return msgspec.json.decode(file.read(_LARGEST_FILE), type=_Record)
        except FileNotFoundError:
            return _Record()
        except (OSError, ValueError, RecursionError) as error:
            _log.error(  # a damaged file is no programming error
                "%s can't be read (%s): what earlier starts found missing is only in the log",
                self._path,
                error,
            )
            return _Record()

    def _write(self, record: _Record) -> None:
        files.replace_file(self._path, msgspec.json.encode(record))
