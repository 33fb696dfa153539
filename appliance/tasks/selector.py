"""How a message or a rule names tasks, before the list of tasks was asked for from the server.

Not for: reading payloads (payloads.py) or finding the tasks (catalog.py).
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

ZERO_ID = "00000000-0000-0000-0000-000000000000"
_GUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
_GUID_LENGTH = 36
_OBJECT_ID = re.compile(r"[0-9a-f]{24}", re.ASCII)
"""The form of older ids of Qlik Cloud."""

Kind = Literal["id", "name", "tag", "property", "app", "together"]


class TaskSelector(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One id, or one way to find tasks: by name, tag, custom property or app.

    ``key`` is the custom property's name. Of kind ``"together"``, which means all tasks of several
    selectors or none (together.py), ``key`` says in words what they are. For the other kinds it is
    empty.
    """

    kind: Kind
    value: str
    key: str = ""

    @property
    def text(self) -> str:
        """In words, for people: ``"tasks with tag nightly"``."""
        match self.kind:
            case "id":
                return f"task {self.value}"
            case "name":
                return f'task "{self.value}"'
            case "tag":
                return f'tasks with tag "{self.value}"'
            case "together":
                return self.key
            case "property":
                return f'tasks with {self.key} = "{self.value}"'
            case _:
                return f'app "{self.value}"'


def task_id(text: str) -> str | None:
    """Return the id in its one form (lower case, bare), or ``None`` if ``text`` has no id's form.

    That is a GUID, or the 24 hexadecimal digits of Qlik Cloud. Upper case, surrounding blanks and a
    pair of braces are what people and Windows tools write.
    """
    text = text.strip()
    if len(text) == _GUID_LENGTH + 2 and text[0] == "{" and text[-1] == "}":
        text = text[1:-1]
    text = text.lower()
    return text if _GUID.fullmatch(text) or _OBJECT_ID.fullmatch(text) else None
