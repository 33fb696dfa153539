"""The rows of ``mode`` ``latest`` and ``update``: one for each topic, or each value of ``key``.

A row is a message: the last one of its topic, or the last one with the payload that all of them
give together. So every format and database makes of a row what it makes of a message.
Not for: where rows are kept (latest_store.py), the file or table that shows them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from appliance.config.tables import RecorderConfig
from appliance.config.value_path import Path, parse_path
from appliance.counters import Counter
from appliance.model import Message
from appliance.recorders.latest_store import LatestRow
from appliance.recorders.metadata import json_text
from appliance.recorders.payload import is_wrapped, json_value
from appliance.recorders.row_shape import is_object
from appliance.recorders.rows import elements_of, find_text, members_of

MAX_ROWS = 100_000
"""Rows of a recorder. Messages of further topics or keys are left out."""
MAX_BYTES = 64 * 1024 * 1024
"""Memory of all rows of a recorder together. A message that would go beyond it is left out."""
MAX_MEMBERS = 5_000
"""Keys of one object with ``update``. Further ones are left out."""
MAX_KEY_CHARACTERS = 1_000
_ROW_BYTES = 200

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
        self._flattens = flattens(config)
        self._splits = config.flatten and not self._flattens
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
        self._bytes = sum(self._size(key, row.payload) for key, row in self._rows.items())
        return damaged

    @property
    def newest(self) -> int:
        """The number of the newest message in a row, 0 if there is none."""
        return max((row.seq for row in self._rows.values()), default=0)

    def messages(self) -> list[Message]:
        """A message for each row, in the order of topics or keys."""
        return [message for _, message in sorted(self._rows.items())]

    def by_key(self) -> dict[str, Message]:
        """A message for each row, by its topic or key."""
        return dict(self._rows)

    def changes(self, messages: Sequence[Message]) -> dict[str, Message]:
        """The rows as messages (in order) leave them: new and changed ones by their key."""
        batch = _Batch(self._rows, self._bytes, self._size, self._count)
        for message in messages:
            for key, payload in self._parts(message):
                if key is None:
                    self._count(Counter.RECORDER_ROWS_LEFT_OUT)
                elif self._merges:
                    batch.merge(key, message, payload)
                else:
                    batch.replace(key, message, payload)
        return batch.rows()

    def apply(self, changes: dict[str, Message]) -> None:
        """Make the changes."""
        for key, row in changes.items():
            known = self._rows.get(key)
            before = 0 if known is None else self._size(key, known.payload)
            self._bytes += self._size(key, row.payload) - before
        self._rows.update(changes)

    def _size(self, key: str, payload: bytes) -> int:
        """About the bytes of memory that a row takes."""
        rows = payload.count(b",") + 1 if self._flattens else 1
        return len(payload) + len(key) + rows * _ROW_BYTES

    def _parts(self, message: Message) -> Iterable[tuple[str | None, bytes]]:
        """What belongs to a row: its key (``None``: it has none) and its payload."""
        payloads = [message.payload]
        if self._splits:
            elements = elements_of(message.payload)
            payloads = payloads if elements is None else elements
        if self._key is None:
            return [(message.topic, payload) for payload in payloads]
        return [(_key_at(payload, self._key), payload) for payload in payloads]


class _Batch:
    """Rows as the messages of one batch leave them."""

    def __init__(
        self,
        before: Mapping[str, Message],
        size: int,
        size_of: Callable[[str, bytes], int],
        count: Callable[[Counter], None],
    ) -> None:
        self._before = before
        self._size = size
        self._size_of = size_of
        self._count = count
        self._found: dict[str, tuple[Message, bytes]] = {}
        """Message and payload of each changed row."""
        self._merged: dict[str, dict[str, bytes]] = {}
        """Objects whose texts are made at the end."""
        self._sizes: dict[str, int] = {}
        """About the bytes of their texts."""
        self._row_sizes: dict[str, int] = {}
        self._added = 0

    def replace(self, key: str, message: Message, payload: bytes) -> None:
        """A row with this payload, if there is room."""
        if self._fits(key, self._size_of(key, payload)):
            self._merged.pop(key, None)
            self._found[key] = (message, payload)

    def merge(self, key: str, message: Message, payload: bytes) -> None:
        """A row whose object gets the keys of this payload."""
        value = json_value(payload, indent=False)
        if not is_object(value):
            self.replace(key, message, payload)
            return
        members = self._merged.get(key)
        if members is None:
            members = self._members_before(key)
        new: dict[str, bytes] = {}
        count = len(members)
        size = self._sizes[key] if key in self._merged else _size_of_members(members)
        for name, text in _members(value).items():
            old = members.get(name)
            if old is not None:
                size += len(text) - len(old)
            elif count < MAX_MEMBERS:
                count += 1
                size += len(text) + len(name) + 6
            else:
                self._count(Counter.RECORDER_ROWS_LEFT_OUT)
                continue
            new[name] = text
        if self._fits(key, size + self._size_of(key, b"")):
            members.update(new)
            self._merged[key] = members
            self._sizes[key] = size
            self._found[key] = (message, b"")

    def rows(self) -> dict[str, Message]:
        """The changed rows."""
        found = {}
        for key, (message, payload) in self._found.items():
            members = self._merged.get(key)
            if members is not None:
                pairs = [json_text(name) + b": " + text for name, text in members.items()]
                payload = b"{%b}" % b", ".join(pairs)  # noqa: PLW2901
            found[key] = Message(
                seq=message.seq,
                received_ns=message.received_ns,
                topic=message.topic,
                payload=payload,
                qos=message.qos,
                retain=message.retain,
                client_id=message.client_id,
            )
        return found

    def _members_before(self, key: str) -> dict[str, bytes]:
        if key in self._found:
            payload = self._found[key][1]
        elif key in self._before:
            payload = self._before[key].payload
        else:
            return {}
        value = json_value(payload, indent=False)
        return _members(value) if is_object(value) else {}

    def _fits(self, key: str, size: int) -> bool:
        """Whether there is room for a row of this size, which is then counted."""
        known = self._before.get(key)
        before = self._row_sizes.get(key)
        is_new = before is None and known is None
        if before is None:
            before = 0 if known is None else self._size_of(key, known.payload)
        if (is_new and len(self._before) + self._added >= MAX_ROWS) or (
            size > before and self._size + size - before > MAX_BYTES
        ):
            self._count(Counter.RECORDER_ROWS_LEFT_OUT)
            return False
        self._added += is_new
        self._size += size - before
        self._row_sizes[key] = size
        return True


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
    if is_wrapped(value):
        return None
    text = find_text(value, path)
    if text is None or text == b"null" or len(text) > MAX_KEY_CHARACTERS:
        return None
    return _decode_text(text) if text.startswith(b'"') else text.decode()


def _members(value: bytes) -> dict[str, bytes]:
    return {key: bytes(text) for key, text in members_of(value).items()}


def _size_of_members(members: Mapping[str, bytes]) -> int:
    return sum(len(name) + len(text) + 6 for name, text in members.items())
