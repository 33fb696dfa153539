"""Before a start, where several appliances use one server: what others started, and what follows.

A run of the task that certainly began after the newest message of the request answers the request,
whoever started the run. Certainly means by the bounds of the server's clock: of a run that may have
begun before the message, another one is started, because one start too many does less harm than
data that is not loaded. Not for: asking the server (runner.py), or waiting before it is asked
(dispatcher.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from appliance.counters import Counter
from appliance.model import ExecutionState
from appliance.qlik.server import Report
from appliance.tasks.dispatcher import Dispatcher
from appliance.tasks.records import Record
from appliance.tasks.request_book import RequestBook, to_ns
from appliance.tasks.runs import BY_OTHER, Runs
from appliance.tasks.states import RequestState

UNDECIDED = "A run of the task is under way, and it is not known yet which request it belongs to."
_LOOKING = frozenset({RequestState.LOOKING})
_LOADED_NOTHING = frozenset({ExecutionState.ABORTED, ExecutionState.SKIPPED, ExecutionState.LOST})
"""A run that ended so answers nothing. One that failed does: another one would fail as well."""


class LookFirst:
    """What follows from a look before a start.

    Not thread-safe: the state store's lock guards it.
    """

    def __init__(self, book: RequestBook, dispatcher: Dispatcher, runs: Runs) -> None:
        self._book = book
        self._dispatcher = dispatcher
        self._runs = runs

    def since_ns(self, record: Record, now: int) -> int:
        """From when on runs of the task matter for a request."""
        return min(record.wanted_ns, now - to_ns(record.options.cooldown_s))

    def looked(self, record: Record, reports: Sequence[Report], now: int) -> bool:
        """The server's runs of the task are known: returns whether the start call is made now.

        If so, it is noted. If not, a run answers the request, or it waits again.
        """
        book, dispatcher = self._book, self._dispatcher
        if not book.is_in(record, _LOOKING):
            return False
        if (report := self._answer(record, reports)) is not None:
            self._answered(record, report, now)
            return False
        task_id = record.execution.task_id
        name = record.execution.task_name
        under_way = [one for one in reports if not one.state.is_final]
        are_decided = [self._runs.elsewhere(one, name, now) for one in under_way]
        if not all(are_decided):
            # It may be the run of a request that an earlier process left: that is looked for first.
            book.move(
                record,
                RequestState.RETRY_WAIT,
                now,
                reason=UNDECIDED,
                next_attempt_ns=now + to_ns(dispatcher.limits.look_first_s),
            )
            dispatcher.put_back(record, now)
            return False
        began = max((one.began_until_ns or 0 for one in reports), default=0)
        self._note_start(task_id, min(began, now))
        if not dispatcher.goes_now(record, now):
            book.move(record, RequestState.PENDING, now, reason="")
            dispatcher.put_back(record, now)
            return False
        dispatcher.call(record, now)
        return True

    def _answer(self, record: Record, reports: Sequence[Report]) -> Report | None:
        """The run that answers a request: the newest, and one that failed only if all did."""
        if record.options.reload:
            return None  # The server does not say how others reload.
        found = [
            one
            for one in reports
            if one.began_from_ns is not None
            and one.began_from_ns >= record.wanted_ns
            and one.state not in _LOADED_NOTHING
        ]
        return max(
            found,
            key=lambda one: (one.state is not ExecutionState.FAILED, one.began_from_ns),
            default=None,
        )

    def _answered(self, record: Record, report: Report, now: int) -> None:
        book, dispatcher = self._book, self._dispatcher
        run = report.execution_id
        number = book.execution_of(run)
        owner = book.open.get(number)
        if owner is not None and owner.execution.cause.kind != "elsewhere":
            dispatcher.absorb(owner, record, now)
            return
        book.count(Counter.STARTS_ANSWERED_BY_OTHERS)
        if number and owner is None:
            book.changes.moved_answers.append((record.id, number))
            text = f"{BY_OTHER}: execution {number}."
            dispatcher.finish(record, RequestState.SKIPPED, text, now, answered_by=number)
            return
        record.is_by_other = True
        task_id = record.execution.task_id
        is_other_task = report.task_id and report.task_id.lower() != task_id
        self._runs.follow(
            record,
            run,
            now,
            task_id=report.task_id.lower() if is_other_task else "",
            step=BY_OTHER,
        )
        record.began_ns = report.began_from_ns
        self._note_start(record.execution.task_id, min(report.began_until_ns or now, now))
        dispatcher.decide_waiting(record.execution.task_id, now)
        self._runs.report(record, report, now)

    def _note_start(self, task_id: str, began_ns: int) -> None:
        """The cooldown counts from the last start on the server, whoever made it."""
        history = self._book.histories.of(task_id)
        if began_ns > history.last_start_ns:
            self._book.remember(task_id, msgspec.structs.replace(history, last_start_ns=began_ns))
