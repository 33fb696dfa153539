"""What the server says of runs, ours and others', and what follows from it.

Not for: asking the server (poller.py, runner.py) or the answers to start calls (planner.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from appliance.counters import Counter
from appliance.model import APP, Cause, Execution, Step
from appliance.qlik.server import UNSEEN, QlikError, Report
from appliance.tasks.dispatcher import Dispatcher
from appliance.tasks.records import Record
from appliance.tasks.request_book import RequestBook, to_ns
from appliance.tasks.selector import TaskSelector
from appliance.tasks.states import AT_SERVER, REPORTED, RequestState
from appliance.tasks.triggers import Options

BY_OTHER = "Answered by a run that another one started"
SLOW_FACTOR = 3.0
SLOW_LEAST_S = 60.0
MAX_NODE = 255
"""Characters of a node's name: those of a host name."""
MAX_DETAILS = 30
"""Notes of the server that are kept of a run: the first ten and the last twenty."""
MAX_DETAIL_BYTES = 4000
"""For all of them together; an outcome is published with them."""


class Runs:
    """Runs of the server that belong to requests.

    Not thread-safe: the state store's lock guards it.
    """

    def __init__(self, book: RequestBook, dispatcher: Dispatcher) -> None:
        self.slow: list[Execution] = []
        """Runs that were found to be slow, to be told; the state store takes them away."""
        self._book = book
        self._dispatcher = dispatcher

    def elsewhere(self, report: Report, name: str, now: int) -> bool:
        """A run of a known task that was started elsewhere: in the console, or by its schedule.

        Returns whether that is decided. It is not while the run may be the one that a start call of
        ours began: one without an answer yet, one of an earlier process that is looked for, or one
        whose run had not shown up when its call returned.
        """
        book = self._book
        task_id = report.task_id.lower()
        if book.knows_run(report.execution_id):
            return True
        if self._may_be_ours(task_id):
            return False
        run = report.execution_id
        record = book.new(
            TaskSelector("id", task_id),
            Options(),
            Cause("elsewhere"),
            now,
            asked=report.started_ns or now,
            expires=now,
            run=run,
        )
        record.seen_ns = book.followed_since[record.id] = now
        self._dispatcher.queues.activate(record)
        book.note_run(run, record.id)
        book.change(record, task_name=name)
        book.count(Counter.EXECUTIONS_STARTED_ELSEWHERE)
        self.report(record, report, now)
        return True

    def _may_be_ours(self, task_id: str) -> bool:
        queues, app = self._dispatcher.queues, self._book.histories.app_of(task_id)
        active = (*queues.active(task_id), *queues.active(app))
        if any(
            one.posted_ns is not None or one.execution.execution_id.startswith(UNSEEN)
            for one in active
        ):
            return True
        # Not all open requests: there may be a hundred thousand, and hundreds of runs to ask for.
        return any(one.look_since_ns is not None for one in queues.may_mean(task_id, app))

    def follow(self, record: Record, run: str, now: int, *, step: str, task_id: str = "") -> None:
        """The server has a run that answers a request: it is followed from now on.

        ``task_id`` is the server's task for an app that had none.
        """
        book = self._book
        # A look at what runs may have seen it before.
        self.belongs_to(record, run, now, task_id)
        book.move(
            record,
            RequestState.QUEUED,
            now,
            reason="",
            step=step,
            execution_id=run,
            next_attempt_ns=None,
        )
        if record.posted_ns is not None:
            record.began_ns = record.posted_ns
        record.forget_call()
        record.seen_ns = book.followed_since[record.id] = now
        book.note_run(run, record.id)

    def belongs_to(self, record: Record, run: str, now: int, task_id: str = "") -> None:
        """A run was found to be a request's. ``task_id``: its task, if that was not known.

        If the run was taken for one that was started elsewhere, that is forgotten. What waits for
        the same app waits for its task now.
        """
        book, queues = self._book, self._dispatcher.queues
        same = book.owner_of(run)
        if same is not None and same is not record:
            queues.leave(same)
            self._dispatcher.alarms.drop(same.id)
            book.forget(same)
        before = record.execution.task_id
        if not task_id or task_id == before:
            return
        queues.leave(record)
        book.change(record, task_id=task_id)
        queues.activate(record)
        book.freshness.renamed(before, task_id, now)
        for other in queues.inactive(before):
            queues.leave(other)
            book.change(other, task_id=task_id)
            self._dispatcher.put_back(other, now)

    def report(self, record: Record, report: Report, now: int) -> None:
        """The server's word on a run that is followed."""
        book = self._book
        if not book.is_in(record, AT_SERVER):
            return
        record.seen_ns = now
        self._note_run(record, report, now)
        self._note_place(record, report)
        execution = record.execution
        began = report.started_ns or execution.started_ns
        if report.state.is_final:
            record.report_id = report.result_id
            record.file_reference = report.file_reference
            details, are_cut = bounded_details(report.details)
            if are_cut:
                book.count(Counter.EXECUTION_DETAILS_CUT)
            book.change(record, details=details)
            self._dispatcher.finish(
                record,
                REPORTED[report.state],
                _reason(record, report.reason),
                now,
                ended_ns=report.ended_ns or now,
                started_ns=began,
                duration_s=report.duration_s,
            )
            return
        if self._is_over_limit(record, now):
            return
        self._watch_pace(record, now - book.followed_since.get(record.id, now))
        attempt = f", attempt {report.attempt} of the server" if report.attempt > 1 else ""
        reason = _reason(record, f"The server repeats it{attempt}." if attempt else "")
        present = (execution.state, execution.started_ns, execution.reason)
        if present != (report.state, began, reason):
            book.move(
                record,
                REPORTED[report.state],
                now,
                reason=reason,
                step=report.state.value.capitalize() + attempt,
                started_ns=began,
            )

    def _note_run(self, record: Record, report: Report, now: int) -> None:
        """Which run it is, and of which task, where the start call's answer did not say so."""
        book, execution = self._book, record.execution
        task_id = report.task_id if execution.task_id.startswith(APP) else ""
        is_app_still = not task_id or task_id.startswith(APP)
        if is_app_still and not execution.execution_id.startswith(UNSEEN):
            return
        self.belongs_to(record, report.execution_id, now, "" if is_app_still else task_id)
        book.change(record, execution_id=report.execution_id)
        book.note_run(report.execution_id, record.id)

    def _note_place(self, record: Record, report: Report) -> None:
        """Where the run is executed, and how long it waited for that."""
        execution = record.execution
        present = (execution.node, execution.queued_ns, execution.queued_s)
        news = (
            report.node[:MAX_NODE] or execution.node,
            report.queued_ns or execution.queued_ns,
            execution.queued_s if report.queued_s is None else report.queued_s,
        )
        if news != present:
            self._book.change(record, node=news[0], queued_ns=news[1], queued_s=news[2])

    def unanswered(self, record: Record, error: QlikError, now: int) -> None:
        """The server could not be asked about a run: the run says so until an answer comes."""
        if not self._book.is_in(record, AT_SERVER) or self._is_over_limit(record, now):
            return
        text = f"The server can't be asked about it: {error}"
        if record.execution.reason != text:
            self._book.change(record, reason=text)

    def missing(self, record: Record, now: int) -> None:
        """The server knows nothing of a run. Right after the start that is usual."""
        unseen_ns = now - (record.seen_ns or 0)
        if self._book.is_in(record, AT_SERVER) and unseen_ns > to_ns(
            self._dispatcher.limits.lost_after_s
        ):
            self._dispatcher.finish(
                record,
                RequestState.LOST,
                "The server knows nothing of this run any more and has no result of it: its "
                "outcome can't be had. Look at the task in the management console.",
                now,
                label="lost",
            )

    def _is_over_limit(self, record: Record, now: int) -> bool:
        limit_s = self._dispatcher.limits.follow_limit_s
        # Not by the start of the run, which the server's clock tells.
        began = self._book.followed_since.get(record.id, record.execution.requested_ns)
        if now - began <= to_ns(limit_s):
            return False
        self._dispatcher.finish(
            record,
            RequestState.LOST,
            f"No end was seen in {limit_s / 3600:g} hours; it is not followed "
            "any longer. Look at the task in the management console.",
            now,
            label="too long",
        )
        return True

    def _watch_pace(self, record: Record, elapsed_ns: int) -> None:
        """Say once if a run takes three times as long as usual, and at least a minute more."""
        usual = record.execution.usual_s
        if usual is None or record.is_slow:
            return
        if elapsed_ns > to_ns(max(SLOW_FACTOR * usual, usual + SLOW_LEAST_S)):
            record.is_slow = True
            self._book.count(Counter.EXECUTIONS_SLOW)
            self._book.change(record)
            self.slow.append(record.execution)


def _reason(record: Record, reason: str) -> str:
    """What users are told of a run; that another one started it, they are told as well."""
    if not record.is_by_other:
        return reason
    return f"{reason} ({BY_OTHER})" if reason else f"{BY_OTHER}."


def bounded_details(details: Sequence[Step]) -> tuple[tuple[Step, ...], bool]:
    """The server's notes within the bounds, and whether some were cut or left out."""
    kept = list(details)
    if len(kept) > MAX_DETAILS:
        kept = [*kept[:10], *kept[10 - MAX_DETAILS :]]
    # In place of the longest ones a part of each: every note stays, and the short ones whole.
    room = MAX_DETAIL_BYTES
    texts: dict[int, str] = {}
    by_size = sorted(range(len(kept)), key=lambda one: len(kept[one].text.encode()))
    for place, number in enumerate(by_size):
        share = room // (len(kept) - place)
        texts[number] = _cut(kept[number].text, share)
        room -= len(texts[number].encode())
    bounded = tuple(Step(one.at_ns, texts[number]) for number, one in enumerate(kept))
    return bounded, bounded != tuple(details)


def _cut(text: str, most: int) -> str:
    encoded = text.encode()
    if len(encoded) <= most:
        return text
    return encoded[: max(most - 3, 0)].decode("utf-8", "ignore") + "…"
