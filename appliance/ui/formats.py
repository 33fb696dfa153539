"""Times, durations, sizes, numbers and bars as text.

Not for: reading the clock; every function gets its time as an argument.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from functools import lru_cache

from appliance.engine_api import RecorderState

SECOND_NS = 1_000_000_000
_GATHERING = 1000
"""Messages: a twentieth of a second at twenty thousand a second."""
_DAY_S = 86400


@lru_cache(maxsize=4096)
def _second(second: int, form: str, utc: bool) -> str:
    moment = time.gmtime(second) if utc else time.localtime(second)
    return time.strftime(form, moment)


def time_of_day(at_ns: int, *, utc: bool) -> str:
    """``14:03:21``."""
    return _second(at_ns // SECOND_NS, "%H:%M:%S", utc)


def time_with_ms(at_ns: int, *, utc: bool) -> str:
    """``14:03:21.107``."""
    return f"{time_of_day(at_ns, utc=utc)}.{at_ns // 1_000_000 % 1000:03d}"


def date_and_time(at_ns: int, *, utc: bool) -> str:
    """``2026-11-22 14:03:21.107``, with ``Z`` behind it in UTC."""
    day = _second(at_ns // SECOND_NS, "%Y-%m-%d ", utc)
    return day + time_with_ms(at_ns, utc=utc) + ("Z" if utc else "")


def elapsed(seconds: float) -> str:
    """``0:01``, ``12:07``, ``3:12:07``, ``2d 4h``: for runs and countdowns."""
    whole = max(0, int(seconds))
    if whole >= 2 * _DAY_S:
        return f"{whole // _DAY_S}d {whole % _DAY_S // 3600}h"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{rest:02d}"
    return f"{minutes}:{rest:02d}"


def countdown(seconds: float) -> str:
    """The time that is left, ``0:01`` at least: it has not come yet."""
    return elapsed(max(1, math.ceil(seconds)))


def age(seconds: float) -> str:
    """``now``, ``4s``, ``3m``, ``2h``, ``5d``: how long ago, in five cells at most.

    Whole seconds: a tenth that changes ten times a second makes a screen restless, and costs.
    """
    if seconds < 1:
        return "now"
    for unit, length, limit in (("s", 1, 120), ("m", 60, 7200), ("h", 3600, 2 * _DAY_S)):
        if seconds < limit:
            return f"{int(seconds / length)}{unit}"
    return f"{int(seconds / _DAY_S)}d"


def ago(seconds: float) -> str:
    """``just now``, ``4s ago``."""
    return "just now" if seconds < 1 else f"{age(seconds)} ago"


def took(seconds: float) -> str:
    """``12 ms``, ``3.4 s``, ``1:28``: the duration of something that is over."""
    if seconds < 1:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return elapsed(seconds)


def size(count: int) -> str:
    """``61 B``, ``512 KB``, ``38 GB`` (KB = 1000 bytes)."""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in ("KB", "MB", "GB", "TB"):
        value /= 1000
        if value < 999.5 or unit == "TB":
            break
    return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"


def short_size(count: int) -> str:
    """``38G``: a size for the status line."""
    return size(count).replace(" ", "").removesuffix("B") if count >= 1000 else f"{count}B"


def short_count(count: float) -> str:
    """``7``, ``999``, ``1.2k``, ``12.4M``."""
    if count < 1000:
        return f"{count:.0f}"
    for unit, divisor in (("k", 1e3), ("M", 1e6), ("G", 1e9)):
        value = count / divisor
        if value < 999.5 or unit == "G":
            break
    return f"{value:.1f}{unit}" if value < 99.95 else f"{value:.0f}{unit}"


def rate(per_second: float) -> str:
    """A number a second: ``0.3``, ``12``, ``3.4k``."""
    return f"{per_second:.1f}" if 0 < per_second < 10 else short_count(per_second)


def number(count: int) -> str:
    """``1,204,331``."""
    return f"{count:,}"


def counted(count: int, noun: str, plural: str = "") -> str:
    """``1 topic``, ``1,204 topics``; ``plural`` for a noun that takes no ``s``."""
    return f"{number(count)} {noun if count == 1 else plural or noun + 's'}"


_BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: tuple[float, ...], cells: int) -> str:
    """The last ``cells`` values as bars; the highest is a full block."""
    shown = values[-cells:] if cells > 0 else ()
    top = max(shown, default=0.0)
    if top <= 0:
        return _BLOCKS[0] * len(shown)
    return "".join(_BLOCKS[min(7, int(max(0.0, value) / top * 7.999))] for value in shown)


def bar(fraction: float, cells: int) -> str:
    """A progress bar of exactly ``cells`` cells, without colour: ``███▌······``."""
    fraction = min(1.0, max(0.0, fraction))
    eighths = int(fraction * cells * 8)
    full, rest = divmod(eighths, 8)
    text = "█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")
    return text + "·" * (cells - len(text))


def notable_lag(recorders: Iterable[RecorderState]) -> int:
    """Messages that the slowest recorder is behind; 0 while it keeps up.

    Recorders let messages gather for a twentieth of a second, so a few always wait.
    """
    lag = max((one.lag for one in recorders), default=0)
    return lag if lag > _GATHERING else 0


def target(shown: str, data_dir: str) -> str:
    """What a recorder writes, as the configuration has it: without the data directory."""
    folder = data_dir.replace("\\", "/").rstrip("/") + "/"
    path = shown.replace("\\", "/")
    return path.removeprefix(folder) if data_dir else path
