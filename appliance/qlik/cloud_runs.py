"""Which run of a Qlik Cloud task is the one that a start call began.

The answer to a start has no run id. So a start sends a ``source`` of its own, which the tenant
notes in the run as what triggered it. Where a tenant does not, the run is the first that began
since the call and was not there before it (docs/qlik.md, "The run of a start"). Not for: requests
(cloud_tasks.py).
"""

from __future__ import annotations

import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence
from itertools import takewhile

import msgspec

from appliance.qlik import rows
from appliance.qlik.cloud_rows import RUN, run_started_ns
from appliance.qlik.server import UNSEEN

SOURCE = "qlik-mqtt-appliance"
"""How the ``source`` of each start begins."""
AFTER = UNSEEN
"""How an execution id begins where the run of a start did not show up at once: the rest is a
``StartMark``."""
CLOCK_SLACK_NS = 1_500_000_000
"""The Date header has whole seconds; half a second more for the way."""
_KEPT = 1000
_MARK = re.compile(
    r"after:(?P<at>\d{1,19})(?::(?P<nonce>-?[0-9a-f]{8})?(?::(?P<before>[\w.-]+)?)?)?"
)
_SOURCE = re.compile(rf"{SOURCE}:[0-9a-f]{{8}}")
_ID = re.compile(r"[\w.-]{1,64}")
_AUTOMATIC = frozenset({"schedule", "scheduled", "scheduler", "event"})
"""Causes that are surely not a start call: such a run is taken only if there is no other."""


class StartMark(msgspec.Struct, frozen=True):
    """What is known of a start call, to find its run by."""

    at_ns: int
    """When the call was made, by the server's clock."""
    nonce: str = ""
    """Tells the call from others. It ends the ``source`` of the call, unless it begins with ``-``:
    then the interface takes none. Empty in marks of earlier versions."""
    before: str = ""
    """The id of the task's last run before the call; empty if there was none, or it is unknown."""

    @property
    def source(self) -> str:
        """What the call says of itself, if the interface takes that; else empty."""
        is_sent = self.nonce and not self.nonce.startswith("-")
        return f"{SOURCE}:{self.nonce}" if is_sent else ""

    @property
    def execution_id(self) -> str:
        """The mark as an execution id, for as long as the run has not shown up."""
        before = self.before if _ID.fullmatch(self.before) else ""
        return f"{AFTER}{self.at_ns}:{self.nonce}:{before}".rstrip(":")


def new_nonce(*, is_sent: bool) -> str:
    """What tells one start call from all others; see ``StartMark.nonce``."""
    return f"{'' if is_sent else '-'}{secrets.token_hex(4)}"


def mark_of(execution_id: str) -> StartMark | None:
    """The mark in an execution id; ``None`` if it has none."""
    match = _MARK.fullmatch(execution_id)
    if match is None:
        return None
    return StartMark(int(match["at"]), match["nonce"] or "", match["before"] or "")


def cause_of(run: rows.Row) -> str:
    """What triggered a run, as the tenant notes it."""
    return rows.text(run, "triggeredBy")


def source_of(run: rows.Row) -> str:
    """The ``source`` of the start call that began a run; empty if no appliance began it."""
    match = _SOURCE.search(cause_of(run))
    return match[0] if match else ""


class OwnRuns:
    """The runs that this process started, by what identifies them. Thread-safe and bounded."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._executions: OrderedDict[str, str] = OrderedDict()
        """Source or run id to execution id."""

    def note(self, source: str, execution_id: str) -> None:
        """The run that a source belongs to is followed under this execution id."""
        with self._lock:
            if source:
                self._note(source, execution_id)

    def execution_of(self, run: rows.Row) -> str:
        """Under which execution id a run is followed."""
        run_id = rows.text(run, "id")
        with self._lock:
            return (
                self._executions.get(run_id)
                or self._executions.get(source_of(run))
                or f"{RUN}{run_id}"
            )

    def find(
        self, mark: StartMark, runs: Sequence[rows.Row], execution_id: str = ""
    ) -> rows.Row | None:
        """The run that a start call began, and no other start; ``None`` if it is not among them.

        Args:
            mark: the start call.
            runs: the newest runs of its task, in any order.
            execution_id: under which the run is followed; by default the run's own id.
        """
        with self._lock:
            found = self._find(mark, runs, execution_id)
            if found is not None:
                run_id = rows.text(found, "id")
                for key in filter(None, (run_id, mark.source)):
                    self._note(key, execution_id or f"{RUN}{run_id}")
            return found

    def _find(
        self, mark: StartMark, runs: Sequence[rows.Row], execution_id: str
    ) -> rows.Row | None:
        for run in runs:
            if mark.source and source_of(run) == mark.source:
                return run
        if mark.source and any(map(source_of, runs)):
            return None  # The tenant notes who started a run, and this one is not there yet.
        newest_first = sorted(runs, key=_started, reverse=True)
        since = takewhile(lambda run: rows.text(run, "id") != mark.before, newest_first)
        candidates = [
            run
            for run in since
            if _started(run) >= mark.at_ns - CLOCK_SLACK_NS
            and self._executions.get(rows.text(run, "id"), execution_id) == execution_id
        ]
        return min(
            candidates,
            key=lambda run: (cause_of(run).lower() in _AUTOMATIC, _started(run)),
            default=None,
        )

    def _note(self, key: str, execution_id: str) -> None:
        self._executions[key] = execution_id
        self._executions.move_to_end(key)
        while len(self._executions) > _KEPT:
            self._executions.popitem(last=False)


def begun_since(runs: Sequence[rows.Row], after_ns: int, *, takes_source: bool) -> list[rows.Row]:
    """Runs that a start call of ours may have begun after a time of the server, oldest first.

    Where the tenant notes who started a run, a run of another cause is none of them.

    Args:
        runs: the newest runs of a task.
        after_ns: nanoseconds since the epoch, by the server's clock.
        takes_source: whether the interface takes a ``source``.
    """
    if takes_source and any(map(source_of, runs)):
        runs = [run for run in runs if source_of(run)]
    found = [run for run in runs if _started(run) >= after_ns]
    return sorted(found, key=_started)


def all_since(runs: Sequence[rows.Row], after_ns: int) -> list[rows.Row]:
    """Runs that began after a time of the server, or that go on, oldest first."""
    found = [
        run for run in runs if _started(run) >= after_ns or rows.text(run, "status") == "RUNNING"
    ]
    return sorted(found, key=_started)


def _started(run: rows.Row) -> int:
    """A run without a start has not begun: it is the newest."""
    return run_started_ns(run) or 2**63 - 1
