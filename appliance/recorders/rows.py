"""Which rows a message gives: one, or with ``flatten`` one for each element of its list.

A row is the JSON text of its value, so numbers keep their digits. Not for: columns
(table_maker.py), the text of a file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from appliance.config.value_path import Path
from appliance.model import Message
from appliance.recorders.payload import MAX_DEPTH, json_value, nesting

MAX_ELEMENTS = 100_000
"""A longer list is not flattened: a payload of 1 MB could give half a million rows."""
_ROWS_TOGETHER = 50_000

_SHORT = 2 * MAX_DEPTH
_elements = msgspec.json.Decoder(list[msgspec.Raw])
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_format = msgspec.json.format


class Rows(msgspec.Struct, gc=False):
    """The rows of several messages, in order."""

    texts: list[bytes]
    """The payload, or the element of it."""
    messages: Sequence[Message]
    """The message of each row."""
    items: list[int]
    """The place of each row in its message."""


def make_rows(messages: Sequence[Message], *, flatten: bool) -> Rows:
    """The rows of messages. A list without elements gives none."""
    if not flatten:
        return Rows([one.payload for one in messages], messages, [0] * len(messages))
    rows = Rows([], owners := [], [])
    for message in messages:
        elements = elements_of(message.payload)
        if elements is None:
            rows.texts.append(message.payload)
            owners.append(message)
            rows.items.append(0)
        else:
            rows.texts.extend(elements)
            owners.extend([message] * len(elements))
            rows.items.extend(range(len(elements)))
    return rows


def elements_of(payload: bytes) -> list[bytes] | None:
    """The JSON texts of a list's elements; ``None``: the payload is no JSON list, or too long."""
    if payload[:1] != b"[" and payload.lstrip(b" \t\r\n")[:1] != b"[":
        return None
    if is_too_deep(payload):
        return None
    try:
        # ``Raw`` does not look into texts and numbers; ``format`` does.
        if not payload.isascii():
            payload.decode()
        _format(payload, indent=0)
        found = _elements.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return [bytes(element) for element in found] if len(found) <= MAX_ELEMENTS else None


def in_pieces(messages: Sequence[Message], last: int) -> Iterator[tuple[Sequence[Message], int]]:
    """Divide messages so that ``flatten`` gives no more rows at a time than memory takes.

    Yields:
        Messages, and the number up to which every message is processed with them.
    """
    start, rows = 0, 0
    for number, message in enumerate(messages):
        more = message.payload.count(b",") + 1
        if rows + more > _ROWS_TOGETHER and number > start:
            yield messages[start:number], messages[number - 1].seq
            start, rows = number, 0
        rows += more
    yield messages[start:], last


def is_too_deep(payload: bytes) -> bool:
    """Whether a payload is nested deeper than a recording holds as JSON."""
    return (
        len(payload) > _SHORT
        and payload.count(b"[") + payload.count(b"{") > MAX_DEPTH
        and nesting(payload) > MAX_DEPTH
    )


def members_of(text: bytes) -> dict[str, msgspec.Raw]:
    """Keys and JSON texts of a JSON object; of a key that comes twice, the last."""
    return _members.decode(text)


def has_repeated_keys(text: bytes, members: Mapping[str, object]) -> bool:
    """Whether a JSON object has a key more than once on its first level.

    Args:
        text: the object.
        members: its different keys.
    """
    if text.count(b":") == len(members):  # each key has a colon
        return False
    # Without white space, the length is that of the keys, values and marks if each came once and
    # keys have no escapes that they could do without. A key that came twice makes it longer.
    compact = _format(text, indent=-1)
    values = sum(map(len, _members.decode(compact).values()))
    length = len(compact) - values - 2 * len(members) - 1
    joined = "".join(members).replace("\x7f", "_")  # ``json`` escapes it without need
    keys = json.dumps(joined, ensure_ascii=compact.isascii()).encode()
    if length == len(keys) - 2 + 2 * len(members):
        return False
    # Other escapes, or repeated keys. This is slower, and exact.
    found = 0

    def count(pairs: list[tuple[str, object]]) -> None:
        nonlocal found
        found = len(pairs)  # the outermost object comes last

    json.loads(text, object_pairs_hook=count, parse_int=len, parse_float=len)
    return found != len(members)


def find_value(value: Any, path: Path) -> Any:
    """The value at a path, ``None`` if there is none."""
    for step in path:
        if isinstance(step, str):
            value = value.get(step) if type(value) is dict else None
        else:
            value = value[step] if type(value) is list and step < len(value) else None
    return value


def find_text(text: bytes, path: Path) -> bytes | None:
    """The JSON text of the value at a path, ``None`` if there is none; ``text`` is valid JSON."""
    for step in path:
        start = text.lstrip(b" \t\r\n")[:1]
        if isinstance(step, str):
            found = _members.decode(text).get(step) if start == b"{" else None
        else:
            elements = _elements.decode(text) if start == b"[" else []
            found = elements[step] if step < len(elements) else None
        if found is None:
            return None
        text = bytes(found)
    return text


def whole_text(payload: bytes) -> str:
    """A payload as one text: a text as it is, JSON on one line, other bytes as ``$base64``.

    It has no NUL: a text with one is written as ``{"$text": "..."}``.
    """
    value = json_value(payload, indent=False)
    if value.startswith(b'{"$text": ') and b"\0" not in payload:
        return payload.decode()
    return value.decode()
