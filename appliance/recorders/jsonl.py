"""Format ``jsonl``: one JSON value a line (https://jsonlines.org), for streams and big recordings.

Not for: payloads that are not JSON (payload.py wraps them).
"""

from __future__ import annotations

from appliance.model import Message
from appliance.recorders import metadata
from appliance.recorders.format import Format
from appliance.recorders.payload import json_value


class JsonLinesFormat(Format):
    """A line is a payload, or an object with ``metadata`` and ``payload``."""

    kind = "jsonl"

    def element(self, message: Message) -> bytes:
        if self._shape is not None:
            return b"".join([row + b"\n" for row in self._shape.elements(message)])
        value = json_value(message.payload, indent=False)
        if not self._metadata:
            return value + b"\n"
        fields = metadata.json_fields(message, b", ")
        return b'{%b, "payload": %b}\n' % (fields, value)
