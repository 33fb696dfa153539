"""Closed files of recorders go into the data files of a Qlik Cloud tenant: thread ``uploads``.

Each recorder's files go in order, one at a time, and what went wrong is tried again with growing
pauses until it succeeds, also after a restart. A file counts once its message is in the journal:

1. the step is noted, with the time of its beginning;
2. the file is sent; if an earlier attempt was noted, the tenant is asked first whether it arrived;
3. the message that tells of it is noted, with the journal's newest message;
4. the message is published, unless the journal has it behind that one;
5. the end is noted: the part is ``uploaded``.

A kill between any two leaves a step that goes on where it stopped. A file that changes (``mode``
``latest`` and ``update``) goes when it has changed, at most once a minute. Not for: HTTP
(qlik/data_files.py), closing files, removing them.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import sqlite3
import tempfile
import threading
import time
from collections import Counter as Numbers
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

import msgspec

from appliance.config.tables import RecorderConfig
from appliance.config.upload_topics import uploaded_topic
from appliance.counters import Counter
from appliance.engine_api import Health, UploadState
from appliance.errors import ApplianceError
from appliance.model import Message
from appliance.recorders.metadata import iso_time
from appliance.recorders.part_store import Part
from appliance.recorders.progress import ProgressStore
from appliance.recorders.target import key_of, path_of
from appliance.recorders.upload_names import remote_name
from appliance.recorders.upload_store import Step, UploadMemory, UploadStore
from appliance.storage.files import open_to_read

if TYPE_CHECKING:
    from appliance.qlik.data_files import DataFile, DataFiles, Place

FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 300.0
LOCKED_PAUSE_S = 10.0
LONGEST_ASKED_PAUSE_S = 3600.0
"""A server that asks for more is asked again then."""
STATE_EVERY_S = 60.0
"""A file that changes goes at most so often."""
LOOK_EVERY_S = 5.0
"""How often such a file is looked at."""
_PLACE_KEPT_S = 600.0
_IN_MEMORY = 8 * 1024 * 1024
_CLOCK_SLACK_NS = 2_000_000_000
_MOST_LOOKED_AT = 1_000_000
"""Messages of the journal that are looked through for one message at most: 4 s of processor."""
_BATCH = 5000
_TIMES_MISSING = 3
_PATIENT = 3
"""Failures in a row that may pass by themselves before the health is bad."""
_MOST_STAMPS = 1000
"""Files that change whose state is remembered; others may be sent again after a restart."""
_LOCKED, _TOO_LARGE, _CONFLICT = 423, 413, 409

_log = logging.getLogger(__name__)


class JournalReader(Protocol):
    """What is asked of the journal."""

    @property
    def last_seq(self) -> int: ...

    def read(self, after_seq: int, limit: int) -> list[Message]: ...


class _ThereBefore(Exception):  # noqa: N818  # no error
    """A file was uploaded in a time of which nothing is known."""


class _File(msgspec.Struct, frozen=True):
    """What is to be uploaded next."""

    path: str
    series: str
    stamp: str
    """Of a file that changes; empty: a part."""
    facts: dict[str, object]
    """What the message says of its content."""
    closed_ns: int = 0
    """Of a part: when it was closed, ns since 1970."""


class Uploads:
    """All uploads. ``start`` begins the thread; it ends by itself where nothing is to upload."""

    def __init__(
        self,
        configs: Sequence[RecorderConfig],
        *,
        service_name: str,
        data_dir: Path,
        store: ProgressStore,
        connect: Callable[[], DataFiles],
        publish: Callable[[str, bytes], object],
        journal: JournalReader,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Nothing is read or sent yet.

        Args:
            configs: of all recorders.
            service_name: the first level of the appliance's own topics.
            data_dir: the data directory.
            store: ``recorders.db``, open.
            connect: makes the client; may raise ``ApplianceError``.
            publish: publishes a message in the appliance's name and returns when it is in the
                journal. A call that is repeated after ``ApplianceError`` does not publish twice.
            journal: for messages of the last run.
            clock_ns: the time of day.
        """
        self._service_name = service_name
        self._data_dir = data_dir
        self._store = store
        self._connect = connect
        self._publish = publish
        self._journal = journal
        self._clock_ns = clock_ns
        self._client: DataFiles | None = None
        self._counts: Numbers[Counter] = Numbers()
        self._uploads: tuple[_Upload, ...] = ()
        self._configs = tuple(configs)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._news = threading.Event()
        self._stopping = threading.Event()

    def start(self) -> None:
        """Begin, if a recorder has uploads. Steps that a kill interrupted go on."""
        self.take(self._configs)

    def take(self, configs: Sequence[RecorderConfig]) -> None:
        """Replace the recorders; unchanged ones go on. Any thread."""
        with self._lock:
            self._configs = tuple(configs)
            wanted = [one for one in configs if one.upload is not None and one.path]
            made = []
            for config in wanted:
                same = next((one for one in self._uploads if one.config == config), None)
                made.append(same or _Upload(config, self._data_dir, self._store))
            self._uploads = tuple(made)
            if made and self._thread is None and not self._stopping.is_set():
                self._thread = threading.Thread(target=self._run, name="uploads", daemon=True)
                self._thread.start()
        self._news.set()

    def wake(self, _part: Part | None = None) -> None:
        """A file was closed. Any thread; returns at once."""
        self._news.set()

    def stop(self, timeout_s: float) -> bool:
        """End; a call under way is broken off. Returns whether the thread has ended."""
        with self._lock:
            self._stopping.set()
            thread, client = self._thread, self._client
        self._news.set()
        if client is not None:
            client.close()
        if thread is None:
            return True
        thread.join(timeout_s)
        return not thread.is_alive()

    def states(self) -> dict[str, UploadState]:
        """What is shown, by the paths of the recorders. Any thread, no disk."""
        return {str(one.config.path): one.state for one in self._uploads}

    def counters(self) -> dict[Counter, int]:
        """What went wrong. Any thread."""
        return dict(self._counts)

    # --- the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._news.clear()
            is_more = False
            for one in self._uploads:
                if self._stopping.is_set():
                    return
                if one.retry_at <= time.monotonic():
                    is_more = self._turn(one) or is_more
            if not is_more:
                left_s = [one.retry_at - time.monotonic() for one in self._uploads]
                wait_s = min((each for each in left_s if each > 0), default=LOOK_EVERY_S)
                self._news.wait(min(wait_s, LOOK_EVERY_S))

    def _turn(self, one: _Upload) -> bool:
        """Upload one file of a recorder; returns whether there may be another one at once."""
        try:
            is_done = self._next(one)
        except Exception as error:  # noqa: BLE001  # after any error, the other uploads go on
            if not self._stopping.is_set():
                self._counts[Counter.UPLOAD_RETRIES] += 1
                one.fail(error)
            return False
        one.refresh()
        return is_done

    def _next(self, one: _Upload) -> bool:
        memory = one.memory()
        step = memory.step
        if step is not None and step.payload:
            # From before a kill or an error. The journal may have the message.
            topic, payload = self._topic(one), step.payload.encode()
            if one.told != step.payload and self._is_told(topic, payload, memory.floor):
                one.told = step.payload
            self._tell(one, memory, step)
            return True
        found = one.next_file(self._clock_ns(), step)
        if found is None:
            one.recover()
            return False
        is_again = step is not None and (step.path, step.stamp) == (found.path, found.stamp)
        if not is_again:
            step = Step(found.path, self._clock_ns(), stamp=found.stamp)
            one.save(msgspec.structs.replace(memory, step=step))
        assert step is not None
        client = self._client_of()
        try:
            name, size = self._send(one, client, found, step if is_again else None)
        except FileNotFoundError:
            return self._missing(one, found)
        except _ThereBefore:
            # Its row was lost, and its message was published before: no reload for each old file.
            one.end(found, "uploaded", self._clock_ns())
            return True
        except ApplianceError as error:
            if self._is_refused(error) and not found.stamp:
                self._refuse(one, found, str(error))
                return True
            raise
        told = self._payload(one, client, found, name, size)
        step = msgspec.structs.replace(step, payload=told)
        # The message counts from here on; the journal is asked for it after a kill.
        memory = msgspec.structs.replace(one.memory(), step=step, floor=self._journal.last_seq)
        one.save(memory)
        self._tell(one, memory, step)
        return True

    def _client_of(self) -> DataFiles:
        if self._client is None:
            made = self._connect()
            with self._lock:
                self._client = made
                is_late = self._stopping.is_set()
            if is_late:
                made.close()
        return self._client

    def _send(
        self, one: _Upload, client: DataFiles, found: _File, again: Step | None
    ) -> tuple[str, int]:
        """Put a file there; returns its name in the tenant and its size.

        Raises:
            _ThereBefore: it is there, and no attempt of this process or an earlier one is known.
        """
        path = path_of(found.path, self._data_dir)
        name = remote_name(one.config, path, path_of(found.series, self._data_dir), self._data_dir)
        with _opened(path, self._data_dir if found.stamp else None) as (file, size):
            place = one.place(client)
            known = client.find(place, name)
            since_ns = _own_since_ns(one.config, found, again)
            if since_ns and _arrived(client, known, size, since_ns):
                _log.info("%s is in Qlik Cloud already, so it is not sent again", name)
                if again is None:
                    raise _ThereBefore
                return name, size
            try:
                client.put(place, name, file, size, known=known)
            except ApplianceError as error:
                if getattr(error, "status", None) != _CONFLICT or known is not None:
                    raise
                # It came into being since it was looked for, or the tenant finds it otherwise.
                known = next(
                    (it for it in client.files(place, name.rpartition("/")[0]) if it.name == name),
                    None,
                )
                if known is None:
                    raise
                file.seek(0)
                client.put(place, name, file, size, known=known)
        return name, size

    @staticmethod
    def _is_refused(error: ApplianceError) -> bool:
        """Whether this file, and no other one, will never be taken."""
        return getattr(error, "status", None) == _TOO_LARGE

    def _refuse(self, one: _Upload, found: _File, why: str) -> None:
        self._counts[Counter.UPLOADS_REFUSED] += 1
        _log.error("%s stays out of Qlik Cloud, and the next file follows: %s", found.path, why)
        one.end(found, "refused", self._clock_ns())
        one.warn(f"{Path(found.path).name} was refused: {why}")

    def _missing(self, one: _Upload, found: _File) -> bool:
        """The file is gone. It may have got another name this moment, so it is looked for again."""
        one.missing = one.missing + 1 if one.missing_path == found.path else 1
        one.missing_path = found.path
        if found.stamp or one.missing < _TIMES_MISSING:
            raise FileNotFoundError(f"{found.path} is gone")
        self._counts[Counter.UPLOADS_MISSING] += 1
        _log.error("%s was removed before it was uploaded; the next file follows", found.path)
        one.end(found, "refused", self._clock_ns())
        one.warn(f"{Path(found.path).name} was removed before it was uploaded")
        return True

    # --- the message ---------------------------------------------------------------------------

    def _payload(self, one: _Upload, client: DataFiles, found: _File, name: str, size: int) -> str:
        assert one.config.upload is not None
        place = one.place(client)
        return json.dumps(
            {
                # First what the terminal has room for.
                "file": name,
                **found.facts,
                "bytes": size,
                "recorder": one.config.used_name,
                "space": place.name,
                "spaceId": place.space_id,
                "tenant": client.label,
                "time": iso_time(self._clock_ns()),
            },
            ensure_ascii=False,
        )

    def _tell(self, one: _Upload, memory: UploadMemory, step: Step) -> None:
        payload = step.payload.encode()
        if one.told != step.payload:
            self._publish(self._topic(one), payload)
            one.told = step.payload
        facts = msgspec.json.decode(payload)
        memory = msgspec.structs.replace(
            memory,
            step=None,
            floor=0,
            uploaded=memory.uploaded + 1,
            last_ns=self._clock_ns(),
            last_file=str(facts.get("file", "")),
            stamps=one.sent(step.path, step.stamp, memory.stamps) if step.stamp else memory.stamps,
        )
        if step.stamp:
            one.save(memory)
        else:
            one.store.end(memory, step.path, "uploaded", memory.last_ns)
            one.known = memory
        one.recover()
        _log.info("%s is uploaded", memory.last_file)

    def _topic(self, one: _Upload) -> str:
        return uploaded_topic(self._service_name, one.config.used_name)

    def _is_told(self, topic: str, payload: bytes, floor: int) -> bool:
        """Whether the journal has the message, from before a kill."""
        after = max(floor, self._journal.last_seq - _MOST_LOOKED_AT)
        while messages := self._journal.read(after, _BATCH):
            if any(it.topic == topic and it.payload == payload for it in messages):
                return True
            after = messages[-1].seq
        return False


class _Upload:
    """One recorder's uploads at run time. ``state`` is for any thread, the rest for its own."""

    def __init__(self, config: RecorderConfig, data_dir: Path, store: ProgressStore) -> None:
        self.config = config
        self.key = key_of(Path(config.path), data_dir)
        self.store = UploadStore(store, self.key)
        self.state = UploadState(Health("ok"))
        self.retry_at = 0.0
        self.missing = 0
        self.missing_path = ""
        self.told = ""
        """The payload that this process has published, whose end may not be noted yet."""
        self.known: UploadMemory | None = None
        self._data_dir = data_dir
        self._failures = 0
        self._note = ""
        self._place: Place | None = None
        self._place_until = 0.0
        self._empty: dict[str, str] = {}
        """The states of files that change before they had their first row."""
        self._sent_at: dict[str, float] = {}
        """When this process sent a file that changes, by ``time.monotonic``."""

    @property
    def _well(self) -> Health:
        return Health("warn", self._note) if self._note else Health("ok")

    @property
    def shown(self) -> str:
        return f'the uploads of recorder "{self.config.used_name}"'

    # --- what is remembered ----------------------------------------------------------------------

    def memory(self) -> UploadMemory:
        if self.known is None:
            self.known = self.store.load()
        return self.known

    def save(self, memory: UploadMemory) -> None:
        self.store.save(memory)
        self.known = memory

    def end(self, found: _File, state: str, now_ns: int) -> None:
        memory = msgspec.structs.replace(self.memory(), step=None, floor=0)
        self.store.end(memory, found.path, state, now_ns)
        self.known = memory

    def place(self, client: DataFiles) -> Place:
        assert self.config.upload is not None
        if self._place is None or time.monotonic() >= self._place_until:
            self._place = client.place(self.config.upload.space)
            self._place_until = time.monotonic() + _PLACE_KEPT_S
        return self._place

    # --- what is next ----------------------------------------------------------------------------

    def next_file(self, now_ns: int, step: Step | None) -> _File | None:
        if self.config.mode != "append":
            return self._changed_file(now_ns, step)
        part = self.store.waiting()
        if part is None:
            return None
        return _File(
            part.path,
            part.series,
            "",
            {
                "messages": part.messages,
                "firstSequence": part.first_seq,
                "lastSequence": part.last_seq,
                "firstTime": iso_time(part.first_ns),
                "lastTime": iso_time(part.last_ns),
            },
            part.closed_ns,
        )

    def _changed_file(self, now_ns: int, step: Step | None) -> _File | None:
        """A file of last values of which the tenant has another state, the longest ago first."""
        memory = self.memory()
        is_soon = 0 <= now_ns - memory.last_ns < STATE_EVERY_S * 1e9
        if step is None and not self._sent_at and is_soon:
            return None  # a restart is no reason to send it sooner
        due_s = time.monotonic() - STATE_EVERY_S
        rows = sorted(self.store.positions(), key=lambda row: self._sent_at.get(row[0], -1.0))
        for key, seq, count in rows:
            if self._sent_at.get(key, due_s) > due_s:
                break
            try:
                about = path_of(key, self._data_dir).stat()
            except OSError:
                continue  # not there yet; with several paths the recorder's own row has none
            stamp = f"{about.st_size}:{about.st_mtime_ns}"
            if not count:
                self._empty[key] = stamp
            if stamp not in {self._empty.get(key), memory.stamps.get(key)}:
                return _File(key, key, stamp, {"lastSequence": seq})
        return None

    def sent(self, key: str, stamp: str, stamps: dict[str, str]) -> dict[str, str]:
        """Note a state of a file that changes; returns what is to be remembered of all."""
        self._sent_at[key] = time.monotonic()
        left = {each: one for each, one in stamps.items() if each != key}
        for oldest in list(left)[: max(0, len(left) + 1 - _MOST_STAMPS)]:
            del left[oldest]
        return {**left, key: stamp}

    # --- how it goes -----------------------------------------------------------------------------

    def fail(self, error: Exception) -> None:
        """Note an error; the next attempt comes after a pause."""
        text = str(error)
        if isinstance(error, OSError):
            text = error.strerror or text
        self._failures += 1
        health = Health(self._level(error), text)
        if health != self.state.health:
            is_expected = isinstance(error, ApplianceError | OSError | sqlite3.Error)
            _log.log(
                logging.ERROR if health.level == "bad" else logging.WARNING,
                "%s can't go on: %s. No file is lost; the appliance tries again by itself",
                self.shown,
                text,
                exc_info=None if is_expected else error,
            )
        self._place = None
        self.known = None
        pause_s = min(FIRST_PAUSE_S * 2.0 ** min(self._failures - 1, 20), LONGEST_PAUSE_S)
        asked_s: float | None = getattr(error, "retry_after_s", None)
        if getattr(error, "status", None) == _LOCKED:
            pause_s = LOCKED_PAUSE_S
        if asked_s is not None:
            pause_s = min(max(asked_s, 1.0), LONGEST_ASKED_PAUSE_S)
        self.retry_at = time.monotonic() + pause_s
        self.state = msgspec.structs.replace(self.state, health=health)

    def _level(self, error: Exception) -> str:
        """A file that a reload reads, or an outage of seconds, is no reason to call somebody."""
        retry: object = getattr(error, "retry", None)
        is_passing = retry is not None and getattr(retry, "name", "") != "NEVER"
        is_locked = getattr(error, "status", None) == _LOCKED
        return "warn" if (is_passing or is_locked) and self._failures <= _PATIENT else "bad"

    def warn(self, text: str) -> None:
        """Note what an operator should look at, until the next restart."""
        self._note = text
        self.state = msgspec.structs.replace(self.state, health=self._well)

    def recover(self) -> None:
        if self._failures:
            _log.warning("%s go on", self.shown)
        if self.state.health != self._well:
            self.state = msgspec.structs.replace(self.state, health=self._well)
        self._failures = 0
        self.missing = 0
        self.retry_at = 0.0

    def refresh(self) -> None:
        """Look at what waits."""
        with contextlib.suppress(sqlite3.Error):
            waiting, size = self.store.backlog()
            memory = self.memory()
            self.state = msgspec.structs.replace(
                self.state,
                waiting=waiting,
                waiting_bytes=size,
                uploaded=memory.uploaded,
                last_ns=memory.last_ns or None,
                last_file=memory.last_file,
            )


def _own_since_ns(config: RecorderConfig, found: _File, again: Step | None) -> int:
    """Since when a file of that name there can only be this one; 0: that can't be said.

    A part with a name of its own is that from the moment when it was closed, also if
    ``recorders.db`` was lost since. Where files replace each other, it is so from the first attempt
    with this one, if that was noted.
    """
    assert config.upload is not None
    if found.closed_ns and not config.upload.replace:
        return found.closed_ns
    return again.begun_ns if again is not None else 0


def _arrived(client: DataFiles, known: DataFile | None, size: int, begun_ns: int) -> bool:
    """Whether a file there is the one that is to be sent: it has its size, and is that new."""
    if known is None or known.size != size or known.modified_ns is None:
        return False
    return known.modified_ns >= client.server_time_ns(begun_ns) - _CLOCK_SLACK_NS


@contextlib.contextmanager
def _opened(path: Path, copies: Path | None) -> Iterator[tuple[BinaryIO, int]]:
    """A file and its size, or those of a copy in the folder ``copies``.

    Another thread replaces a file that changes, which Windows refuses while it is open.
    """
    with open_to_read(path) as file:
        if copies is None:
            file.seek(0, 2)
            size = file.tell()
            file.seek(0)
            yield file, size
            return
        with tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=str(copies)) as copy:
            shutil.copyfileobj(file, copy)
            size = copy.tell()
            copy.seek(0)
            file.close()
            yield cast("BinaryIO", copy), size
