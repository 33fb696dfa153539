"""What operators have acknowledged, over restarts (``tasks.db``, kept.py).

Not for: what is a problem (appliance/problems.py), whether one still stands (engine/attention.py).
"""

from __future__ import annotations

import logging
from collections.abc import Collection

import msgspec

from appliance.engine_api import Acknowledgement
from appliance.tasks.state_store import StateStore

KIND = "acknowledgement"
MAX_KEPT = 1000
"""Beyond it the oldest is forgotten: its problem is shown again."""

_WHOLE, _CUT = 100, 60
"""Acknowledgements that a snapshot has whole, and the characters of the texts of others: a snapshot
goes to attached terminals, and a thousand texts would fill many frames."""

_log = logging.getLogger(__name__)
_decode = msgspec.msgpack.Decoder(Acknowledgement).decode


class Acknowledgements:
    """At most one for each problem. Any thread."""

    def __init__(self, state: StateStore) -> None:
        self._state = state
        self._all: dict[tuple[str, str], Acknowledgement] = {}
        self._listed: tuple[Acknowledgement, ...] = ()
        self.tasks: dict[str, int] = {}
        """The executions that are acknowledged, by the ids of their tasks."""

    def open(self) -> None:
        """Read what is kept. Under the state store's lock. Raises ``sqlite3.Error``."""
        found = []
        for name, body in self._state.store.kept(KIND).items():
            try:
                found.append(_decode(body))
            except (ValueError, RecursionError):
                _log.warning(
                    "The acknowledgement of %.100s can't be read, so its problem is shown", name
                )
        found.sort(key=lambda one: one.at_ns)
        self._all = {(one.kind, one.name): one for one in found}
        self._list()

    def listed(self) -> tuple[Acknowledgement, ...]:
        """All of them, the newest first; the texts of all but the newest hundred are cut."""
        return self._listed

    def note(self, acknowledgement: Acknowledgement) -> None:
        """Keep one; an earlier one of the same problem is replaced.

        Raises:
            UnavailableError: it can't be noted, and nothing is acknowledged.
            NotNotedError: it is acknowledged, and a restart forgets it.
        """
        key = (acknowledgement.kind, acknowledgement.name)
        with self._state.noted("The acknowledgement") as planner:
            kept = planner.book.changes.kept
            self._all.pop(key, None)
            self._all[key] = acknowledgement
            kept[_row(key)] = msgspec.msgpack.encode(acknowledgement)
            while len(self._all) > MAX_KEPT:
                oldest = next(iter(self._all))
                del self._all[oldest]
                kept[_row(oldest)] = None
            self._list()

    def remove(self, kind: str, name: str) -> bool:
        """Take one back; returns whether there was one. Raises as ``note`` does."""
        if (kind, name) not in self._all:
            return False
        with self._state.noted("This"):
            self._forget([(kind, name)])
        return True

    def forget(self, gone: Collection[tuple[str, str]]) -> None:
        """Forget those whose problems are gone, by kind and name. Raises ``ClosedError``."""
        with self._state.change():
            self._forget(gone)

    def follow_step(self, step_ns: int) -> None:
        """The clock was set by this: an alarm is as old as before. Within a change."""
        kept = self._state.planner.book.changes.kept
        for key, one in self._all.items():
            if one.kind == "alarm" and one.occurrence.isdecimal():
                moved = str(int(one.occurrence) + step_ns)
                self._all[key] = msgspec.structs.replace(one, occurrence=moved)
                kept[_row(key)] = msgspec.msgpack.encode(self._all[key])
        self._list()

    def _forget(self, keys: Collection[tuple[str, str]]) -> None:
        for key in keys:
            if self._all.pop(key, None) is not None:
                self._state.planner.book.changes.kept[_row(key)] = None
        self._list()

    def _list(self) -> None:
        self._listed = tuple(
            one if number < _WHOLE else _cut(one)
            for number, one in enumerate(reversed(self._all.values()))
        )
        self.tasks = {
            one.name: int(one.occurrence)
            for one in self._listed
            if one.kind == "task" and one.occurrence.isdecimal()
        }


def _cut(one: Acknowledgement) -> Acknowledgement:
    return msgspec.structs.replace(one, text=one.text[:_CUT], note=one.note[:_CUT])


def _row(key: tuple[str, str]) -> tuple[str, str]:
    kind, name = key
    return KIND, f"{kind} {name}"
