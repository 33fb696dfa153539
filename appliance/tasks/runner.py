"""The work that one job asks of the server: find tasks, start, look.

Runs in the worker threads, which wait for the server as only the poller and the health check do.
A task is started nowhere else, so the allow-list is enforced here for every request.

Not for: when a job is due and what its result means (planner.py).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from appliance.counters import Counter
from appliance.qlik import deadlines
from appliance.qlik.server import QlikError, QlikServer, Report, RetryPolicy, Started
from appliance.tasks.health_watch import SHORT_CHECK_S
from appliance.tasks.jobs import Job, JobKind
from appliance.tasks.outcomes import Outcomes
from appliance.tasks.payloads import Rejection
from appliance.tasks.records import Record
from appliance.tasks.request_book import SECOND_NS
from appliance.tasks.resolution import Resolution
from appliance.tasks.state_store import ClosedError, StateStore
from appliance.tasks.triggers import INTERNAL_ERROR

_log = logging.getLogger(__name__)


class Runner:
    """Does jobs. One object, used by all worker threads."""

    def __init__(
        self,
        state: StateStore,
        server: QlikServer,
        resolution: Resolution,
        outcomes: Outcomes,
    ) -> None:
        self._outcomes = outcomes
        self._state = state
        self._server = server
        self._resolution = resolution
        self._began: dict[Job, float] = {}
        self._ways = {
            JobKind.RESOLVE: self._resolve,
            JobKind.START: self._start,
            JobKind.LOOK: self._look,
            JobKind.LOOK_FIRST: self._look_and_start,
        }

    def work(self) -> None:
        """A worker thread: do jobs until the stop."""
        while (job := self._state.jobs.get()) is not None:
            try:
                self.do(job)
            except ClosedError:
                return

    def do(self, job: Job) -> None:
        """Do one job and report what came of it."""
        if self._state.stopping:
            self._give_back(job.record)
            return
        self._began[job] = time.monotonic()
        try:
            self._ways[job.kind](job.record)
        except ClosedError:
            raise
        except Exception:  # noqa: BLE001 - see the next line
            # A mistake of ours must not end the thread, nor leave the request in the air.
            _log.exception("Execution %d: %s failed", job.record.id, job.kind.value)
            self._give_up(job)
        finally:
            del self._began[job]

    def longest_s(self) -> float:
        """For how many seconds the oldest job is under way, 0 if none is. Any thread."""
        return time.monotonic() - min(list(self._began.values()), default=time.monotonic())

    def _give_back(self, record: Record) -> None:
        with self._state.change() as planner:
            planner.nothing_done(record, self._state.clock_ns())

    def _give_up(self, job: Job) -> None:
        record, now = job.record, self._state.clock_ns()
        with self._state.change() as planner:
            planner.count(Counter.INTERNAL_ERRORS)
            if record.posted_ns is not None:
                planner.uncertain(record, "An error in the appliance.", now)
            else:
                planner.not_allowed(record, INTERNAL_ERROR, now)

    # --- one way for each kind ----------------------------------------------------------------

    def _resolve(self, record: Record) -> None:
        cause = record.execution.cause
        try:
            found = self._resolution.resolve(
                record.selector,
                record.options.reload,
                lambda task: task == cause.about or self._outcomes.is_about(cause.topic, task),
            )
        except QlikError as error:
            self._not_reached(record, error)
            return
        self._reached()
        with self._state.change() as planner:
            now = self._state.clock_ns()
            if isinstance(found, Rejection):
                planner.not_allowed(record, found, now)
            else:
                planner.resolved(
                    record, [task for task, _ in found], now, [how for _, how in found]
                )

    def _look_and_start(self, record: Record) -> None:
        """Ask for runs that others started; unless one answers the request, start the task."""
        with self._state.lock:
            since = self._state.planner.runs_wanted_since(record, self._state.clock_ns())
        reports: Sequence[Report] = ()
        try:
            reports = self._server.since(record.execution.task_id, since, everyone=True)
        except QlikError as error:
            if error.retry is not RetryPolicy.NEVER or self._is_behind_page(error):
                self._note_failure(error)
                with self._state.change() as planner:
                    planner.retry(record, error, self._state.clock_ns())
                return
            # A server that will never tell holds no start back: one start too many does less harm.
            _log.warning("The server does not say what runs, so it is not asked first: %s", error)
            with self._state.change() as planner:
                planner.count(Counter.STARTS_WITHOUT_LOOK)
        else:
            self._reached()
        with self._state.change() as planner:
            goes = planner.looked(record, reports, self._state.clock_ns())
        if not goes:
            return
        if self._state.stopping or self._state.trouble:
            # The call is not noted on the disk, or would have no answer.
            self._give_back(record)
            return
        self._start(record)

    def _start(self, record: Record) -> None:
        task = record.execution.task_id
        try:
            refusal = self._resolution.refusal(task)
        except QlikError as error:
            self._not_reached(record, error)
            return
        if refusal is not None:
            with self._state.change() as planner:
                planner.not_allowed(record, refusal, self._state.clock_ns())
            return
        try:
            answer = self._server.start(task, options=record.options.reload)
        except QlikError as error:
            if error.retry is RetryPolicy.LOOK_FIRST:
                self._note_failure(error)
                with self._state.change() as planner:
                    now = self._state.clock_ns()
                    planner.uncertain(record, str(error), now, is_answered=error.is_answered)
            else:
                self._not_reached(record, error)
            return
        self._reached()
        if answer.execution_id:
            with self._state.change() as planner:
                now = self._state.clock_ns()
                planner.started(record, answer.execution_id, now, task_id=answer.task_id)
        else:
            self._refused(record, answer)

    def _refused(self, record: Record, answer: Started) -> None:
        """The reply does not say why; a run that was started elsewhere is the usual reason."""
        task = record.execution.task_id
        busy: list[Report] = []
        try:
            busy = [one for one in self._server.running() if one.task_id.lower() == task]
        except QlikError as error:
            self._note_failure(error)
        with self._state.change() as planner:
            now = self._state.clock_ns()
            # The refusal says that this call began nothing, so what runs is not its run.
            record.forget_call()
            for report in busy:
                planner.elsewhere(report, record.execution.task_name, now)
            planner.refused(record, answer.reason, now)

    def _look(self, record: Record) -> None:
        assert record.posted_ns is not None
        task = record.execution.task_id
        posted = record.posted_ns
        after = posted - int(self._state.planner.limits.clock_slack_s * SECOND_NS)
        try:
            reports = self._server.since(task, after)
        except QlikError as error:
            self._note_failure(error)
            with self._state.change() as planner:
                planner.look_failed(record, error, self._state.clock_ns())
            return
        self._reached()
        with self._state.change() as planner:
            now = self._state.clock_ns()
            news = [one for one in reports if not planner.knows_run(one.execution_id)]
            if planner.dispatcher.has_others:
                # A run that certainly began before the call is another appliance's.
                news = [one for one in news if (one.began_until_ns or now) >= posted]
            if news:
                planner.found(record, min(news, key=lambda one: one.started_ns or now), now)
            else:
                planner.not_found(record, now)

    # --- parts --------------------------------------------------------------------------------

    def _not_reached(self, record: Record, error: QlikError) -> None:
        """A call failed that certainly began nothing."""
        self._note_failure(error)
        is_final = error.retry is RetryPolicy.NEVER and not self._is_behind_page(error)
        with self._state.change() as planner:
            now = self._state.clock_ns()
            if is_final:
                planner.not_allowed(record, Rejection(error.label, str(error)), now)
            else:
                planner.retry(record, error, now)

    def _is_behind_page(self, error: QlikError) -> bool:
        """Whether every call is answered with a page for people, as during maintenance.

        A page for the one call and an answer to the next means that the call is at fault.
        """
        if not error.is_page:
            return False
        try:
            with deadlines.within(SHORT_CHECK_S):
                self._server.check()
        except QlikError as failure:
            with self._state.lock:
                self._state.circuit.check_failed(failure)
            return True
        return False

    def _note_failure(self, error: QlikError) -> None:
        with self._state.lock:
            self._state.circuit.failed(error)

    def _reached(self) -> None:
        with self._state.lock:
            was_open = self._state.circuit.is_open
            self._state.circuit.succeeded()
            if was_open:
                with self._state.change() as planner:
                    planner.server_is_back(self._state.clock_ns())
