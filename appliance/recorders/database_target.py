"""What the targets of all databases have in common: position, notes, rows that are set aside.

Not for: connections and rows (sql.py, mongodb.py).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from appliance.counters import Counter
from appliance.model import Message
from appliance.recorders.latest_store import LatestStore
from appliance.recorders.progress import Progress
from appliance.recorders.set_aside_rows import SetAsideRows
from appliance.recorders.state_rows import row_of
from appliance.recorders.target import LOST, Context, Figures, Later, Target, Unsaved

_log = logging.getLogger(__name__)


class DatabaseTarget(Target):
    """The base. One thread at a time, except for ``figures``."""

    def __init__(self, context: Context, stored: Progress, *, place: str, table: str) -> None:
        """``place`` and ``table``: the database and the table for people, without secrets."""
        self._context = context
        self._place = place
        self._table = table
        self._format = ""
        self._stored = stored
        self._progress = stored
        self._own_key = ""
        """What tells the rows of this data directory and recorder from all others."""
        self._is_lost = stored.format == LOST
        """Whether the table has to tell where to go on."""
        self._known_to = context.last_seq()
        """The newest number that rows with its key may have: the journal's at the start,
        then that of the newest row that was sent."""
        self._set_aside = SetAsideRows(context.data_dir, context.name)
        self._set_aside_count = 0
        self._notes: dict[str, str] = {}

    # --- Target ----------------------------------------------------------------------------------

    @property
    def note(self) -> str:
        return "; ".join(self._notes.values())

    @property
    def cursor(self) -> int:
        return self._progress.seq

    @property
    def durable_cursor(self) -> int:
        return min(self._stored.seq, self._progress.seq)

    def open(self, later: Later) -> None:  # noqa: ARG002  # nothing is made from the journal again
        """Begin. The server is asked by ``tick``: its absence must not forget the waits."""
        self._own_key = f"{self._context.installation()}/{_plain(self._context.name)}"
        if self._progress.format != self._format:
            self._progress = Progress(self._format, self._progress.seq)

    def skip(self, seq: int) -> None:
        self._move(seq, 0)

    def unsaved(self) -> Unsaved:
        if self._progress == self._stored:
            return Unsaved()
        is_begun = self._stored.format != self._progress.format
        return Unsaved(
            [(self._context.key, self._progress)],
            is_urgent=is_begun or self._stored.memory != self._progress.memory,
            is_durable=is_begun,
        )

    def saved(self, rows: Sequence[tuple[str, Progress]]) -> None:
        for key, progress in rows:
            if key == self._context.key:
                self._stored = progress

    def figures(self) -> Figures:
        details = {"database": self._place, "table": self._table}
        if self._set_aside_count:
            details["rows set aside"] = f"{self._set_aside_count}, in {self._set_aside.path.name}"
        return Figures(recorded=self._progress.count, files=0, details=details)

    # --- for subclasses --------------------------------------------------------------------------

    def _memory_text(self) -> str:
        """What a start needs, for ``Progress.memory``."""
        raise NotImplementedError

    def _move(self, seq: int, messages: int) -> None:
        """Note that everything up to ``seq`` is done, with so many messages more."""
        self._progress = msgspec.structs.replace(
            self._progress,
            seq=max(seq, self._progress.seq),
            count=self._progress.count + messages,
            memory=self._memory_text(),
        )

    def _save_rows(
        self, store: LatestStore, changes: Mapping[str, Message], seq: int, messages: int
    ) -> None:
        """Store rows of ``latest`` and ``update`` together with the position behind them.

        Raises:
            sqlite3.Error: nothing was stored, and the position is the one from before.
        """
        before = self._progress
        self._move(seq, messages)
        try:
            store.save([row_of(key, row) for key, row in changes.items()], self._progress)
        except BaseException:
            self._progress = before
            raise
        self._stored = self._progress

    def _save_now(self) -> None:
        """Store the position before anything else is written."""
        self._context.store.save([(self._context.key, self._progress)], durable=True)
        self._stored = self._progress

    def _begin_anew(self) -> None:
        """Go on behind the journal's present end: nothing tells what was recorded before."""
        self._move(self._known_to, 0)
        text = (
            "its position in recorders.db was lost, and the table has no rows of this data"
            f" directory: it begins anew behind message {self._known_to}. Earlier messages can be"
            " had with appliance export"
        )
        _log.error("Table %s: %s", self._table, text)
        self._notes["lost"] = text

    def _note_foreign_rows(self, newest: int, key: str) -> None:
        text = (
            f"rows up to number {newest} have the key of this recorder, which has not written them:"
            " a copy of the data directory writes to the same table, or its journal was replaced."
            f" New rows have {key} as key"
        )
        _log.warning("Table %s: %s", self._table, text)
        self._notes["key"] = text

    def _put_aside(self, seq: int, item: int, why: str, values: Mapping[str, Any]) -> None:
        """Keep a row in the file for rows that can't be stored.

        Raises:
            OSError: the file can't be written.
        """
        if not self._set_aside.add(seq, item, why, values):
            return
        self._set_aside_count += 1
        self._context.count(Counter.RECORDER_ROWS_SET_ASIDE)
        path = self._set_aside.path
        _log.warning(
            "A row of message %d can't be stored in table %s and was written to %s: %s",
            seq,
            self._table,
            path,
            why,
        )
        self._notes["rows"] = (
            f"{self._set_aside_count} rows can't be stored and are in {path.name}; the last one:"
            f" {why}"
        )


def _plain(name: str) -> str:
    """A recorder's name, or a digest of one that not every database takes in a key."""
    return name if name.isascii() else hashlib.sha256(name.encode()).hexdigest()[:12]
