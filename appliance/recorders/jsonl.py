"""Format ``jsonl``: one JSON value a line (https://jsonlines.org), for streams and big recordings.

Not for: payloads that are not JSON (payload.py wraps them).
"""

from __future__ import annotations

from collections.abc import Sequence

from appliance.model import Message
from appliance.recorders import metadata
from appliance.recorders.format import Format
from appliance.recorders.payload import json_value, values

_TOGETHER = 64
"""Messages whose payloads are looked at together. One that is no JSON costs as many their speed."""


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

    def elements(self, messages: Sequence[Message]) -> list[bytes]:
        if self._shape is not None:
            return super().elements(messages)
        found: list[bytes] = []
        for start in range(0, len(messages), _TOGETHER):
            part = messages[start : start + _TOGETHER]
            texts = values([message.payload for message in part]) if len(part) > 1 else None
            if texts is None:
                found += [self.element(message) for message in part]
            elif not self._metadata:
                found.append(b"\n".join(texts) + b"\n")
            else:
                found.append(metadata.json_lines(part, texts))
        return found
