"""Timers that were made while the appliance runs: Butler's ``POST /v4/schedules``.

``schedules.json`` in the data directory has them. They count like the ``[[timer]]`` tables of the
configuration, at once and after each start. A schedule is in the file before it counts, and out of
it before it stops to count.

Not for: the HTTP calls and rights (http_api/butler/schedules.py), when a timer is due
(tasks/timers.py).
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from appliance.config import butler_cron
from appliance.config.tables import TimerConfig
from appliance.config.timer_checks import timer_problems
from appliance.config.values import Duration, parse_duration
from appliance.errors import ConfigError, NotNotedError, UnavailableError, UsageError
from appliance.storage import files
from appliance.tasks.engine import TaskEngine
from appliance.tasks.selector import task_id

FILE_NAME = "schedules.json"
MOST = 1000
"""Schedules that there may be."""
_LARGEST_FILE = 16 * 1024 * 1024
_MOST_CHARACTERS = 200
_MOST_TAGS = 50
_NOT_IN_NAMES = re.compile(r"[^\w .-]+")
_LONGEST_NAME = 50
_ID_IN_NAME = 8
STATES = {"start": True, "started": True, "stop": False, "stopped": False}
"""What ``startup_state`` may be, and whether the timer runs then."""
_log = logging.getLogger(__name__)


class Schedule(msgspec.Struct, frozen=True, rename="camel"):
    """One of them, with the names that Butler's file and calls have."""

    name: str
    cron_schedule: str
    timezone: str
    qlik_sense_task_id: str
    startup_state: str
    tags: tuple[str, ...]
    id: str
    created: str

    @property
    def timer_name(self) -> str:
        """What the terminal and the log call it: another one for each schedule."""
        name = _NOT_IN_NAMES.sub("-", self.name).strip()[:_LONGEST_NAME].strip(" -") or "schedule"
        return f"{name} {self.id[:_ID_IN_NAME]}"

    def timer(self) -> TimerConfig:
        """As a table of the configuration.

        Raises:
            UsageError: it can't be one; the text says why.
        """
        times = butler_cron.read(self.cron_schedule)
        if times.problem:
            raise UsageError(f"cronSchedule {self.cron_schedule[:80]!r}: {times.problem}.")
        if (task := task_id(self.qlik_sense_task_id)) is None:
            raise UsageError(f"qlikSenseTaskId {self.qlik_sense_task_id[:80]!r} is no task id.")
        every: Duration | None = parse_duration(times.every) if times.every else None
        timer = TimerConfig(
            name=self.timer_name,
            cron=times.cron or None,
            every=every,
            timezone=self.timezone,
            task=task,
        )
        for key, text in timer_problems(timer):
            raise UsageError(f"{key}: {text}.")
        return timer


def check(schedule: Schedule) -> None:
    """Raise ``UsageError`` if it can't be taken: the text says why."""
    if schedule.startup_state not in STATES:
        raise UsageError(f"startupState is one of {', '.join(STATES)}.")
    texts = (schedule.name, schedule.cron_schedule, schedule.timezone, *schedule.tags)
    if any(len(text) > _MOST_CHARACTERS for text in texts) or len(schedule.tags) > _MOST_TAGS:
        raise UsageError(
            f"A text has at most {_MOST_CHARACTERS} characters, and there are at most {_MOST_TAGS}"
            " tags."
        )
    schedule.timer()


class Schedules:
    """All of them. For any thread; ``add`` and ``remove`` wait for the disk.

    ``engine`` and ``configured`` give the task engine and the timers of the configuration that
    counts now.
    """

    def __init__(
        self,
        path: Path,
        engine: Callable[[], TaskEngine],
        configured: Callable[[], Sequence[TimerConfig]],
    ) -> None:
        self._path = path
        self._engine = engine
        self._configured = configured
        self._lock = threading.RLock()
        self._all: dict[str, Schedule] = {}
        self.losses: list[str] = []
        """What ``open`` found lost, a sentence each, to be acknowledged."""

    def open(self, now_ns: int) -> None:
        """Read the file. Raises ``UnavailableError`` if the disk refuses."""
        try:
            with files.open_to_read(self._path) as file:
                content = file.read(_LARGEST_FILE)
        except FileNotFoundError:
            return
        except OSError as error:
            raise UnavailableError(f"{self._path} can't be read: {error.strerror}.") from None
        try:
            found = msgspec.json.decode(content, type=list[Schedule])
        except (ValueError, RecursionError) as error:
            aside = files.set_aside(self._path, "damaged", now_ns)
            text = (
                f"The schedules that were made over HTTP can't be read ({error}): none of them"
                f" runs. The file is kept as {aside.name}."
            )
            _log.error("%s", text)
            self.losses.append(text)
            return
        for one in found[:MOST]:
            try:
                one.timer()
            except UsageError as problem:
                _log.warning("Schedule %s (%s) does not run: %s", one.id, one.name, problem)
            self._all[one.id] = one

    def all(self) -> tuple[Schedule, ...]:
        """Them, the oldest first. Never waits: each change makes another dictionary."""
        return tuple(self._all.values())

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let none come or go: while another configuration is taken."""
        with self._lock:
            yield

    def timers(self, configured: Sequence[TimerConfig]) -> tuple[TimerConfig, ...]:
        """The timers of a configuration, and then these."""
        names = {one.name for one in configured}
        made = []
        for one in self.all():
            with contextlib.suppress(UsageError):
                made.append(one.timer())
        return (*configured, *(one for one in made if one.name not in names))

    def stopped(self) -> tuple[str, ...]:
        """The names of the timers that do not run until they are started."""
        return tuple(one.timer_name for one in self.all() if not STATES[one.startup_state])

    def add(self, schedule: Schedule) -> None:
        """Let one count from now on, also after a restart.

        Raises:
            UsageError: it can't be one, or there are too many.
            UnavailableError: the disk refuses; nothing was changed.
        """
        check(schedule)
        with self._lock:
            if len(self._all) >= MOST:
                raise UsageError(f"There are {MOST} schedules already. Delete some of them.")
            self._change({**self._all, schedule.id: schedule})

    def remove(self, number: str) -> bool:
        """Whether there was one of this id; it does not count any more. Raises as ``add``."""
        with self._lock:
            if (found := self._all.get(number)) is None:
                return False
            kept = {key: one for key, one in self._all.items() if key != number}
            self._change(kept, found.timer_name)
        return True

    def _change(self, wanted: dict[str, Schedule], gone: str = "") -> None:
        before = self._all
        self._write(wanted)
        self._all = wanted
        try:
            self._engine().change_timers(self.timers(self._configured()), self.stopped(), gone)
        except NotNotedError as error:
            _log.warning("%s", error)
        except (UnavailableError, ConfigError):
            self._all = before
            with contextlib.suppress(UnavailableError):
                self._write(before)
            raise

    def _write(self, wanted: dict[str, Schedule]) -> None:
        content = msgspec.json.format(msgspec.json.encode(list(wanted.values())), indent=1)
        try:
            files.replace_file(self._path, content)
        except OSError as error:
            raise UnavailableError(
                f"{self._path} can't be written: {error.strerror}. Nothing was changed."
            ) from None
