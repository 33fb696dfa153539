"""When a hold ends, as an operator writes it: for how long, or until when.

Not for: times in the past, which filters ask for (filter_text.py).
"""

from __future__ import annotations

import re

from appliance.ui.filter_text import moment

FORMS = "2h, 06:00, 2026-12-01 06:00"
_LONGEST_S = 10 * 366 * 86400
_DAY_NS = 86400 * 10**9
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
    is_time_of_day = re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", bare) is not None
    try:
        # A time of day is the last one before the time that is given: before this time tomorrow.
        base_ns = now_ns + _DAY_NS if is_time_of_day else now_ns
        return moment(bare.upper().replace(" ", "T"), base_ns, utc=utc)
    except (ValueError, OverflowError, OSError):
        raise HoldEndError(f"{text.strip()} is no time; write {FORMS}, or nothing") from None
