"""A format of recordings: the pieces of text that make up a file.

A file with n messages is ``opening``, n elements with ``separator`` between them, ``closing``;
a file without any is ``empty``. Not for: files; a format never sees one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from appliance.config.tables import RecorderConfig
from appliance.model import Message
from appliance.recorders.csv import CsvFormat
from appliance.recorders.json import JsonFormat
from appliance.recorders.jsonl import JsonLinesFormat


class Format(Protocol):
    """One kind of file. The same messages always give the same bytes."""

    @property
    def name(self) -> str:
        """The format's identity: a recording can only be continued in a format of the same name."""

    empty: bytes
    separator: bytes
    closing: bytes
    """The end of the file after every write. The next write overwrites it."""

    def opening(self, first: Message) -> bytes:
        """The beginning of a file whose first message this is."""

    def element(self, message: Message) -> bytes:
        """One message."""

    def elements(self, messages: Sequence[Message]) -> list[bytes]:
        """The elements, in order: one by one, or several joined where that is faster."""

    @property
    def memory(self) -> str:
        """The state that continuing the file later needs (the columns of a CSV file)."""

    def recall(self, memory: str) -> None:
        """Restore ``memory`` of an existing file."""


def make_format(config: RecorderConfig) -> Format:
    """The format that a recorder's configuration asks for."""
    if config.format == "json":
        return JsonFormat(metadata=config.metadata)
    if config.format == "jsonl":
        return JsonLinesFormat(metadata=config.metadata)
    return CsvFormat(metadata=config.metadata)
