"""Paths of values in a JSON payload: ``data.list[0].temp``.

Keys stand one behind the other with dots, numbers of elements in brackets (from 0). A key with a
dot, bracket, quote or blank stands in double quotes, with the escapes of JSON:
``"a.b"[2]."the key"``. ``$`` is the payload itself.
Not for: finding the values (recorders/rows.py).
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

Path = tuple[str | int, ...]
"""The keys and numbers from the outermost on; empty: the payload itself."""

MAX_STEPS = 50

_STEP = re.compile(
    r"""(?:(?P<dot>\.)? (?: (?P<key>[^.\[\]"\s]+) | (?P<quoted>"(?:[^"\\]|\\.)*") ))
        | \[ (?P<number>[0-9]{1,9}) \]""",
    re.VERBOSE,
)


@lru_cache(maxsize=1024)
def parse_path(text: str) -> Path:
    """Read a path.

    Raises:
        ValueError: it is none; the text says where it ends to be one.
    """
    if text in {"$", ""}:
        if text:
            return ()
        raise ValueError('it is empty; "$" is the payload itself')
    rest = text[1:] if text.startswith(("$.", "$[")) else text
    if rest is not text and rest.startswith("."):
        rest = rest[1:]
    steps: list[str | int] = []
    at = 0
    while at < len(rest):
        found = _STEP.match(rest, at)
        number = found["number"] if found else None
        # A dot stands between two keys, and only there.
        if found is None or (number is None and (found["dot"] is None) != (at == 0)):
            raise ValueError(
                f'it is no path from "{rest[at : at + 20]}" on; write for example a.b[0].c, with'
                ' quotes around a key that has a dot: "a.b".c'
            )
        if number is not None:
            steps.append(int(number))
        elif found["key"] is not None:
            steps.append(found["key"])
        else:
            steps.append(_unquoted(found["quoted"]))
        at = found.end()
    if len(steps) > MAX_STEPS:
        raise ValueError(f"it has more than {MAX_STEPS} steps")
    return tuple(steps)


def _unquoted(quoted: str) -> str:
    try:
        return msgspec.json.decode(quoted, type=str)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{quoted} is no JSON string: {error}") from None
