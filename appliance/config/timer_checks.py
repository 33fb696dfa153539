"""Checks of one ``[[timer]]``: its schedule, its time zone and its action.

The cron library and the time zones are loaded only if a timer uses them.
Not for: the task that a timer names (checks.py), when a timer is due (tasks/timers.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime

from appliance.config.problems import shown
from appliance.config.tables import TimerConfig
from appliance.mqtt.topics import filter_problem, reserved_problem, topic_problem

_WHEN = ("cron", "every", "silence")
TIMER_KEYS = {key: (key, *_WHEN) for key in ("cron", "every", "topic")} | {
    "task": ("task", "publish", *_WHEN),
    "publish.topic": ("publish",),
}
"""The keys that a problem with a key depends on, if not on that key alone."""

_NAME = re.compile(r"[\w .-]{1,60}")


def timer_problems(timer: TimerConfig, service_name: str = "") -> Iterator[tuple[str, str]]:
    """Each problem: a key of the table, and a text with what is wrong and the fix."""
    if not _NAME.fullmatch(timer.name) or not timer.name.strip():
        text = "a name has 1 to 60 letters, digits, blanks, - _ or . only"
        yield "name", f"value {shown(timer.name)}: {text}"
    ways = [key for key in _WHEN if getattr(timer, key) is not None]
    if not ways:
        yield "every", 'this key is missing; write for example every = "15m", or `cron`, `silence`'
    elif len(ways) > 1:
        yield ways[1], f"`{ways[0]}` says when, too; keep one of them"
    if timer.silence is None and timer.topic is not None:
        yield "topic", "it belongs to `silence`, which is missing; remove it or add `silence`"
    if timer.topic is not None and (problem := filter_problem(timer.topic)):
        yield "topic", f"value {shown(timer.topic)}: not a topic filter: {problem}"
    if timer.silence is not None and timer.topic is None:
        yield "topic", 'this key is missing; `silence` needs it; write for example "plant/7/#"'
    if timer.silence is None and timer.task is None and timer.publish is None:
        yield "task", 'the timer does nothing; write for example task = {name = "Reload Sales"}'
    if timer.publish is not None and (
        problem := topic_problem(timer.publish.topic)
        or reserved_problem(timer.publish.topic, service_name)
    ):
        yield "publish.topic", f"value {shown(timer.publish.topic)}: {problem}"
    if timer.timezone != "UTC" and not is_zone(timer.timezone):
        text = 'this time zone is not known here; write for example "Europe/Berlin"'
        yield "timezone", f"value {shown(timer.timezone)}: {text}"
    if timer.cron is not None and (problem := cron_problem(timer.cron)):
        yield "cron", f"value {shown(timer.cron)}: {problem}"


def is_zone(name: str) -> bool:
    """Whether a time zone of this name is known here."""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # noqa: PLC0415  see the docstring above

    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def cron_problem(expression: str) -> str | None:
    """Why a text is no schedule of five fields, and what to write; ``None`` if it is one."""
    from cronsim import CronSim, CronSimError  # noqa: PLC0415  see the docstring above

    fields = "minute, hour, day of month, month, day of week"
    write = f'the five fields are {fields}; write for example "30 6 * * MON-FRI"'
    if len(expression.split()) != 5:
        return write
    try:
        first = next(CronSim(expression, datetime.now(UTC)), None)
    except CronSimError as error:
        return f"{str(error).lower()}; {write}"
    return "this time never comes; " + write if first is None else None
