"""Reading a payload that names what to start. A payload is data: read, compared, never evaluated.

The forms (docs/triggers.md lists them with examples): a bare id; JSON: a string with an id, one
of ``{"taskId"}``, ``{"taskName"}``, ``{"tag"}``, ``{"customProperty": {"name", "value"}}``, the
items of the body of Butler's start call (``PUT /v4/reloadtask/{id}/start`` in the Butler
documentation: ``{"type": "starttaskid", "payload": {"taskId"}}`` and its two relatives), or one
list of any of these, alone or as ``{"tasks": [...]}``. Beside the task, an object may have
``partial`` and ``variables`` for the reload. A message is understood as a whole or rejected as a
whole.

Not for: whether the tasks exist or may be started (catalog.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from appliance.model import ReloadOptions
from appliance.tasks.invisible import bare
from appliance.tasks.selector import ZERO_ID, TaskSelector, task_id

MAX_PAYLOAD = 64 * 1024
"""Bytes. 100 ids as JSON are 4 KB; a far longer payload is no start request."""
MAX_SELECTORS = 100
"""Tasks that one message may name."""
MAX_TEXT = 256
"""Characters of a name, tag or custom property value."""

_PLAIN = ReloadOptions()
_TASK_KEYS = ("taskId", "taskName", "tag", "customProperty")
_APP_KEYS = ("app", "appId")
_BUTLER_TYPES = ("starttaskid", "starttasktag", "starttaskcustomproperty")


class Rejection(msgspec.Struct, frozen=True):
    """Why nothing is started: ``label`` for a table cell, ``reason`` for people."""

    label: str
    reason: str
    harmless: bool = False
    """The message is in order (a replay, a redelivery); no operator need look at it."""
    is_answered: bool = False
    """A harmless one that the sender is told all the same, if it wants an answer."""


class WantedStart(msgspec.Struct, frozen=True):
    """One start that a message asks for: which tasks, and how they are reloaded."""

    selector: TaskSelector
    reload: ReloadOptions = ReloadOptions()


class Request(msgspec.Struct, frozen=True):
    """What a message asks for: each start once, in order, at least one."""

    starts: tuple[WantedStart, ...]
    all_or_nothing: bool = False
    """Whether none is made if one can't be."""


class _NotUnderstoodError(Exception):
    def __init__(self, label: str, reason: str) -> None:
        super().__init__(reason)
        self.rejection = Rejection(label, reason)


def read_payload(payload: bytes, reload: ReloadOptions = _PLAIN) -> Request | Rejection:
    """Return what a payload asks for; never raises.

    ``reload`` is what the rule says of the reload; what the payload says goes first.
    """
    if len(payload) > MAX_PAYLOAD:
        return Rejection(
            "too long",
            f"The payload has {len(payload)} bytes; a start request has at most {MAX_PAYLOAD}.",
        )
    try:
        text = bare(payload.decode())
    except UnicodeDecodeError:
        return Rejection("not text", "The payload is not UTF-8 text. Send a task id or JSON.")
    if not text:
        return Rejection("empty", "The payload is empty. Send a task id or JSON that names tasks.")
    try:
        if found := task_id(text):
            return Request((WantedStart(_by_id(found), reload),))
        if "\0" in text:
            return Rejection(
                "not text", "The payload has NUL bytes, as UTF-16 has. Send a task id in UTF-8."
            )
        return _read_json(text, reload)
    except _NotUnderstoodError as problem:
        return problem.rejection


def _read_json(text: str, reload: ReloadOptions) -> Request:
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        raise _NotUnderstoodError(
            "not a task id",
            "The payload is neither a task id nor JSON. "
            'Send an id such as 8d31c0f8-0d36-4a0a-a8b4-3b0f6f2c5d10 or {"taskId": "..."}.',
        ) from None
    all_or_nothing = False
    items = value if isinstance(value, list) else [value]
    if isinstance(value, dict):
        all_or_nothing = value.get("allOrNothing") or False
        if not isinstance(all_or_nothing, bool):
            raise _NotUnderstoodError("bad allOrNothing", "allOrNothing must be true or false.")
        if "tasks" in value and not _names_task(value):
            items, reload = value["tasks"], _read_reload(value, reload)
            if not isinstance(items, list):
                raise _NotUnderstoodError(
                    "bad tasks", "tasks must be a list of task ids or objects that name tasks."
                )
    if not items:
        raise _NotUnderstoodError("empty list", "The payload is an empty list. Nothing to start.")
    if len(items) > MAX_SELECTORS:
        raise _NotUnderstoodError(
            "too many",
            f"The payload names {len(items)} tasks; one message may name {MAX_SELECTORS}. "
            "Use a tag or a custom property, or send several messages.",
        )
    starts = dict.fromkeys(_read_item(item, reload) for item in items)
    return Request(tuple(starts), all_or_nothing)


def _names_task(item: Mapping[str, Any]) -> bool:
    """Whether an object names a task in one of the ways that had a meaning before ``tasks``."""
    return ("type" in item and "payload" in item) or any(key in item for key in _TASK_KEYS)


def _read_item(item: object, reload: ReloadOptions) -> WantedStart:
    if isinstance(item, str):
        return WantedStart(_by_id(item), reload)
    if not isinstance(item, dict):
        raise _NotUnderstoodError(
            "not a task id",
            "The payload has an item that is neither a task id nor an object that names tasks.",
        )
    if "type" in item and "payload" in item:
        selector = _read_butler(item["type"], item["payload"])
        return WantedStart(selector, _read_reload(item["payload"], reload))
    return WantedStart(_read_selector(item), _read_reload(item, reload))


def _read_reload(item: Mapping[str, Any], reload: ReloadOptions) -> ReloadOptions:
    """The rule's options with those of an object; one name's value replaces the rule's."""
    partial, variables = item.get("partial"), item.get("variables")
    if partial is None:
        partial = reload.partial
    if not isinstance(partial, bool):
        raise _NotUnderstoodError("bad partial", "partial must be true or false.")
    if variables is None:
        return ReloadOptions(partial, reload.variables)
    if not isinstance(variables, dict) or not all(map(_is_variable, variables.values())):
        raise _NotUnderstoodError(
            "bad variables",
            'variables must be an object of names and texts: {"vDay": "2026-11-29"}.',
        )
    texts = {name: _variable_text(value) for name, value in variables.items()}
    options = ReloadOptions(partial, tuple(sorted((dict(reload.variables) | texts).items())))
    if options.problem:
        raise _NotUnderstoodError(
            "bad variables", f"The payload's variables are not taken: {options.problem}."
        )
    return options


def _is_variable(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _variable_text(value: object) -> str:
    """A text as it is, a number as JSON writes it."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _read_selector(item: Mapping[str, Any]) -> TaskSelector:
    named = [key for key in _TASK_KEYS if key in item]
    # Beside a task, "app" is one of the other keys that an object may have.
    named = named or [key for key in _APP_KEYS if key in item]
    if len(named) != 1:
        raise _NotUnderstoodError(
            "names no task" if not named else "ambiguous",
            "An object in the payload must have exactly one of "
            f"{', '.join((*_TASK_KEYS, *_APP_KEYS))}; "
            f"this one has {' and '.join(named) or 'none'}.",
        )
    key = named[0]
    value = item[key]
    if key == "taskId":
        return _by_id(value)
    if key == "taskName":
        return TaskSelector("name", _text(value, key))
    if key == "tag":
        return TaskSelector("tag", _text(value, key))
    if key == "appId":
        return TaskSelector("app", _by_id(value, "an app id").value)
    if key == "app":
        app = _text(value, key)
        return TaskSelector("app", task_id(app) or app)
    if not isinstance(value, dict):
        raise _NotUnderstoodError(
            "bad property", 'customProperty must be an object: {"name": "...", "value": "..."}.'
        )
    return TaskSelector(
        "property",
        _text(value.get("value"), "customProperty.value"),
        _text(value.get("name"), "customProperty.name"),
    )


def _read_butler(kind: object, payload: object) -> TaskSelector:
    if kind not in _BUTLER_TYPES or not isinstance(payload, dict):
        raise _NotUnderstoodError(
            "unknown type",
            f"An item with type and payload must have one of the types {', '.join(_BUTLER_TYPES)} "
            "and an object as payload.",
        )
    if kind == "starttaskid":
        return _by_id(payload.get("taskId"))
    if kind == "starttasktag":
        return TaskSelector("tag", _text(payload.get("tag"), "tag"))
    return TaskSelector(
        "property",
        _text(payload.get("customPropertyValue"), "customPropertyValue"),
        _text(payload.get("customPropertyName"), "customPropertyName"),
    )


def _by_id(value: object, what: str = "a task id") -> TaskSelector:
    found = task_id(bare(value)) if isinstance(value, str) else None
    if found is None:
        raise _NotUnderstoodError(
            f"not {what}",
            f"The payload has {what} that is not a GUID (32 hexadecimal digits in groups of "
            "8-4-4-4-12), nor 24 hexadecimal digits as some ids of Qlik Cloud.",
        )
    if found == ZERO_ID:
        raise _NotUnderstoodError("zero id", "The payload names the zero id, which is no task.")
    return TaskSelector("id", found)


def _text(value: object, key: str) -> str:
    if not isinstance(value, str) or not bare(value) or len(value) > MAX_TEXT:
        raise _NotUnderstoodError(
            f"bad {key.rpartition('.')[2]}", f"{key} must be text of 1 to {MAX_TEXT} characters."
        )
    return value
