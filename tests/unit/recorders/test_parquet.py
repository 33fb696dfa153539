"""Parquet files, read back by pyarrow and by polars, whose reader is another program's."""

import sys
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from typed_tables import EDGES, TIME_US, edge_table, rows_of, table, tables

from appliance.recorders import parquet
from appliance.recorders.budget import Budget
from appliance.recorders.formats import make_part_writer
from appliance.recorders.parquet import ParquetWriter

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def time(value):
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=value)


def as_read(rows, columns):
    """Rows as a reader gives them."""
    return [
        [
            time(value) if column.kind == "time" and value is not None else value
            for column, value in zip(columns, row, strict=True)
        ]
        for row in rows
    ]


def written(path, *each, first=1, last=1):
    writer = ParquetWriter()
    writer.begin(path, each[0].columns)
    for one in each:
        assert writer.takes(one.columns)
        writer.write(one)
    writer.close(first, last)
    return path


def test_every_kind_and_edge_value_comes_back_from_two_readers(tmp_path):
    made = edge_table()
    path = written(tmp_path / "edges.parquet", made)
    expected = as_read(rows_of([made], [column.name for column in made.columns]), made.columns)

    assert [list(row.values()) for row in pq.read_table(path).to_pylist()] == expected
    polars = pytest.importorskip("polars")
    assert [list(row) for row in polars.read_parquet(path).rows()] == expected


def test_the_types_are_those_that_qlik_reads(tmp_path):
    path = written(tmp_path / "types.parquet", edge_table(), first=7, last=19)
    metadata = pq.read_metadata(path)
    group = metadata.row_group(0)
    columns = [group.column(at) for at in range(metadata.num_columns)]

    assert [column.physical_type for column in columns] == [
        "INT64",
        "DOUBLE",
        "BOOLEAN",
        "BYTE_ARRAY",
        "INT64",
    ]
    assert {column.compression for column in columns} == {"SNAPPY"}
    assert str(metadata.schema.column(3).logical_type) == "String"
    time_type = str(metadata.schema.column(4).logical_type)
    assert "timeUnit=microseconds" in time_type
    assert "isAdjustedToUTC=true" in time_type
    assert metadata.metadata == {b"first_seq": b"7", b"last_seq": b"19"}


def test_rows_go_to_the_disk_group_by_group(tmp_path):
    path = tmp_path / "groups.parquet"
    writer = ParquetWriter()
    rows = [[at, f"text {at % 100}"] for at in range(parquet.GROUP_ROWS)]
    made = table({"seq": "integer", "text": "text"}, rows)
    writer.begin(path, made.columns)
    for _ in range(3):
        before = path.stat().st_size
        writer.write(made)
        assert path.stat().st_size > before
    size = writer.size
    writer.close(1, 2)

    metadata = pq.read_metadata(path)
    assert [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)] == [
        parquet.GROUP_ROWS
    ] * 3
    assert 0.5 * path.stat().st_size < size < 2 * path.stat().st_size
    assert writer.size == 0


def test_large_texts_are_written_before_there_are_many_rows(tmp_path):
    path = tmp_path / "large.parquet"
    writer = ParquetWriter()
    made = table({"payload": "text"}, [["x" * 500_000]] * 3)
    writer.begin(path, made.columns)
    for _ in range(6):
        writer.write(made)

    assert path.stat().st_size > 0
    writer.close(1, 18)
    assert pq.read_metadata(path).num_rows == 18


def test_many_open_files_share_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "BUDGET", Budget(1_000_000))
    made = table({"text": "text"}, [[f"a text {at:06d}"] for at in range(2_000)])
    writers = [ParquetWriter() for _ in range(20)]
    for number, writer in enumerate(writers):
        writer.begin(tmp_path / f"{number}.parquet", made.columns)
    for _ in range(10):
        for writer in writers:
            writer.write(made)
        assert sum(writer.memory for writer in writers) < 2_000_000
    for number, writer in enumerate(writers):
        writer.close(1, 2)
        metadata = pq.read_metadata(tmp_path / f"{number}.parquet")
        assert metadata.num_rows == 20_000
        assert 1 < metadata.num_row_groups


def test_columns_are_added_until_rows_are_on_the_disk(tmp_path):
    narrow = table({"a": "integer", "payload": "text"}, [[1, None]])
    wide = table({"a": "integer", "b": "number", "payload": "text"}, [[2, 0.5, None]])
    path = written(tmp_path / "wide.parquet", narrow, wide)
    assert pq.read_table(path).to_pylist() == [
        {"a": 1, "b": None, "payload": None},
        {"a": 2, "b": 0.5, "payload": None},
    ]

    writer = ParquetWriter()
    writer.begin(path, narrow.columns)
    writer.write(table({"a": "integer", "payload": "text"}, [[1, None]] * parquet.GROUP_ROWS))
    assert writer.takes(narrow.columns)
    assert not writer.takes(wide.columns), "the file's columns are decided"
    writer.abandon()


def test_a_column_that_changes_its_type_needs_another_file(tmp_path):
    writer = ParquetWriter()
    numbers = table({"a": "integer"}, [[1]])
    writer.begin(tmp_path / "a.parquet", numbers.columns)
    writer.write(numbers)
    assert not writer.takes(table({"a": "text"}, [["1"]]).columns)
    writer.abandon()


def test_a_file_without_rows_is_a_table_without_rows(tmp_path):
    writer = ParquetWriter()
    made = edge_table()
    writer.begin(tmp_path / "none.parquet", made.columns)
    writer.close()
    assert pq.read_table(tmp_path / "none.parquet").shape == (0, len(EDGES))


def test_what_was_abandoned_is_no_file_that_a_reader_takes(tmp_path):
    path = tmp_path / "half.parquet"
    writer = ParquetWriter()
    made = table({"a": "integer"}, [[1]] * parquet.GROUP_ROWS)
    writer.begin(path, made.columns)
    writer.write(made)
    writer.abandon()
    del writer
    with pytest.raises(pa.ArrowInvalid):
        pq.read_table(path)


@pytest.mark.posix("/dev/full")
def test_a_full_disk_is_an_error_of_the_system_and_the_writer_goes_on(tmp_path):
    from pathlib import Path

    writer = ParquetWriter()
    made = table({"a": "integer"}, [[at * 7919] for at in range(parquet.GROUP_ROWS)])
    with pytest.raises(OSError, match="No space left"):
        writer.begin(Path("/dev/full"), made.columns)
        for _ in range(20):
            writer.write(made)
        writer.close()
    writer.abandon()

    written(tmp_path / "after.parquet", made)
    writer.begin(tmp_path / "again.parquet", made.columns)
    writer.write(made)
    writer.close()
    assert pq.read_metadata(tmp_path / "again.parquet").num_rows == made.rows


def test_without_pyarrow_the_answer_names_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(Exception, match=r"pip install 'qlik-mqtt-appliance\[parquet\]'"):
        make_part_writer("parquet", "messages")


def test_only_a_writer_that_begins_loads_pyarrow():
    import subprocess

    program = (
        "import sys; from appliance.recorders.formats import make_part_writer;"
        "make_part_writer('parquet', 'x'); print('pyarrow' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "False"


@settings(max_examples=15, deadline=None)
@given(tables())
def test_whatever_comes_is_read_back(tmp_path_factory, each):
    path = written(tmp_path_factory.mktemp("any") / "any.parquet", *each)
    columns = each[-1].columns
    expected = as_read(rows_of(each, [column.name for column in columns]), columns)
    assert [list(row.values()) for row in pq.read_table(path).to_pylist()] == expected


def test_a_time_is_right_to_the_microsecond(tmp_path):
    path = written(tmp_path / "t.parquet", table({"t": "time"}, [[TIME_US]]))
    assert pq.read_table(path)["t"][0].as_py() == datetime(2025, 11, 29, 12, 0, 0, 123456, UTC)
