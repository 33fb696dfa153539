"""`fields`, `types`, `flatten`, `time_field` and named levels in the formats that are text."""

import csv
import io
import json

import pytest
from hypothesis import given, settings

from appliance.config.tables import RecorderConfig
from appliance.config.values import TopicFilter
from appliance.model import Message
from appliance.recorders.formats import make_format
from appliance.recorders.locate import locate
from recorder_payloads import TIME_NS, payload_bytes

TIME = "2023-04-12T14:40:09.792123Z"


def message(payload, seq=1, topic="plant/7/temp"):
    return Message(seq, TIME_NS, topic, payload, client_id="c", qos=1)


def form_of(kind, topic="plant/{line}/#", **keys):
    return make_format(RecorderConfig(topic=TopicFilter(topic), format=kind, **keys))


def whole(form, payloads):
    messages = form.with_rows([message(one, seq) for seq, one in enumerate(payloads, 1)])
    if not messages:
        return form.empty
    opening = form.opening(messages[0])
    return opening + form.separator.join(form.elements(messages)) + form.closing


def elements(kind, payloads, **keys):
    """What a reader makes of the file."""
    text = whole(form_of(kind, **keys), payloads).decode()
    if kind == "json":
        return json.loads(text, parse_float=str)
    if kind == "jsonl":
        return [json.loads(line, parse_float=str) for line in text.splitlines()]
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_levels_stand_first_and_the_time_last(kind):
    payloads = [b'{"a": 1.50, "a": 2}', b"text", b'{"line": 5, "payload": 6, "line_": 7}', b"{}"]
    found = elements(kind, payloads, time_field="received")
    assert found == [
        {"line": "7", "a": 2, "received": TIME},
        {"line": "7", "payload": {"$text": "text"}, "received": TIME},
        {"line": "7", "line__": 5, "payload_": 6, "line_": 7, "received": TIME},
        {"line": "7", "received": TIME},
    ]
    assert list(found[0]) == ["line", "a", "received"]
    text = whole(form_of(kind), payloads)
    assert b'"a": 1.50' in text
    assert text.count(b'"a"') == 2


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_with_metadata_the_payload_stays_beside_the_levels(kind):
    (found,) = elements(kind, [b'{"seq": 5}'], time_field="received", metadata=True)
    assert found == {
        **{"seq": 1, "time": TIME, "topic": "plant/7/temp", "client": "c", "qos": 1},
        **{"retain": False, "line": "7", "payload": {"seq": 5}, "received": TIME},
    }


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_fields_keep_the_text_of_numbers(kind):
    keys = {"fields": {"t": "data.temp", "second": "data.l[1]"}, "topic": "#"}
    payloads = [b'{"data": {"temp": 21.50, "l": [1, {"x": 1e400}]}}', b'{"b": null}', b"[1]"]
    assert elements(kind, payloads, **keys) == [
        {"t": "21.50", "second": {"x": "1e400"}},
        {"payload": {"b": None}},
        {"payload": [1]},
    ]


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_types_make_values_of_texts_and_leave_what_does_not_fit_in_the_payload(kind):
    types = {"n": "number", "i": "integer", "b": "boolean", "t": "time", "s": "text"}
    payloads = [
        b'{"n": "1.50", "i": "7", "b": "false", "t": 1795950000, "s": 1.50, "x": null}',
        b'{"n": "warm", "i": 1e400, "s": null}',
    ]
    assert elements(kind, payloads, types=types, topic="#") == [
        {
            **{"n": "1.50", "i": 7, "b": False, "t": "2026-11-29T11:00:00.000000Z", "s": "1.50"},
            "x": None,
        },
        {"s": None, "payload": {"n": "warm", "i": "1e400", "s": None}},
    ]


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv"])
def test_a_list_becomes_a_row_for_each_element_and_an_empty_one_none(kind):
    payloads = [b"[]", b'[{"a": 1}, {"a": "x"}]', b" [ ] ", b'{"a": 3}', b'[{"a":4}]', b"[]"]
    found = elements(kind, payloads, flatten=True, topic="#")
    assert [str(row["a"]) for row in found] == ["1", "x", "3", "4"]
    assert elements(kind, [b"[]"], flatten=True) == []
    assert whole(form_of("json", flatten=True), [b"[]"]) == b"[]"


def test_columns_of_a_csv_file():
    """Metadata, levels, keys, time, payload; what has no column is in `payload`."""
    payloads = [b'{"a": 1.50, "line": "x"}', b'{"a": 2}', b'{"b": 1}', b"=text", b"{}"]
    keys = {"metadata": True, "time_field": "received"}
    found = elements("csv", payloads, **keys)
    assert list(found[0]) == (
        ["seq", "time", "topic", "client", "qos", "retain", "line", "a", "line_", "received"]
        + ["payload"]
    )
    shown = [(row["line"], row["a"], row["line_"], row["payload"]) for row in found]
    assert shown == [
        ("7", "1.50", "x", ""),
        ("7", "2", "", ""),
        ("7", "", "", '{"b": 1}'),
        ("7", "", "", "'=text"),
        ("7", "", "", ""),
    ]
    assert {row["received"] for row in found} == {TIME}


def test_fields_and_types_of_a_csv_file():
    keys = {"fields": {"t": "data.t", "n": "n"}, "types": {"t": "number"}, "topic": "#"}
    payloads = [b'{"data": {"t": "21.50"}, "n": [1, 2]}', b'{"data": {"t": "warm"}, "n": 1}', b"x"]
    assert elements("csv", payloads, **keys) == [
        {"t": "21.50", "n": "[1, 2]", "payload": ""},
        {"t": "", "n": "1", "payload": '{"data": {"t": "warm"}, "n": 1}'},
        {"t": "", "n": "", "payload": "x"},
    ]


SHAPES = [
    {"time_field": "received"},
    {"fields": {"a": "a", "b": "b[0].a"}, "metadata": True},
    {"types": {"a": "number", "b": "text"}},
    {"flatten": True},
    {"flatten": True, "types": {"a": "time"}, "time_field": "a"},
]


@pytest.mark.parametrize("keys", SHAPES)
@pytest.mark.parametrize("kind", ["json", "jsonl", "csv"])
@given(payload=payload_bytes)
@settings(deadline=None, max_examples=12)
def test_any_payload_gives_a_valid_row(kind, keys, payload):
    """And a continued file gets the same bytes as one that was never left."""
    for payloads in ([payload], [b"[%b,1]" % payload, payload]):
        elements(kind, payloads, **keys)
        form, again = form_of(kind, **keys), form_of(kind, **keys)
        messages = form.with_rows([message(one) for one in payloads])
        if messages:
            form.opening(messages[0])
            again.recall(form.memory)
            assert form.elements(messages) == again.elements(messages)


@given(payload=payload_bytes)
@settings(deadline=None, max_examples=50)
def test_without_a_loss_the_members_are_those_of_the_payload(payload):
    (found,) = elements("jsonl", [payload])
    try:
        value = json.loads(payload.decode(), parse_float=str, parse_constant=lambda _: 1 / 0)
        pairs = json.loads(payload.decode(), object_pairs_hook=list)
        json.dumps(pairs, ensure_ascii=False).encode()
    except (ValueError, ZeroDivisionError, RecursionError):
        assert set(found["payload"]) <= {"$text", "$base64"}
        return
    if isinstance(value, dict) and not value.keys() & {"$text", "$base64", "$json"}:
        original = value
        if "payload" in value:
            value = {("payload_" if key == "payload" else key): one for key, one in value.items()}
        # A key that comes twice and has to be renamed: the payload as it is.
        assert found in ({"line": "7", **value}, {"line": "7", "payload": original})
    else:
        assert found["payload"] in (value, {"$json": value})


@pytest.mark.parametrize("keys", SHAPES)
@pytest.mark.parametrize("kind", ["json", "jsonl", "csv"])
def test_a_lost_position_is_found_again(tmp_path, kind, keys):
    """By the end of the file, as without these keys."""
    payloads = [b'{"a": %d, "b": [{"a": "%d"}]}' % (n, n) for n in range(300)]
    payloads += [b'[{"a": 1}, {"a": 2}]', b"[]", b"text", b"[]"]
    path = tmp_path / "file"
    path.write_bytes(whole(form_of(kind, **keys), payloads))
    form = form_of(kind, **keys)
    messages = [message(one, seq) for seq, one in enumerate(payloads, 1)]
    place = locate(path, form, form.with_rows(messages)[::-1], 400)
    assert place is not None
    assert place.progress.seq == form.with_rows(messages)[-1].seq
    assert place.progress.format == form.name


def test_a_recording_goes_on_only_with_the_same_keys():
    """Else the file would change its form in the middle."""
    names = [form_of("jsonl", **keys).name for keys in SHAPES]
    names += [form_of("jsonl", topic="#").name, form_of("jsonl").name]
    assert len(set(names)) == len(names)
    assert form_of("jsonl", topic="plant/+/#").name == "jsonl"
    assert form_of("jsonl", flatten=True, topic="#").name != "jsonl"


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_a_level_may_have_a_type(kind):
    """A level that is none of it is empty."""
    (seven,) = elements(kind, [b'{"a": 1}'], types={"line": "integer"})
    assert seven["line"] == (7 if kind == "json" else "7")
    form = form_of("jsonl", topic="{area}/+/+", types={"area": "number"})
    assert json.loads(form.element(message(b"{}"))) == {"area": None}
