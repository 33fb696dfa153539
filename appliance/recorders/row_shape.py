"""What the keys of a recorder make of a message in the formats that are text.

``fields`` picks values, ``types`` brings them to a type, named levels and ``time_field`` are added,
``flatten`` makes a row of each element of a list. Values stay JSON text, so numbers keep their
digits. What a row's keys do not hold is in its key ``payload``, with the whole payload.
Not for: typed columns (table_maker.py), the text around a row (json.py, jsonl.py, csv.py).
"""

from __future__ import annotations

import hashlib
import re
from datetime import datetime, timedelta
from typing import Any

import msgspec

from appliance.config.tables import RecorderConfig
from appliance.config.value_path import parse_path
from appliance.model import Message
from appliance.recorders import metadata
from appliance.recorders.kinds import NO_FIT, PINNED
from appliance.recorders.payload import is_wrapped, json_value
from appliance.recorders.rows import (
    elements_of,
    find_text,
    has_repeated_keys,
    members_of,
)

PAYLOAD = "payload"

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - UTC; its text ends with Z
_decode = msgspec.json.decode
_INTEGER = re.compile(rb"-?[0-9]+").fullmatch
_NUMBER = re.compile(rb"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?").fullmatch


class Picked(msgspec.Struct, gc=False):
    """The values of a row."""

    members: dict[str, bytes] | None
    """JSON text by key; ``None``: they are the members of ``value`` as it is."""
    is_whole: bool
    """Whether the payload as a whole belongs to the row, because ``members`` lose something."""


class RowShape:
    """The keys of one recorder. ``name`` tells it from others; the same gives the same rows."""

    def __init__(self, config: RecorderConfig) -> None:
        self.levels = config.levels
        self.time_field = config.time_field
        self._flatten = config.flatten
        self.fields = (
            None
            if config.fields is None
            else {name: parse_path(path) for name, path in config.fields.items()}
        )
        levels = {name for name, _ in config.levels}
        self.types = {k: kind for k, kind in (config.types or {}).items() if k not in levels}
        self._level_types = {k: v for k, v in (config.types or {}).items() if k in levels}
        written = (config.levels, config.time_field, config.flatten, config.fields, config.types)
        self.name = hashlib.sha256(msgspec.json.encode(written)).hexdigest()[:12]
        self._with_metadata = config.metadata
        self._added = frozenset(
            {name for name, _ in config.levels} | {config.time_field, PAYLOAD} - {""}
        )

    def rows(self, message: Message) -> list[bytes]:
        """The payload, or its elements: JSON on one line, wrapped if it is none."""
        if self._flatten:
            elements = elements_of(message.payload)
            if elements is not None:
                return [json_value(element, indent=False) for element in elements]
        return [json_value(message.payload, indent=False)]

    def has_rows(self, message: Message) -> bool:
        return not self._flatten or elements_of(message.payload) != []

    def level_values(self, message: Message) -> list[bytes]:
        """The JSON texts of the topic's named levels; ``null`` where one is not of its type."""
        levels = message.topic.split("/")
        found = []
        for name, number in self.levels:
            text = metadata.json_text(levels[number] if number < len(levels) else "")
            kind = self._level_types.get(name)
            found.append(text if kind is None else typed(text, kind) or b"null")
        return found

    # --- the values of a row ---------------------------------------------------------------------

    def pick(self, value: bytes) -> Picked:
        """The members of a row. ``value`` is what ``rows`` gives."""
        if self.fields is not None:
            is_json = not is_wrapped(value)
            found = {}
            for name, path in self.fields.items():
                text = find_text(value, path) if is_json else None
                if text is not None and text != b"null":
                    found[name] = text
            is_whole = not found
        elif not is_object(value):
            return Picked({}, is_whole=True)
        elif not self.types:
            return Picked(None, is_whole=False)
        else:
            found = {key: bytes(text) for key, text in members_of(value).items()}
            is_whole = has_repeated_keys(value, found)
        for name in self.types.keys() & found.keys():
            fitting = typed(found[name], self.types[name])
            if fitting is None:
                del found[name]
                is_whole = True
            else:
                found[name] = fitting
        return Picked(found, is_whole)

    # --- JSON ------------------------------------------------------------------------------------

    def elements(self, message: Message) -> list[bytes]:
        """The rows as JSON texts, each on one line."""
        return [self._element(message, value) for value in self.rows(message)]

    def _element(self, message: Message, value: bytes) -> bytes:
        picked = self.pick(value)
        members: list[bytes] = []
        if self._with_metadata:
            members.append(metadata.json_fields(message, b", "))
        members += [
            metadata.json_text(name) + b": " + text
            for (name, _), text in zip(self.levels, self.level_values(message), strict=True)
        ]
        if self._with_metadata:
            if not picked.is_whole and picked.members is not None:
                value = b"{" + b", ".join(_pairs(picked.members)) + b"}"
            members.append(b'"payload": ' + value)
        else:
            if not (members or self.time_field or picked.members):
                # Nothing is added to the value.
                return value if self.fields is None else b'{"payload": %b}' % value
            own, is_whole = self._own_members(value, picked)
            members += own
            if is_whole:
                members.append(b'"payload": ' + value)
        if self.time_field:
            time = metadata.iso_time(message.received_ns).encode()
            members.append(metadata.json_text(self.time_field) + b': "%b"' % time)
        return b"{" + b", ".join(members) + b"}"

    def _own_members(self, value: bytes, picked: Picked) -> tuple[list[bytes], bool]:
        """The members beside those that are added, and whether the payload goes with them."""
        found = picked.members
        if found is None:
            known = members_of(value)
            if self._added.isdisjoint(known):
                inner = value[1:-1]
                return ([inner] if inner else []), False
            if has_repeated_keys(value, known):
                return [], True
            found = {key: bytes(text) for key, text in known.items()}
        taken = self._added | found.keys()
        renamed = {}
        for key, text in found.items():
            name = key
            if key in self._added:
                while name in taken:
                    name += "_"
                taken |= {name}
            renamed[name] = text
        return _pairs(renamed), picked.is_whole


def make_shape(config: RecorderConfig) -> RowShape | None:
    """The shape that a configuration asks for; ``None``: rows are payloads as they are."""
    keys = (config.levels, config.fields is not None, config.types, config.time_field)
    return RowShape(config) if any(keys) or config.flatten else None


def is_object(value: bytes) -> bool:
    """Whether a text of ``json_value`` is an object of a payload, not a wrapper."""
    return value.startswith(b"{") and not is_wrapped(value)


def _pairs(members: dict[str, bytes]) -> list[bytes]:
    return [metadata.json_text(key) + b": " + text for key, text in members.items()]


def typed(text: bytes, kind: str) -> bytes | None:
    """A value's JSON text as one of a type, ``None`` if it is none. ``null`` fits every type."""
    if text == b"null":
        return text
    is_text = text.startswith(b'"')
    if kind == "text":
        return text if is_text else msgspec.json.encode(text.decode())
    # Numbers of any size keep their digits.
    if kind == "integer" and _INTEGER(text):
        return text
    if kind == "number" and _NUMBER(text):
        return text
    if kind == "number" and not is_text:
        return None
    try:
        value: Any = _decode(text)
    except msgspec.ValidationError:  # out of range
        return None
    if kind == "number" and isinstance(value, str) and _NUMBER(value.encode()):
        return value.encode()
    fitting = PINNED[kind](value)  # type: ignore[index]
    if fitting is NO_FIT:
        return None
    if kind == "time":
        moment = _EPOCH + timedelta(microseconds=fitting)
        return b'"%bZ"' % moment.isoformat(timespec="microseconds").encode()
    return msgspec.json.encode(fitting)
