"""The one place where a change becomes durable before it has effects.

Every thread of the task engine changes the planner's state inside ``change()``. At its end
everything that changed is written in one transaction; only then start calls are handed to the
workers, outcomes to the publisher and new states to the views. If the disk refuses (full, gone),
changes and effects are held back together and the write is tried again; meanwhile no further
messages are read.

One effect need not wait: the start call for a message that the journal would give again after a
crash, because nothing written so far says that it was dealt with. The journal is its note; the
next process looks at the server before it starts what such a message asks for
(``Planner.earlier_seq``). So the call leaves first, and the worker that made it writes the change
while the server thinks about its answer (``write_owed``).

While the journal writes a message, its request is decided already and a worker gets the call
ready (``change_ahead``): it leaves when the message is on disk. Until then nothing whatever is
written or takes effect, because the change may be one that never was.

Not for: deciding (planner.py), calling the server (runner.py, poller.py).
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

import msgspec

from appliance.model import Execution
from appliance.tasks.circuit import Circuit
from appliance.tasks.gate import Gate
from appliance.tasks.internal_errors import Defects
from appliance.tasks.notices import Notice, notice_of
from appliance.tasks.outcomes import Outcomes
from appliance.tasks.planner import Planner
from appliance.tasks.queues import Job, JobKind
from appliance.tasks.records import Record
from appliance.tasks.request_book import message_of
from appliance.tasks.store import Changes, Publication, Store
from appliance.tasks.views import MAX_EXECUTIONS, MAX_MESSAGES, Views

_log = logging.getLogger(__name__)
MAX_OUTBOX = 20_000
"""Publications that wait for the broker; beyond it the oldest are dropped and counted."""

NEWS_WAIT_S = 0.005


class ClosedError(Exception):
    """The engine has stopped; what a straggling worker brings is not taken any more."""


class Ledger:
    """State, its lock, and the way of every change through the database."""

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
        self.circuit = Circuit()
        self.defects = Defects()
        self.clock_ns = clock_ns
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        """Notified when the time of the next event may have become another one, and only then: who
        is woken shares the interpreter's lock with the start call that a change hands out."""
        self.jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self.trouble = ""
        """Why the database can't be written at present, else empty."""
        self.durable_seq = 0
        """Up to here the journal's messages were read for good."""
        self.stopping = False
        self._closed = False
        self._outcomes = outcomes
        self.offer: Callable[[Notice], None] = lambda _: None
        """Who is told what people may want to know."""
        self._announced: tuple[object, ...] = ()
        self._held: list[Job] = []
        self._ahead_seq = 0
        """The last message that was dealt with before it was known to be in the journal."""
        self.journaled_to: Callable[[], int] = lambda: 0
        """The journal's newest message."""
        self._owes = False
        """Whether a change waits to be written until a start call has left."""
        self._is_called = False
        """Whether a worker has such a start call, and will write the change."""
        self._held_notices: list[Notice] = []
        self._outbox: deque[tuple[int, Publication]] = deque()
        self._posted = threading.Condition(self.lock)
        self._next_publication = 1
        self._published = 0
        self._published_on_disk = 0

    def open(self) -> None:
        """Take up what an earlier run of the appliance left."""
        with self.lock:
            waiting = self.store.outbox()
            self._outbox.extend(waiting)
            self._next_publication = max(
                self.store.meta("next_publication"), waiting[-1][0] + 1 if waiting else 1
            )
            self.durable_seq = self.store.meta("seq")
            history = self.store.records(2**62, MAX_EXECUTIONS)[::-1]
            self.views.show((one.execution, one.label) for one in history)
            self.views.answer(self.store.answers(MAX_MESSAGES))
            for one in history:
                if one.execution.execution_id:
                    self.planner.note_run(one.execution.execution_id, one.id)
            self.planner.histories.update(self.store.histories())
            now = self.clock_ns()
            for record in self.store.open_records():
                self.planner.restore(record, now)
                self.views.show([(record.execution, record.label)])

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

    def _mind_circuit(self) -> None:
        if self.circuit.is_open and not self.planner.circuit_open:
            self.planner.server_is_away(self.clock_ns())
        self.planner.circuit_open = self.circuit.is_open

    def read_to(self, seq: int) -> None:
        """Within ``change``: the messages up to ``seq`` are dealt with by this change."""
        meta = self.planner.changes.meta
        # Never back: what was taken ahead is dealt with, though it is read later.
        meta["seq"] = max(seq, meta.get("seq", self.durable_seq))

    def publish(self, publication: Publication) -> None:
        """Within ``change``: publish once the change is durable."""
        self.planner.changes.publications.append((self._next_publication, publication))
        self._next_publication += 1

    def settle(self, *, flush: bool = False) -> bool:
        """Write what changed and let it take effect; returns whether the disk took it.

        ``flush`` also writes what could wait for the next change.
        """
        planner = self.planner
        self._mind_circuit()
        if not self.stopping and not self.trouble:
            self._held.extend(planner.begin(self.clock_ns()))
        if self._is_ahead():
            self._owes = True
            return False
        if not flush and self._hand_out_early():
            return True
        self._owes = self._is_called = False
        told, planner.told = planner.told, []
        for record, execution in told:
            try:
                self._tell(record, execution)
            except Exception:  # noqa: BLE001 - one that can't be told must not silence the others
                self._set_aside(f"the news of execution {execution.id}")
        self._held_notices.extend(Notice("slow", one) for one in planner.slow)
        planner.slow.clear()
        changes = planner.changes
        if changes or (flush and self._published > self._published_on_disk):
            if changes.publications:
                changes.meta["next_publication"] = self._next_publication
            if self._published > self._published_on_disk:
                changes.published = self._published
            try:
                self._write(changes)
            except sqlite3.Error as error:
                if not self.trouble:
                    _log.error(
                        "The task database can't be written: %s. No task is started until it "
                        "can; make room on the disk or see to its rights.",
                        error,
                    )
                    planner.count("database write failed")
                self.trouble = str(error)
                self._wake_waiters()
                return False
            if self.trouble:
                _log.info("The task database can be written again")
                self.trouble = ""
            planner.changes = Changes()
        # First of all: a worker wakes up while the rest is done.
        self._hand_out(self._held)
        self._held.clear()
        if changes:
            self._take_effect(changes)
        for notice in self._held_notices:
            self.offer(notice)
        self._held_notices.clear()
        self._wake_waiters(is_certain=changes.is_forced)
        return True

    @contextmanager
    def change_ahead(
        self, seq: int, once_committed: Callable[[int, Callable[[], None]], bool]
    ) -> Iterator[Planner]:
        """Like ``change``, for messages up to ``seq`` that are on their way to the journal.

        Until they are there nothing is written and nothing has effects, whoever changes what.
        ``once_committed`` arranges for a call then (see ``Follower.once_committed``).
        """
        with self.lock:
            if self._closed:
                raise ClosedError
            self._mind_circuit()
            self._ahead_seq = seq
            yield self.planner
            self._owes = True
            if not self.stopping and not self.trouble:
                self._held.extend(self.planner.begin(self.clock_ns()))
            if early := self._take_early():
                # A worker gets the call ready meanwhile.
                gate = Gate()
                self._hand_out(msgspec.structs.replace(job, gate=gate) for job in early)
                if not once_committed(seq, gate.open):
                    gate.open()

    def _is_ahead(self) -> bool:
        return self._ahead_seq > self.journaled_to()

    def _hand_out_early(self) -> bool:
        """Hand out the starts whose note is the journal; returns whether there were any."""
        early = self._take_early()
        self._hand_out(early)
        self._owes = self._owes or bool(early)
        return bool(early)

    def _take_early(self) -> list[Job]:
        early = [job for job in self._held if self._is_journaled(job)]
        for job in early:
            self._held.remove(job)
        self._is_called = self._is_called or bool(early)
        return early

    def _hand_out(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            self.jobs.put(job)

    def _is_journaled(self, job: Job) -> bool:
        cause = job.record.execution.cause
        return job.kind is JobKind.START and message_of(cause) > self.durable_seq

    def write_owed(self, *, unless_called: bool = False) -> None:
        """Write what a start call was not kept waiting for, if nobody else did meanwhile.

        ``unless_called``: a worker that makes a start call will do it.
        """
        with self.lock:
            if self._owes and not self._closed and not (unless_called and self._is_called):
                self.settle()

    def _wake_waiters(self, *, is_certain: bool = False) -> None:
        """Wake who waits for a time, if that may be another now (an operator's act may do that)."""
        planner = self.planner
        present = (planner.next_due(), planner.followed, self.circuit.is_open, self.trouble)
        if is_certain or present != self._announced:
            self._announced = present
            self.changed.notify_all()

    def _tell(self, record: Record, execution: Execution) -> None:
        for publication in self._outcomes.of(record, execution):
            self.publish(publication)
        if (notice := notice_of(record, execution)) is not None:
            self._held_notices.append(notice)

    def _write(self, changes: Changes) -> None:
        """Write; what no disk could ever take must not hold everything else back for ever."""
        try:
            self.store.write(changes)
        except sqlite3.Error:
            raise
        except Exception:
            left_out = self.store.leave_out(changes)
            if not left_out:
                raise
            for what in left_out:
                self._set_aside(what)
            self.store.write(changes)

    def _set_aside(self, what: str) -> None:
        """Within the handling of an exception: log it, count it, let it be seen."""
        _log.exception("An error in the appliance, please report it: %s was left out", what)
        self.planner.count("internal errors")
        self.defects.set_aside(what)

    def _take_effect(self, changes: Changes) -> None:
        self.durable_seq = changes.meta.get("seq", self.durable_seq)
        if changes.published is not None:
            self._published_on_disk = changes.published
        self.views.show(
            [(one.execution, one.label) for one in changes.records.values()], changes.removed
        )
        self.views.answer(changes.answers, changes.moved_answers)
        if changes.publications:
            self._outbox.extend(changes.publications)
            while len(self._outbox) > MAX_OUTBOX:
                number, _ = self._outbox.popleft()
                self._published = max(self._published, number)
                self.planner.count("publications dropped")
            self._posted.notify_all()

    # --- the publisher's side -----------------------------------------------------------------

    def next_publications(self, timeout_s: float, most: int) -> list[tuple[int, Publication]]:
        """The oldest publications that are due; none if there are none within the time."""
        with self.lock:
            if not self._outbox:
                self._posted.wait(timeout_s)
            if not self._outbox:
                return []
        # News of a start let the start itself go first: both need the interpreter's lock.
        time.sleep(NEWS_WAIT_S)
        with self.lock:
            return list(islice(self._outbox, most))

    def was_published(self, number: int) -> None:
        """The broker has them up to this one: they need not be kept any longer."""
        with self.lock:
            self._published = max(self._published, number)
            while self._outbox and self._outbox[0][0] <= number:
                self._outbox.popleft()
            # Written together with the next change; lost in a crash, it is published again.

    def wake_all(self) -> None:
        """Let everybody who waits look again (at the stop)."""
        with self.lock:
            self.changed.notify_all()
            self._posted.notify_all()

    def close(self) -> None:
        """Write what is left and close the database; later changes raise ``ClosedError``."""
        with self.lock:
            if self._closed:
                return
            self.settle(flush=True)
            self._closed = True
            self.store.close()
