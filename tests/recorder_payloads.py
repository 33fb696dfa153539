"""Payloads of every kind for tests of recorders, and what a reader must find of them."""

import json
from decimal import Decimal

from hypothesis import strategies as st

from appliance.model import Message

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
