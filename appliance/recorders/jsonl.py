"""Format ``jsonl``: one JSON value a line (https://jsonlines.org), for streams and big recordings.

Not for: payloads that are not JSON (payload.py wraps them).
"""

from __future__ import annotations

from collections.abc import Sequence

from appliance.model import Message
from appliance.recorders import metadata
from appliance.recorders.payload import json_value


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
        fields = metadata.json_fields(message, b", ")
        return b'{%b, "payload": %b}\n' % (fields, value)

    def elements(self, messages: Sequence[Message]) -> list[bytes]:
        return [self.element(message) for message in messages]

    def recall(self, memory: str) -> None:
        """Nothing to know."""
