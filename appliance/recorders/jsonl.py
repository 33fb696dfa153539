"""Format ``jsonl``: one JSON value a line (https://jsonlines.org), for streams and big recordings.

Not for: payloads that are not JSON (payload.py wraps them).
"""

from __future__ import annotations

import msgspec

from appliance.model import Message
from appliance.recorders import metadata
from appliance.recorders.payload import json_value

_encode = msgspec.json.Encoder().encode


class JsonLinesFormat:
    """A line is a payload, or an object with ``metadata`` and ``payload``."""

    empty = b""
    separator = b""
    closing = b""
    memory = ""

    def __init__(self, *, metadata: bool) -> None:
        self.name = "jsonl+metadata" if metadata else "jsonl"
        self._metadata = metadata

    def opening(self, first: Message) -> bytes:  # noqa: ARG002  # the same for every first message
        return b""

    def element(self, message: Message) -> bytes:
        value = json_value(message.payload, indent=False)
        if not self._metadata:
            return value + b"\n"
        fields = [
            b'"%b": %b' % (name.encode(), _encode(field))
            for name, field in zip(metadata.FIELDS, metadata.values(message), strict=True)
        ]
        return b"{" + b", ".join(fields) + b', "payload": ' + value + b"}\n"

    def recall(self, memory: str) -> None:
        """Nothing to know."""
