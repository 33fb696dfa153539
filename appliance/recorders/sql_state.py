"""A table of a SQL database with the present rows of ``mode`` ``latest`` or ``update``.

The rows are those of ``recorders.db`` (state_rows.py). Each batch replaces its rows in one
transaction, and then they and the position are stored here: a crash between the two gives the same
batch again, with the same result. A table that was lost gets all rows anew.
Not for: which rows there are, the table itself (sql_table.py).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from appliance.config.tables import RecorderConfig
from appliance.model import Message
from appliance.recorders.database_waits import TimeLimits, Waits
from appliance.recorders.latest_store import LatestStore
from appliance.recorders.progress import Progress
from appliance.recorders.sql import SqlTable
from appliance.recorders.sql_dialects import Rows
from appliance.recorders.sql_table import INSTALLATION, ITEM, KEY, KEY_HASH, SEQ, STATE
from appliance.recorders.state_rows import StateRows, flattens
from appliance.recorders.table import Kind, Table
from appliance.recorders.target import Context, Later

_TOGETHER = 500
_PUSHED_TOGETHER = 5000

_log = logging.getLogger(__name__)


class SqlState(SqlTable):
    """The target. One thread at a time, except for ``figures``."""

    def __init__(
        self,
        context: Context,
        stored: Progress,
        *,
        limits: TimeLimits | None = None,
        waits: Waits | None = None,
    ) -> None:
        super().__init__(context, stored, limits=limits, waits=waits, shape=STATE)
        config = context.config
        # Rows made with another mode or key would not be what these ask for.
        self._format = f"sql+{config.mode}+{config.key}" + ("+flatten" if config.flatten else "")
        self._present = StateRows(config, context.count)
        self._store = LatestStore(context.store, context.key)
        self._keys: list[str] = []
        """Of the messages that are being written, whose numbers are ``_seqs``."""
        self._seqs: list[int] = []
        self._is_lost = False  # all is made again from the journal
        self._pushed = ""
        """The key of this data directory under which all rows are in the table."""

    @staticmethod
    def config_of_rows(config: RecorderConfig) -> RecorderConfig:
        return msgspec.structs.replace(config, flatten=flattens(config))

    def open(self, later: Later) -> None:
        is_new = self._progress.format != self._format
        super().open(later)
        if is_new:
            self._store.clear(self._progress)
            self._stored = self._progress
            return
        damaged = self._present.load(self._store.rows())
        if damaged:
            self._notes["damaged"] = f"{damaged} of its rows were damaged and are left out"
            _log.error("Recorder %s: %s", self._context.name, self._notes["damaged"])

    def append(self, messages: Sequence[Message], seq: int) -> None:
        self._look()
        changes = self._present.changes(messages)
        if self._layout.table is None or self._pushed != self._key:
            self._push({**self._present.by_key(), **changes})
        else:
            self._push(changes)
        self._save_rows(self._store, changes, seq, len(messages))
        self._present.apply(changes)

    def _push(self, changes: Mapping[str, Message]) -> None:
        key = self._key
        ordered = sorted(changes.items(), key=lambda each: each[1].seq)
        for start in range(0, len(ordered), _PUSHED_TOGETHER):
            part = ordered[start : start + _PUSHED_TOGETHER]
            self._keys = [key for key, _ in part]
            self._write([message for _, message in part])
        self._pushed = key

    def _look(self) -> None:
        super()._look()
        if self._layout.table is None:
            self._pushed = ""

    def _take_over(self, connection: sa.Connection, newest: int) -> None:
        """Nothing: the rows here say how far the table is to be, and the same come again."""

    def _own_columns(self, table: Table) -> tuple[list[str], list[Kind], list[list[Any]]]:
        keys = self._keys
        if len(keys) != table.rows:  # a list gives several rows
            by_seq = dict(zip(self._seqs, keys, strict=True))
            keys = [by_seq[seq] for seq in table.seqs]
        hashes = [_digest(key) for key in keys]
        items = table.items if self._config.flatten else [0] * table.rows
        return (
            [INSTALLATION, KEY_HASH, ITEM, SEQ, KEY],
            ["text", "text", "integer", "integer", "text"],
            [[self._key] * table.rows, hashes, items, table.seqs, [_plain(key) for key in keys]],
        )

    def _write(self, messages: Sequence[Message]) -> None:
        self._seqs = [message.seq for message in messages]
        super()._write(messages)

    def _store_rows(self, connection: sa.Connection, table: sa.Table, rows: Rows) -> None:
        """Rows of the same keys go, unless they are newer than this batch."""
        hashes = list(dict.fromkeys(rows.values[1]))
        newest = max(rows.values[3])
        for start in range(0, len(hashes), _TOGETHER):
            connection.execute(
                sa.delete(table).where(
                    table.c[INSTALLATION] == self._key,
                    table.c[KEY_HASH].in_(hashes[start : start + _TOGETHER]),
                    table.c[SEQ] <= newest,
                )
            )
        super()._store_rows(connection, table, rows)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _plain(key: str) -> str:
    return key.replace("\0", "\ufffd")
