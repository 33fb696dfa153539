"""The body of Butler's start call: a list of ``{"type", "payload"}``.

Not for: finding the tasks (starts.py).
"""

from __future__ import annotations

import logging

import msgspec

from appliance.http_api.butler.errors import ButlerError, fault
from appliance.http_api.butler.fields import list_of, number_of, object_in, text_of
from appliance.key_values import Pair

TYPES = ("keyvaluestore", "starttaskid", "starttasktag", "starttaskcustomproperty")
MAX_ITEMS = 1000
"""Items of one call."""
_log = logging.getLogger(__name__)


class Id(msgspec.Struct, frozen=True):
    """A task by its id."""

    value: object
    """As it was sent, for the answer; ``UNSET`` if it was not."""


class Tag(msgspec.Struct, frozen=True):
    """All tasks with a tag."""

    tag: str


class Property(msgspec.Struct, frozen=True):
    """All tasks with a value of a custom property."""

    name: str
    value: str


Item = Id | Tag | Property | Pair


def read_items(body: object) -> list[Item]:
    """What a call asks for.

    Raises:
        ButlerError: 400, it is not understood.
    """
    items = list_of(body, "body")
    if len(items) > MAX_ITEMS:
        raise ButlerError(400, f"The body has {len(items)} items; at most {MAX_ITEMS} are taken.")
    read = [_read(each, f"body/{place}") for place, each in enumerate(items)]
    return [each for each in read if each is not None]


def _read(value: object, where: str) -> Item | None:
    item = object_in(value, where)
    _need(item, where, "type")
    kind = text_of(item["type"], f"{where}/type")
    if kind not in TYPES:
        raise fault(f"{where}/type must be equal to one of the allowed values")
    _need(item, where, "payload")
    where = f"{where}/payload"
    payload = object_in(item["payload"], where)
    if kind == "starttaskid":
        return Id(payload.get("taskId", msgspec.UNSET))
    if kind == "starttasktag":
        return Tag(_text(payload, where, "tag"))
    if kind == "starttaskcustomproperty":
        return Property(
            _text(payload, where, "customPropertyName"),
            _text(payload, where, "customPropertyValue"),
        )
    return _pair(payload)


def _pair(payload: dict[str, object]) -> Pair | None:
    names = ("namespace", "key", "value")
    if not all(payload.get(name) for name in names):
        _log.warning("A key-value pair in a start call lacks its namespace, key or value")
        return None
    namespace, key, value = (_stored(payload[name]) for name in names)
    try:
        ttl_ms = int(number_of(payload.get("ttl"), "ttl"))
    except ButlerError:
        ttl_ms = 0
    return Pair(namespace, key, value, ttl_ms)


def _stored(value: object) -> str:
    """A text, also of what no schema turns into one."""
    if isinstance(value, list | dict):
        return msgspec.json.encode(value).decode()
    return text_of(value, "")


def _text(payload: dict[str, object], where: str, name: str) -> str:
    _need(payload, where, name)
    if not (text := text_of(payload[name], f"{where}/{name}")):
        raise fault(f"{where}/{name} must not be empty")
    return text


def _need(item: dict[str, object], where: str, name: str) -> None:
    if name not in item:
        raise fault(f"{where} must have required property '{name}'")
