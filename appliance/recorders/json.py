"""Format ``json``: one array of payloads, indented by two blanks, for people and programs.

Not for: payloads that are not JSON (payload.py wraps them).
"""

from __future__ import annotations

import msgspec

from appliance.model import Message
from appliance.recorders import metadata
from appliance.recorders.payload import json_value

_encode = msgspec.json.Encoder().encode


class JsonFormat:
    """An array whose elements are the payloads, or objects with ``metadata`` and ``payload``."""

    empty = b"[]"
    separator = b",\n  "
    closing = b"\n]"
    memory = ""

    def __init__(self, *, metadata: bool) -> None:
        self.name = "json+metadata" if metadata else "json"
        self._metadata = metadata

    def opening(self, first: Message) -> bytes:  # noqa: ARG002  # the same for every first message
        return b"[\n  "

    def element(self, message: Message) -> bytes:
        value = json_value(message.payload, indent=True)
        if not self._metadata:
            return value.replace(b"\n", b"\n  ")
        lines = [
            b'    "%b": %b' % (name.encode(), _encode(field))
            for name, field in zip(metadata.FIELDS, metadata.values(message), strict=True)
        ]
        lines.append(b'    "payload": ' + value.replace(b"\n", b"\n    "))
        return b"{\n" + b",\n".join(lines) + b"\n  }"

    def recall(self, memory: str) -> None:
        """Nothing to know."""
