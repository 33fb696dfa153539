"""All recorders: their threads, and what the engine asks of them together.

One thread writes all files. Each database has a thread of its own, so a server that hangs holds up
no file and no other database.
Not for: a thread's work (worker.py), files and tables (the targets), or the origin of messages (the
journal).
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import Counter as Tally
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from appliance.config.tables import RecorderConfig
from appliance.counters import Counter
from appliance.engine_api import RecorderState
from appliance.errors import UnavailableError
from appliance.journal.follower import Follower
from appliance.recorders.free_space import FreeSpace
from appliance.recorders.lost_position import Messages, find_position, find_series
from appliance.recorders.part_store import PartStore
from appliance.recorders.plan import FILES, Group, Plan, make_plan
from appliance.recorders.progress import Progress, ProgressStore
from appliance.recorders.recorder import RETRY_S, Recorder
from appliance.recorders.worker import Shared, Worker, load

_log = logging.getLogger(__name__)

Follow = Callable[[str, int | None], Follower]
"""Opens a follower of the journal: its name, and the message behind which it begins (``None``: the
journal's present end)."""


def _thread_of(recorder: Recorder) -> str:
    """The name of a database recorder's thread and follower."""
    return f"recorder-{recorder.name}"


def _no_installation() -> str:
    raise UnavailableError("this data directory has no text that tells it from others")


class Recorders:
    """Every configured recorder.

    Args:
        configs: as configured; paths are absolute.
        state_path: the database with the cursors, in the data directory.
        clock_ns: present time, for the names of files that are set aside.
        age_clock_ns: the time by which closed files are old, if it is another one.
        installation: the text that tells this data directory from every other one.
        space: tells when recorders pause for lack of disk space; by default never.

    Raises:
        ConfigError: two recorders write the same file, or a path is not a recording: a file of the
            appliance beside ``state_path``, a folder, a device.
    """

    def __init__(
        self,
        configs: Sequence[RecorderConfig],
        state_path: Path,
        *,
        clock_ns: Callable[[], int] = time.time_ns,
        age_clock_ns: Callable[[], int] | None = None,
        installation: Callable[[], str] = _no_installation,
        space: FreeSpace | None = None,
    ) -> None:
        self._clock_ns = clock_ns
        self._store = ProgressStore(state_path)
        self.parts = PartStore(self._store)
        """The closed files of all recorders."""
        self._data_dir = state_path.parent
        self._plan = make_plan(configs, self._data_dir)
        self._counts: Tally[Counter] = Tally()
        self._counts_lock = threading.Lock()
        self._shared = Shared(
            data_dir=self._data_dir,
            store=self._store,
            parts=self.parts,
            clock_ns=clock_ns,
            age_clock_ns=age_clock_ns or clock_ns,
            installation=installation,
            count=self._count,
            space=space or FreeSpace(),
        )
        self._files: Worker | None = None
        self._databases: dict[Recorder, Worker] = {}
        self._ending: list[Worker] = []
        """Threads of databases whose recorder was taken out or changed."""
        self._losses: list[str] = []

    def open(self, last_seq: int, journal: Messages | None = None) -> int:
        """Read the cursors.

        Args:
            last_seq: the journal's newest message. A new recorder begins after it.
            journal: where the position of a recording is looked for whose cursor is lost; ``None``:
                such a recording begins anew.

        Returns the smallest cursor.

        Raises:
            ConfigError, UnavailableError: the database of the cursors can't be used.
        """
        stored = self._store.open(self._clock_ns())
        if journal is not None and last_seq:
            stored = {**stored, **self._find_lost(stored, last_seq, journal)}
        self._store.found()
        load(self._plan.recorders, stored, last_seq, self._store)
        return min((recorder.cursor for recorder in self._plan.recorders), default=last_seq)

    @property
    def store(self) -> ProgressStore:
        """``recorders.db``, after ``open``."""
        return self._store

    @property
    def losses(self) -> list[str]:
        """What ``open`` found lost, a sentence each, for an operator to acknowledge."""
        return self._store.losses + self._losses

    def _find_lost(
        self, stored: Mapping[str, Progress], last_seq: int, journal: Messages
    ) -> dict[str, Progress]:
        """The positions of recordings whose cursors are lost, as far as they can be found."""
        found: dict[str, Progress] = {}
        is_lost = self._store.is_lost
        for recorder in self._plan.recorders:
            if recorder.key in stored or not (is_lost or recorder.key in self._store.damaged):
                continue
            routes = self._plan.files.routes
            series = find_series(
                recorder,
                routes,
                data_dir=self._data_dir,
                parts=self.parts,
                last_seq=last_seq,
                journal=journal,
                present=stored,
            )
            if series is not None:
                rows, told, is_loss = series
                found.update(rows)
            else:
                progress, told, is_loss = find_position(recorder, routes, last_seq, journal)
                found[recorder.key] = progress
            _log.log(logging.ERROR if is_loss else logging.WARNING, "%s", told)
            if is_loss:
                self._losses.append(told)
        if found:
            # As a new recording's beginning: on the disk before a message may be acknowledged.
            self._store.save(found.items(), durable=True)
        return found

    def start(self, follow: Follow) -> None:
        """Prepare the files and start the threads."""
        if self._plan.files.recorders:
            self._start_files(self._plan.files, follow)
        for group in self._plan.databases:
            (recorder,) = group.recorders
            self._start_database(group, follow(_thread_of(recorder), recorder.cursor))

    def _start_files(self, group: Group, follow: Follow) -> None:
        cursor = min(recorder.cursor for recorder in group.recorders)
        self._files = Worker(FILES, group, follow(FILES, cursor), self._shared)
        self._files.start()

    def _start_database(
        self, group: Group, source: Follower, predecessor: Worker | None = None
    ) -> None:
        (recorder,) = group.recorders
        worker = Worker(_thread_of(recorder), group, source, self._shared, predecessor)
        self._databases[recorder] = worker
        worker.start()

    def plan(self, configs: Sequence[RecorderConfig]) -> Plan:
        """The recorders of a changed configuration, for ``take``; unchanged ones stay.

        Raises:
            ConfigError: as ``Recorders`` does; nothing is changed.
            UnavailableError: the recorders can't take a plan now.
        """
        if self._files is not None and not self._files.is_alive:
            raise UnavailableError("The recorders have ended. Restart the appliance.")
        return make_plan(configs, self._data_dir, self._plan.recorders)

    def take(self, plan: Plan, follow: Follow, timeout_s: float) -> bool:
        """Replace the recorders, from the journal's present end on.

        A recorder that existed earlier continues where it stopped. Returns whether the change is
        done; if a disk or a server hangs, the threads do it later.

        Raises:
            UnavailableError: the cursors can't be read, or the recorders have ended.
        """
        deadline = time.monotonic() + timeout_s
        if self._files is not None and not self._files.is_alive:
            raise UnavailableError("The recorders have ended. Restart the appliance.")
        added = [group for group in plan.databases if group.recorders[0] not in self._databases]
        sources = self._open_sources(plan, added, follow)
        # The journal keeps what a changed recorder has not read: its new follower is open by now.
        leaving = [
            self._databases.pop(recorder)
            for recorder in list(self._databases)
            if recorder not in plan.recorders
        ]
        for worker in leaving:
            worker.stop(0.0, at_once=True)
        is_done = True
        if self._files is not None:
            is_done = self._files.take(plan.files, timeout_s)
        elif plan.files.recorders:
            self._start_files(plan.files, follow)
        for worker in leaving:
            is_done &= worker.join(max(0.0, deadline - time.monotonic()))
        self._ending = [each for each in (*self._ending, *leaving) if each.is_alive]
        for group, source in zip(added, sources, strict=True):
            key = group.recorders[0].key
            same = [each for each in self._ending if each.group.recorders[0].key == key]
            self._start_database(group, source, same[-1] if same else None)
        self._plan = plan
        return is_done

    def _open_sources(self, plan: Plan, added: Sequence[Group], follow: Follow) -> list[Follower]:
        """Give new recorders their positions, and those of databases their followers."""
        sources: list[Follower] = []
        try:
            stored = self._store.load()
            for group in added:
                (recorder,) = group.recorders
                position = stored.get(recorder.key)
                source = follow(_thread_of(recorder), None if position is None else position.seq)
                sources.append(source)
                load(group.recorders, stored, source.last_seq, self._store)
            if self._files is None and plan.files.recorders:
                # Their own thread looks them up if there is one.
                end = follow(FILES, None)
                end.close()
                load(plan.files.recorders, stored, end.last_seq, self._store)
        except sqlite3.Error as error:
            for source in sources:
                source.close()
            raise UnavailableError(f"The recorders' cursors can't be read: {error}.") from None
        return sources

    def stop(self, timeout_s: float) -> bool:
        """Record the messages that are committed by now, then end.

        Returns whether all of them were recorded; the rest is recorded after the next start.
        """
        workers = self._workers()
        deadline = time.monotonic() + timeout_s
        for worker in workers:
            worker.stop(deadline)
        ended = [
            worker.join(max(0.0, deadline + RETRY_S - time.monotonic()))
            for worker in (*workers, *self._ending)
        ]
        if all(ended):  # a thread that hangs may still come to store what it has done
            self._store.close()
        return all(ended) and not any(worker.is_behind for worker in workers)

    def states(self) -> tuple[RecorderState, ...]:
        """Each recorder's state, in the order of the configuration. Any thread, no disk."""
        last_seq = max((worker.source.last_seq for worker in self._workers()), default=0)
        return tuple(recorder.state(last_seq) for recorder in self._plan.recorders)

    @property
    def are_paused(self) -> bool:
        """Whether a recorder pauses for lack of disk space. Any thread, no disk."""
        return any(recorder.is_paused for recorder in self._plan.recorders)

    def counters(self) -> dict[Counter, int]:
        """Failed attempts to record, and messages that could not be recorded."""
        with self._counts_lock:
            counts = dict(self._counts)
        return {
            **counts,
            Counter.RECORDER_MESSAGES_MISSED: sum(each.missed for each in self._workers()),
            Counter.RECORDER_ROWS_UNREADABLE: len(self._store.damaged),
            Counter.RECORDER_RETRIES: sum(r.failures for r in self._plan.recorders),
        }

    def _count(self, counter: Counter) -> None:
        with self._counts_lock:
            self._counts[counter] += 1

    def _workers(self) -> list[Worker]:
        files = [] if self._files is None else [self._files]
        return [*files, *self._databases.copy().values()]
