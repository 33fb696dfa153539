"""What timers do when they are due: ask for starts, publish, raise and clear alarms.

Not for: when they are due (timers.py).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import msgspec

from appliance.counters import Counter
from appliance.engine_api import TimerState
from appliance.errors import UsageError
from appliance.model import Cause, Message
from appliance.tasks.outcomes import time_text
from appliance.tasks.payloads import Rejection
from appliance.tasks.planner import Planner
from appliance.tasks.request_book import SECOND_NS
from appliance.tasks.selector import TaskSelector
from appliance.tasks.state_store import StateStore
from appliance.tasks.store import Publication
from appliance.tasks.timers import Firing, TimedStart, Timer, Timers
from appliance.tasks.triggers import Options

_log = logging.getLogger(__name__)


class Timing:
    """Timers at work. Everything that a firing changes is one change of the state store."""

    def __init__(
        self, state: StateStore, timers: Timers, *, service_name: str, has_server: bool
    ) -> None:
        self._state = state
        self._timers = timers
        self._prefix = f"{service_name}/alarms/"
        self._has_server = has_server

    def open(self) -> None:
        """Take up where the timers stood."""
        self._timers.load(self._state.store.metas(), self._state.clock_ns())
        for timer in self._timers.timers.values():
            # Marks are kept from the beginning: the first time that a schedule misses counts too.
            self._note(timer)

    def take_alarms(self, raised: Mapping[str, tuple[int, int]]) -> None:
        """Take up alarms of which the database does not know: their messages are retained."""
        if not raised:
            return
        with self._state.change():
            for name, (since_ns, heard_ns) in raised.items():
                timer = self._timers.timers.get(name)
                if timer is None or timer.config.silence is None or timer.raised_ns:
                    continue
                timer.last_ns = heard_ns
                self._timers.raise_now(timer, since_ns)
                self._note(timer)

    def take_timers(self, timers: Timers) -> None:
        """Replace the timers; a timer that stays the same goes on where it stands."""
        with self._state.change() as planner:
            self._replace(planner, timers)

    def change_timers(self, timers: Timers, gone: str = "") -> None:
        """``take_timers`` for an operator; what is kept of the timer that is gone is removed.

        Raises:
            UnavailableError: it can't be noted, and nothing was changed.
            NotNotedError: it was changed, and could not be noted.
        """
        with self._state.noted("The schedule") as planner:
            before = self._timers.timers.get(gone)
            self._replace(planner, timers)
            if before is not None:
                planner.book.changes.removed_meta += self._timers.marks(before)

    def _replace(self, planner: Planner, timers: Timers) -> None:
        """Within a change."""
        now = self._state.clock_ns()
        for timer in timers.take_over(self._timers, self._state.store.metas(), now):
            timer.raised_ns = 0
            self._note(timer)
            self._alarm(Firing(timer, now), "cleared")
        self._timers = timers
        planner.book.changes.is_forced = True
        for timer in timers.timers.values():
            self._note(timer)

    def next_due(self) -> int | None:
        """When ``tick`` has something to do. Call under the state store's lock."""
        return self._timers.next_due()

    def follow_step(self, step_ns: int) -> None:
        """The clock was set by this. Within a change."""
        self._timers.follow_step(step_ns)
        for timer in self._timers.timers.values():
            self._note(timer)

    def tick(self, planner: Planner) -> None:
        """Do what is due, within a change."""
        now, holds = self._state.clock_ns(), planner.dispatcher.holds
        firings, moved = self._timers.take_due(
            now, lambda name: holds.of_timer(name, now) is not None
        )
        if moved:
            planner.book.changes.is_forced = True
        for timer in moved:
            self._note(timer)
        for firing in firings:
            try:
                self._do(planner, firing)
            except Exception:  # noqa: BLE001 - one timer's defect is not the other timers'
                name = f"timer {firing.timer.name}"
                _log.exception("An error in the appliance, please report it: %s did nothing", name)
                planner.count(Counter.INTERNAL_ERRORS)
                self._state.internal_errors.set_aside(name)

    def concern(self, topic: str) -> bool:
        """Whether a silence watch listens on a topic."""
        return self._timers.concern(topic)

    def hear(self, messages: Sequence[Message]) -> None:
        """Note that messages came, for the silence watches."""
        if not self._timers.watches_anything:
            return
        watched = [one for one in messages if self._timers.concern(one.topic)]
        if not watched:
            return
        with self._state.lock:
            over: list[Firing] = []
            for message in watched:
                over += self._timers.heard(message.topic, message.received_ns)
            if over:
                with self._state.change():
                    for firing in over:
                        self._note(firing.timer)
                        self._alarm(firing, "cleared")

    def _do(self, planner: Planner, firing: Firing, *, is_by_hand: bool = False) -> None:
        timer = firing.timer
        planner.count(Counter.TIMERS_FIRED)
        if timer.config.silence is not None:
            self._alarm(firing, "raised")
        now = self._state.clock_ns()
        is_held = planner.dispatcher.holds.of_timer(timer.name, now) is not None
        if timer.config.publish is not None and (is_by_hand or not is_held):
            publish = timer.config.publish
            self._state.publish(
                Publication(
                    publish.topic, publish.payload.encode(), publish.retain, content_type=""
                )
            )
        if timer.selector is None:
            return
        if not self._has_server:
            _log.warning("Timer %s: no Qlik server is configured; nothing is started", timer.name)
            return
        cause = Cause("timer", rule=timer.name)
        options = Options(reload=timer.reload)
        answer = planner.ask(timer.selector, options, cause, now)
        if isinstance(answer, Rejection) and not answer.harmless:
            _log.warning("Timer %s: %s", timer.name, answer.reason)

    def _alarm(self, firing: Firing, state: str) -> None:
        timer = firing.timer
        now = self._state.clock_ns()
        body = {
            "timer": timer.name,
            "topic": timer.config.topic,
            "state": state,
            "since": time_text(now),
            "lastHeard": time_text(timer.last_ns),
        }
        self._state.publish(
            Publication(f"{self._prefix}{timer.name}", msgspec.json.encode(body), retain=True)
        )
        if state == "raised":
            silent_s = (now - timer.last_ns) / SECOND_NS
            _log.warning(
                "Timer %s: no message on %s for %.0f s", timer.name, timer.config.topic, silent_s
            )
        else:
            _log.info("Timer %s: the alarm about %s is over", timer.name, timer.config.topic)

    def _note(self, timer: Timer) -> None:
        """Within a change: write where a timer stands."""
        self._state.planner.book.changes.meta.update(self._timers.marks(timer))

    # --- what an operator may do ----------------------------------------------------------------

    def pause(self, name: str, by: str, *, paused: bool) -> bool:
        """Pause a timer or let it go on; returns whether there is one of that name."""
        with self._state.noted("This"):
            timer = self._timers.pause(name, self._state.clock_ns(), paused=paused)
            if timer is None:
                return False
            self._note(timer)
        _log.info("Timer %s was %s by %s", name, "paused" if paused else "let go on", by)
        return True

    def fire(self, name: str, by: str) -> bool:
        """Do now what a timer would do; its schedule stays. Returns whether there is one.

        Raises ``UsageError`` for a silence watch whose alarm is raised already.
        """
        with self._state.noted("This") as planner:
            timer = self._timers.timers.get(name)
            if timer is None:
                return False
            now = self._state.clock_ns()
            if timer.config.silence is not None:
                if timer.raised_ns:
                    raise UsageError(
                        f"The alarm of {name} is raised already; a message on "
                        f"{timer.config.topic} clears it."
                    )
                self._timers.raise_now(timer, now)
                self._note(timer)
            self._do(planner, Firing(timer, now), is_by_hand=True)
        _log.info("Timer %s was fired by %s", name, by)
        return True

    def next_starts(self) -> list[tuple[TaskSelector, int]]:
        """What the timers that are not paused start next, and when."""
        return [
            (timer.selector, due_ns)
            for timer in list(self._timers.timers.values())
            if timer.selector is not None
            and not timer.paused
            and (due_ns := timer.due_ns()) is not None
        ]

    def timed_starts(self) -> list[TimedStart]:
        """The timers that start tasks, paused ones too."""
        return self._timers.timed_starts()

    def states(self) -> tuple[TimerState, ...]:
        """All configured timers with their countdown."""
        # Without the lock: the numbers that are read change one at a time.
        return self._timers.states()
