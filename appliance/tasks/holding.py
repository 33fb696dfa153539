"""What an operator may hold and release: names are looked up, the hold is noted and told.

Not for: the holds themselves (holds.py), what they do to requests (dispatcher.py), to timers
(schedule.py) and to clients (broker/connect.py).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime

from appliance.engine_api import HOLD_KINDS, Holds, HoldState, who
from appliance.errors import UnavailableError, UsageError
from appliance.log.sanitize import escape
from appliance.model import APP, Task
from appliance.qlik.server import QlikError
from appliance.tasks.catalog import TaskList
from appliance.tasks.consumer import JournalConsumer
from appliance.tasks.holds import MAX_BYTES, MAX_HOLDS, Hold, TooManyHoldsError
from appliance.tasks.schedule import Timing
from appliance.tasks.selector import TaskSelector, task_id
from appliance.tasks.state_store import StateStore
from appliance.tasks.task_index import ambiguity, close_name

MAX_REASON = 200
"""Characters of a reason."""
MAX_NAME = 1024
"""Characters of a name, as many as a client id may have."""
_NAMED = 5
_LONGEST_NS = 100 * 366 * 86400 * 10**9
"""Later ends could not be stored after the clock was set."""
_log = logging.getLogger(__name__)


class Holding:
    """Holds at work. Methods may be called from any thread."""

    def __init__(
        self,
        state: StateStore,
        consumer: JournalConsumer,
        timing: Timing,
        tasks: TaskList,
        *,
        has_server: bool,
    ) -> None:
        self._state = state
        self._consumer = consumer
        self._timing = timing
        self._tasks = tasks
        self._has_server = has_server

    def holds(self) -> Holds:
        """What is held, and what time it is."""
        return Holds(self._state.clock_ns(), self._state.views.holds)

    def held_client(self, client_id: str) -> str | None:
        """Why a client may not connect, ``None`` if nobody holds it."""
        holds = self._state.planner.dispatcher.holds
        if not holds or (found := holds.of_client(client_id, self._state.clock_ns())) is None:
            return None
        until = "" if found.until_ns is None else f" until {_time(found.until_ns)}"
        reason = f": {found.reason}" if found.reason else ""
        return f"this client is held{until} by {who(found.by)}{reason}"

    def hold(  # noqa: PLR0917 - what an operator says, in one
        self, kind: str, name: str, until_ns: int | None, reason: str, drop: bool, by: str
    ) -> HoldState:
        """Hold something, or change its hold.

        Raises:
            UsageError: there is no such thing, or the end is over or too far away.
            UnavailableError, NotNotedError: it can't be noted.
        """
        reason = " ".join(reason.split())
        if len(reason) > MAX_REASON:
            raise UsageError(
                f"The reason has {len(reason)} characters; it has {MAX_REASON} at most."
            )
        if drop and kind == "client":
            raise UsageError("A held client can't connect, so there is nothing to drop.")
        name, title = self._found(kind, name)
        now = self._state.clock_ns()
        if until_ns is not None and until_ns <= now:
            raise UsageError(f"The end of the hold, {_time(until_ns)}, is over. Name a later time.")
        if until_ns is not None and until_ns - now > _LONGEST_NS:
            raise UsageError(
                "The end of the hold is more than 100 years away. Leave it out: the hold ends when "
                "it is released."
            )
        wanted = Hold(kind, name, until_ns, reason, by, now, drop, title)
        with self._state.noted("The hold") as planner:
            before = planner.dispatcher.holds.get(kind, name)
            try:
                hold = planner.hold(wanted, now)
            except TooManyHoldsError:
                raise UsageError(
                    f"There are {len(planner.dispatcher.holds)} holds, and no room for this one: "
                    f"{MAX_HOLDS} at most, with {MAX_BYTES // 1024} KiB of names and reasons in "
                    "all. Release some of them."
                ) from None
        changed = "" if before is None else f" (before: by {before.by}{_told(before)})"
        _log.warning("%s holds %s%s%s", by, hold.shown, _told(hold), changed)
        return self._state_of(hold)

    def release(self, kind: str, name: str, by: str) -> HoldState:
        """End a hold; returns it as it was.

        Raises:
            UsageError: nothing of that name is held.
            UnavailableError, NotNotedError: it can't be noted.
        """
        with self._state.noted("The release") as planner:
            key = self._held(kind, name)
            if key is None:
                raise UsageError(self._not_held(kind, name))
            before = next(one for one in self._state_now() if (one.kind, one.name) == key)
            planner.release(*key, self._state.clock_ns())
        _log.info("%s releases %s; starts that waited: %d", by, before.shown, before.waiting)
        return before

    def _state_now(self) -> tuple[HoldState, ...]:
        return self._state.planner.dispatcher.hold_states()

    def _state_of(self, hold: Hold) -> HoldState:
        return next(
            (one for one in self._state.views.holds if (one.kind, one.name) == hold.key),
            hold.state(0),
        )

    # --- names --------------------------------------------------------------------------------

    def _found(self, kind: str, name: str) -> tuple[str, str]:
        """The name by which a thing is held, and its title. Raises ``UsageError``."""
        if kind not in HOLD_KINDS:
            raise UsageError(f'"{escape(kind)}" can\'t be held; there are {", ".join(HOLD_KINDS)}.')
        if kind == "everything":
            if name:
                raise UsageError("Everything has no name; leave it out.")
            return "", ""
        if not name or len(name) > MAX_NAME:
            raise UsageError(f"Name the {kind}, with {MAX_NAME} characters at most.")
        match kind:
            case "task":
                task = self._task(name)
                return task.id, task.name
            case "trigger":
                _check(kind, name, (one.name for one in self._consumer.rules()))
            case "timer":
                _check(kind, name, (one.name for one in self._timing.states()))
            case _ if name.startswith("$"):
                raise UsageError(
                    f'"{escape(name)}" is no client that connects: no client id begins with $. '
                    "Nothing is held."
                )
            case _:
                pass  # A client that never came may be kept out, too.
        return name, ""

    def _task(self, name: str) -> Task:
        """The task with this id or name."""
        if not self._has_server:
            raise UnavailableError("No Qlik server is configured: add a [qlik] table.")
        wanted = task_id(name) or (name if name.startswith(APP) else "")
        selector = TaskSelector("id", wanted) if wanted else TaskSelector("name", name)
        if wanted and (known := self._tasks.known(wanted)) is not None:
            return known
        if not wanted and len(found := self._tasks.find_known(selector)) == 1:
            return found[0]
        try:
            found = self._tasks.find(selector)
            if not found and wanted and (app := self._tasks.details(wanted)) is not None:
                found = [app]
        except QlikError as error:
            raise UnavailableError(
                f"The server can't be asked for {selector.text} now, and nothing is held: {error}"
            ) from None
        if (problem := ambiguity(selector, found)) is not None:
            text = problem.reason.replace("Nothing was started", "Nothing is held")
            raise UsageError(text)
        if not found:
            similar = self._tasks.similar(selector)
            hint = f' Did you mean "{similar}"?' if similar else ""
            raise UsageError(f"The server lists no {selector.text}.{hint} Nothing is held.")
        return found[0]

    def _held(self, kind: str, name: str) -> tuple[str, str] | None:
        """The key of a hold: a task may have been given by its name. Raises ``UsageError``."""
        holds = self._state.planner.dispatcher.holds
        if holds.get(kind, name) is not None:
            return kind, name
        if kind != "task":
            return None
        if (wanted := task_id(name)) and holds.get(kind, wanted) is not None:
            return kind, wanted
        found = [one.key for one in holds.all() if one.kind == kind and one.title == name]
        if len(found) > 1:
            ids = ", ".join(number for _, number in found[:_NAMED])
            more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
            raise UsageError(
                f'{len(found)} tasks with the name "{escape(name)}" are held: {ids}{more}. Name '
                "one by its id. Nothing is released."
            )
        return found[0] if found else None

    def _not_held(self, kind: str, name: str) -> str:
        held = self._state.planner.dispatcher.holds.all()
        shown = ", ".join(one.shown for one in held[:_NAMED])
        more = f" and {len(held) - _NAMED} more" if len(held) > _NAMED else ""
        present = f" What is held: {shown}{more}." if held else ""
        return f"Nothing holds {' '.join(filter(None, (kind, escape(name))))}.{present}"


def _check(kind: str, name: str, known: Iterable[str]) -> None:
    names = list(known)
    if name not in names:
        similar = close_name(name, names)
        hint = f' Did you mean "{similar}"?' if similar else ""
        raise UsageError(
            f'The configuration has no {kind} "{escape(name)}".{hint} Nothing is held.'
        )


def _told(hold: Hold) -> str:
    until = "" if hold.until_ns is None else f" until {_time(hold.until_ns)}"
    drop = "; what asks for a start meanwhile is dropped" if hold.drop else ""
    return f"{until}: {hold.reason or 'no reason is given'}{drop}"


def _time(at_ns: int) -> str:
    """A time of day with its date, as the machine of the appliance shows it."""
    # A time without a zone near 1970 is refused by Windows.
    return f"{datetime.fromtimestamp(at_ns // 10**9, UTC).astimezone():%Y-%m-%d %H:%M:%S %Z}"
