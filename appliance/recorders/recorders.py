"""All recorders: the files that a message belongs to, and the thread that writes them.

The thread reads committed messages from the journal, sorts them by recorder, appends each
recorder's share (one write and sync a file and batch) and stores its position. It lets messages
gather for a twentieth of a second first, so recording costs little.
When publishers send more than the engine can handle, acknowledgements go first, and recording falls
behind, within bounds.
A recorder whose file can't be written tries again; the other recorders continue.
Not for: files (recording.py), formats, or the origin of messages (the journal).
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from appliance import tuning
from appliance.config.tables import RecorderConfig
from appliance.counters import Counter
from appliance.engine_api import RecorderState
from appliance.errors import ApplianceError, UnavailableError
from appliance.journal.follower import Follower
from appliance.model import Message
from appliance.recorders.formats import make_format
from appliance.recorders.lost_position import Messages, find_position
from appliance.recorders.plan import Plan, make_plan
from appliance.recorders.progress import Progress, ProgressStore
from appliance.recorders.recorder import RETRY_S, Recorder
from appliance.recorders.recording import Recording

BATCH_MESSAGES = 5000
SAVE_EVERY_S = 1.0
"""How often cursors are stored that moved without a recorded message."""

_log = logging.getLogger(__name__)


class Recorders:
    """Every configured recorder.

    Args:
        configs: as configured; paths are absolute.
        state_path: the database with the cursors, in the data directory.
        clock_ns: present time, for the names of files that are set aside.

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
    ) -> None:
        self._clock_ns = clock_ns
        self._store = ProgressStore(state_path)
        self._data_dir = state_path.parent
        self._plan = make_plan(configs, self._data_dir)
        self._wanted: Plan | None = None
        """The plan that replaces the present one, as soon as the thread takes it."""
        self._is_taken = threading.Event()
        self._source: Follower | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._deadline = float("inf")
        self._saved_at = 0.0
        self._worked_s = 0.0
        self._is_full = False
        """Whether more messages wait than the last batch took."""
        self._unsaved = False
        self._missed = 0
        self._losses: list[str] = []

    def open(self, last_seq: int, journal: Messages | None = None) -> int:
        """Read the cursors.

        Args:
            last_seq: the journal's newest message. A new recorder begins after it.
            journal: where the position of a recording is looked for whose cursor is lost; ``None``:
                such a recording begins anew.

        Returns the smallest cursor: the source must begin after it.

        Raises:
            ConfigError, UnavailableError: the database of the cursors can't be used.
        """
        stored = self._store.open(self._clock_ns())
        if journal is not None and last_seq:
            stored = {**stored, **self._find_lost(stored, last_seq, journal)}
        self._store.found()
        self._load(self._plan, stored, last_seq)
        return min((recorder.cursor for recorder in self._plan.recorders), default=last_seq)

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
            progress, told, is_loss = find_position(recorder, self._plan.routes, last_seq, journal)
            _log.log(logging.ERROR if is_loss else logging.WARNING, "%s", told)
            if is_loss:
                self._losses.append(told)
            found[recorder.key] = progress
        if found:
            # As a new recording's beginning: on the disk before a message may be acknowledged.
            self._store.save(found.items(), durable=True)
        return found

    def _load(self, plan: Plan, stored: Mapping[str, Progress], last_seq: int) -> None:
        """Give each recorder its position. Raises ``sqlite3.Error`` before anything is changed."""
        found: dict[Recorder, Progress] = {}
        begun: list[tuple[str, Progress]] = []
        for recorder in plan.recorders:
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
            self._store.save(begun, durable=True)
        for recorder, progress in found.items():
            recorder.stored = progress

    def start(self, source: Follower) -> None:
        """Prepare the files and start the recording thread."""
        self._source = source
        if not self._plan.recorders:
            source.close()  # or the journal would keep every message for it
            return
        self._begin(source)

    def _begin(self, source: Follower) -> None:
        for recorder in self._plan.recorders:
            self._prepare(recorder, source)
        self._save()
        self._thread = threading.Thread(
            target=self._run, args=(source,), name="recorders", daemon=True
        )
        self._thread.start()

    def plan(self, configs: Sequence[RecorderConfig]) -> Plan:
        """The recorders of a changed configuration, for ``take``; unchanged ones stay.

        Raises:
            ConfigError: as ``Recorders`` does; nothing is changed.
            UnavailableError: the recorders can't take a plan now.
        """
        if self._thread is not None and not self._thread.is_alive():
            raise UnavailableError("The recorders have ended. Restart the appliance.")
        return make_plan(configs, self._data_dir, self._plan.recorders)

    def take(self, plan: Plan, make_source: Callable[[], Follower], timeout_s: float) -> bool:
        """Replace the recorders, from the journal's present end on.

        A recorder that existed earlier continues where it stopped. ``make_source`` is called if
        there was no recorder before. Returns whether the change is done; if the disk hangs, the
        thread does it later.

        Raises:
            UnavailableError: the cursors can't be read, or the recorders have ended.
        """
        thread = self._thread
        if thread is None:
            if not plan.recorders:
                return True
            source = make_source()
            try:
                self._change(plan, source.last_seq)
            except sqlite3.Error as error:
                source.close()
                raise UnavailableError(f"The recorders' cursors can't be read: {error}.") from None
            self._source = source
            self._begin(source)
            return True
        if not thread.is_alive() or self._source is None:
            raise UnavailableError("The recorders have ended. Restart the appliance.")
        self._is_taken.clear()
        self._wanted = plan
        self._source.wake()
        return self._is_taken.wait(timeout_s)

    def _take_wanted(self, source: Follower) -> None:
        plan = self._wanted
        if plan is None or self._stopping.is_set():
            return
        self._save()
        if self._unsaved:
            return
        self._change(plan, source.last_seq)
        self._wanted = None
        self._is_taken.set()

    def _change(self, plan: Plan, last_seq: int) -> None:
        """Raises ``sqlite3.Error`` before anything is changed."""
        self._load(plan, self._store.load(), last_seq)
        for recorder in self._plan.recorders:
            if recorder not in plan.recorders and recorder.recording is not None:
                with contextlib.suppress(OSError):
                    recorder.recording.finish()
        self._plan = plan

    def stop(self, timeout_s: float) -> bool:
        """Record the messages that are committed by now, then end.

        Returns whether all of them were recorded; the rest is recorded after the next start.
        """
        thread, source = self._thread, self._source
        if thread is None or source is None:
            self._store.close()
            return True
        self._deadline = time.monotonic() + timeout_s
        self._stopping.set()
        source.wake()
        thread.join(timeout_s + RETRY_S)
        return not thread.is_alive() and not any(r.behind for r in self._plan.recorders)

    def states(self) -> tuple[RecorderState, ...]:
        """Each recorder's state, in the order of the configuration. Any thread, no disk."""
        last_seq = self._source.last_seq if self._source else 0
        return tuple(recorder.state(last_seq) for recorder in self._plan.recorders)

    def counters(self) -> dict[Counter, int]:
        """Failed attempts to record, and messages that could not be recorded."""
        return {
            Counter.RECORDER_MESSAGES_MISSED: self._missed,
            Counter.RECORDER_ROWS_UNREADABLE: len(self._store.damaged),
            Counter.RECORDER_RETRIES: sum(r.failures for r in self._plan.recorders),
        }

    # --- the thread ------------------------------------------------------------------------------

    def _run(self, source: Follower) -> None:
        try:
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
                    pace_s = pace(source, worked_s=self._worked_s)
                    self._stopping.wait(max(0.0, pace_s - (time.monotonic() - began)))
        except Exception as error:  # noqa: BLE001  # a defect must be visible in the UI
            for recorder in self._plan.recorders:
                recorder.fail(error)
        finally:
            self._save()
            for recorder in self._plan.recorders:
                if recorder.recording is not None:
                    with contextlib.suppress(OSError):
                        recorder.recording.finish()
            self._store.close()
            source.close()

    def _is_done(self, source: Follower) -> bool:
        if time.monotonic() >= self._deadline:
            return True
        healthy = [recorder for recorder in self._plan.recorders if recorder.health.level != "bad"]
        return all(recorder.cursor >= source.last_seq for recorder in healthy)

    def _turn(self, source: Follower) -> bool:
        """Take one batch and write it; returns whether more messages wait."""
        late = [recorder for recorder in self._plan.recorders if self._may_retry(recorder)]
        for recorder in late:
            self._catch_up(recorder, source)
        if not late and self._wanted is None and not self._is_full:
            source.wait(0.0 if self._stopping.is_set() else SAVE_EVERY_S)
            # Messages gather, for one write and sync.
            self._stopping.wait(tuning.RECORD_EVERY_S)
        messages: list[Message] = []
        began = time.monotonic()
        if not self._unsaved:
            messages = source.next(BATCH_MESSAGES)
            self._notice_missed(source)
            self._record(messages, source.position)
        self._worked_s = time.monotonic() - began
        if self._must_save():
            self._save()
            if not self._unsaved:
                source.advance(
                    min((r.cursor for r in self._plan.recorders), default=source.position)
                )
        return len(messages) == BATCH_MESSAGES or any(map(self._may_retry, self._plan.recorders))

    def _notice_missed(self, source: Follower) -> None:
        if source.missed != self._missed:
            _log.error(
                "%d messages were deleted from the journal before they could be recorded; raise"
                " max_size in [journal]",
                source.missed - self._missed,
            )
            self._missed = source.missed

    def _may_retry(self, recorder: Recorder) -> bool:
        return recorder.behind and not self._unsaved and time.monotonic() >= recorder.retry_at

    def _record(self, messages: Sequence[Message], last: int) -> None:
        # Matched once for each topic, not for each message: a batch has few topics.
        routes = {topic: self._plan.routes.match(topic) for topic in {m.topic for m in messages}}
        for recorder in self._plan.recorders:
            if recorder.behind:
                continue
            topics = {topic for topic, found in routes.items() if recorder in found}
            batch = messages
            if len(topics) < len(routes):
                batch = [message for message in messages if message.topic in topics]
            self._append(recorder, batch, last)

    def _append(self, recorder: Recorder, batch: Sequence[Message], last: int) -> bool:
        recording = recorder.recording
        assert recording is not None
        cursor = recorder.cursor
        if last <= cursor:
            return True
        if batch and batch[0].seq <= cursor:
            batch = [message for message in batch if message.seq > cursor]
        try:
            if batch:
                recording.append(batch, last)
            else:
                recording.skip(last)
        except Exception as error:  # noqa: BLE001  # after any error, the other recorders continue
            recorder.fail(error)
            return False
        if batch and (recorder.health.level == "bad" or recording.note != recorder.health.text):
            recorder.recover()
        return True

    def _catch_up(self, recorder: Recorder, source: Follower) -> None:
        """Read for one recorder separately, until it reaches the position of the others."""
        if recorder.recording is None:
            if not self._prepare(recorder, source):
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
            match = self._plan.routes.match
            batch = [message for message in messages if recorder in match(message.topic)]
            if not self._append(recorder, batch, last):
                return
        if recorder.cursor >= position:
            recorder.behind = False
            recorder.recover()

    def _prepare(self, recorder: Recorder, source: Follower) -> bool:
        """Make or check the file; what an interrupted write left is put right."""
        assert recorder.stored is not None
        recording = Recording(
            Path(recorder.config.path),
            make_format(recorder.config),
            recorder.stored,
            self._clock_ns,
        )

        def regenerate(size: int) -> bytes:
            found: list[Message] = []
            pieces: list[bytes] = []
            cursor = recorder.cursor
            while sum(map(len, pieces)) < size:
                messages = source.read(cursor, BATCH_MESSAGES)
                if not messages:
                    break
                cursor = messages[-1].seq
                match = self._plan.routes.match
                found.extend(m for m in messages if recorder in match(m.topic))
                pieces = recording.pieces(found) if found else []
            return b"".join(pieces)

        try:
            if recorder.stored.format:
                recording.resume(regenerate)
            else:
                recording.begin()
        except Exception as error:  # noqa: BLE001  # after any error, the other recorders continue
            recorder.fail(error)
            return False
        recorder.recording = recording
        return True

    # --- cursors ---------------------------------------------------------------------------------

    def _must_save(self) -> bool:
        changed = False
        for recorder in self._plan.recorders:
            if recorder.recording is not None and recorder.stored is not None:
                progress, stored = recorder.recording.progress, recorder.stored
                if msgspec.structs.replace(stored, seq=progress.seq) != progress:
                    return True
                changed = changed or progress.seq != stored.seq
        return changed and (
            self._stopping.is_set() or time.monotonic() - self._saved_at >= SAVE_EVERY_S
        )

    def _save(self) -> None:
        rows = [
            (recorder, recorder.recording.progress)
            for recorder in self._plan.recorders
            if recorder.recording is not None and recorder.recording.progress != recorder.stored
        ]
        if not rows:
            return
        try:
            self._store.save(
                [(recorder.key, progress) for recorder, progress in rows],
                durable=any(map(_is_begun, rows)),
            )
        except sqlite3.Error as error:
            # No message is recorded until this succeeds: a file must not be ahead of its cursor
            # by more than a start after a crash can repair.
            self._unsaved = True
            for recorder, _ in rows:
                recorder.fail(OSError(f"its cursor can't be stored: {error}"))
            self._stopping.wait(RETRY_S)
            return
        self._unsaved = False
        self._saved_at = time.monotonic()
        for recorder, progress in rows:
            recorder.stored = progress


def _is_begun(row: tuple[Recorder, Progress]) -> bool:
    """Whether the row is the first one of its file. Later ones may be behind their file."""
    recorder, progress = row
    stored = recorder.stored
    return stored is None or stored.format != progress.format or progress.count < stored.count


def pace(source: Follower, *, worked_s: float) -> float:
    """Seconds from the beginning of one batch to the next.

    Args:
        source: the origin of the next batch.
        worked_s: the time that this batch took.
    """
    if not source.may_lag:
        return 0.0
    in_crowd, of_backlog = tuning.RECORD_SHARE_IN_A_CROWD, tuning.RECORD_SHARE_OF_BACKLOG
    return worked_s / (in_crowd if source.is_crowded else of_backlog)
