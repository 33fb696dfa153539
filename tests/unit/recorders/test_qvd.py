"""QVD files, read back by three independent readers: pyqvd, qvd-parser and openqvd.

pyqvd is pure Python, the other two are different Rust programs. qvd-parser gives exactly what is
in the file, so the property test asks it. openqvd makes a table of it: a column of one type.
"""

import math
import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from typed_tables import TIME_US, edge_table, rows_of, table, tables

from appliance.recorders import qvd
from appliance.recorders.budget import Budget
from appliance.recorders.qvd import QvdWriter

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def written(path, *each, name="messages"):
    writer = QvdWriter(name)
    writer.begin(path, each[0].columns)
    for one in each:
        assert writer.takes(one.columns)
        writer.write(one)
    writer.close(7, 19)
    return path


def symbol(value, kind):
    """What the file has for a value: number, text, or both for a time."""
    if value is None or isinstance(value, float):
        return value
    if kind == "time":
        text = (EPOCH + timedelta(microseconds=value)).replace(tzinfo=None)
        return (value / 86_400e6 + 25_569, text.isoformat(" ", "microseconds"))
    if isinstance(value, int):
        return int(value) if abs(value) <= 2**53 else str(value)
    return value


def expected_rows(each):
    columns = each[-1].columns
    rows = rows_of(each, [column.name for column in columns])
    return [
        [symbol(value, column.kind) for column, value in zip(columns, row, strict=True)]
        for row in rows
    ]


def close_to(one, other):
    """Equal, and of times also the number to 2 microseconds."""
    if isinstance(other, tuple):
        return one[1] == other[1] and abs(one[0] - other[0]) < 2 / 86_400e6
    return one == other


def assert_rows(rows, expected):
    assert len(rows) == len(expected)
    for row, wanted in zip(rows, expected, strict=True):
        assert len(row) == len(wanted)
        assert all(map(close_to, row, wanted)), (row, wanted)


def by_qvd_parser(path):
    return pytest.importorskip("qvd_parser").QvdFile.open(str(path))


def by_pyqvd(path):
    return pytest.importorskip("pyqvd").QvdTable.from_qvd(str(path))


def by_openqvd(path):
    return pytest.importorskip("openqvd").read(str(path))


def header_of(path):
    """The XML, and where the bytes behind it begin."""
    data = path.read_bytes()
    end = data.index(b"\0")
    assert data[:end].endswith(b"\r\n")
    return ET.fromstring(data[:end]), data[end + 1 :]


def test_every_kind_and_edge_value_comes_back_from_qvd_parser(tmp_path):
    made = edge_table()
    path = written(tmp_path / "edges.qvd", made)
    assert_rows(by_qvd_parser(path).rows(), expected_rows([made]))


def test_every_kind_and_edge_value_comes_back_from_pyqvd(tmp_path):
    made = edge_table()
    path = written(tmp_path / "edges.qvd", made)
    got = by_pyqvd(path).to_dict()
    assert got["columns"] == [column.name for column in made.columns]
    expected = expected_rows([made])
    for row, wanted in zip(got["data"], expected, strict=True):
        *values, time = row
        assert values == wanted[:-1]
        if wanted[-1] is None:
            assert time is None
        elif wanted[-1][1].startswith("20"):
            exact = datetime.fromisoformat(wanted[-1][1])
            assert abs(time - exact) <= timedelta(microseconds=2)


def test_every_kind_and_edge_value_comes_back_from_openqvd(tmp_path):
    made = edge_table()
    path = written(tmp_path / "edges.qvd", made)
    got = by_openqvd(path).to_pydict()
    expected = expected_rows([made])
    integers, numbers, booleans, texts, times = ([row[at] for row in expected] for at in range(5))
    # A column that has texts is a column of texts for it.
    assert got["integer"] == [None if value is None else str(value) for value in integers]
    assert got["number"] == numbers
    assert got["boolean"] == booleans
    assert got["text"] == texts
    for time, wanted in zip(got["time"], times, strict=True):
        if wanted is None:
            assert time is None
        elif wanted[1].startswith("20"):
            difference = abs(time - datetime.fromisoformat(wanted[1]))
            assert difference <= timedelta(microseconds=2)


@settings(max_examples=20, deadline=None)
@given(tables())
def test_whatever_comes_is_read_back(tmp_path_factory, each):
    path = written(tmp_path_factory.mktemp("any") / "any.qvd", *each)
    assert_rows(by_qvd_parser(path).rows(), expected_rows(each))


@settings(max_examples=15, deadline=None)
@given(tables())
def test_a_third_reader_finds_the_same_rows(tmp_path_factory, each):
    path = written(tmp_path_factory.mktemp("any") / "any.qvd", *each)
    table = by_pyqvd(path)
    expected = expected_rows(each)
    kinds = [column.kind for column in each[-1].columns]
    assert table.shape == (len(expected), len(kinds))
    for row, wanted in zip(table.data, expected, strict=True):
        for value, right, kind in zip(row, wanted, kinds, strict=True):
            if right is None:
                assert value is None
            elif kind == "time":
                assert value.display_value == right[1]
            else:
                assert value.calculation_value == right


def test_names_with_signs_of_xml_come_back(tmp_path):
    names = ['a <b> & "c"', "]]>", "tab\tline\r\nbreak", " blanks ", "ü€😀", "&amp;"]
    path = written(tmp_path / "names.qvd", table(dict.fromkeys(names, "text"), [["x"] * 6]))
    # The Rust readers forget what comes before an escaped sign, in every program's files.
    assert by_pyqvd(path).columns == names
    assert by_qvd_parser(path).rows() == [["x"] * 6]
    root, _ = header_of(path)
    assert [field.text for field in root.iter("FieldName")] == names


def test_a_name_that_xml_cannot_hold_is_replaced(tmp_path):
    path = written(tmp_path / "names.qvd", table({"a\x01b": "text"}, [["x"]]))
    assert by_pyqvd(path).columns == ["a\ufffdb"]


def test_nul_ends_no_text(tmp_path):
    path = written(tmp_path / "nul.qvd", table({"t": "text", "u": "text"}, [["a\0b", "c"]]))
    assert by_qvd_parser(path).rows() == [["a\u2400b", "c"]]


def test_a_table_without_rows(tmp_path):
    writer = QvdWriter()
    made = edge_table()
    path = tmp_path / "none.qvd"
    writer.begin(path, made.columns)
    writer.close()
    names = [column.name for column in made.columns]
    assert by_qvd_parser(path).rows() == []
    assert by_pyqvd(path).shape == (0, 5)
    assert by_pyqvd(path).columns == names
    assert by_openqvd(path).num_rows == 0


def test_fields_that_never_change_and_fields_without_values(tmp_path):
    rows = [[7, "same", None] for _ in range(5)]
    made = table({"one": "integer", "text": "text", "none": "text"}, rows)
    path = written(tmp_path / "constant.qvd", made)
    assert by_qvd_parser(path).rows() == rows
    assert by_pyqvd(path).to_dict()["data"] == rows
    assert [list(row.values()) for row in by_openqvd(path).to_pylist()] == rows


def test_not_a_number_is_one_symbol(tmp_path):
    rows = [[float("nan")], [1.0], [float("nan")]]
    path = written(tmp_path / "nan.qvd", table({"n": "number"}, rows))
    read = by_qvd_parser(path)
    assert [math.isnan(row[0]) for row in read.rows()] == [True, False, True]
    assert read.schema().fields[0].no_of_symbols == 2


def test_a_column_that_changes_its_type_stays_one_field(tmp_path):
    each = [
        table({"v": "integer"}, [[1], [2]]),
        table({"v": "number"}, [[2.5], [2.0], [None]]),
        table({"v": "text"}, [["on"], ["2"]]),
    ]
    path = written(tmp_path / "mixed.qvd", *each)
    assert by_qvd_parser(path).rows() == [[1], [2], [2.5], [2], [None], ["on"], ["2"]]


def test_a_column_that_goes_away_has_no_value_then(tmp_path):
    path = written(
        tmp_path / "gone.qvd",
        table({"a": "integer", "b": "integer"}, [[1, 2]]),
        table({"b": "integer"}, [[3]]),
    )
    assert by_qvd_parser(path).field_names() == ["b", "a"]
    assert by_qvd_parser(path).rows() == [[2, 1], [3, None]]


def test_a_time_and_another_value_are_never_one_field(tmp_path):
    writer = QvdWriter()
    made = table({"t": "time"}, [[TIME_US]])
    writer.begin(tmp_path / "t.qvd", made.columns)
    writer.write(made)
    assert not writer.takes(table({"t": "text"}, [["x"]]).columns)
    writer.abandon()


def test_microseconds_stay(tmp_path):
    times = [TIME_US + at for at in range(1000)]
    path = written(tmp_path / "us.qvd", table({"t": "time"}, [[time] for time in times]))
    root, _ = header_of(path)
    assert root.findtext(".//NoOfSymbols") == "1000", "no two times are one"
    rounded = [round((number - 25_569) * 86_400e6) for ((number, _),) in by_qvd_parser(path).rows()]
    assert max(abs(one - other) for one, other in zip(rounded, times, strict=True)) <= 1
    assert [text[-6:] for ((_, text),) in by_qvd_parser(path).rows()] == [
        f"{time % 10**6:06d}" for time in times
    ]


def test_the_header_has_what_readers_ask_for(tmp_path):
    made = edge_table()
    path = written(tmp_path / "header.qvd", made, name="sensors & more")
    root, body = header_of(path)
    assert [element.tag for element in root] == [
        "QvBuildNo", "CreatorDoc", "CreateUtcTime", "SourceCreateUtcTime", "SourceFileUtcTime",
        "SourceFileSize", "StaleUtcTime", "TableName", "Fields", "Compression", "RecordByteSize",
        "NoOfRecords", "Offset", "Length", "Lineage", "Comment",
    ]  # fmt: skip
    assert root.findtext("TableName") == "sensors & more"
    assert root.findtext("Comment") == "first_seq=7 last_seq=19"
    assert int(root.findtext("Offset")) + int(root.findtext("Length")) == len(body)
    size = int(root.findtext("RecordByteSize"))
    assert size * made.rows == int(root.findtext("Length"))
    bits = [
        (int(field.findtext("BitOffset")), int(field.findtext("BitWidth")))
        for field in root.iter("QvdFieldHeader")
    ]
    for (offset, width), (following, _) in zip(bits, bits[1:], strict=False):
        assert offset + width == following
    assert (sum(width for _, width in bits) + 7) // 8 == size
    tags = {
        field.findtext("FieldName"): {tag.text for tag in field.iter("String")}
        for field in root.iter("QvdFieldHeader")
    }
    assert tags["time"] == {"$numeric", "$timestamp"}
    assert tags["number"] == {"$numeric"}
    assert tags["boolean"] == {"$numeric", "$integer"}
    assert tags["text"] == {"$text"}
    types = {
        f.findtext("FieldName"): f.findtext("NumberFormat/Type")
        for f in root.iter("QvdFieldHeader")
    }
    assert types["time"] == "TIMESTAMP"


def test_the_size_is_known_while_rows_come(tmp_path):
    writer = QvdWriter()
    rows = [[at, TIME_US + at, f"text {at}", at % 3] for at in range(20_000)]
    made = table({"seq": "integer", "time": "time", "text": "text", "few": "integer"}, rows)
    path = tmp_path / "size.qvd"
    writer.begin(path, made.columns)
    writer.write(made)
    size = writer.size
    writer.close()
    assert 0.8 * path.stat().st_size < size < 1.25 * path.stat().st_size
    assert writer.size == 0
    assert_rows(by_qvd_parser(path).rows(), expected_rows([made]))


def test_a_part_ends_before_it_takes_too_much_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(qvd, "MAX_MEMORY", 100_000)
    writer = QvdWriter()
    made = table({"text": "text"}, [[f"a text {at}"] for at in range(100)])
    writer.begin(tmp_path / "full.qvd", made.columns)
    rows = 0
    while writer.takes(made.columns):
        for at in range(100):
            made.values[0][at] += "x"
        writer.write(made)
        rows += 100
        assert rows < 10_000
    writer.close()
    assert len(by_qvd_parser(tmp_path / "full.qvd").rows()) == rows


def test_many_open_parts_share_memory(tmp_path, monkeypatch):
    """A part that has its share ends, although it alone could be larger."""
    monkeypatch.setattr(qvd, "BUDGET", Budget(1_000_000))
    writers = [QvdWriter() for _ in range(10)]
    made = table({"text": "text"}, [[f"a text {at}"] for at in range(500)])
    for number, writer in enumerate(writers):
        writer.begin(tmp_path / f"{number}.qvd", made.columns)
    written = 0
    while all(writer.takes(made.columns) for writer in writers):
        for writer in writers:
            made.values[0] = [f"{text}." for text in made.values[0]]
            writer.write(made)
        written += 1
        assert written < 100
    assert sum(writer.memory for writer in writers) < 2_000_000
    for writer in writers:
        writer.close()
    alone = QvdWriter()
    alone.begin(tmp_path / "alone.qvd", made.columns)
    alone.write(made)
    assert alone.takes(made.columns)
    alone.abandon()


@pytest.mark.posix("/dev/full")
def test_a_full_disk_is_an_error_of_the_system_and_the_writer_goes_on(tmp_path):
    from pathlib import Path

    writer = QvdWriter()
    made = table({"a": "integer"}, [[at] for at in range(20_000)])
    writer.begin(Path("/dev/full"), made.columns)
    writer.write(made)
    with pytest.raises(OSError, match="No space left"):
        writer.close()
    writer.abandon()
    writer.begin(tmp_path / "after.qvd", made.columns)
    writer.write(made)
    writer.close()
    assert len(by_qvd_parser(tmp_path / "after.qvd").rows()) == made.rows
