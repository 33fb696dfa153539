"""What a recording looks like, byte by byte, and that nothing is lost or made ambiguous by it."""

import base64
import csv
import io
import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from appliance.model import Message
from appliance.recorders.csv import CsvFormat
from appliance.recorders.json import JsonFormat
from appliance.recorders.jsonl import JsonLinesFormat
from appliance.recorders.payload import MAX_DEPTH, json_value, nesting
from appliance.recorders.writes import MAX_WRITES, PAGE_BYTES, positioned

SEED = """[
  {
    "Generated number": "0"
  },
  {
    "Generated number": "1"
  }
]"""


def message(payload, seq=1, **more):
    return Message(seq, 1_681_310_409_792_123_000, "/demo/integers", payload, **more)


def whole(file_format, messages):
    """A file as the recorder puts it together."""
    if not messages:
        return file_format.empty
    elements = [file_format.opening(messages[0]) + file_format.element(messages[0])]
    elements += [file_format.element(m) for m in messages[1:]]
    return file_format.separator.join(elements) + file_format.closing


def exact(text):
    """JSON with every number's own text, and objects with all their keys in order."""
    return json.loads(
        text,
        parse_float=lambda number: ("number", number),
        parse_int=lambda number: ("number", number),
        object_pairs_hook=lambda pairs: ("object", pairs),
    )


def payload_of(value):
    """What docs/recording.md tells readers to do: bytes for wrapped payloads, else the value."""
    if isinstance(value, tuple) and value[0] == "object" and len(value[1]) == 1:
        ((key, inner),) = value[1]
        if key == "$text":
            return inner.encode()
        if key == "$base64":
            return base64.b64decode(inner)
        if key == "$json":
            return ("json", inner)
    return ("json", value)


def is_json(payload):
    def refuse(name):
        raise ValueError(name)

    try:
        value = json.loads(payload.decode(), parse_constant=refuse)
        # Python's reader lets half surrogate pairs pass, which no UTF-8 text can hold.
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return False
    return True


def check_lossless(payload, text):
    meant = payload_of(exact(text))
    if is_json(payload) and nesting(payload) <= MAX_DEPTH:
        assert meant == ("json", exact(payload))
    else:
        assert meant == payload


json_texts = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=5) | st.sampled_from(["$text", "$json"]), inner, max_size=4
        )
    ),
    max_leaves=12,
).flatmap(
    lambda value: st.sampled_from([None, 1]).map(
        lambda indent: json.dumps(value, indent=indent, ensure_ascii=bool(indent)).encode()
    )
)


@given(st.binary(max_size=80) | st.text(max_size=80).map(str.encode) | json_texts)
@example(b"")
@example(b"1.0")
@example(b"123456789012345678901234567890")
@example(b"1e999")
@example(b"-0")
@example(b'{"a": 1, "a": 2}')
@example(b'{"$text": "x"}')
@example(b'{"\\u0024text": "x"}')
@example(b'{"$base64": "eA=="}')
@example(b'{"$json": 1}')
@example(b"NaN")
@example(b"-Infinity")
@example(b"\xef\xbb\xbf1")
@example(b'"\\ud800"')
@example(b'"\xed\xa0\x80"')
@example(b'"\xff"')
@example(b"1,2")
@example(b"],[")
@example(b"01")
@example(b"\x00")
@settings(deadline=None, max_examples=150)
def test_any_payload_can_be_had_back_from_a_recording(payload):
    """Numbers keep their digits, keys their order and doubles; anything else comes back in bytes."""
    for indent in (True, False):
        check_lossless(payload, json_value(payload, indent=indent))
    assert b"\n" not in json_value(payload, indent=False)


def test_recording_looks_like_the_one_that_users_know():
    """A `json` recording of the demo is indented exactly as json.dump(indent=2) does it."""
    messages = [message(b'{"Generated number": "%d"}' % number) for number in range(2)]
    assert whole(JsonFormat(metadata=False), messages).decode() == SEED
    assert json.dumps(json.loads(SEED), indent=2) == SEED
    assert whole(JsonFormat(metadata=False), []) == b"[]"


def test_metadata_stands_beside_the_payload():
    """With metadata an element says who sent what, when and to which topic."""
    messages = [message(b'{"a":[1]}', 7, qos=1, retain=True, client_id='p"1'), message(b"x", 8)]
    text = whole(JsonFormat(metadata=True), messages).decode()
    expected = [
        {
            "seq": 7,
            "time": "2023-04-12T14:40:09.792123Z",
            "topic": "/demo/integers",
            "client": 'p"1',
            "qos": 1,
            "retain": True,
            "payload": {"a": [1]},
        },
        {
            "seq": 8,
            "time": "2023-04-12T14:40:09.792123Z",
            "topic": "/demo/integers",
            "client": "",
            "qos": 0,
            "retain": False,
            "payload": {"$text": "x"},
        },
    ]
    assert text == json.dumps(expected, indent=2)
    lines = whole(JsonLinesFormat(metadata=True), messages).decode().splitlines()
    assert lines == [json.dumps(element) for element in expected]


@pytest.mark.parametrize("file_format", [JsonFormat, JsonLinesFormat, CsvFormat])
@pytest.mark.parametrize(
    "payload",
    [b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000],
    ids=["open", "arrays", "objects"],
)
def test_deep_nesting_harms_nothing(file_format, payload):
    """A payload of 100,000 brackets is recorded as text, and the recording stays readable."""
    text = whole(file_format(metadata=False), [message(payload), message(b"1")]).decode()
    if file_format is CsvFormat:
        csv.field_size_limit(10**7)
        assert list(csv.reader(io.StringIO(text, newline="")))[1] == [payload.decode()]
    elif file_format is JsonFormat:
        assert json.loads(text) == [{"$text": payload.decode()}, 1]
    else:
        assert json.loads(text.splitlines()[0]) == {"$text": payload.decode()}


def test_nesting_up_to_the_limit_is_kept_as_json():
    """Values that usual readers can read are not turned into text."""
    payload = b"[" * MAX_DEPTH + b'"]]]["' + b"]" * MAX_DEPTH
    assert nesting(payload) == MAX_DEPTH
    assert json.loads(json_value(payload, indent=True)) == json.loads(payload)
    deeper = b"[" + payload + b"]"
    assert json.loads(json_value(deeper, indent=True)) == {"$text": deeper.decode()}


@given(json_texts)
@settings(deadline=None, max_examples=50)
def test_nesting_is_counted_right(payload):
    """Brackets in strings don't count, with any escapes there."""

    def depth(value):
        if isinstance(value, list):
            return 1 + max(map(depth, value), default=0)
        if isinstance(value, dict):
            return 1 + max(map(depth, value.values()), default=0)
        return 0

    brackets = payload.count(b"[") + payload.count(b"{")
    assert nesting(payload) == (brackets if brackets <= 1 else depth(json.loads(payload)))


def test_indentation_can_not_blow_a_payload_up():
    """A payload made to explode when indented is kept on one line."""
    payload = b"[" * 90 + b",".join([b"1"] * 50_000) + b"]" * 90
    value = json_value(payload, indent=True)
    assert len(value) < 3 * len(payload)
    assert json.loads(value) == json.loads(payload)


# --- csv ---------------------------------------------------------------------------------------


def rows(text):
    return list(csv.reader(io.StringIO(text.decode(), newline=""), strict=True))


def test_columns_are_the_keys_of_the_first_payload():
    """A CSV file of flat objects opens as a table; what doesn't fit stands whole in `payload`."""
    text = whole(
        CsvFormat(metadata=False),
        [
            message(b'{"name": "pump 1, north", "value": 1.50, "on": true, "more": {"x": [1]}}'),
            message(b'{"value": -5, "name": null}'),
            message(b'{"value": 6, "new": 1}'),
            message(b"not JSON"),
            message(b"\xff"),
        ],
    )
    assert rows(text) == [
        ["name", "value", "on", "more", "payload"],
        ["pump 1, north", "1.50", "true", '{"x": [1]}', ""],
        ["", "-5", "", "", ""],
        ["", "", "", "", '{"value": 6, "new": 1}'],
        ["", "", "", "", "not JSON"],
        ["", "", "", "", '{"$base64": "/w=="}'],
    ]
    assert text.endswith(b"\r\n")


def test_columns_with_the_same_name_are_told_apart():
    """A payload key that is called like a column of ours gets a name of its own."""
    text = whole(CsvFormat(metadata=True), [message(b'{"topic": "t", "payload": "p"}', 3)])
    header, row = rows(text)
    assert len(set(header)) == len(header)
    named = dict(zip(header, row, strict=True))
    assert named["topic"] == "/demo/integers"
    assert named["topic_"] == "t"
    assert named["payload"] == "p"
    assert named["payload_"] == ""


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("-1-1", "'-1-1"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("-5", "-5"),
        ("+4.5e-3", "+4.5e-3"),
        ("plain", "plain"),
    ],
)
def test_spreadsheets_are_given_no_formulas(text, cell):
    """A text that a spreadsheet would run gets an apostrophe; numbers stay numbers."""
    payload = json.dumps({"a": text, text: 1}).encode()
    header, row = rows(whole(CsvFormat(metadata=False), [message(payload)]))
    assert row[0] == cell
    assert header[1] == cell
    assert rows(whole(CsvFormat(metadata=False), [message(text.encode())]))[1] == [cell]


@given(
    st.lists(st.binary(max_size=30) | json_texts, min_size=1, max_size=6),
    st.booleans(),
)
@settings(deadline=None, max_examples=50)
def test_every_csv_file_is_a_proper_table(payloads, metadata):
    """For any payload: one row a message, every row as wide as the header."""
    messages = [message(payload, seq) for seq, payload in enumerate(payloads, 1)]
    table = rows(whole(CsvFormat(metadata=metadata), messages))
    assert len(table) == len(messages) + 1
    assert {len(row) for row in table} == {len(table[0])}


def test_csv_file_is_continued_with_its_own_columns():
    """After a restart, rows go on under the header that stands in the file."""
    before, after = CsvFormat(metadata=False), CsvFormat(metadata=False)
    head = whole(before, [message(b'{"a": 1, "b": 2}')])
    after.recall(before.memory)
    assert rows(head + after.element(message(b'{"b": 3}'))) == [
        ["a", "b", "payload"],
        ["1", "2", ""],
        ["", "3", ""],
    ]


# --- writes ------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 6000), min_size=1, max_size=60),
    st.integers(0, 10_000),
)
@settings(deadline=None, max_examples=50)
def test_file_is_valid_after_every_single_write(sizes, before):
    """Between any two writes a reader finds a complete array, and small writes keep to a page."""
    file_format = JsonFormat(metadata=False)
    first = message(json.dumps("a" * before).encode())
    content = bytearray(whole(file_format, [first]))
    pieces = [
        file_format.separator + file_format.element(message(json.dumps("b" * size).encode()))
        for size in sizes
    ]
    start = len(content) - len(file_format.closing)
    seen = 1
    small = sum(map(len, pieces)) < PAGE_BYTES
    for offset, data in positioned(pieces, start, file_format.closing):
        content[offset : offset + len(data)] = data
        array = json.loads(content)
        assert len(array) > seen
        seen = len(array)
        crosses = offset // PAGE_BYTES != (offset + len(data) - 1) // PAGE_BYTES
        if crosses and small:
            assert data.count(b"\n  ") == 1, "only a message alone may cross into the next page"
    assert seen == 1 + len(sizes)


def test_big_batch_needs_few_writes():
    """A recorder that catches up does not do a system call a page."""
    pieces = [b"x" * 50] * 20_000
    writes = list(positioned(pieces, 123, b"\n]"))
    assert len(writes) <= MAX_WRITES
    assert sum(len(data) - 2 for _, data in writes) == 1_000_000
