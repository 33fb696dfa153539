"""The journal's on-disk form: many messages in one blob ("chunk"), one row a chunk.

One row for a whole batch is several times faster than one row a message, and the interpreter's
lock is taken once a commit instead of once a row. Not for: files, transactions or threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from appliance.model import Message, decode_hook, encode_hook

MAX_MESSAGES = 1000
MAX_BYTES = 1024 * 1024
"""A chunk stays below both, so that reading one message never decodes more than this. A message
that is bigger is a chunk of its own."""

Row = tuple[int, int, int, int, bytes]
"""first_seq, last_seq, first_ns, last_ns, body: the columns of table ``chunk``."""

_encoder = msgspec.msgpack.Encoder(enc_hook=encode_hook)
NO_MESSAGES = _encoder.encode([])
"""The body of a chunk that only says that numbers up to its own are used."""
_decoder = msgspec.msgpack.Decoder(list[Message], dec_hook=decode_hook)


class _Head(msgspec.Struct, array_like=True, gc=False):
    """The beginning of a ``Message``; what comes behind is not decoded."""

    seq: int
    received_ns: int
    topic: str


_head_decoder = msgspec.msgpack.Decoder(list[_Head])
_raw_decoder = msgspec.msgpack.Decoder(list[msgspec.Raw])
_message_decoder = msgspec.msgpack.Decoder(Message, dec_hook=decode_hook)
_FEW = 4
"""Less than one in so many messages are decoded one by one."""


def encode(messages: Sequence[Message], content_size: int) -> list[Row]:
    """Pack messages, which must be in order, into as few chunks as the limits allow.

    Args:
        messages: none, one or many.
        content_size: the sum of ``message_cost.content_of`` them, or more.

    Raises:
        UnicodeEncodeError, TypeError, OverflowError: a message holds what can't be stored, such as
            half a surrogate pair in its topic.
    """
    rows: list[Row] = []
    may_be_big = content_size > MAX_BYTES
    for start in range(0, len(messages), MAX_MESSAGES):
        _add(rows, messages[start : start + MAX_MESSAGES], may_be_big=may_be_big)
    return rows


def _add(rows: list[Row], messages: Sequence[Message], *, may_be_big: bool) -> None:
    # Packing first and halving when it came out too big keeps the usual case free of any work
    # a message; a chunk that is certainly too big is not packed in vain.
    if (
        may_be_big
        and len(messages) > 1
        and sum([len(message.payload) for message in messages]) > MAX_BYTES
    ):
        _halve(rows, messages)
        return
    body = _encoder.encode(messages)
    if len(messages) > 1 and len(body) > MAX_BYTES:
        _halve(rows, messages)
        return
    first, last = messages[0], messages[-1]
    rows.append((first.seq, last.seq, first.received_ns, last.received_ns, body))


def _halve(rows: list[Row], messages: Sequence[Message]) -> None:
    middle = len(messages) // 2
    _add(rows, messages[:middle], may_be_big=True)
    _add(rows, messages[middle:], may_be_big=True)


def decode(body: bytes) -> list[Message]:
    """The messages of a chunk, in order.

    Raises:
        ValueError: the bytes are damaged (msgspec.DecodeError, or UnicodeDecodeError for a text).
    """
    return _decoder.decode(body)


def decode_on(body: bytes, concerns: Callable[[str], bool]) -> list[Message]:
    """Of a chunk, the messages on the topics that ``concerns`` names, in order.

    Where there are none, it takes a third of the time of ``decode``.

    Raises:
        ValueError: the bytes are damaged.
    """
    heads = _head_decoder.decode(body)
    wanted = set(filter(concerns, {one.topic for one in heads}))
    if not wanted:
        return []
    places = [place for place, one in enumerate(heads) if one.topic in wanted]
    if len(places) * _FEW > len(heads):
        return [one for one in decode(body) if one.topic in wanted]
    encoded = _raw_decoder.decode(body)
    return [_message_decoder.decode(encoded[place]) for place in places]


def topics(bodies: Sequence[bytes]) -> set[str]:
    """The topics of many chunks, decoded as if they were one: small chunks cost little more.

    Raises:
        ValueError: some bytes are damaged, or are no chunk.
    """
    count, parts = 0, []
    for body in bodies:
        # The head of a MessagePack array: its length in the first byte, or in two or four behind.
        first = body[0] if body else 0
        size = 1 if first & 0xF0 == _FEW_ITEMS else _HEAD_BYTES.get(first, 0)
        if not size or len(body) < size:
            raise ValueError("this is no chunk")
        count += first & 0x0F if size == 1 else int.from_bytes(body[1:size], "big")
        parts.append(body[size:])
    head = b"\xdd" + count.to_bytes(4, "big")
    return {one.topic for one in _head_decoder.decode(head + b"".join(parts))}


_FEW_ITEMS = 0x90
_HEAD_BYTES = {0xDC: 3, 0xDD: 5}
"""https://github.com/msgpack/msgpack/blob/master/spec.md#array-format-family"""
