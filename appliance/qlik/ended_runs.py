"""Runs of the Repository Service that ended, whoever started them, by their execution results.

A run that is shorter than the time between two looks at the sessions has no session by then, but it
has a result. The call asks for the results since the last one. Not for: what runs now, and what the
appliance does with a run (appliance/tasks).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

from appliance.qlik import rows
from appliance.qlik.failures import StatusError
from appliance.qlik.server import ENDED_LIMIT, ENDED_LOOK_BACK_NS, Ended, QlikError, Report

_log = logging.getLogger(__name__)
OVERLAP_NS = 300 * 1_000_000_000
"""A result may come late, and the clocks of a site's machines may differ: by five minutes, where
they sign in with Kerberos (its default tolerance)."""
_IDS_PER_URL = 40
_NO_TIME_FILTER = frozenset({400, 500, 501})
"""Statuses with which a server may refuse the filter by time."""


class ListRows(Protocol):
    """A list of the Repository Service with a filter; raises ``QlikError``."""

    def __call__(self, path: str, condition: str = "") -> list[rows.Row]: ...


class EndedRuns:
    """Asks for results; remembers whether the server takes a filter by time. For one thread."""

    def __init__(self, list_rows: ListRows, server_time_ns: Callable[[], int]) -> None:
        self._list = list_rows
        self._server_time_ns = server_time_ns
        self._takes_times = True
        self._first_ns = 0
        """When runs were first asked for: none is returned that ended before."""
        self._seen: Report | None = None
        """The run that ended last, of those whose reports were read by their ids."""

    def saw(self, reports: Iterable[Report]) -> None:
        """Reports that were read by ids: the next list must have the newest run that ended."""
        for report in reports:
            if report.state.is_final and _end(report) > (_end(self._seen) if self._seen else 0):
                self._seen = report

    def since(self, after_ns: int | None, running: Collection[str]) -> Ended:
        """See ``QlikServer.ended``."""
        now = self._server_time_ns()
        if after_ns is None:
            self._first_ns = now
            return Ended((), now)
        # The server's clock may have been set back since.
        after_ns = min(max(after_ns, now - ENDED_LOOK_BACK_NS), now)
        from_ns = max(after_ns - OVERLAP_NS, self._first_ns)
        found = self._results(from_ns)
        reports = [
            report
            for execution_id, attempts in rows.grouped(found).items()
            if execution_id not in running
            and (report := rows.execution_report(attempts, None)).state.is_final
            and (report.ended_ns or 0) >= from_ns
        ]
        reports.sort(key=_end)
        until_ns = max([after_ns, *(_end(report) for report in reports)])
        left_out = max(0, len(reports) - ENDED_LIMIT)
        return Ended(reports[left_out:], min(until_ns, now), left_out)

    def _results(self, from_ns: int) -> list[rows.Row]:
        if not self._takes_times:
            return self._last_results(from_ns)
        try:
            found = self._list("/executionresult/full", f"stopTime ge '{rows.date_text(from_ns)}'")
            problem = self._problem_of(found, from_ns)
            if not problem:
                return found
        except StatusError as error:
            if error.status not in _NO_TIME_FILTER:
                raise
            problem = str(error)
        except QlikError as error:
            if error.label != "too large":
                raise
            problem = str(error)
        found = self._last_results(from_ns)
        # It answers other questions, so it was the filter.
        self._takes_times = False
        _log.warning(
            "The server can't list execution results by the time of their end (%s). The last "
            "result of each task is read instead: of several runs of one task between two looks "
            "only the last one is seen",
            problem,
        )
        return found

    def _problem_of(self, found: Sequence[rows.Row], from_ns: int) -> str:
        """What shows that the server reads the filter in another way; empty if nothing does."""
        if any(_stop(row) < from_ns for row in found):
            return "the filter has no effect"
        seen = self._seen
        if seen is None or _end(seen) < from_ns or seen.execution_id in rows.grouped(found):
            return ""
        # As if the server took a time in UTC for one of its own zone.
        return f"run {seen.execution_id}, which ended since, is not among them"

    def _last_results(self, from_ns: int) -> list[rows.Row]:
        """The results of the tasks whose last result is new; the list of tasks has no details."""
        ids = []
        for task in self._list("/task/full"):
            last = rows.inner(rows.inner(task, "operational"), "lastExecutionResult")
            result_id = rows.text(last, "id")
            if _stop(last) >= from_ns and rows.GUID.fullmatch(result_id):
                ids.append(result_id)
        found: list[rows.Row] = []
        for first in range(0, len(ids), _IDS_PER_URL):
            some = ids[first : first + _IDS_PER_URL]
            condition = " or ".join(f"id eq {result_id}" for result_id in some)
            found += self._list("/executionresult/full", condition)
        return found


def _stop(result: rows.Row) -> int:
    return rows.time_ns(result.get("stopTime")) or 0


def _end(report: Report) -> int:
    return report.ended_ns or 0
