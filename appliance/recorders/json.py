"""Format ``json``: one array of payloads, indented by two blanks, for people and programs.

Not for: payloads that are not JSON (payload.py wraps them).
"""

from __future__ import annotations

from collections.abc import Sequence

from appliance.model import Message
from appliance.recorders import metadata
from appliance.recorders.format import Format
from appliance.recorders.payload import indented, json_value, objects

_PARTS = 16
"""The elements of a large batch are made together, in about this many parts."""


class JsonFormat(Format):
    """An array whose elements are the payloads, or objects with ``metadata`` and ``payload``."""

    kind = "json"
    empty = b"[]"
    separator = b",\n  "
    closing = b"\n]"

    def opening(self, first: Message) -> bytes:  # noqa: ARG002  # the same for every first message
        return b"[\n  "

    def element(self, message: Message) -> bytes:
        if self._shape is not None:
            rows = [indented(row) for row in self._shape.elements(message)]
            return self.separator.join([row.replace(b"\n", b"\n  ") for row in rows])
        value = json_value(message.payload, indent=True)
        if not self._metadata:
            return value.replace(b"\n", b"\n  ")
        fields = metadata.json_fields(message, b",\n    ")
        value = value.replace(b"\n", b"\n    ")
        return b'{\n    %b,\n    "payload": %b\n  }' % (fields, value)

    def elements(self, messages: Sequence[Message]) -> list[bytes]:
        if self._metadata or self._shape is not None:
            return super().elements(messages)
        together = max(1, len(messages) // _PARTS)
        found: list[bytes] = []
        for start in range(0, len(messages), together):
            part = messages[start : start + together]
            text = objects([message.payload for message in part]) if len(part) > 1 else None
            if text is not None:
                found.append(text)
            else:
                found += [self.element(message) for message in part]
        return found
