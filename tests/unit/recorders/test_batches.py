"""A recording is the same, however many messages were written at a time."""

from __future__ import annotations

import json

from appliance.model import Message
from appliance.recorders.json import JsonFormat
from appliance.recorders.jsonl import JsonLinesFormat
from appliance.recorders.payload import objects
from hypothesis import example, given, settings
from hypothesis import strategies as st

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
PAYLOADS = st.one_of(
    st.dictionaries(st.text(), VALUES).map(lambda value: json.dumps(value).encode()),
    st.dictionaries(st.text(), VALUES).map(
        lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(
            errors="surrogatepass"
        )
    ),
    VALUES.map(lambda value: json.dumps(value).encode()),
    st.binary(),
    st.text(alphabet='{}[],:"\\\\ \\n1a$').map(str.encode),
)


@given(st.lists(PAYLOADS, min_size=1, max_size=8))
@settings(deadline=None, max_examples=15)
@example([b"{}", b'{"a":1}', b"{}"])
@example([b'{"a":1', b'"b":2}'])
@example([b"{},{}", b'{"a":[', b"]}"])
@example([b'{"a":"},\\n  {"}', b'{"b":2}'])
@example([b"{}", b'{"a":' + b"[" * 97 + b"]" * 97 + b"}"])
@example([b'{"a":"\xc3', b'\xa4"}'])
@example([b' {"a": 1}', b'{"a": 1}'])
@example([b'{"a":"}', b'{","b":1}', b"{},{}"])
@example([b'{"a":[{}', b"{}]}", b"{},{}"])
@example([b'{"a\0":1}', b"{}"])
def test_messages_written_together_are_recorded_as_if_written_one_by_one(payloads):
    """A reader can't tell, and no payload can reach beyond its own element."""
    messages = [
        Message(seq, seq * 10**9 - 1, "t", payload) for seq, payload in enumerate(payloads, 1)
    ]
    form = JsonFormat(metadata=False)
    one_by_one = [form.element(message) for message in messages]
    assert form.separator.join(form.elements(messages)) == form.separator.join(one_by_one)
    lines = JsonLinesFormat(metadata=len(payloads) % 2 == 0)
    assert b"".join(lines.elements(messages)) == b"".join(map(lines.element, messages))
    elements = objects(payloads)
    assert elements is None or elements == form.separator.join(one_by_one)


def test_ordinary_payloads_are_formatted_together():
    """What machines send takes the quick way, so that a recorder keeps up with the broker."""
    payloads = [b'{"Generated number": "%d", "ok": true}' % number for number in range(100)]
    assert objects(payloads) is not None
    form = JsonFormat(metadata=False)
    messages = [Message(seq, 0, "t", payload) for seq, payload in enumerate(payloads, 1)]
    together = form.elements(messages)
    assert len(together) < 20
    assert len(JsonLinesFormat(metadata=True).elements(messages)) == 2
    assert form.separator.join(together) == form.separator.join(map(form.element, messages))


def test_one_odd_payload_among_many_is_recorded_like_any():
    """What is no JSON object stands in its own place among those that are."""
    form = JsonFormat(metadata=False)
    payloads = [b'{"n": %d}' % number for number in range(200)]
    payloads[77] = b"\xff not JSON"
    messages = [Message(seq, 0, "t", payload) for seq, payload in enumerate(payloads, 1)]
    one_by_one = form.separator.join(map(form.element, messages))
    assert form.separator.join(form.elements(messages)) == one_by_one
