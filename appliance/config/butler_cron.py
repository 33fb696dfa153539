"""Schedules in the form of Butler's library (npm ``cron``) as those of ``[[timer]]``.

That library has five fields, or six with leading seconds, and words such as ``@daily``.
Not for: the rest of an entry (commands/from_butler/schedules.py, engine/schedules.py).
"""

from __future__ import annotations

import re

import msgspec

from appliance.config.timer_checks import cron_problem

_WORDS = {
    "@yearly": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@hourly": "0 * * * *",
    "@minutely": "* * * * *",
    "@weekdays": "0 0 * * 1-5",
    "@weekends": "0 0 * * 0,6",
}
_EVERY = re.compile(r"\*/([1-9][0-9]?)")
_SECONDS_OF_A_MINUTE = 60


class Times(msgspec.Struct, frozen=True):
    """When a timer fires: one of ``cron`` and ``every``, or neither with a ``problem``."""

    cron: str = ""
    every: str = ""
    problem: str = ""
    remark: str = ""
    """How it differs from the text."""


def read(text: str) -> Times:
    """The times that a text of Butler's schedules means."""
    fields = _WORDS.get(text.strip().lower(), text).split()
    remark = ""
    if text.strip().lower() == "@secondly":
        fields = ["*"] * 6
    if len(fields) == 6:  # with leading seconds
        seconds, *fields = fields
        if fields == ["*"] * 5 and (every := _interval(seconds)):
            return Times(every=every)
        if not seconds.isdecimal():
            return Times(
                problem="it fires at several seconds of a minute, and a timer has whole minutes or "
                "`every`"
            )
        if int(seconds):
            remark = f"it fires at second 0 of the minute, not at second {int(seconds)}"
    cron = " ".join(fields)
    if problem := cron_problem(cron):
        return Times(problem=problem)
    of_month, of_week = fields[2], fields[4]
    if "*" not in (of_month, of_week) and "*" in of_month[0] + of_week[0]:
        remark = (
            "both days have to fit here; with Butler one of them is enough, because its library "
            "takes */N for a list"
        )
    return Times(cron=cron, remark=remark)


def _interval(seconds: str) -> str:
    """``"30s"`` for ``*/30``: seconds that are the same distance apart in every minute."""
    if seconds == "*":
        return "1s"
    match = _EVERY.fullmatch(seconds)
    if match and _SECONDS_OF_A_MINUTE % int(match[1]) == 0:
        return f"{match[1]}s"
    return ""
