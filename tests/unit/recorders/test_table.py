"""Payloads become typed columns, and no value is lost on the way."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from recorder_payloads import TIME_NS, loads, messages, payload_bytes, same

from appliance.config.tables import RecorderConfig
from appliance.config.value_path import parse_path
from appliance.config.values import TopicFilter
from appliance.recorders.payload import json_value
from appliance.recorders.rows import has_repeated_keys
from appliance.recorders.table_maker import MAX_COLUMNS, TableMaker


def maker(topic="#", **keys):
    return TableMaker(RecorderConfig(topic=TopicFilter(topic), format="parquet", **keys))


def rows(table):
    names = [column.name for column in table.columns]
    assert all(len(values) == table.rows for values in table.values)
    assert len(table.values) == len(names) == len({name.casefold() for name in names})
    return [dict(zip(names, row, strict=True)) for row in zip(*table.values, strict=True)]


def kinds(table):
    return {column.name: column.kind for column in table.columns}


def check_lossless(made, table, payloads):
    types = kinds(table)
    for row, payload in zip(rows(table), payloads, strict=True):
        if row["payload"] is not None:
            whole = json_value(payload, indent=False).decode()
            if whole.startswith('{"$text": ') and b"\0" not in payload:
                whole = payload.decode()
            assert row["payload"] == whole
            continue
        value = loads(payload)
        assert isinstance(value, dict)
        cells = {made.key_of(name): (cell, types[name]) for name, cell in row.items()}
        for key, one in value.items():
            cell, kind = cells.get(key, (None, None))
            assert same(cell, kind, one), (key, one, cell, kind)
        assert all(
            cell is None or key in value for key, (cell, _) in cells.items() if key is not None
        )


@given(st.lists(st.lists(payload_bytes, max_size=4), min_size=1, max_size=4))
@example([[b'{"a": 1}'], [b'{"a": 9007199254740993}', b'{"a": 1.5}']])
@example([[b'{"a": 12345678901234567890123}', b'{"a": 1}'], [b'{"a": 1e400}']])
@example([[b'{"a": 1, "a": 2}', b'{"a": {"b:": 1}, "a": [3]}']])
@example([[b'{"a": {"a": 1}}', b'{"a": ":"}', b'{"a":"\\"","a":":"}']])
@settings(deadline=None, max_examples=80)
def test_every_payload_can_be_had_back(batches):
    """A row without `payload` has every value in its columns; else `payload` is the payload."""
    made = maker()
    for batch in batches:
        again = maker()
        again.recall(made.memory)
        table = made.take(messages(*batch))
        check_lossless(made, table, batch)
        assert again.take(messages(*batch)) == table
        assert again.memory == made.memory


@given(st.lists(payload_bytes, max_size=6))
@settings(deadline=None, max_examples=30)
def test_every_element_of_a_list_can_be_had_back(elements):
    """With `flatten` each element is a row, as a payload of its own would be."""
    payload = b"[" + b",".join(elements) + b"]"
    try:
        json_text = json.loads(payload)
    except (ValueError, RecursionError):
        return
    made = maker(flatten=True)
    table = made.take(messages(payload))
    if table.rows == 1 and rows(table)[0]["payload"] and b"\\ud800" in payload:
        return  # no JSON text: the payload as a whole
    assert table.rows == len(json_text)
    assert table.items == list(range(table.rows))
    assert table.seqs == [1] * table.rows


def escaped(char, how):
    if char in '"\\\n' or (how == 1 and ord(char) < 0x10000):
        return f"\\u{ord(char):04x}"
    return "\\/" if char == "/" and how == 2 else char


@given(
    st.lists(
        st.tuples(
            st.text('ab:/"\\é😀\n{', max_size=3),
            st.sampled_from(["1", '"x:y"', '{"a":1,"a":2}', '[1,{"b":":"}]', '"\\"{"', "null"]),
            st.sampled_from(["", " ", "\n"]),
        ),
        max_size=4,
    ),
    st.integers(0, 2),
)
@example([("", "null", ""), ("", "{}", ""), ("\U0001f600", "null", "")], 0)
@example([("", "1", ""), ("", "1", ""), ("\x7f", "null", "")], 0)
@settings(deadline=None, max_examples=60)
def test_a_key_that_comes_twice_is_noticed(pairs, how):
    """However keys are escaped and whatever stands between them."""
    members = [
        f'{space}"{"".join(escaped(char, how) for char in key)}"{space}:{space}{value}'
        for key, value, space in pairs
    ]
    text = f"{{{','.join(members)}}}".encode()
    keys = {key: None for key, _, _ in pairs}
    assert has_repeated_keys(text, keys) is (len(keys) < len(pairs))


@pytest.mark.parametrize(
    ("payloads", "kind"),
    [
        ([b"1", b"2"], "integer"),
        ([b"1", b"2.5"], "number"),
        ([b"2.5", b"1"], "number"),
        ([b"true", b"null"], "boolean"),
        ([b"true", b"1"], "text"),
        ([b"1", b'"n/a"'], "text"),
        ([b"[1]", b"[2]"], "text"),
        ([b"12345678901234567890123"], "text"),
        ([b"1e30", b"1000000000000000000000000"], "number"),
        ([b"1", b"1e400"], "integer"),
    ],
)
def test_a_column_has_the_kind_that_takes_its_values(payloads, kind):
    """It only ever gets wider, in whatever batches the values come."""
    all_payloads = [b'{"a": %b}' % payload for payload in payloads]
    made = maker()
    assert kinds(made.take(messages(*all_payloads)))["a"] == kind
    one_by_one = maker()
    for payload in all_payloads:
        table = one_by_one.take(messages(payload))
    assert kinds(table)["a"] == kind


def test_columns_stand_in_a_fixed_order_and_new_ones_behind_the_known_ones():
    """Metadata, levels, keys, time, payload; a key with a name that is taken gets a line."""
    made = maker("plant/{line}/+", metadata=True, time_field="received")
    table = made.take(messages(b'{"b": 1, "Topic": "x", "received": 2, "payload": 3}', b'{"c":4}'))
    assert [column.name for column in table.columns] == (
        ["seq", "time", "topic", "client", "qos", "retain", "line"]
        + ["b", "Topic_", "received_", "payload_", "c", "received", "payload"]
    )
    first, second = rows(table)
    assert first["line"] == "7"
    assert first["received"] == first["time"] == TIME_NS // 1000
    assert (second["b"], second["c"], second["payload"]) == (None, 4, None)


def test_a_level_may_have_a_type():
    made = maker("{area}/{line}/+", types={"area": "number", "line": "integer"})
    table = made.take(messages(b"{}"))
    assert kinds(table) == {"area": "number", "line": "integer", "payload": "text"}
    assert rows(table) == [{"area": None, "line": 7, "payload": None}]


def test_fields_pick_values_by_path():
    """Nested values, elements and the payload itself; a row without any has its payload whole."""
    made = maker(fields={"t": "data.temp", "second": "data.list[1]", "all": "$"})
    payload = b'{"data": {"temp": 21.50, "list": [1, {"x": 2}]}, "more": 1}'
    first, second = rows(made.take(messages(payload, b"hello")))
    assert (first["t"], first["second"], first["payload"]) == (21.5, '{"x": 2}', None)
    assert second == {"t": None, "second": None, "all": None, "payload": "hello"}
    scalar = maker(fields={"value": "$"})
    assert [row["value"] for row in rows(scalar.take(messages(b"21.5", b" 7 ")))] == [21.5, 7.0]


def test_configured_types_hold_and_what_does_not_fit_is_in_the_payload():
    """The column is empty there; texts that are values of the type are taken."""
    types = {"n": "number", "i": "integer", "b": "boolean", "t": "time", "s": "text"}
    made = maker(types=types)
    good = b'{"n": "1.50", "i": "7", "b": "false", "t": "2026-11-29T12:00:00+01:00", "s": 1.50}'
    bad = b'{"n": "warm", "i": 1.5, "b": 2, "t": "soon", "s": {"x":1}}'
    table = made.take(messages(good, bad))
    assert {name: kind for name, kind in kinds(table).items() if name in types} == types
    first, second = rows(table)
    assert first == {
        **{"n": 1.5, "i": 7, "b": False, "t": 1_795_950_000_000_000, "s": "1.50"},
        "payload": None,
    }
    assert second == {
        **dict.fromkeys("nibt"),
        "s": '{"x": 1}',
        "payload": json_value(bad, indent=False).decode(),
    }


@pytest.mark.parametrize("number", [1_795_950_000, 1_795_950_000_000, 1_795_950_000_000_000])
def test_a_time_may_be_a_number_of_seconds_or_parts_of_them(number):
    made = maker(types={"t": "time"})
    (row,) = rows(made.take(messages(b'{"t": %d}' % number)))
    assert row["t"] == 1_795_950_000_000_000


def test_no_more_than_so_many_keys_become_columns():
    """The rest is in the payload: a client can't make a table without end."""
    made = maker()
    payload = json.dumps({f"k{n}": n for n in range(500)}).encode()
    table = made.take(messages(payload, b'{"another": 1}'))
    assert len(table.columns) == MAX_COLUMNS + 1
    assert [row["payload"] is not None for row in rows(table)] == [True, True]


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a", ("a",)),
        ("a.b[0].c", ("a", "b", 0, "c")),
        ("[3][1].x", (3, 1, "x")),
        ("$", ()),
        ("$.a", ("a",)),
        ("$[0]", (0,)),
        ('"a.b"."c\\"d"[2]', ("a.b", 'c"d', 2)),
        ("größe.x-y", ("größe", "x-y")),
    ],
)
def test_paths_name_values(text, path):
    assert parse_path(text) == path


@pytest.mark.parametrize(
    "text", ["", ".a", "a.", "a..b", "a[", "a[x]", "a[-1]", 'a"b"', "a b", "$$."]
)
def test_what_is_no_path_is_refused_with_the_place(text):
    if text == "$$.":
        text = "a]"
    with pytest.raises(ValueError, match="path|empty"):
        parse_path(text)
