"""When a hold ends, as an operator writes it: for how long, or until when.

Not for: times in the past, which filters ask for (filter_text.py).
"""

from __future__ import annotations

import re

from appliance.time_of_day import next_time
from appliance.ui.filter_text import moment, time_of_day

FORMS = "2h, 06:00, 2026-12-01 06:00"
_LONGEST_S = 10 * 366 * 86400
_FOR = re.compile(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m(?:in)?)?(?:(\d{1,9})s)?")
_SECONDS = (86400, 3600, 60, 1)


class HoldEndError(ValueError):
    """The text is no such time; ``str()`` says what is."""


def parse(text: str, now_ns: int, *, utc: bool) -> int | None:
    """Nanoseconds since 1970 of ``2h``, ``06:00`` (the next) or a date; ``None`` if it is empty.

    Raises:
        HoldEndError: it is none of these, has passed, or is more than ten years away.
    """
    words = text.strip().casefold()
    if not words:
        return None
    bare = words.removeprefix("until ").removeprefix("for ").strip()
    if (found := _FOR.fullmatch(bare.replace(" ", ""))) is not None:
        seconds = sum(
            int(number) * each for number, each in zip(found.groups("0"), _SECONDS, strict=True)
        )
        end_ns = now_ns + seconds * 10**9
    else:
        end_ns = _moment(bare, text, now_ns, utc=utc)
    if end_ns <= now_ns:
        raise HoldEndError(f"{text.strip()} has passed already; write {FORMS}")
    if end_ns - now_ns > _LONGEST_S * 10**9:
        raise HoldEndError(f"{text.strip()} is more than ten years away; leave it empty instead")
    return end_ns


def _moment(bare: str, text: str, now_ns: int, *, utc: bool) -> int:
    try:
        if (wanted := time_of_day(bare, utc=utc)) is not None:
            return int(next_time(wanted, now_ns / 10**9)) * 10**9
        return moment(bare.upper().replace(" ", "T"), now_ns, utc=utc)
    except (ValueError, OverflowError, OSError):
        raise HoldEndError(f"{text.strip()} is no time; write {FORMS}, or nothing") from None
