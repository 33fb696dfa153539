"""The numbers in a payload, each with its path: what can be plotted.

A path is written as in ``fields`` of a recorder (``data.list[0].temp``, ``$`` is the payload
itself); a metric of Sparkplug B has its name as path. ``true`` and ``false`` count as 1 and 0, and
a text that is a number counts as that.
Not for: one value by its path (recorders/rows.py), plots (plot.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from appliance import sparkplug

MAX_NUMBERS = 200
"""Of one payload; the first ones count."""
MAX_PAYLOAD = 1024 * 1024
"""Bytes; a longer payload has no numbers here."""
MAX_DEPTH = 20
MAX_PATH = 256
"""Characters of a path; what has a longer one is left out. A key may be as long as its payload, and
each of the numbers below it would repeat it."""
MAX_SIZE = 1e200
"""A larger number is no measurement, and the sum of many has to be a number."""
WHOLE = "$"

_PLAIN_KEY = re.compile(r'[^.\[\]"\s]+')
_NUMBER = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
_LONGEST_NUMBER = 40


def numbers_in(
    payload: bytes, *, is_sparkplug: bool = False, names: Mapping[int, str] | None = None
) -> dict[str, float]:
    """The numbers of a payload by their paths, in its order; empty if it has none.

    Args:
        payload: any bytes.
        is_sparkplug: whether it is read as Sparkplug B (``sparkplug.is_topic``).
        names: of the aliases there.
    """
    if len(payload) > MAX_PAYLOAD:
        return {}
    found: dict[str, float] = {}
    if is_sparkplug:
        try:
            metrics = sparkplug.read(payload).metrics
        except sparkplug.NotSparkplugError:
            return {}
        for metric in metrics:
            if len(found) >= MAX_NUMBERS:
                break
            _walk_member("", metric.label(names or {}), metric.value, found, 1)
        return found
    try:
        value = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        number = _from_text(payload[: _LONGEST_NUMBER + 1].decode(errors="replace"))
        return {} if number is None else {WHOLE: number}
    _walk("", value, found, 0)
    return found


def key_path(path: str, key: str) -> str:
    """The path of a member of what is at ``path`` (empty: the payload)."""
    step = key if _PLAIN_KEY.fullmatch(key) else json.dumps(key, ensure_ascii=False)
    if not path:
        # At the beginning of a path "$" stands for the payload.
        return json.dumps(key, ensure_ascii=False) if step.startswith("$") else step
    return f"{path}.{step}"


def _walk(path: str, value: Any, found: dict[str, float], depth: int) -> None:
    if len(found) >= MAX_NUMBERS or depth > MAX_DEPTH or len(path) > MAX_PATH:
        return
    if isinstance(value, dict):
        for key, member in value.items():
            _walk_member(path, key, member, found, depth + 1)
    elif isinstance(value, list):
        for place, member in enumerate(value[:MAX_NUMBERS]):
            _walk(f"{path}[{place}]", member, found, depth + 1)
    else:
        number = _number(value)
        if number is not None:
            found[path or WHOLE] = number


def _walk_member(path: str, key: str, value: Any, found: dict[str, float], depth: int) -> None:
    if len(key) <= MAX_PATH:
        _walk(key_path(path, key), value, found, depth)


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        return _from_text(value)
    if not isinstance(value, bool | int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if abs(number) <= MAX_SIZE else None


def _from_text(text: str) -> float | None:
    if len(text) > _LONGEST_NUMBER or not _NUMBER.fullmatch(text):
        return None
    return _number(float(text))
