"""A number beside the database that no sequence number has passed, for when the database is lost.

Cursors of recorders outlive a journal that had to be set aside. If its successor counted from 1
again, they would take every new message for an old one. The number is written in advance, a block
at a time, so it costs one small file a million messages. Not for: the usual start, where the
database itself knows its last sequence number.
"""

from __future__ import annotations

import logging
from pathlib import Path

from appliance.model import LARGEST_SEQ
from appliance.storage import files

BLOCK = 1_000_000

_log = logging.getLogger(__name__)


class SequenceReservation:
    """The file. ``limit`` is what it says: 0 if there is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.limit = self._read()

    def _read(self) -> int:
        try:
            text = self._path.read_text("ascii").strip()
        except FileNotFoundError:
            return 0
        except (OSError, UnicodeDecodeError):
            text = ""
        if text.isdigit() and len(text) < 20 and int(text) <= LARGEST_SEQ:
            return int(text)
        _log.warning("%s is not readable and will be written anew", self._path)
        return 0

    def reserve(self, seq: int) -> None:
        """Make sure that the file's number is not below ``seq`` before ``seq`` is used.

        Raises:
            OSError: the file can't be written; ``seq`` must not be used yet.
        """
        if seq > self.limit:
            limit = seq + BLOCK
            files.replace_file(self._path, b"%d\n" % limit)
            self.limit = limit
