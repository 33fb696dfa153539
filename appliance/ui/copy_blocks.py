"""Tables of the configuration for what is on the screen, to be pasted into the file.

``appliance check`` accepts each of them as it is. What only the operator knows (the task's name,
which values matter) stands in it to be filled in, or as comments.
Not for: the keys that copy them (screens/copy_menu.py), what the tables mean (docs/triggers.md,
docs/recording.md).
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping

import msgspec

from appliance.engine_api import Snapshot
from appliance.model import APP
from appliance.mqtt.topics import filter_problem
from appliance.ui.text import printable

_TASK = "NAME OF THE TASK"
_FIELDS = 12
"""Conditions that a block offers."""
_DEPTH = 4
"""Objects within one another whose fields are offered."""
_VALUE = 80
"""Characters of a key and of a value in a condition."""
_LARGEST = 2**63 - 1
"""What every TOML reader takes (toml.io, version 1.0, "Integer")."""
_PAYLOAD = 64 * 1024
"""Bytes beyond which a payload is not looked into; a start request has no more."""
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_TASK_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{24}")
_STARTS = frozenset(
    {"taskId", "taskName", "tag", "customProperty", "tasks", "appId"}
)  # docs/triggers.md, "What a payload can say"
_BESIDE = frozenset({"partial", "variables", "allOrNothing"})
_NOT_IN_FILE_NAMES = re.compile(r"[^\w-]+")
_DEVICES = re.compile(r"(?i)con|prn|aux|nul|com\d|lpt\d")
"""Names that Windows gives to devices, with any ending."""
_NAME = 40
"""Characters of a file's name, of four bytes at most each."""
_NAMED = 256
"""Characters of a name in a payload (docs/triggers.md)."""
_COLUMNS = 200
"""Keys that a CSV file makes columns of."""

_TRY = """\
# No Qlik server is configured; this one is for a try. docs/qlik.md has the others.
[qlik]
edition = "simulated"

"""


class NoBlockError(ValueError):
    """There is no table for this; the text says why."""


def trigger(topic: str, payload: bytes | None, snapshot: Snapshot) -> str:
    """A ``[[trigger]]`` for a topic or topic filter.

    ``payload``: of a message that it is for; ``None``: it is for none in particular.

    Raises:
        NoBlockError: no rule can have this topic.
    """
    _must_fit(topic)
    document = _document(payload)
    lines = ["[[trigger]]", f"topic = {_text(topic)}"]
    rules = {rule.name for rule in snapshot.rules}
    if topic in rules:
        lines.append(f"name = {_text(_free(f'{topic} ', rules))}")
    if _names_tasks(document):
        lines.append('task = "payload"')
    else:
        lines.append(f"task = {{name = {_text(_TASK)}}}  # or {{tag = ...}}, {{app = ...}}, an id")
        lines.append('# cooldown = "15m"  # at most one start in this time')
        if conditions := [f"# {key} = {value}" for key, value in _conditions(document)]:
            lines.append("# Only messages with these values; take the # away where they matter.")
            lines += ["# [trigger.when]", *conditions]
    is_there = snapshot.qlik.edition not in {"", "none"}
    return ("" if is_there else _TRY) + "".join(f"{line}\n" for line in lines)


def recorder(topic: str, payload: bytes | None, snapshot: Snapshot) -> str:
    """A ``[[recorder]]`` for a topic or topic filter; otherwise as ``trigger``."""
    written = topic.replace("{", "{{").replace("}", "}}")
    _must_fit(written)
    form = _format(_document(payload))
    # Recorders have their names from their files.
    names = {one.name.casefold() for one in snapshot.recorders}
    name = _file_name(topic)
    if name.casefold() in names:
        name = _free(f"{name}-", names)
    lines = [
        "[[recorder]]",
        f"topic = {_text(written)}",
        f"path = {_text(f'recordings/{name}.{form}')}",
        f'format = "{form}"',
        "metadata = true  # number, time, topic, client, QoS and retain too",
        '# rotate = {size = "64MB"}  # a new file from this size on',
        '# keep = {age = "30d"}  # how long closed files stay; it needs rotate',
    ]
    return "".join(f"{line}\n" for line in lines)


def selectors(task_id: str, name: str, tags: Collection[str] = ()) -> Mapping[str, str]:
    """Ways to name a task in a ``[[trigger]]`` or ``[[timer]]``: what it is named by, the line."""
    found: dict[str, str] = {}
    if task_id.startswith(APP):
        found["its app"] = f"task = {{app = {_text(task_id.removeprefix(APP))}}}\n"
        return found
    if name.strip():
        found["its name"] = f"task = {{name = {_text(name)}}}\n"
    if _TASK_ID.fullmatch(task_id.lower()):
        found["its id"] = f"task = {_text(task_id)}\n"
    for tag in tags:
        if tag.strip():
            found[f"tag {tag}"] = f"task = {{tag = {_text(tag)}}}\n"
    return found


def _must_fit(topic_filter: str) -> None:
    if problem := filter_problem(topic_filter):
        raise NoBlockError(f"No table can have this topic: {problem}.")


def _free(stem: str, taken: Collection[str]) -> str:
    """The stem with the first number that makes it a name of its own."""
    number = 2
    while f"{stem}{number}".casefold() in taken or f"{stem}{number}" in taken:
        number += 1
    return f"{stem}{number}"


def _file_name(topic: str) -> str:
    plain = unicodedata.normalize("NFC", topic)
    name = _NOT_IN_FILE_NAMES.sub("-", plain).strip("-_")[:_NAME].strip("-_")
    name = name or "messages"
    return f"topic-{name}" if _DEVICES.fullmatch(name) else name


# --- payloads --------------------------------------------------------------------------------


def _document(payload: bytes | None) -> object:
    """The JSON value, else the text; ``None`` if there is neither, or nothing to look into."""
    if payload is None or len(payload) > _PAYLOAD:
        return None
    try:
        return msgspec.json.decode(payload)
    except (ValueError, RecursionError):  # both of msgspec's errors are ValueErrors
        pass
    try:
        text = payload.decode().strip()
    except UnicodeDecodeError:
        return None
    # What is left out of a plain text before it is compared is not seen here either.
    return text if all(map(_is_plain, text)) else None


def _format(document: object) -> str:
    """``csv`` for objects that are a row, ``jsonl`` for everything else."""
    if not isinstance(document, dict) or not 0 < len(document) <= _COLUMNS:
        return "jsonl"
    return "jsonl" if any(isinstance(one, dict | list) for one in document.values()) else "csv"


def _names_tasks(document: object) -> bool:
    """Whether a payload says what to start, so clearly that it can mean nothing else."""
    if isinstance(document, list):
        return 0 < len(document) <= 100 and all(map(_names_tasks, document))
    if isinstance(document, str):
        return bool(_TASK_ID.fullmatch(document.lower()))
    if not isinstance(document, dict):
        return False
    named = document.keys() - _BESIDE
    if len(named) != 1 or not named <= _STARTS:
        return False
    (key,) = named
    value = document[key]
    if key == "tasks":
        return isinstance(value, list) and _names_tasks(value)
    if key == "customProperty":
        return isinstance(value, dict) and all(
            map(_is_name, (value.get("name"), value.get("value")))
        )
    return _names_tasks(value) if key in {"taskId", "appId"} else _is_name(value)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and len(value) <= _NAMED


def _conditions(document: object) -> Iterator[tuple[str, str]]:
    """Keys and values of ``when`` that hold for a payload, each as TOML writes it."""
    if not isinstance(document, dict):
        if (written := _value(document)) and document != "":
            yield "payload", written
        return
    found: dict[str, str] = {}
    for path, value in _leaves(document, "", _DEPTH):
        if (written := _value(value)) and path not in found and _at(document, path) is value:
            found[path] = written
        if len(found) == _FIELDS:
            break
    for path, written in found.items():
        yield path if _BARE_KEY.fullmatch(path) else _text(path), written


def _leaves(document: Mapping[str, object], above: str, depth: int) -> Iterator[tuple[str, object]]:
    """The fields that are no objects or lists, with their paths."""
    for key, value in document.items():
        if not key or len(key) > _VALUE:
            continue
        if not isinstance(value, dict):
            yield above + key, value
        elif depth > 1:
            yield from _leaves(value, f"{above}{key}.", depth - 1)


def _at(document: object, path: str) -> object:
    """What a condition finds at a path: a name that itself has dots comes first."""
    if not isinstance(document, dict):
        return None
    if path in document:
        return document[path]
    head, _, rest = path.partition(".")
    return _at(document.get(head), rest) if rest else None


def _value(value: object) -> str:
    """A value that a condition can have, as TOML writes it; else empty."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if -_LARGEST <= value <= _LARGEST else ""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str) and len(value) <= _VALUE:
        return _text(value)
    return ""


# --- TOML ------------------------------------------------------------------------------------


def _text(text: str) -> str:
    """A text as TOML writes it, with all that a terminal or editor could act on written out."""
    # JSON's escapes are among those of TOML.
    quoted = json.dumps(text, ensure_ascii=False)
    if quoted.isascii() and quoted.isprintable():
        return quoted
    return "".join(one if _is_plain(one) else f"\\U{ord(one):08x}" for one in quoted)


def _is_plain(character: str) -> bool:
    return character.isprintable() and printable(character) == character
