"""The one place where a change becomes durable before it has effects.

Every thread of the task engine changes the planner's state inside ``change()``. At its end the
thread writes everything that changed in one transaction. Only then the workers get their jobs,
the publisher gets outcomes, and the views show the new states. If the disk refuses (full, gone),
changes and effects are held back together and the write is tried again; meanwhile the consumer
reads no further messages.

One effect does not wait for the write: the start call that a message of the journal asks for, while
``tasks.db`` does not yet say that the message was dealt with. The journal is the note of that call.
After a crash the next process reads the message again, and looks at the server before it starts
what the message asks for (``planner.dispatcher.earlier_seq``).

Not for: deciding (planner.py), calling the server (runner.py, poller.py).
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice

from appliance.clock import STEP_NS, Clock
from appliance.counters import Counter
from appliance.errors import NotNotedError, UnavailableError
from appliance.model import Execution
from appliance.storage.sqlite import explain, is_damage
from appliance.tasks import holds
from appliance.tasks.circuit import Circuit
from appliance.tasks.cursors import Cursors
from appliance.tasks.freshness import KIND as FRESHNESS
from appliance.tasks.freshness import KIND_DAY as FRESHNESS_DAY
from appliance.tasks.internal_errors import InternalErrors
from appliance.tasks.jobs import Job, JobKind
from appliance.tasks.notice import LogKnown, Notice, notice_of
from appliance.tasks.outcomes import Outcomes
from appliance.tasks.planner import Planner
from appliance.tasks.published import Journal, Published
from appliance.tasks.records import Record
from appliance.tasks.request_book import message_of
from appliance.tasks.store import Changes, Publication, Store
from appliance.tasks.told import Told, history_of
from appliance.tasks.views import MAX_EXECUTIONS, MAX_MESSAGES, Views

_log = logging.getLogger(__name__)
FRESHNESS_SINCE = "freshness since"
"""The kind of the value in ``tasks.db`` that says from when on freshness is known."""
_DIGITS = 20
MAX_OUTBOX = 20_000
"""Publications that wait for the broker; beyond it the oldest are dropped and counted."""


class ClosedError(Exception):
    """The engine has stopped; what a straggling worker brings is not taken any more."""


class StateStore:
    """The engine's state, its lock, and the way of every change through the database."""

    def __init__(
        self,
        store: Store,
        planner: Planner,
        views: Views,
        outcomes: Outcomes,
        clock_ns: Callable[[], int],
    ) -> None:
        self.store = store
        self.planner = planner
        self.views = views
        self.circuit = Circuit(clock_ns)
        self.internal_errors = InternalErrors()
        self.clock_ns = clock_ns
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        """Wakes the clock and the poller, when the time of the next event may have changed and only
        then: at each other change both would run in vain."""
        self.jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self.trouble = ""
        """Why the database can't be written at present, else empty."""
        self.cursors = Cursors()
        self.has_read_earlier = False
        """Whether what the journal had when this process began was read. The consumer sets it."""
        self.stopping = False
        self._closed = False
        self._outcomes = outcomes
        self.offer: Callable[[Notice | LogKnown], None] = lambda _: None
        """Takes news for people (notices.py)."""
        self.find_left: Callable[[], None] = lambda: None
        """Within a change: finds the tasks of messages that no request waits for any more."""
        self.tell_late: Callable[[str], None] = lambda _: None
        """Within a change: tells that the data of a task is older than a rule wants it."""
        self.tell_freshness: Callable[[str], None] = lambda _: None
        """Within a change: publishes how fresh a task is."""
        self._announced: tuple[object, ...] = ()
        self._unnoted_jobs: list[Job] = []
        """Jobs that a worker gets when their change is on disk."""
        self._held_notices: list[Notice | LogKnown] = []
        self._outbox: deque[tuple[int, Publication]] = deque()
        self._posted = threading.Condition(self.lock)
        self.log_due = threading.Condition(self.lock)
        """Wakes the threads that fetch script logs."""
        self.on_step: Callable[[int], None] = lambda _: None
        """Moves what waits elsewhere in the task engine when the clock was set. Within a change."""
        self._next_publication = 1
        self._published = 0
        self._published_on_disk = 0
        self._published_seq = 0
        """The journal's number up to which each own message is one of a publication that is done
        with: the next start compares what comes behind it with the outbox."""
        self._published_seq_on_disk = 0
        self._published_before = Published()
        self.told: Told | None = None
        """What the journal tells of requests, until all that came before this process is read."""
        self._is_lost = False
        """Whether ``tasks.db`` has no cursor: it was begun anew, or that row can't be read."""
        self._left: list[Record] = []
        """The requests of ``tasks.db`` without an outcome, until they are taken up."""

    def open(self) -> None:
        """Read what an earlier run of the appliance left."""
        with self.lock:
            waiting = self.store.outbox()
            self._outbox.extend(waiting)
            self._next_publication = max(
                self.store.meta("next_publication"), waiting[-1][0] + 1 if waiting else 1
            )
            self.cursors.begin(self.store.meta("seq"))
            # A database of an earlier release has no such number.
            self._published_seq = self.store.meta("published_seq") or self.cursors.durable
            self._published_seq_on_disk = self._published_seq
            history = self.store.records(2**62, MAX_EXECUTIONS)[::-1]
            self.views.show((one.execution, one.label) for one in history)
            self.views.answer(self.store.answers(MAX_MESSAGES))
            for one in history:
                if one.execution.execution_id:
                    self.planner.note_run(one.execution.execution_id, one.id)
            self.planner.histories.update(self.store.histories())
            now = self.clock_ns()
            self._open_freshness(now)
            records = self.store.open_records()
            if left_out := self.store.left_out:
                rows = ", ".join(sorted(f"{key} of {table}" for table, key in left_out)[:10])
                more = f" and {len(left_out) - 10} more" if len(left_out) > 10 else ""
                self.store.losses.append(
                    f"Rows of the task database can't be read and were left out: {rows}{more}."
                )
            unread = self.planner.dispatcher.load_holds(self.store.kept(holds.KIND))
            if unread:
                self.store.losses.append(
                    f"Holds that can't be read were left out: {', '.join(sorted(unread)[:10])}. "
                    "What they held is not held any more."
                )
            self._show_holds()
            back_ns = self.store.meta("clock_ns") - now
            if back_ns > STEP_NS:
                _log.warning(
                    "The clock was set back by %.0f s or more since the last change of the tasks: "
                    "what waits goes on from there",
                    back_ns / STEP_NS,
                )
                for record in records:
                    record.shift(-back_ns)
                self.planner.follow_step(-back_ns, now)
            self._left = records
            self.views.show((one.execution, one.label) for one in records)

    def _open_freshness(self, now: int) -> None:
        """Read how fresh each task was. Without these rows, that is known from now on only."""
        freshness, kept = self.planner.book.freshness, self.planner.book.changes.kept
        unreadable = freshness.load(self.store.kept(FRESHNESS), now, self.store.kept(FRESHNESS_DAY))
        since = self.store.kept(FRESHNESS_SINCE).get("", b"").decode("ascii", "ignore")
        freshness.since_ns = int(since) if since.isdecimal() and len(since) < _DIGITS else now
        if unreadable:
            freshness.since_ns = now
            self.store.losses.append(
                f"How fresh tasks were can't be read from the task database (rows: "
                f"{len(unreadable)}): which messages no run had covered is not known of them."
            )
        kept[FRESHNESS_SINCE, ""] = str(freshness.since_ns).encode()

    def rebuild_after(self, seq: int) -> None:
        """Begin with a cursor behind ``seq``, and with what the whole journal tells."""
        with self.lock:
            self.cursors.begin(seq)
            self._published_seq = self._published_seq_on_disk = seq
            self._is_lost = True
            self.planner.book.changes.meta["seq"] = seq

    def take_up(self, journal: Journal, service_name: str) -> dict[str, tuple[int, int]]:
        """Go on with what was left, by ``tasks.db`` and the journal. After ``open``.

        Returns the alarms that the journal tells of, if ``tasks.db`` may have lost them: timers,
        since when, and the last message that they heard.

        Raises:
            UnavailableError, sqlite3.Error: the journal can't be read.
        """
        with self.lock:
            told = Told(service_name)
            is_lost = self._is_lost or bool(self.store.losses)
            newest = self._published_before.look_through(
                journal,
                self._published_seq,
                f"${service_name}",
                hear=told.note,
                hear_after=0 if is_lost else self.cursors.durable,
            )
            self._drop_published(newest)
            if told:
                self._learn(told)
                self.told = told
                self.planner.call_after = told.call_after
            now = self.clock_ns()
            for record in self._left:
                self.planner.restore(record, now)
                self.views.show([(record.execution, record.label)])
            self._left = []
            if is_lost:
                # The cursor is written with what was learned, or the next start learns it again.
                self.planner.book.changes.is_forced = True
                self.settle()
            return told.alarms if is_lost else {}

    def _drop_published(self, newest: int) -> None:
        """Leave out of the outbox what the journal has.

        What else the journal has of the appliance's own messages is remembered: if a power cut took
        the note of an outcome, the same outcome is made again, and not published again.
        """
        before = self._published_before
        found = [number for number, one in self._outbox if before.take(one)]
        if not found:
            return
        # They are published in order, so the ones before the last are done with too.
        self.was_published(found[-1], newest)
        _log.info(
            "%d messages of the appliance's own were published before the stop already",
            len(found),
        )

    def _learn(self, told: Told) -> None:
        """Take over what the journal tells and ``tasks.db`` does not know."""
        book, newest = self.planner.book, told.numbers[-1]
        ahead = told.numbers_in(one for _, one in self._outbox)
        updated: list[Record] = []
        goes_on: list[Record] = []
        for record in self._left:
            if told.update(record, is_ahead=record.id in ahead):
                updated.append(record)
            if not record.execution.state.is_final or record.log_wanted:
                goes_on.append(record)
        for record in self.store.records_of(told.numbers):
            told.update(record, is_ahead=True)
        unknown = told.unknown(self.cursors.durable)
        goes_on.extend(one for one in unknown if not one.execution.state.is_final)
        if updated or unknown:
            for record in goes_on:
                # The database is behind, so a call for it may not be noted.
                if not record.execution.execution_id and record.posted_ns is None:
                    record.look_since_ns = record.last_asked_ns
        for record in (*updated, *unknown):
            execution = record.execution
            book.changes.records[record.id] = record
            if execution.execution_id:
                book.note_run(execution.execution_id, record.id)
        for record in unknown:
            history = book.histories.of(record.execution.task_id)
            book.remember(record.execution.task_id, history_of([record.execution], history))
        self.views.show((one.execution, one.label) for one in (*updated, *unknown))
        self._left = goes_on
        if newest >= book.next_id:
            book.next_id = newest + 1
            book.changes.meta["next_id"] = book.next_id
        if updated or unknown:
            _log.warning(
                "The task database is behind the journal: %d executions were taken from the journal"
                " and %d brought to their newest state",
                len(unknown),
                len(updated),
            )

    @contextmanager
    def change(self) -> Iterator[Planner]:
        """Change the state; durable (or held back with all its effects) when the block ends.

        Raises ``ClosedError`` after the stop.
        """
        with self.lock:
            if self._closed:
                raise ClosedError
            self._mind_circuit()
            yield self.planner
            self.settle()

    @contextmanager
    def noted(self, what: str) -> Iterator[Planner]:
        """``change`` for an operator, who is told if it is not on disk.

        ``what`` is the beginning of a sentence, for example ``"The start"``. Raises
        ``UnavailableError`` if it is not taken, ``NotNotedError`` if it is taken all the same.
        """
        with self.lock:
            if self._closed or self.stopping:
                raise UnavailableError("The appliance is stopping; nothing is taken any more.")
            if self.trouble and not self.settle():
                raise UnavailableError(
                    f"{what} was not taken: the task database can't be written "
                    f"({self.trouble}). Make room on the disk or see to its rights, then try again."
                )
            with self.change() as planner:
                planner.book.changes.is_forced = True
                yield planner
            if self.trouble:
                raise NotNotedError(
                    f"{what} could not be noted: the task database can't be written "
                    f"({self.trouble}). It takes effect when the database can be written again, "
                    "and is forgotten if the appliance ends before."
                )

    def follow_clock(self) -> None:
        """If the clock was set, move all waits with it, in one change. Any thread."""
        clock = self.clock_ns
        if not isinstance(clock, Clock) or not clock.step_ns():
            return
        with self.lock:
            if not (step_ns := clock.step_ns()):
                return
            with self.change() as planner:
                clock.adopt(step_ns)
                planner.follow_step(step_ns, self.clock_ns())
                planner.book.changes.is_forced = True
                self.on_step(step_ns)
            self.changed.notify_all()

    def _mind_circuit(self) -> None:
        if self.circuit.is_open and not self.planner.dispatcher.circuit_open:
            self.planner.server_is_away(self.clock_ns())
        self.planner.dispatcher.circuit_open = self.circuit.is_open

    def note_taken(self) -> None:
        """Within ``change``: what was taken up to now is dealt with by this change."""
        self.planner.book.changes.meta["seq"] = self.cursors.taken

    def publish(self, publication: Publication) -> None:
        """Within ``change``: publish once the change is durable."""
        self.planner.book.changes.publications.append((self._next_publication, publication))
        self._next_publication += 1

    def publish_once(self, publication: Publication) -> None:
        """Within ``change``: ``publish``, unless an earlier run of the appliance did."""
        if not self._published_before.take(publication):
            self.publish(publication)

    def _hand_out(self, planner: Planner) -> None:
        """Give workers what can be done now, what follows executions that have ended too."""
        now = self.clock_ns()
        planner.start_next(now)
        while not self.stopping and not self.trouble:
            for job in planner.begin(now):
                if self._is_in_journal(job):
                    self.jobs.put(job)
                else:
                    self._unnoted_jobs.append(job)
            if not planner.start_next(now):
                break
        for number, task_id, reason in planner.not_started:
            _log.warning("Task %s is not started after execution %d: %s", task_id, number, reason)
        planner.not_started.clear()

    def settle(self, *, flush: bool = False) -> bool:
        """Write what changed and let it take effect; returns whether the disk took it.

        ``flush`` also writes what could wait for the next change.
        """
        planner = self.planner
        self._mind_circuit()
        self._hand_out(planner)
        told, planner.book.told = planner.book.told, []
        for record, execution in told:
            try:
                self._tell(record, execution)
            except Exception:  # noqa: BLE001 - one that can't be told must not silence the others
                self.set_aside(f"the news of execution {execution.id}")
        try:
            self._mind_freshness(planner)
        except Exception:  # noqa: BLE001 - what is told of freshness holds no request back
            self.set_aside("how fresh tasks are")
        self._held_notices.extend(Notice("slow", one) for one in planner.slow)
        planner.slow.clear()
        changes = planner.book.changes
        if changes or (flush and self._published > self._published_on_disk):
            if changes.publications:
                changes.meta["next_publication"] = self._next_publication
            if self._published > self._published_on_disk:
                changes.published = self._published
            self._note_published_seq(changes)
            if changes.meta or changes.records:
                changes.meta["clock_ns"] = self.clock_ns()
            try:
                self._write(changes)
            except sqlite3.Error as error:
                if is_damage(error):
                    self.store.note_damage()
                if not self.trouble:
                    _log.error(
                        "The task database can't be written: %s. No task is started until it "
                        "can; make room on the disk or see to its rights.",
                        explain(error),
                    )
                    planner.count(Counter.TASK_DATABASE_WRITE_FAILURES)
                self.trouble = explain(error)
                self._wake_waiters()
                return False
            if self.trouble:
                _log.info("The task database can be written again")
                self.trouble = ""
            planner.book.changes = Changes()
        for job in self._unnoted_jobs:
            self.jobs.put(job)
        self._unnoted_jobs.clear()
        if changes:
            self._take_effect(changes)
        self._show_holds()
        for notice in self._held_notices:
            self.offer(notice)
        self._held_notices.clear()
        self._wake_waiters(is_certain=changes.is_forced)
        # Behind all effects: a failed assertion takes none of them away.
        assert self.cursors.are_in_order(), self.cursors
        return True

    def _show_holds(self) -> None:
        """Show what is held now, and say what is not any more."""
        dispatcher = self.planner.dispatcher
        for hold in dispatcher.ended_holds:
            _log.info(
                "The hold of %s that %s made has ended by itself: what waited goes on",
                hold.shown,
                hold.by,
            )
        dispatcher.ended_holds.clear()
        if dispatcher.has_new_holds:
            dispatcher.has_new_holds = False
            self.views.holds = dispatcher.hold_states()

    def _mind_freshness(self, planner: Planner) -> None:
        """Tell what became stale for too long, and note what has changed."""
        freshness, now = planner.book.freshness, self.clock_ns()
        self.find_left()
        for key in freshness.take_late(now):
            self.tell_late(key)
        for key in freshness.take_told(now):
            self.tell_freshness(key)
        planner.book.changes.kept.update(freshness.take_changed())

    def _note_published_seq(self, changes: Changes) -> None:
        """Note how far the journal need not be compared with the outbox at the next start."""
        if changes.published is None and "seq" not in changes.meta:
            return
        if not self._outbox:
            # Everything was published: its messages are noted, and all else comes behind these.
            self._published_seq = max(self._published_seq, self.cursors.taken)
        if self._published_seq > self._published_seq_on_disk:
            changes.meta["published_seq"] = self._published_seq

    def _is_in_journal(self, job: Job) -> bool:
        """Whether the journal gives the cause of this start call again after a crash."""
        cause = job.record.execution.cause
        return job.kind is JobKind.START and message_of(cause) > self.cursors.durable

    def _wake_waiters(self, *, is_certain: bool = False) -> None:
        """Wake the clock and the poller if the time that they wait for may have changed.

        ``is_certain``: it may have, even if the planner shows no change (a command, a timer).
        """
        planner = self.planner
        if planner.logs.has_news:
            planner.logs.has_news = False
            self.log_due.notify_all()
        present = (planner.next_due(), planner.book.followed, self.circuit.is_open, self.trouble)
        if is_certain or present != self._announced:
            self._announced = present
            self.changed.notify_all()

    def _tell(self, record: Record, execution: Execution) -> None:
        for publication in self._outcomes.of(record, execution):
            self.publish_once(publication)
        if (notice := notice_of(record, execution)) is not None:
            self._held_notices.append(notice)

    def _write(self, changes: Changes) -> None:
        """Write, if need be without what can't be put into bytes: that would fail for ever."""
        try:
            self.store.write(changes)
        except sqlite3.Error:
            raise
        except Exception:
            left_out = self.store.leave_out(changes)
            if not left_out:
                raise
            for what in left_out:
                self.set_aside(what)
            self.store.write(changes)

    def tell(self, notice: Notice) -> None:
        """Within a change: tell people once the change is durable."""
        self._held_notices.append(notice)

    def set_aside(self, what: str) -> None:
        """Within the handling of an exception: log it, count it, show it."""
        _log.exception("An error in the appliance, please report it: %s was left out", what)
        self.planner.count(Counter.INTERNAL_ERRORS)
        self.internal_errors.set_aside(what)

    def _take_effect(self, changes: Changes) -> None:
        self.cursors.durable = changes.meta.get("seq", self.cursors.durable)
        if changes.published is not None:
            self._published_on_disk = changes.published
        self._published_seq_on_disk = changes.meta.get("published_seq", self._published_seq_on_disk)
        self.views.show(
            [(one.execution, one.label) for one in changes.records.values()], changes.removed
        )
        self.views.answer(changes.answers, changes.moved_answers)
        if changes.publications:
            self._outbox.extend(changes.publications)
            while len(self._outbox) > MAX_OUTBOX:
                number, _ = self._outbox.popleft()
                self._published = max(self._published, number)
                self.planner.count(Counter.PUBLICATIONS_DROPPED)
            self._posted.notify_all()

    # --- the publisher's side -----------------------------------------------------------------

    def next_publications(self, timeout_s: float, most: int) -> list[tuple[int, Publication]]:
        """The oldest publications that are due; none if there are none within the time."""
        with self.lock:
            if not self._outbox:
                self._posted.wait(timeout_s)
            if not self._outbox:
                return []
            return list(islice(self._outbox, most))

    def was_published(self, number: int, seq: int) -> None:
        """The journal has them up to this one, the last of them as ``seq`` (0: not known).

        They need not be kept any longer.
        """
        with self.lock:
            self._published = max(self._published, number)
            self._published_seq = max(self._published_seq, seq)
            while self._outbox and self._outbox[0][0] <= number:
                self._outbox.popleft()
            # Written together with the next change. Lost in a crash, the journal tells it.

    def wake_all(self) -> None:
        """Let the threads that wait look again (at the stop)."""
        with self.lock:
            self.changed.notify_all()
            self._posted.notify_all()
            self.log_due.notify_all()

    def close(self) -> None:
        """Write what is left and close the database; later changes raise ``ClosedError``."""
        with self.lock:
            if self._closed:
                return
            self.settle(flush=True)
            self._closed = True
            self.store.close()
