"""Payloads of every kind for tests of recorders, and what a reader must find of them."""

import base64
import json
from decimal import Decimal

from hypothesis import strategies as st

from appliance.model import Message
from appliance.recorders.payload import MAX_DEPTH, json_value, nesting

TIME_NS = 1_681_310_409_792_123_456


def messages(*payloads, topic="plant/7/temp", first=1):
    return [
        Message(seq, TIME_NS, topic, payload, client_id="c", qos=1)
        for seq, payload in enumerate(payloads, first)
    ]


def loads(text):
    """JSON with exact numbers; a repeated key makes the object a list of pairs."""

    def pairs(found):
        return dict(found) if len(dict(found)) == len(found) else ("pairs", found)

    return json.loads(text, parse_float=Decimal, parse_int=Decimal, object_pairs_hook=pairs)


def same(cell, kind, value):
    """Whether a cell shows a JSON value; only its type in a text column may be lost."""
    if value is None:
        return cell is None
    if kind == "text":
        if isinstance(value, str):
            return cell == value
        if isinstance(value, Decimal):
            return Decimal(cell) == value
        return loads(cell) == value
    if kind == "boolean":
        return cell is value
    return type(value) is Decimal and Decimal(repr(cell)) == value


numbers = st.sampled_from(
    [b"0", b"-0", b"1.0", b"1e5", b"1e400", b"1e-400", b"9223372036854775807"]
    + [b"9223372036854775808", b"-9223372036854775809", b"9007199254740993", b"1" + b"0" * 400]
    + [b"3.14159265358979323846", b"0.1", b"123456789012345678901234567890.5", b"1e23"]
)
scalars = (
    numbers
    | st.sampled_from([b"null", b"true", b"false", b'"\\u0000"', b'"5"', b'"\\ud800"', b'"a:b"'])
    | st.integers().map(lambda n: b"%d" % n)
    | st.floats(allow_nan=False, allow_infinity=False).map(lambda f: repr(f).encode())
    | st.text(max_size=6).map(lambda t: json.dumps(t).encode())
)
keys = st.sampled_from(["a", "b", "A", "payload", "", "k" * 70, "\x07", "$text"]).map(
    lambda key: json.dumps(key).encode()
)


def joined(pairs):
    return b"{" + b", ".join(key + b": " + value for key, value in pairs) + b"}"


values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(st.tuples(keys, inner), max_size=3).map(joined)
        | st.lists(inner, max_size=3).map(lambda items: b"[" + b",".join(items) + b"]")
    ),
    max_leaves=5,
)
objects = st.lists(st.tuples(keys, values), max_size=5).map(joined)
payload_bytes = objects | values | st.binary(max_size=10)


FIELD_PAYLOADS = [
    b'{"a": 1, "b": "x"}',
    b'{"a": 2.5, "b": null, "c": [1, {"d": 1e400}]}',
    b'{"a": "n/a", "e": true}',
    b'{"a": 9007199254740993, "e": false}',
    b"",
    b"{}",
    b"null",
    b" 5 ",
    b'"5"',
    b'plain text, with "quotes" and \' and ;\r\n\tlines',
    b"=1+1",
    b"{'a': 5}",
    b"NaN",
    b'{"a": NaN}',
    b"-Infinity",
    b"1e400",
    b'{"a": 1e400}',
    b'{"huge": 123456789012345678901234567890}',
    b'{"id": 18446744073709551615, "exact": 3.14159265358979323846}',
    b'{"a": 1, "a": 2}',
    b'{"nested": {"a": 1, "a": 2}}',
    b"\x00\xff\xfe binary",
    b"caf\xe9",
    b"\xef\xbb\xbf{}",
    b'"\\ud800"',
    b'{"a": "\\udc00"}',
    b"NUL \x00 in text",
    b'{"b": "NUL \\u0000 in text"}',
    '{"größe": "Ω 😀", "key with \\" and , and \\n": 1}'.encode(),
    b'{"": 1, " ": 2, "\\u0000": 3}',
    b'{"payload": 1, "topic": 2, "seq": 3}',
    b'{"%b": 1}' % (b"k" * 300),
    b"[" * 1000 + b"]" * 1000,
    b'{"deep": %b}' % (b"[" * 90 + b"]" * 90),
    b'[{"a": 1}, {"a": "x"}, 5, [], null]',
    b"[]",
    b'{"$text": "x", "$base64": 1}',
    b'{"b": "%b"}' % (b"long " * 20_000),
]
"""What clients really send, and what they could send."""

MANY_KEYS = json.dumps({f"k{number}": number for number in range(500)}).encode()


def is_json(payload):
    """Whether a recording holds a payload as the JSON that it is."""

    def refuse(name):
        raise ValueError(name)

    try:
        pairs = json.loads(payload.decode(), parse_constant=refuse, object_pairs_hook=list)
        json.dumps(pairs, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return False
    return nesting(payload) <= MAX_DEPTH


def restored(value):
    """What docs/recording.md tells readers of JSON: bytes of a wrapped payload, else the value."""
    if isinstance(value, dict) and len(value) == 1:
        ((key, inner),) = value.items()
        if key == "$text":
            return inner.encode()
        if key == "$base64":
            return base64.b64decode(inner)
        if key == "$json":
            return inner
    return value


def check_value(value, payload):
    """That a JSON element stands for a payload."""
    found = restored(value)
    assert found == (loads(payload) if is_json(payload) else payload)


def whole_text(payload):
    """What the column `payload` has for a whole payload."""
    text = json_value(payload, indent=False).decode()
    if text.startswith('{"$text": ') and b"\0" not in payload:
        return payload.decode()
    return text


def check_cells(row, payload, taken=(), *, is_csv=False):
    """That the columns of a row stand for a payload.

    Args:
        row: cells by column, with the types that the reader gives them.
        payload: the payload, or an element of it.
        taken: names of columns that are not keys of the payload.
        is_csv: whether of a key that comes twice the last value counts, and texts have NUL.
    """
    cell = row["payload"]
    text = whole_text(payload)
    if is_csv and text.startswith('{"$text": '):
        text = payload.decode()
    guarded = (text, "'" + text)
    if cell in guarded:
        return
    assert cell in (None, ""), cell
    assert is_json(payload), payload
    value = loads(payload)
    if is_csv and isinstance(value, tuple):
        value = dict(value[1])
    assert isinstance(value, dict), payload
    used = {name.casefold() for name in (*taken, "payload")}
    for key, one in value.items():
        name = key
        while name.casefold() in used:
            name += "_"
        assert _stands_for(row.get(name), one), (key, one, row.get(name))


def _stands_for(cell, value):
    if value is None:
        return cell in (None, "")
    if isinstance(value, bool):
        return cell in (value, json.dumps(value))
    if isinstance(value, str):
        return (cell or "") in (value, "'" + value)
    if isinstance(value, Decimal):
        return cell is not None and Decimal(str(cell)) == value
    return loads(cell) == value
