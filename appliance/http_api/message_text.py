"""The forms in which ``GET /messages`` gives messages: those of ``appliance export``.

Not for: reading the journal (journal_walk.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import msgspec

from appliance.model import Message
from appliance.recorders import metadata
from appliance.recorders.csv import CsvFormat
from appliance.recorders.jsonl import JsonLinesFormat
from appliance.recorders.rows import whole_text

Kind = Literal["json", "jsonl", "csv"]
KINDS: tuple[Kind, ...] = get_args(Kind)
CONTENT_TYPES: dict[Kind, str] = {
    "json": "application/json",
    "jsonl": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8; header=present",
}


class MessageText:
    """One answer's text, piece by piece.

    ``as_text``: a payload is one text, whatever it is, so that each answer has the same columns.
    """

    def __init__(self, kind: Kind, *, as_text: bool) -> None:
        self.kind = kind
        self._as_text = as_text
        self._csv = CsvFormat(metadata=True)
        self._lines = JsonLinesFormat(metadata=True)
        self._has_begun = False

    @property
    def has_begun(self) -> bool:
        """Whether there was a message."""
        return self._has_begun

    def rows(self, messages: Sequence[Message]) -> bytes:
        """The next messages, with what stands before them."""
        if not messages:
            return b""
        begun, self._has_begun = self._has_begun, True
        if self.kind == "csv":
            header = b"" if begun else self._header(messages[0])
            return header + b"".join(self._csv.elements(messages))
        if self._as_text:
            lines = b"".join([_with_text(one) for one in messages])
        else:
            lines = b"".join(self._lines.elements(messages))
        if self.kind == "jsonl":
            return lines
        # A line has no line break within: the rows of an array are lines with commas.
        return (b",\n" if begun else b'{"messages": [\n') + lines[:-1].replace(b"\n", b",\n")

    def end(self, *, next_url: str | None, cursor: str, missed: int) -> bytes:
        """What stands behind the last message."""
        if self.kind == "json":
            after = msgspec.json.encode({"next": next_url, "cursor": cursor, "missed": missed})
            return (b"\n], " if self._has_begun else b'{"messages": [], ') + after[1:] + b"\n"
        if self.kind == "csv" and not self._has_begun:
            return self._csv.header()
        return b""

    def _header(self, first: Message) -> bytes:
        return self._csv.header() if self._as_text else self._csv.opening(first)


def one_message(message: Message, *, as_text: bool) -> bytes:
    """A message as a JSON object."""
    if as_text:
        return _with_text(message)
    return JsonLinesFormat(metadata=True).element(message)


def _with_text(message: Message) -> bytes:
    payload = msgspec.json.encode(whole_text(message.payload))
    return b'{%b, "payload": %b}\n' % (metadata.json_fields(message, b", "), payload)
