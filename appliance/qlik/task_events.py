"""What the server starts by itself: its triggers by time, and after other tasks.

Reads the rows of QRS's schema events and composite events (docs/qlik.md, "What the server starts by
itself"), and the schedules of tasks of Qlik Cloud. A row may lack any field.
Not for: requests (client_managed.py, cloud_tasks.py), what the appliance starts (appliance.tasks).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import TypeVar

from appliance.qlik import rows
from appliance.qlik.server import ServerChain, ServerSchedule, TaskEvents

MOST_EVENTS = 10_000
"""Triggers of each kind that are read; sites have as many as they have tasks."""
MOST_OF_A_TASK = 100
"""Triggers of one task and kind, and tasks that one trigger waits for."""
_LONGEST = 100
"""Characters of a schedule in words."""
_LONGEST_NAME = 250

_UNITS = ("", "hour", "day", "week", "month", "")
"""By ``incrementOption``: once, hourly, daily, weekly, monthly, custom."""
_Event = TypeVar("_Event", ServerSchedule, ServerChain)
_PARTS = ((3, "week"), (2, "day"), (1, "hour"), (0, "minute"))
"""Places of ``incrementDescription`` ("minutes hours days weeks") and what they count."""
_COUNT = re.compile(r"\d{1,9}", re.ASCII)
_ENDS = {1: "succeeded", 2: "failed"}
"""``ruleState`` of a composite rule."""


def schedule(row: rows.Row) -> ServerSchedule:
    """A schema event. Its task is empty if the user may not see it."""
    return ServerSchedule(
        task_id=rows.text(rows.session_task(row), "id").lower(),
        name=rows.text(row, "name")[:_LONGEST_NAME],
        enabled=row.get("enabled") is not False,
        text=_words(row),
        next_ns=rows.time_ns(rows.inner(row, "operational").get("nextExecution")),
    )


def _words(row: rows.Row) -> str:
    option = row.get("incrementOption")
    if option == 0:
        return "once"
    zone = rows.text(row, "timeZone")
    parts = rows.text(row, "incrementDescription").split()
    if len(parts) == 4 and all(_COUNT.fullmatch(part) for part in parts):
        steps = [_step(int(parts[place]), unit) for place, unit in _PARTS if int(parts[place])]
        if steps:
            return f"every {' '.join(steps)} {zone}"[:_LONGEST].rstrip()
    unit = _UNITS[option] if isinstance(option, int) and 0 <= option < len(_UNITS) else ""
    return f"{f'every {unit}' if unit else 'by time'} {zone}"[:_LONGEST].rstrip()


def _step(count: int, unit: str) -> str:
    return unit if count == 1 else f"{count} {unit}s"


def chain(row: rows.Row) -> ServerChain:
    """A composite event."""
    after = [
        (task_id, _ENDS.get(rows.number(each, "ruleState"), ""))
        for each in rows.rows(row.get("compositeRules"))
        if (task_id := rows.text(rows.session_task(each), "id").lower())
    ]
    bound = rows.inner(row, "timeConstraint")
    minutes = (rows.number(bound, "days") * 24 + rows.number(bound, "hours")) * 60
    minutes += rows.number(bound, "minutes")
    return ServerChain(
        task_id=rows.text(rows.session_task(row), "id").lower(),
        name=rows.text(row, "name")[:_LONGEST_NAME],
        after=tuple(dict.fromkeys(after))[:MOST_OF_A_TASK],
        enabled=row.get("enabled") is not False,
        within_s=max(0, minutes * 60 + rows.number(bound, "seconds")),
    )


def of_repository(times: Iterable[rows.Row], chains: Iterable[rows.Row]) -> TaskEvents:
    """What the rows of both kinds of events say."""
    schedules, more = _bounded(one for one in map(schedule, times) if one.task_id)
    after, more_chains = _bounded(one for one in map(chain, chains) if one.task_id and one.after)
    return TaskEvents(schedules, after, more + more_chains)


def _bounded(found: Iterable[_Event]) -> tuple[tuple[_Event, ...], int]:
    """The first ones, and how many are left out."""
    kept: list[_Event] = []
    of_task: Counter[str] = Counter()
    left_out = 0
    for one in found:
        of_task[one.task_id] += 1
        if len(kept) < MOST_EVENTS and of_task[one.task_id] <= MOST_OF_A_TASK:
            kept.append(one)
        else:
            left_out += 1
    return tuple(kept), left_out


def of_cloud_task(task_id: str, row: rows.Row) -> ServerSchedule | None:
    """The schedule of a task of Qlik Cloud; ``None`` if it has none."""
    found = rows.inner(rows.inner(row, "start"), "schedule")
    for name in ("cron", "recurrence", "interval"):
        text = _text(found.get(name))
        if text:
            zone = rows.text(found, "timezone")
            return ServerSchedule(task_id, name, text=f"{text} {zone}"[:_LONGEST].rstrip())
    return None


def _text(value: object) -> str:
    """A schedule as the tenant has it: a text, or a list of texts."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return " ".join(each for each in value if isinstance(each, str))
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""
