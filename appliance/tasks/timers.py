"""Schedules and silence watches: when each timer is due, and what was missed.

The module works on times that it is given, without clock, threads or disk. What has to outlive a
restart (``marks``: the last time of each timer, what is paused, which alarm is raised) is handed
out as numbers by name; ``load`` takes them back.

Daylight saving, for ``cron`` (cronsim, which keeps to the rules of Debian's cron): a time that the
clocks skip is run right after the change, a time that comes twice is run once; schedules with *
in hour or minute follow the time that really passes. The same holds for a clock that is set back
by up to three hours; beyond that the clock was wrong, and every schedule follows the new time.

Not for: starting tasks or publishing (tasks/schedule.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim

from appliance.config.tables import TimerConfig
from appliance.engine_api import TimerState
from appliance.model import ReloadOptions
from appliance.mqtt.topics import matches
from appliance.tasks.selector import TaskSelector
from appliance.tasks.triggers import fixed_selector, reload_options

SECOND_NS = 1_000_000_000
LATE_S = 60.0
"""A timer that is noticed later than this after its time was missed: the machine slept, the clock
was set, or the appliance was down. ``catch_up`` then decides."""


_STEP_NS = SECOND_NS
"""A last time that lies further ahead than this: the clock was set back since."""
_REPEATED_NS = 3 * 3600 * SECOND_NS
"""When the clock is set back by less, no ``cron`` time is repeated, cron(8) of Debian."""


class Firing(msgspec.Struct, frozen=True):
    """A timer whose work is due now."""

    timer: Timer
    due_ns: int


class Timer:
    """One ``[[timer]]``: its schedule and where it stands."""

    def __init__(self, config: TimerConfig, number: int) -> None:
        """``config`` has passed its checks; raises ``ConfigError`` for a task that can't be."""
        self.config = config
        self.name = config.name
        self.selector: TaskSelector | None = None
        if config.task is not None:
            self.selector = fixed_selector(config.task, f"timer {number} ({config.name})")
        self.reload = reload_options(config.partial, config.variables)
        self._zone = ZoneInfo(config.timezone)
        self.last_ns = 0
        """Up to here the schedule was dealt with; for a silence watch, the last message."""
        self.paused = False
        self.raised_ns = 0
        """Since when a silence watch's alarm is raised, 0 if it is not."""

    @property
    def kind(self) -> str:
        return "silence" if self.config.silence is not None else "schedule"

    @property
    def key(self) -> str:
        """Another schedule under the same name is another timer: its past does not count."""
        config = self.config
        schedule = config.cron or config.every or config.silence
        return f"timer:{config.name}:{schedule}:{config.timezone}"

    def due_ns(self) -> int | None:
        """When it is due next; ``None`` for a raised alarm, which waits for a message."""
        config = self.config
        if config.silence is not None:
            return None if self.raised_ns else self.last_ns + int(config.silence * SECOND_NS)
        return self._after(self.last_ns)

    def _after(self, at_ns: int) -> int | None:
        if self.config.every is not None:
            return at_ns + int(self.config.every * SECOND_NS)
        assert self.config.cron is not None
        moment = datetime.fromtimestamp(at_ns // SECOND_NS, UTC).astimezone(self._zone)
        following = next(CronSim(self.config.cron, moment), None)
        return None if following is None else int(following.timestamp()) * SECOND_NS

    def follow_clock(self, now: int) -> bool:
        """Begin anew at ``now`` if the clock was set back; returns whether it did.

        Otherwise it would do nothing until the clock has caught up.
        """
        allowed = _STEP_NS
        if self.config.silence is not None:  # at most one more interval late
            allowed = int(self.config.silence * SECOND_NS)
        elif self.config.cron is not None and "*" not in "".join(self.config.cron.split()[:2]):
            allowed = _REPEATED_NS
        if self.raised_ns or self.last_ns - now <= allowed:
            return False
        self.last_ns = now
        return True

    def shift(self, step_ns: int) -> None:
        """The clock was set by this: an interval or a silence goes on as before.

        A ``cron`` schedule is one of the clock: it follows the new time.
        """
        if self.config.cron is None:
            self.last_ns += step_ns
            self.raised_ns += step_ns if self.raised_ns else 0

    def skip_to(self, now: int) -> None:
        """Leave out every time up to ``now``."""
        if self.config.every is not None:
            step = int(self.config.every * SECOND_NS)
            self.last_ns += max(0, (now - self.last_ns) // step) * step
        else:
            self.last_ns = max(self.last_ns, now)

    def state(self, due: int | None) -> TimerState:
        detail = self.config.cron or ""
        if self.config.cron is not None:
            detail += f" {self.config.timezone}"
        elif self.config.every is not None:
            detail = f"every {self.config.every:g} s"
        elif self.raised_ns:
            moment = datetime.fromtimestamp(self.last_ns // SECOND_NS, UTC)
            detail = f"no message on {self.config.topic} since {moment:%Y-%m-%d %H:%M:%S} UTC"
        else:
            detail = f"messages on {self.config.topic}"
        silent_since = self.last_ns if self.raised_ns else None
        return TimerState(self.name, self.kind, due, self.paused, detail, silent_since)


class TimedStart(NamedTuple):
    """A timer that starts tasks."""

    selector: TaskSelector
    reload: ReloadOptions
    state: TimerState


class Timers:
    """All timers. Not thread-safe: the state store's lock guards it."""

    def __init__(
        self,
        configs: Sequence[TimerConfig],
        *,
        service_name: str = "",
        stopped: Collection[str] = (),
    ) -> None:
        """Compile all; raises ``ConfigError``. ``stopped``: those that are paused at first."""
        self._stopped = frozenset(stopped)
        self._own_prefix = f"{service_name}/"
        self.timers = {one.name: Timer(one, number) for number, one in enumerate(configs, 1)}
        self._watches = [one for one in self.timers.values() if one.config.silence is not None]
        self._due: dict[str, int | None] = {}

    def load(self, marks: Mapping[str, int], now: int) -> None:
        """Take up what was kept; timers that are new begin now."""
        for timer in self.timers.values():
            timer.last_ns = marks.get(timer.key, now)
            timer.paused = bool(marks.get(f"paused:{timer.name}", timer.name in self._stopped))
            timer.raised_ns = marks.get(f"raised:{timer.name}", 0)
            if timer.config.silence is not None and not timer.raised_ns:
                # While the appliance was down it could hear no message.
                timer.last_ns = now
            self._due[timer.name] = timer.due_ns()

    def take_over(self, before: Timers, marks: Mapping[str, int], now: int) -> list[Timer]:
        """Replace other timers: a timer that stays the same goes on where it stands.

        Timers without a predecessor are taken up from ``marks`` as ``load`` does. Returns the
        silence watches whose alarm ends because they are gone or watch something else now.
        """
        self.load(marks, now)
        over: list[Timer] = []
        for name, old in before.timers.items():
            new = self.timers.get(name)
            if new is not None and new.key == old.key and new.config.topic == old.config.topic:
                new.last_ns, new.paused, new.raised_ns = old.last_ns, old.paused, old.raised_ns
            else:
                if old.raised_ns:
                    over.append(old)
                if new is not None:
                    new.raised_ns = 0
                    new.last_ns = now if new.config.silence is not None else new.last_ns
            if new is not None:
                self._due[name] = new.due_ns()
        return over

    def marks(self, timer: Timer) -> dict[str, int]:
        """What has to be kept of a timer."""
        return {
            timer.key: timer.last_ns,
            f"paused:{timer.name}": int(timer.paused),
            f"raised:{timer.name}": timer.raised_ns,
        }

    def next_due(self) -> int | None:
        """When ``take_due`` has something to do."""
        return min((due for due in self._due.values() if due is not None), default=None)

    def follow_step(self, step_ns: int) -> None:
        """The clock was set by this; the marks of all timers are to be kept."""
        for timer in self.timers.values():
            timer.shift(step_ns)
            self._due[timer.name] = timer.due_ns()

    def take_due(
        self, now: int, is_held: Callable[[str], bool] = lambda _name: False
    ) -> tuple[list[Firing], list[Timer]]:
        """The firings that are due, and all timers that moved on: their marks are to be kept.

        A silence watch that ``is_held`` raises no alarm; a schedule fires, and its start waits.
        """
        firings: list[Firing] = []
        moved: list[Timer] = []
        for timer in self.timers.values():
            if timer.follow_clock(now):
                self._due[timer.name] = timer.due_ns()
                moved.append(timer)
            due = self._due[timer.name]
            if due is None or due > now:
                continue
            moved.append(timer)
            if timer.config.silence is not None:
                if timer.paused or is_held(timer.name):
                    timer.last_ns = now
                else:
                    timer.raised_ns = now
                    firings.append(Firing(timer, due))
            else:
                in_time = now - due <= LATE_S * SECOND_NS
                timer.skip_to(max(now, due))
                if not timer.paused and (in_time or timer.config.catch_up):
                    firings.append(Firing(timer, due))
            self._due[timer.name] = timer.due_ns()
        return firings, moved

    def raise_now(self, timer: Timer, now: int) -> None:
        """Raise a silence watch's alarm before its time; the next message clears it as usual."""
        timer.raised_ns = now
        self._due[timer.name] = timer.due_ns()

    @property
    def watches_anything(self) -> bool:
        """Whether there is any silence watch at all."""
        return bool(self._watches)

    def concern(self, topic: str) -> bool:
        """Whether a silence watch listens on a topic."""
        return any(self._is_heard(timer, topic) for timer in self._watches)

    def heard(self, topic: str, at_ns: int) -> list[Firing]:
        """A message came; returns the alarms that are over by it."""
        over = []
        for timer in self._watches:
            if not self._is_heard(timer, topic):
                continue
            timer.last_ns = max(timer.last_ns, at_ns)
            if timer.raised_ns:
                timer.raised_ns = 0
                over.append(Firing(timer, at_ns))
            self._due[timer.name] = timer.due_ns()
        return over

    def _is_heard(self, timer: Timer, topic: str) -> bool:
        """The appliance's own messages break no silence unless the filter names its topics."""
        wanted = timer.config.topic
        assert wanted is not None
        if topic.startswith(self._own_prefix) and not wanted.startswith(self._own_prefix):
            return False
        return matches(wanted, topic)

    def pause(self, name: str, now: int, *, paused: bool) -> Timer | None:
        """Pause a timer or let it go on from now; the times between are left out."""
        timer = self.timers.get(name)
        if timer is not None:
            timer.paused = paused
            if not paused and not timer.raised_ns:
                timer.skip_to(now)
            self._due[name] = timer.due_ns()
        return timer

    def timed_starts(self) -> list[TimedStart]:
        """The timers that start tasks, paused ones too."""
        return [
            TimedStart(
                timer.selector,
                timer.reload,
                timer.state(None if timer.paused else self._due.get(timer.name)),
            )
            for timer in list(self.timers.values())
            if timer.selector is not None
        ]

    def states(self) -> tuple[TimerState, ...]:
        """All timers with their countdown."""
        return tuple(
            timer.state(None if timer.paused else self._due.get(timer.name))
            for timer in self.timers.values()
        )
