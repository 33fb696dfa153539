"""The journal's writer: one thread that commits all entries that wait, again and again.

While one commit is on its way to the disk, the next batch gathers: a natural group commit without
any delay. When the disk refuses, the batch is kept and tried again until it succeeds; nothing is
reported as committed before. Not for: reading what was committed (tail.py, follower.py).
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from appliance.journal.batch import Batch
from appliance.journal.inbox import Entry, Inbox
from appliance.journal.sequence_reservation import SequenceReservation
from appliance.journal.store import Store
from appliance.model import Message
from appliance.storage.sqlite import DAMAGE, explain, primary_code

MAX_BYTES = 2 * 1024 * 1024
"""In one commit, so that the first of many does not wait for the last."""

RETRY_S = (0.1, 1.0)
"""First and longest pause between attempts to commit the same batch."""

_BETWEEN_STEPS_S = 0.05

_log = logging.getLogger(__name__)


class Owner(Protocol):
    """Hears what the writer does, in the writer's thread."""

    def committed(
        self, messages: Sequence[Message], content_size: int, entries: Sequence[Entry]
    ) -> None: ...

    def refused(self, entry: Entry, error: Exception) -> None: ...

    def failing(self, text: str | None) -> None:
        """The disk refuses, for this reason; ``None``: it works again."""

    def idle(self, connection: sqlite3.Connection) -> bool:
        """Between two commits: housekeeping. Returns whether there is more to do soon."""


class Writer:
    """The thread. ``start`` once, ``stop`` once."""

    def __init__(
        self,
        store: Store,
        inbox: Inbox,
        reservation: SequenceReservation,
        owner: Owner,
        housekeeping_s: float,
    ) -> None:
        self.commits = 0
        self.retries = 0
        self.durations_s: deque[float] = deque(maxlen=101)
        self.gathered = 0.0
        """Messages a commit, lately."""
        self._store = store
        self._inbox = inbox
        self._reservation = reservation
        self._owner = owner
        self._housekeeping_s = housekeeping_s
        self._connection: sqlite3.Connection | None = None
        self._stopping = False
        self._give_up_at = float("inf")
        self._thread = threading.Thread(target=self._run, name="journal-writer", daemon=True)
        self._pause = threading.Event()

    def start(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Commit what waits, then end. Returns whether everything was committed in time."""
        if self._thread.ident is None:  # the start had failed
            return True
        self._give_up_at = time.monotonic() + timeout_s
        self._stopping = True
        self._pause.set()
        if not self._inbox.closed:
            self._inbox.wake()
        # A commit that hangs in the disk can't be interrupted; the thread is a daemon.
        self._thread.join(timeout_s + RETRY_S[1])
        return not self._thread.is_alive() and self._inbox.count == 0

    @property
    def is_lost(self) -> bool:
        """Whether the thread has ended before ``stop``."""
        begun = self._thread.ident is not None
        return begun and not self._stopping and not self._thread.is_alive()

    def _run(self) -> None:
        inbox = self._inbox
        soon = False
        last_idle = time.monotonic()
        try:
            while True:
                items = inbox.take(MAX_BYTES)
                if items:
                    if not self._commit(Batch(items)):
                        return
                elif self._stopping:
                    return
                elif not soon:
                    inbox.sleep(self._housekeeping_s)
                # Under steady load, housekeeping still gets its turn, at most so often.
                now = time.monotonic()
                pause_s = _BETWEEN_STEPS_S if soon else self._housekeeping_s
                if now - last_idle >= pause_s or (soon and not inbox.count):
                    last_idle = now
                    soon = self._idle()
        except Exception:  # noqa: BLE001  # a bug of ours: better loud and refusing than silent
            _log.exception("The journal's writer ended unexpectedly")
            self._owner.failing("its writer ended unexpectedly; restart the appliance")
        finally:
            inbox.close()
            self._close_connection()

    def _idle(self) -> bool:
        if self._stopping:
            return False
        if self._connection is not None and self._store.has_vanished():
            _log.error(
                "The journal %s was removed or replaced while the appliance runs; a new one is"
                " begun. What stood in the old one is not in the new one",
                self._store.path,
            )
            self._close_connection()
        if self._connection is None:
            try:
                self._connection = self._store.reopen()
            except (OSError, sqlite3.Error) as error:
                self._owner.failing(explain(error))
                return False
        try:
            return self._owner.idle(self._connection)
        except sqlite3.Error as error:
            # Commits tell the operator about a bad disk; housekeeping only waits for its end.
            _log.warning("Housekeeping in %s failed: %s", self._store.path, explain(error))
            self._roll_back()
            return False

    # --- one commit ----------------------------------------------------------------------------

    def _commit(self, batch: Batch) -> bool:
        """Commit until it succeeds; false if it was given up because the appliance stops."""
        pause_s = RETRY_S[0]
        failed = False
        while True:
            began = time.perf_counter()
            try:
                self._write(batch)
            except (OSError, sqlite3.Error) as error:
                failed = True
                self.retries += 1
                self._recover(error)
                self._owner.failing(explain(error))
                if time.monotonic() + pause_s > self._give_up_at:
                    _log.error(
                        "%d messages were accepted, but neither acknowledged nor written to %s: %s",
                        self._inbox.count,
                        self._store.path,
                        explain(error),
                    )
                    return False
                self._pause.wait(pause_s)
                if self._stopping:
                    time.sleep(pause_s)
                pause_s = min(pause_s * 2, RETRY_S[1])
                continue
            self.durations_s.append(time.perf_counter() - began)
            break
        self.commits += 1
        self.gathered += (len(batch.messages) - self.gathered) / 8
        if failed:
            self._owner.failing(None)
        self._inbox.done(batch.count, batch.size)
        for entry, reason in batch.refused:
            self._owner.refused(entry, reason)
        self._owner.committed(batch.messages, batch.content_size, batch.entries)
        return True

    def _write(self, batch: Batch) -> None:
        if batch.messages:
            self._reservation.reserve(batch.messages[-1].seq)
        if self._connection is None:
            self._connection = self._store.reopen()
        batch.write(self._connection)

    def _recover(self, error: OSError | sqlite3.Error) -> None:
        self._roll_back()
        code = primary_code(error) if isinstance(error, sqlite3.Error) else 0
        if code in {0, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL}:
            return
        if code in DAMAGE:
            self._store.database.note_damage()
        # After an I/O error, a remount or a removed file only fresh file handles help.
        self._close_connection()

    def _close_connection(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _roll_back(self) -> None:
        if self._connection is not None and self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
