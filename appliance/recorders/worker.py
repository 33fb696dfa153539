"""A thread that records: one for all files, and one for each database.

The thread reads committed messages from the journal with a follower of its own, sorts them by
recorder, lets each recorder's target take its share (one write and sync a file and batch) and
stores the positions. It lets messages gather for a twentieth of a second first, so recording costs
little. When publishers send more than the engine can handle, acknowledgements go first, and
recording falls behind, within bounds.
A recorder whose target fails tries again; the other recorders continue.
Not for: which recorders there are (recorders.py), targets, or the origin of messages (the journal).
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from appliance import tuning
from appliance.counters import Counter
from appliance.errors import ApplianceError
from appliance.journal.follower import Follower
from appliance.model import Message
from appliance.recorders.free_space import FreeSpace
from appliance.recorders.part_store import PartStore
from appliance.recorders.plan import Group
from appliance.recorders.progress import Progress, ProgressStore
from appliance.recorders.recorder import RETRY_S, Recorder
from appliance.recorders.rows import in_pieces
from appliance.recorders.target import Context, Later
from appliance.recorders.targets import make_target

BATCH_MESSAGES = 5000
SAVE_EVERY_S = 1.0
"""How often cursors are stored that moved without a recorded message."""

_log = logging.getLogger(__name__)


class Shared(msgspec.Struct, frozen=True):
    """What all threads of the recorders use; each part is for any thread."""

    data_dir: Path
    store: ProgressStore
    parts: PartStore
    clock_ns: Callable[[], int]
    age_clock_ns: Callable[[], int]
    installation: Callable[[], str]
    count: Callable[[Counter], None]
    space: FreeSpace


class Worker:
    """One thread and the recorders that it writes.

    Args:
        name: of the thread, and of its follower.
        group: its recorders, each with its position (``load``).
        source: the follower, which is closed at the end.
        shared: what all threads use.
        predecessor: the thread that wrote the same target before, if it may still run.
    """

    def __init__(
        self,
        name: str,
        group: Group,
        source: Follower,
        shared: Shared,
        predecessor: Worker | None = None,
    ) -> None:
        self.name = name
        self.group = group
        self.source = source
        self.missed = 0
        """Messages that left the journal before they were recorded."""
        self._shared = shared
        self._predecessor = predecessor
        self._wanted: Group | None = None
        """The group that replaces the present one, as soon as the thread takes it."""
        self._is_taken = threading.Event()
        self._stopping = threading.Event()
        self._deadline = float("inf")
        self._saved_at = 0.0
        self._worked_s = 0.0
        self._newest = -1
        """The journal's newest message after the last batch."""
        self._is_full = False
        """Whether more messages wait than the last batch took."""
        self._unsaved = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def _clock(self) -> float:
        """What the engine waits for: a thread that waits for a server holds up no other."""
        is_of_server = all(each.config.database is not None for each in self.group.recorders)
        return time.thread_time() if is_of_server else time.monotonic()

    def start(self) -> None:
        """Prepare the targets here, so that files exist when this returns, and start the thread."""
        for recorder in self.group.recorders:
            if recorder.config.database is None:
                self._prepare(recorder)
        self._save()
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def is_behind(self) -> bool:
        """Whether a recorder has not recorded everything yet."""
        return any(recorder.behind for recorder in self.group.recorders)

    def take(self, group: Group, timeout_s: float) -> bool:
        """Replace the recorders, from the journal's present end on.

        Returns whether the change is done; if the disk hangs, the thread does it later.
        """
        self._is_taken.clear()
        self._wanted = group
        self.source.wake()
        return self._is_taken.wait(timeout_s)

    def stop(self, deadline: float, *, at_once: bool = False) -> None:
        """Let the thread record what is committed by now, then end; returns at once.

        Args:
            deadline: until when, by ``time.monotonic``.
            at_once: whether what is committed stays for the next start.
        """
        self._deadline = 0.0 if at_once else deadline
        self._stopping.set()
        self.source.wake()

    def join(self, timeout_s: float | None) -> bool:
        """Wait for the thread's end; returns whether it has ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # --- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        source = self.source
        try:
            if not self._succeed():
                return
            while True:
                began = time.monotonic()
                try:
                    self._take_wanted(source)
                    self._is_full = self._turn(source)
                except (ApplianceError, sqlite3.Error, OSError) as error:
                    _log.warning("The recorders can't read the journal: %s", error)
                    if self._stopping.wait(RETRY_S):
                        return
                if self._stopping.is_set():
                    if self._is_done(source):
                        return
                else:
                    self._rest(source, began)
        except Exception as error:  # noqa: BLE001  # a defect must be visible in the UI
            for recorder in self.group.recorders:
                recorder.fail(error)
        finally:
            self._save()
            self._finish(self.group.recorders)
            source.close()

    def _rest(self, source: Follower, began: float) -> None:
        """Leave the engine its time, for as long as it needs it."""
        newest = source.last_seq
        is_quiet = newest == self._newest
        self._newest = newest
        while not self._stopping.is_set():
            pace_s = pace(source, worked_s=self._worked_s, is_quiet=is_quiet)
            rest_s = began + pace_s - time.monotonic()
            if rest_s <= 0:
                return
            # Not all of it at once: a crowd may be gone long before.
            self._stopping.wait(min(rest_s, tuning.RECORD_EVERY_S))

    def _succeed(self) -> bool:
        """Wait for the thread that wrote the same target, and go on where it ended."""
        before, self._predecessor = self._predecessor, None
        if before is None:
            return True
        while not before.join(SAVE_EVERY_S):
            if self._stopping.is_set():
                return False
        for recorder in self.group.recorders:
            with contextlib.suppress(sqlite3.Error):
                recorder.stored = self._shared.store.position(recorder.key) or recorder.stored
        return True

    def _take_wanted(self, source: Follower) -> None:
        group = self._wanted
        if group is None or self._stopping.is_set():
            return
        self._save()
        if self._unsaved:
            return
        # Those that leave come first: a recorder that was changed goes on where it ended.
        self._finish([each for each in self.group.recorders if each not in group.recorders])
        load(group.recorders, self._shared.store.load(), source.last_seq, self._shared.store)
        self.group = group
        self._wanted = None
        self._is_taken.set()

    def _finish(self, recorders: Sequence[Recorder]) -> None:
        for recorder in recorders:
            if recorder.target is None:
                continue
            try:
                recorder.target.finish()
            except (OSError, sqlite3.Error, ApplianceError):
                continue  # the next start puts right what is left
            except Exception as error:  # noqa: BLE001  # after any error, the others are finished
                recorder.fail(error)
        self._save([each for each in recorders if each.target is not None])

    def _is_done(self, source: Follower) -> bool:
        if time.monotonic() >= self._deadline:
            return True
        healthy = [each for each in self.group.recorders if each.health.level != "bad"]
        return all(recorder.cursor >= source.last_seq for recorder in healthy)

    def _turn(self, source: Follower) -> bool:
        """Take one batch and write it; returns whether more messages wait."""
        self._look_at_disks()
        late = [recorder for recorder in self.group.recorders if self._may_retry(recorder)]
        for recorder in late:
            self._catch_up(recorder, source)
        if not late and self._wanted is None and not self._is_full:
            source.wait(0.0 if self._stopping.is_set() else SAVE_EVERY_S)
            # Messages gather, for one write and sync.
            self._stopping.wait(tuning.RECORD_EVERY_S)
        messages: list[Message] = []
        began = self._clock()
        if not self._unsaved:
            messages = source.next(BATCH_MESSAGES)
            self._notice_missed(source)
            self._record(messages, source.position)
        self._worked_s = self._clock() - began
        if self._must_save():
            self._save()
        if not self._unsaved:
            source.advance(
                min((r.durable_cursor for r in self.group.recorders), default=source.position)
            )
        return len(messages) == BATCH_MESSAGES or any(map(self._may_retry, self.group.recorders))

    def _notice_missed(self, source: Follower) -> None:
        if source.missed != self.missed:
            _log.error(
                "%d messages were deleted from the journal before they could be recorded; raise"
                " max_size in [journal]",
                source.missed - self.missed,
            )
            self.missed = source.missed

    def _may_retry(self, recorder: Recorder) -> bool:
        is_ready = recorder.behind and not recorder.is_paused and not self._unsaved
        return is_ready and time.monotonic() >= recorder.retry_at

    def _look_at_disks(self) -> None:
        """Pause recorders whose disk has too little free space, and let them go on later."""
        for recorder in self.group.recorders:
            if recorder.config.database is not None:
                continue
            problem = self._shared.space.problem(recorder.folder, is_paused=recorder.is_paused)
            if problem and not recorder.is_paused:
                self._shared.count(Counter.DISK_RECORDERS_PAUSED)
            recorder.pause(problem)

    def _record(self, messages: Sequence[Message], last: int) -> None:
        # Matched once for each topic, not for each message: a batch has few topics.
        routes = {topic: self.group.routes.match(topic) for topic in {m.topic for m in messages}}
        for recorder in self.group.recorders:
            if recorder.behind:
                if recorder.is_paused and recorder.target is not None:
                    self._tick(recorder)  # what is removed for its age makes room
                continue
            topics = {topic for topic, found in routes.items() if recorder in found}
            batch = messages
            if len(topics) < len(routes):
                batch = [message for message in messages if message.topic in topics]
            if self._append(recorder, batch, last):
                self._tick(recorder)

    def _append(self, recorder: Recorder, batch: Sequence[Message], last: int) -> bool:
        target = recorder.target
        assert target is not None
        cursor = recorder.cursor
        if last <= cursor:
            return True
        if batch and batch[0].seq <= cursor:
            batch = [message for message in batch if message.seq > cursor]
        try:
            if batch and recorder.config.flatten:
                for piece, seq in in_pieces(batch, last):
                    target.append(piece, seq)
            elif batch:
                target.append(batch, last)
            else:
                target.skip(last)
        except Exception as error:  # noqa: BLE001  # after any error, the other recorders continue
            recorder.fail(error)
            return False
        if batch and (recorder.health.level == "bad" or target.note != recorder.health.text):
            recorder.recover()
        return True

    def _tick(self, recorder: Recorder) -> bool:
        assert recorder.target is not None
        try:
            recorder.target.tick(self._shared.clock_ns())
        except Exception as error:  # noqa: BLE001  # after any error, the other recorders continue
            recorder.fail(error)
            return False
        return True

    def _catch_up(self, recorder: Recorder, source: Follower) -> None:
        """Read for one recorder separately, until it reaches the position of the others."""
        if recorder.target is None:
            if not self._prepare(recorder):
                return
            self._save()
            if self._unsaved:
                return
        position = source.position
        if recorder.cursor < position:
            messages = source.read(recorder.cursor, BATCH_MESSAGES)
            messages = [message for message in messages if message.seq <= position]
            # No messages up to there: retention was forced to remove them.
            last = messages[-1].seq if messages else position
            match = self.group.routes.match
            batch = [message for message in messages if recorder in match(message.topic)]
            if not self._append(recorder, batch, last):
                return
        if not self._tick(recorder):
            return
        if recorder.cursor >= position:
            recorder.behind = False
            recorder.recover()

    def _prepare(self, recorder: Recorder) -> bool:
        """Make or check the target; what an interrupted write left is put right."""
        assert recorder.stored is not None
        try:
            target = make_target(self._context(recorder), recorder.stored)
            target.open(self._later(recorder))
        except Exception as error:  # noqa: BLE001  # after any error, the other recorders continue
            recorder.fail(error)
            return False
        recorder.target = target
        return True

    def _context(self, recorder: Recorder) -> Context:
        shared = self._shared
        return Context(
            config=recorder.config,
            key=recorder.key,
            name=recorder.name,
            data_dir=shared.data_dir,
            store=shared.store,
            parts=shared.parts,
            clock_ns=shared.clock_ns,
            age_clock_ns=shared.age_clock_ns,
            installation=shared.installation,
            count=shared.count,
            last_seq=lambda: self.source.last_seq,
            is_stopping=self._stopping.is_set,
            # What it holds back, not what it has not read yet: a backlog is no reason to hurry.
            is_pressed=lambda: self.source.is_too_much(recorder.cursor - recorder.durable_cursor),
        )

    def _later(self, recorder: Recorder) -> Later:
        def later(after_seq: int) -> Iterator[list[Message]]:
            cursor = after_seq
            while messages := self.source.read(cursor, BATCH_MESSAGES):
                cursor = messages[-1].seq
                match = self.group.routes.match
                yield [each for each in messages if recorder in match(each.topic)]

        return later

    # --- cursors ---------------------------------------------------------------------------------

    def _must_save(self) -> bool:
        changed = False
        for recorder in self.group.recorders:
            if recorder.target is not None:
                found = recorder.target.unsaved()
                if found.is_urgent:
                    return True
                changed = changed or bool(found.rows)
        return changed and (
            self._stopping.is_set() or time.monotonic() - self._saved_at >= SAVE_EVERY_S
        )

    def _save(self, recorders: Sequence[Recorder] | None = None) -> None:
        recorders = self.group.recorders if recorders is None else recorders
        targets = [(each, each.target) for each in recorders if each.target is not None]
        unsaved = [(recorder, target, target.unsaved()) for recorder, target in targets]
        unsaved = [each for each in unsaved if each[2].rows]
        if not unsaved:
            self._unsaved = False
            return
        try:
            self._shared.store.save(
                [row for _, _, found in unsaved for row in found.rows],
                durable=any(found.is_durable for _, _, found in unsaved),
            )
        except sqlite3.Error as error:
            # No message is recorded until this succeeds: a file must not be ahead of its cursor
            # by more than a start after a crash can repair.
            self._unsaved = True
            for recorder, _, _ in unsaved:
                recorder.fail(OSError(f"its cursor can't be stored: {error}"))
            self._stopping.wait(RETRY_S)
            return
        self._unsaved = False
        self._saved_at = time.monotonic()
        for _, target, found in unsaved:
            target.saved(found.rows)


def load(
    recorders: Sequence[Recorder],
    stored: Mapping[str, Progress],
    last_seq: int,
    store: ProgressStore,
) -> None:
    """Give each recorder that has none its position; a new one begins behind ``last_seq``.

    Raises:
        sqlite3.Error: nothing is changed.
    """
    found: dict[Recorder, Progress] = {}
    begun: list[tuple[str, Progress]] = []
    for recorder in recorders:
        if recorder.stored is not None:
            continue
        progress = stored.get(recorder.key)
        if progress is None:
            # On the disk before the file exists and before a message may be acknowledged: the
            # recording begins here, whatever comes in between.
            progress = Progress(format="", seq=last_seq)
            begun.append((recorder.key, progress))
        found[recorder] = progress
    if begun:
        store.save(begun, durable=True)
    for recorder, progress in found.items():
        recorder.stored = progress


def pace(source: Follower, *, worked_s: float, is_quiet: bool = False) -> float:
    """Seconds from the beginning of one batch to the next.

    Args:
        source: the origin of the next batch.
        worked_s: the time that this batch took.
        is_quiet: whether no message came in that time.
    """
    if is_quiet or not source.may_lag:
        return 0.0
    if source.is_crowded:
        return worked_s / tuning.RECORD_SHARE_IN_A_CROWD
    # A batch can take a minute (thousands of new files): a rest as long would serve no publisher.
    return min(worked_s / tuning.RECORD_SHARE_OF_BACKLOG, worked_s + tuning.RECORD_LONGEST_REST_S)
