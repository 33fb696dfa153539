"""When clocks show a time of day next, and when they showed it last.

A day has 23 or 25 hours when clocks are set for the summer. A time that comes twice then is the
nearer one. A time that is left out is as long after midnight as on other days: the clock shows a
later one. Not for: texts that name a time, and schedules (cron).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, time, timedelta


def next_time(wanted: time, now_s: float) -> float:
    """The first time after ``now_s`` at which clocks show it; both in seconds since 1970.

    Local, unless ``wanted`` has a zone. Raises ``OverflowError``, ``OSError`` or ``ValueError`` for
    times that the system can't express.
    """
    return min(found for found in _times(wanted, now_s) if found > now_s)


def last_time(wanted: time, now_s: float) -> float:
    """The last time up to ``now_s``; otherwise as ``next_time``."""
    return max(found for found in _times(wanted, now_s) if found <= now_s)


def _times(wanted: time, now_s: float) -> Iterator[float]:
    today = datetime.fromtimestamp(now_s, wanted.tzinfo).date()
    for days in (-1, 0, 1, 2):
        usual = datetime.combine(today + timedelta(days=days), wanted)
        yield usual.timestamp()
        again_s = usual.replace(fold=1).timestamp()
        # What clocks leave out would be an hour earlier with it, and they don't show it then.
        if datetime.fromtimestamp(again_s, wanted.tzinfo).time() == wanted.replace(tzinfo=None):
            yield again_s
