"""Sparkplug B payloads: read as Protocol Buffers reads them, whatever strangers send.

The payloads of the first tests are put together byte by byte after ``sparkplug_b.proto`` of Eclipse
Tahu; the others come from Google's own implementation, given the same definition.
"""

from __future__ import annotations

import struct
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkplug_payloads import BIRTH, DATA, part, whole

from appliance import sparkplug
from appliance.sparkplug import NotSparkplugError, read


def test_a_birth_is_read_as_the_specification_has_it() -> None:
    birth = read(BIRTH)
    assert (birth.timestamp_ms, birth.seq) == (1_764_482_400_123, 0)
    assert [(one.name, one.type_name, one.value) for one in birth.metrics] == [
        ("bdSeq", "UInt64", 7),
        ("Inputs/A", "Boolean", True),
        ("Temperature", "Float", pytest.approx(21.3)),
        ("Offset", "Int32", -5),
    ]
    assert birth.metrics[3].properties == {"engUnit": "°C"}
    assert birth.names() == {1: "Inputs/A", 2: "Temperature", 3: "Offset"}
    assert sparkplug.lines(birth, {}) == [
        "time 2025-11-30 06:00:00.123Z   seq 0   4 metrics",
        "bdSeq        UInt64   7",
        "Inputs/A     Boolean  true",
        "Temperature  Float    21.3",
        "Offset       Int32    -5   (engUnit=°C)",
    ]


def test_an_alias_has_its_name_from_the_birth_or_is_shown_as_it_is() -> None:
    assert "Temperature  Float  21.5" in sparkplug.lines(read(DATA), read(BIRTH).names())
    assert "alias 2  Float  21.5" in sparkplug.lines(read(DATA), {})
    assert sparkplug.birth_topic("spBv1.0/plant/NDATA/edge") == "spBv1.0/plant/NBIRTH/edge"
    assert sparkplug.birth_topic("spBv1.0/plant/DDATA/edge/plc") == "spBv1.0/plant/DBIRTH/edge/plc"
    assert sparkplug.birth_topic("spBv1.0/plant/NBIRTH/edge") == ""


def test_only_topics_of_the_specification_have_such_payloads() -> None:
    assert sparkplug.is_topic("spBv1.0/plant/NDEATH/edge")
    for topic in (
        "spBv1.0/STATE/scada",
        "spBv1.0/plant/NDATA",
        "plant/spBv1.0/a/NDATA/b",
        "spBv1.0/a/STATUS/b",
    ):
        assert not sparkplug.is_topic(topic)


def test_tables_templates_and_arrays_are_read() -> None:
    table = part(2, b"id") + part(2, b"ok") + whole(3, 1) + whole(3, 11)
    table += part(4, part(1, whole(1, 0xFF)) + part(1, whole(5, 1)))
    template = part(2, part(1, b"speed") + whole(4, 10) + b"\x69" + struct.pack("<d", 1.5))
    template += part(3, part(1, b"index") + whole(2, 1) + whole(3, 0xFE))
    payload = read(
        part(2, part(1, b"t") + whole(4, 16) + part(17, table))
        + part(2, part(1, b"m") + whole(4, 19) + part(18, template))
        + part(2, part(1, b"a") + whole(4, 24) + part(16, struct.pack("<2i", -1, 2)))
        + part(2, part(1, b"b") + whole(4, 32) + part(16, b"\x03\0\0\0\xa0"))
        + part(2, part(1, b"s") + whole(4, 33) + part(16, b"x\0yz\0"))
        + part(2, part(1, b"n") + whole(4, 3) + whole(7, 1))
    )
    values = {one.name: one.value for one in payload.metrics}
    assert values == {
        "t": [{"id": -1, "ok": True}],
        "m": {"speed": 1.5, "index": -2},
        "a": [-1, 2],
        "b": [True, False, True],
        "s": ["x", "yz"],
        "n": None,
    }


@pytest.mark.parametrize(
    "data",
    [
        b"hello",
        b'{"a": 1}',
        part(2, b"x" * 20)[:-1],
        b"\x80" * 20,
        b"\x0b",  # a group, which proto2 has and Sparkplug has not
        part(2, b"") * (sparkplug.MAX_VALUES + 1),
        whole(99, 1) * (sparkplug.MAX_FIELDS + 1),
    ],
)
def test_what_is_none_is_an_error_that_says_why(data: bytes) -> None:
    with pytest.raises(NotSparkplugError, match="."):
        read(data)


def test_nesting_is_bounded() -> None:
    data = b""
    for _ in range(sparkplug.MAX_DEPTH * 20):
        data = part(2, part(18, data))
    with pytest.raises(NotSparkplugError, match="deeper"):
        read(data)


def test_a_name_that_is_repeated_makes_no_text_longer_than_its_values() -> None:
    """One alias, column or key of a megabyte at each of many values would be gigabytes."""
    long = b"N" * 100_000
    value = whole(2, 7) + whole(4, 3) + whole(10, 1)
    cells = part(4, part(1, whole(1, 1))) * 50
    data_set = whole(4, 16) + part(17, part(2, long) + cells)
    shown = sparkplug.lines(read(part(2, value) * 500 + part(2, data_set)), {7: long.decode()})
    assert len("".join(shown)) < 300_000
    assert all("NNN…" in line for line in shown[1:])


def test_the_elements_of_all_arrays_together_are_bounded() -> None:
    """A kilobyte has 8,000 booleans; what comes after a long array is read all the same."""
    booleans = part(2, whole(4, 32) + part(16, b"\xff" * 4 + b"\xff" * 1000))
    last = part(2, part(1, b"Last") + whole(4, 3) + whole(10, 7))
    found = read(booleans * 10 + last).metrics
    assert sum(len(one.value) for one in found[:-1]) == sparkplug.MAX_VALUES
    assert (found[-1].name, found[-1].value) == ("Last", 7)


# --- against Protocol Buffers ------------------------------------------------------------------


def _definition() -> Any:
    """The messages of ``sparkplug_b.proto``, as far as values go."""
    file = descriptor_pb2.FileDescriptorProto(name="s.proto", package="s", syntax="proto2")
    kinds = {"u32": 13, "u64": 4, "f": 2, "d": 1, "b": 8, "s": 9, "y": 12}
    scalar = "u32 u64 f d b s".split()

    def message(name: str, fields: list[tuple[int, str, bool]]) -> None:
        one = file.message_type.add(name=name)
        for number, kind, repeated in fields:
            field = one.field.add(name=f"f{number}", number=number, label=3 if repeated else 1)
            if kind in kinds:
                field.type = kinds[kind]
            else:
                field.type, field.type_name = 11, f".s.{kind}"

    message(
        "Payload",
        [
            (1, "u64", False),
            (2, "Metric", True),
            (3, "u64", False),
            (4, "s", False),
            (5, "y", False),
        ],
    )
    message(
        "Metric",
        [(1, "s", False), (2, "u64", False), (3, "u64", False), (4, "u32", False), (5, "b", False),
         (6, "b", False), (7, "b", False), (9, "PropertySet", False), (10, "u32", False),
         (11, "u64", False), (12, "f", False), (13, "d", False), (14, "b", False), (15, "s", False),
         (16, "y", False)],
    )  # fmt: skip
    message("PropertySet", [(1, "s", True), (2, "PropertyValue", True)])
    message(
        "PropertyValue",
        [
            (1, "u32", False),
            (2, "b", False),
            *((3 + place, kind, False) for place, kind in enumerate(scalar)),
        ],
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("s.Payload"))


Definition = _definition()
_U64 = st.integers(0, 2**64 - 1)


@st.composite
def a_message(draw: st.DrawFn) -> Any:
    message = Definition()
    for name, kind in (
        ("f1", _U64),
        ("f3", _U64),
        ("f4", st.text(max_size=5)),
        ("f5", st.binary(max_size=5)),
    ):
        if draw(st.booleans()):
            setattr(message, name, draw(kind))
    for _ in range(draw(st.integers(0, 3))):
        metric = message.f2.add()
        for name, kind in (
            ("f1", st.text(max_size=5)),
            ("f2", _U64),
            ("f3", _U64),
            ("f5", st.booleans()),
        ):
            if draw(st.booleans()):
                setattr(metric, name, draw(kind))
        values = {"f10": st.integers(0, 2**32 - 1), "f11": _U64, "f12": st.floats(width=32), "f13": st.floats(),
                  "f14": st.booleans(), "f15": st.text(max_size=5), "f16": st.binary(max_size=5)}  # fmt: skip
        name = draw(st.sampled_from([*values]))
        setattr(metric, name, draw(values[name]))
    return message


@settings(max_examples=12, deadline=None)
@given(a_message())
def test_what_protocol_buffers_writes_is_read(message: Any) -> None:
    found = read(message.SerializeToString())
    assert found.timestamp_ms == (message.f1 if message.HasField("f1") else None)
    assert found.seq == (message.f3 if message.HasField("f3") else None)
    assert (found.uuid, found.body) == (message.f4, message.f5)
    assert len(found.metrics) == len(message.f2)
    for metric, sent in zip(found.metrics, message.f2, strict=True):
        assert metric.name == sent.f1
        assert metric.alias == (sent.f2 if sent.HasField("f2") else None)
        (value,) = [getattr(sent, f"f{n}") for n in range(10, 17) if sent.HasField(f"f{n}")]
        assert metric.value == value or value != value  # noqa: PLR0124 - not a number


@settings(max_examples=40, deadline=None)
@given(a_message().map(lambda one: one.SerializeToString()), st.data())
def test_changed_bytes_are_refused_as_protocol_buffers_refuses_them_or_read(
    data: bytes, draw: st.DataObject
) -> None:
    """Never another error; and what Protocol Buffers refuses for its form is refused."""
    changed = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 3))):
        place = draw.draw(st.integers(0, len(changed)))
        changed[place : place + draw.draw(st.integers(0, 2))] = draw.draw(st.binary(max_size=3))
    raw = bytes(changed)
    try:
        found = read(raw)
    except NotSparkplugError:
        return
    assert all(isinstance(line, str) for line in sparkplug.lines(found, {}))
    Definition.FromString(raw)


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        sparkplug.lines(read(data), {})
    except NotSparkplugError:
        pass
