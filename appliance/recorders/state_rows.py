"""The rows of ``mode`` ``latest`` and ``update``: one for each topic, or each value of ``key``.

A row is a message: the last one of its topic, or the last one with the payload that all of them
give together. So every format and database makes of a row what it makes of a message.
Not for: where rows are kept (latest_store.py), the file or table that shows them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from appliance.config.tables import RecorderConfig
from appliance.config.value_path import Path, parse_path
from appliance.counters import Counter
from appliance.model import Message
from appliance.recorders.latest_store import LatestRow
from appliance.recorders.metadata import json_text
from appliance.recorders.payload import json_value
from appliance.recorders.row_shape import is_object
from appliance.recorders.rows import elements_of, find_text, members_of

MAX_ROWS = 100_000
"""Rows of a recorder. Messages of further topics or keys are left out."""
MAX_BYTES = 64 * 1024 * 1024
"""Payloads of all rows of a recorder together. A message that would go beyond it is left out."""
MAX_MEMBERS = 5_000
"""Keys of one object with ``update``. Further ones are left out."""
MAX_KEY_CHARACTERS = 1_000

_decode_text = msgspec.json.Decoder(str).decode
_encode_row = msgspec.msgpack.Encoder().encode


class _Saved(msgspec.Struct, array_like=True, frozen=True):
    """A row's message as it is stored. New fields go at the end and have a default."""

    received_ns: int
    topic: str
    payload: bytes
    qos: int
    retain: bool
    client_id: str


_decode_row = msgspec.msgpack.Decoder(_Saved).decode


def flattens(config: RecorderConfig) -> bool:
    """Whether the payload of a row is a list that gives several rows of a file or table."""
    return config.flatten and config.mode == "latest" and not config.key


class StateRows:
    """The rows of one recorder, in memory. For one thread.

    ``changes`` says what messages change, ``apply`` changes it: between them it is stored.
    """

    def __init__(self, config: RecorderConfig, count: Callable[[Counter], None]) -> None:
        self._merges = config.mode == "update"
        self._key: Path | None = parse_path(config.key) if config.key else None
        self._splits = config.flatten and not flattens(config)
        self._count = count
        self._rows: dict[str, Message] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._rows)

    def load(self, rows: Iterable[LatestRow]) -> int:
        """Take stored rows; what was there is forgotten. Returns how many are damaged."""
        self._rows = {}
        damaged = 0
        for row in rows:
            try:
                self._rows[row.key] = message_of(row)
            except msgspec.MsgspecError:
                damaged += 1
        self._bytes = sum(_size(key, row) for key, row in self._rows.items())
        return damaged

    def messages(self) -> list[Message]:
        """A message for each row, in the order of topics or keys."""
        return [message for _, message in sorted(self._rows.items())]

    def by_key(self) -> dict[str, Message]:
        """A message for each row, by its topic or key."""
        return dict(self._rows)

    def changes(self, messages: Sequence[Message]) -> dict[str, Message]:
        """The rows as messages (in order) leave them: new and changed ones by their key."""
        found: dict[str, Message] = {}
        merged: dict[str, dict[str, bytes]] = {}
        added, size = 0, self._bytes
        for message in messages:
            for key, payload in self._parts(message):
                if key is None:
                    self._count(Counter.RECORDER_ROWS_LEFT_OUT)
                    continue
                known = found.get(key) or self._rows.get(key)
                if known is None and len(self._rows) + added >= MAX_ROWS:
                    self._count(Counter.RECORDER_ROWS_LEFT_OUT)
                    continue
                if self._merges:
                    payload = self._merge(merged, key, known, payload)  # noqa: PLW2901
                row = Message(
                    seq=message.seq,
                    received_ns=message.received_ns,
                    topic=message.topic,
                    payload=payload,
                    qos=message.qos,
                    retain=message.retain,
                    client_id=message.client_id,
                )
                growth = _size(key, row) - (0 if known is None else _size(key, known))
                if growth > 0 and size + growth > MAX_BYTES:
                    merged.pop(key, None)
                    self._count(Counter.RECORDER_ROWS_LEFT_OUT)
                    continue
                added += known is None
                size += growth
                found[key] = row
        return found

    def apply(self, changes: dict[str, Message]) -> None:
        """Make the changes."""
        for key, row in changes.items():
            known = self._rows.get(key)
            self._bytes += _size(key, row) - (0 if known is None else _size(key, known))
        self._rows.update(changes)

    def _parts(self, message: Message) -> Iterable[tuple[str | None, bytes]]:
        """What belongs to a row: its key (``None``: it has none) and its payload."""
        payloads = [message.payload]
        if self._splits:
            elements = elements_of(message.payload)
            payloads = payloads if elements is None else elements
        if self._key is None:
            return [(message.topic, payload) for payload in payloads]
        return [(_key_at(payload, self._key), payload) for payload in payloads]

    def _merge(
        self, merged: dict[str, dict[str, bytes]], key: str, known: Message | None, payload: bytes
    ) -> bytes:
        """The payload of a row after one more message. ``merged``: objects of this batch."""
        value = json_value(payload, indent=False)
        if not is_object(value):
            merged.pop(key, None)
            return payload
        members = merged.get(key)
        if members is None:
            before = b"" if known is None else json_value(known.payload, indent=False)
            members = _members(before) if is_object(before) else {}
        for name, text in _members(value).items():
            if name in members or len(members) < MAX_MEMBERS:
                members[name] = text
            else:
                self._count(Counter.RECORDER_ROWS_LEFT_OUT)
        merged[key] = members
        return b"{%b}" % b", ".join([json_text(k) + b": " + v for k, v in members.items()])


def row_of(key: str, message: Message) -> LatestRow:
    """A row as it is stored."""
    saved = _Saved(
        message.received_ns,
        message.topic,
        message.payload,
        message.qos,
        message.retain,
        message.client_id,
    )
    return LatestRow(key, message.seq, _encode_row(saved))


def message_of(row: LatestRow) -> Message:
    """The message of a stored row.

    Raises:
        msgspec.MsgspecError: the row is damaged.
    """
    saved = _decode_row(row.value)
    return Message(
        seq=row.seq,
        received_ns=saved.received_ns,
        topic=saved.topic,
        payload=saved.payload,
        qos=saved.qos,
        retain=saved.retain,
        client_id=saved.client_id,
    )


def _key_at(payload: bytes, path: Path) -> str | None:
    """The text of the value that tells rows apart; ``None``: there is none.

    The number 1 and the text "1" are the same.
    """
    value = json_value(payload, indent=False)
    if value.startswith((b'{"$text": ', b'{"$base64": ', b'{"$json": ')):
        return None
    text = find_text(value, path)
    if text is None or text == b"null" or len(text) > MAX_KEY_CHARACTERS:
        return None
    return _decode_text(text) if text.startswith(b'"') else text.decode()


def _members(value: bytes) -> dict[str, bytes]:
    return {key: bytes(text) for key, text in members_of(value).items()}


def _size(key: str, row: Message) -> int:
    return len(row.payload) + len(key) + len(row.topic) + 200
