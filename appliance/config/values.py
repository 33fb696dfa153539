"""The types of configuration values beyond TOML's own, and how the file writes them.

Not for: the type of each key (tables.py), nor relative paths and ``${ENV}`` (decoder.py), which
need to know the file.
"""

from __future__ import annotations

import contextlib
import ipaddress
import math
import re
from datetime import datetime
from typing import NamedTuple


class Duration(float):
    """Seconds. Written as ``"250ms"``, ``"10s"``, ``"15m"``, ``"2h"``, ``"30d"`` or ``"1h30m"``."""

    __slots__ = ()


class Size(int):
    """Bytes. Written as a number or ``"64KB"``, ``"1MiB"``, ``"10GB"`` (KB = 1000, KiB = 1024)."""

    __slots__ = ()


class TopicFilter(str):
    """A valid MQTT topic filter (MQTT 3.1.1, section 4.7)."""

    __slots__ = ()


class ReadPath(str):
    """A file that is read; relative to the config file's folder, absolute after loading."""

    __slots__ = ()


class WritePath(str):
    """A file that is written; relative to ``service.data_dir``, absolute after loading."""

    __slots__ = ()


class FolderPath(str):
    """A folder; relative to the config file's folder, absolute after loading."""

    __slots__ = ()


class DatabaseUrl(str):
    """The address of a database. ``${NAME}`` is filled in; it has no password after loading."""

    __slots__ = ()


class Settings(dict[str, object]):
    """Settings of something that is not the appliance's own: TOML values as they stand.

    ``${NAME}`` is filled in, a text that may be a secret is a ``Secret``, and the text of a key
    that ends in ``_file`` is a ``ReadPath``.
    """

    __slots__ = ()


class Bounds(NamedTuple):
    """An annotation of a key: its smallest and its largest value."""

    low: float
    high: float | None = None
    beyond: str = ""
    """Why a larger value is refused, and what to do; by default the largest one is named."""


class Example(NamedTuple):
    """An annotation of a key: an example for messages and docs/configuration.md."""

    example: str


_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?", re.IGNORECASE)
_BYTES = {
    "": 1,
    "k": 1000,
    "ki": 1024,
    "m": 1000**2,
    "mi": 1024**2,
    "g": 1000**3,
    "gi": 1024**3,
    "t": 1000**4,
    "ti": 1024**4,
}
_CENTURY_S = 100 * 365.25 * 86400
_LARGEST_SIZE = 2**62


def parse_duration(text: str) -> Duration:
    """The seconds of ``text``, e.g. ``"1h30m"``. Raises ``ValueError`` with a text for the user."""
    total = 0.0
    end = 0
    stripped = text.strip()
    for part in _DURATION_PART.finditer(stripped):
        if stripped[end : part.start()].strip():
            break
        total += float(part[1]) * _SECONDS[part[2]]
        end = part.end()
    if not end or stripped[end:].strip():
        raise ValueError('not a duration; write for example "250ms", "10s", "15m" or "1h30m"')
    if not math.isfinite(total) or total > _CENTURY_S:
        raise ValueError("longer than a hundred years; write a shorter time")
    return Duration(total)


def parse_moment(text: str, now_ns: int) -> int:
    """A time in ns since 1970: so long ago (``24h``), or a date and time (local without a zone).

    Raises ``ValueError`` with a text for the user.
    """
    with contextlib.suppress(ValueError):
        return now_ns - int(parse_duration(text) * 1e9)
    try:
        moment = datetime.fromisoformat(text.strip()).astimezone()
        whole = int(moment.replace(microsecond=0).timestamp())
        return whole * 1_000_000_000 + moment.microsecond * 1000
    except (ValueError, OverflowError, OSError):
        raise ValueError(
            'write how long ago, for example "24h", or a time, for example "2026-11-29T06:00" or'
            ' "2026-11-29T06:00Z"'
        ) from None


def parse_size(text: str) -> Size:
    """The bytes of ``text``, e.g. ``"64KB"``. Raises ``ValueError`` with a text for the user."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError('not a size; write for example "64KB", "1MiB" or "10GB"')
    total = float(match[1]) * _BYTES[(match[2] or "").lower()]
    if not total <= _LARGEST_SIZE:
        raise ValueError("more than any disk holds; write a smaller size")
    return Size(total)


def format_duration(seconds: float) -> str:
    """``5400.0`` as ``"1h30m"``: the form that ``parse_duration`` reads, in whole milliseconds."""
    left = round(seconds * 1000)
    if left == 0:
        return "0s"
    parts: list[str] = []
    for unit, unit_ms in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        count, left = divmod(left, unit_ms)
        if count:
            parts.append(f"{count}{unit}")
    if left:
        parts.append(f"{left}ms")
    return "".join(parts)


def format_size(size: int) -> str:
    """``65536`` as ``"64KiB"``: the shortest whole form that ``parse_size`` reads."""
    for unit, factor in (
        ("TB", 1000**4), ("TiB", 1024**4), ("GB", 1000**3), ("GiB", 1024**3),
        ("MB", 1000**2), ("MiB", 1024**2), ("KB", 1000), ("KiB", 1024),
    ):  # fmt: skip
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return f"{size}B"


def parse_bind(bind: str) -> tuple[str, int]:
    """Split ``"host:port"`` or ``"[::1]:port"``. Raises ``ValueError`` with a text for the user.

    Port 0 asks the operating system for a free one.
    """
    host, colon, port = bind.rpartition(":")
    if not colon or not host:
        raise ValueError('not an address; write "host:port", for example "127.0.0.1:1883"')
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError('write an IPv6 address in brackets, for example "[::1]:1883"')
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("the port is a number from 0 to 65535; MQTT's own is 1883, with TLS 8883")
    if host == "*":
        raise ValueError('write "0.0.0.0" for every IPv4 address, "[::]" for every IPv6 address')
    if not re.fullmatch(r"[0-9A-Za-z_.:%-]+", host):
        raise ValueError('not a host name or address; write for example "127.0.0.1:1883"')
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host`` (``localhost``, 127.0.0.0/8, ``::1``).

    Any other name counts as reachable from outside, because its address can change.
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
