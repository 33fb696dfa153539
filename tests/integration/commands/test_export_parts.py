"""``appliance export --format parquet`` and ``qvd``: complete files, each message once."""

import pytest

from appliance import cli
from appliance.engine import databases
from appliance.errors import EXIT_OK, EXIT_USAGE
from appliance.journal.journal import Journal
from appliance.model import Message
from appliance.recorders import qvd
from appliance.recorders.parquet import ParquetWriter
from appliance.recorders.qvd import QvdWriter
from appliance.recorders.table_maker import TableMaker

COUNT = 3000
T0 = 1_795_000_000 * 10**9
WRITERS = {"parquet": ParquetWriter, "qvd": QvdWriter}


def payload(number):
    """A column changes from integers to numbers, and another one comes late."""
    if number == 2500:
        return b'{"n": 0.5, "late": "yes"}'
    return b'{"n": %d}' % number if number % 100 else b"\xff no JSON"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    (folder / "data").mkdir()
    journal = Journal(folder / "data" / "journal.db", sync="os", keep_s=1e10, max_bytes=10**10)
    for tables in databases.JOURNAL_TABLES:
        journal.define(tables)
    journal.start(lambda *_: None)
    for number in range(1, COUNT + 1):
        at = T0 + number * 10**6
        message = Message(journal.next_seq(), at, f"plant/{number % 5}", payload(number))
        journal.append(message, None)
        if number % 500 == 0:
            assert journal.flush(30)
    assert journal.close(30)
    (folder / "config.toml").write_text('[service]\ndata_dir = "data"\n')
    return folder


@pytest.fixture
def export(made, monkeypatch, capfd):
    monkeypatch.chdir(made)

    def run(*arguments):
        if "parquet" in arguments and "-o" in arguments:
            pytest.importorskip("pyarrow")
        code = cli.main(["export", *map(str, arguments)])
        error = capfd.readouterr().err
        assert "Traceback" not in error
        return code, error

    return run


def read(path):
    """Rows by the name of the column."""
    if path.suffix == ".parquet":
        return pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
    table = pytest.importorskip("pyqvd").QvdTable.from_qvd(str(path))
    return [dict(zip(table.columns, row, strict=True)) for row in table.to_dict()["data"]]


def files_of(folder, kind):
    assert not list(folder.glob(".*")), "no file that is not complete"
    assert not list(folder.glob("*.unfinished"))
    return sorted(folder.glob(f"*.{kind}"), key=lambda path: (len(path.name), path.name))


@pytest.mark.parametrize("kind", ["parquet", "qvd"])
def test_everything_is_in_one_file(export, tmp_path, kind):
    code, error = export("--format", kind, "-o", tmp_path / f"all.{kind}")
    assert code == EXIT_OK
    assert f"{COUNT} messages" in error

    (file,) = files_of(tmp_path, kind)
    rows = read(file)
    assert [row["seq"] for row in rows] == list(range(1, COUNT + 1))
    assert rows[6]["n"] == 7
    assert rows[2499]["n"] == 0.5
    assert rows[2499]["late"] == "yes"
    assert rows[0]["late"] is None
    assert rows[99]["payload"] == '{"$base64": "/yBubyBKU09O"}'


def test_a_parquet_file_has_the_last_types_from_its_first_row_on(export, tmp_path, monkeypatch):
    monkeypatch.setattr("appliance.recorders.parquet.GROUP_ROWS", 200)
    export("--format", "parquet", "-o", tmp_path / "all.parquet")
    (file,) = files_of(tmp_path, "parquet")
    schema = pytest.importorskip("pyarrow.parquet").read_schema(file)
    assert str(schema.field("n").type) == "double"
    assert schema.names[-3:] == ["n", "late", "payload"]


def test_options_choose_as_for_text(export, tmp_path):
    code, _ = export(
        "--format", "qvd", "-t", "plant/1", "--limit", 3, "--payload", "-o", tmp_path / "few.qvd"
    )
    assert code == EXIT_OK
    assert read(tmp_path / "few.qvd") == [
        {"n": 1, "payload": None},
        {"n": 6, "payload": None},
        {"n": 11, "payload": None},
    ]


@pytest.mark.parametrize("kind", ["parquet", "qvd"])
def test_nothing_found_is_a_table_without_rows(export, tmp_path, kind):
    export("--format", kind, "-t", "nothing/here", "-o", tmp_path / f"none.{kind}")
    assert read(tmp_path / f"none.{kind}") == []


def test_a_large_qvd_export_is_several_files_and_memory_is_bounded(export, tmp_path, monkeypatch):
    monkeypatch.setattr(qvd, "MAX_MEMORY", 100_000)
    export("--format", "qvd", "-o", tmp_path / "all.qvd")
    files = files_of(tmp_path, "qvd")
    assert [file.name for file in files[:3]] == ["all.qvd", "all-2.qvd", "all-3.qvd"]
    assert [row["seq"] for file in files for row in read(file)] == list(range(1, COUNT + 1))


@pytest.mark.parametrize("kind", ["parquet", "qvd"])
@pytest.mark.parametrize("where", ["before", "within"])
def test_an_interrupted_export_goes_on_and_has_each_message_once(
    export, tmp_path, monkeypatch, kind, where
):
    original = WRITERS[kind].write
    calls = []

    def interrupted(self, table):
        calls.append(table)
        if len(calls) == 3:
            if where == "within":
                original(self, table)
            raise KeyboardInterrupt
        original(self, table)

    with monkeypatch.context() as patch:
        patch.setattr(WRITERS[kind], "write", interrupted)
        code, error = export("--format", kind, "-o", tmp_path / f"all.{kind}")
        assert code != EXIT_OK
        assert "--resume" in error
    assert not list(tmp_path.glob(".*"))

    code, error = export("--resume", "-o", tmp_path / f"all.{kind}")
    assert code == EXIT_OK
    assert f"{COUNT} messages" in error
    rows = [row["seq"] for file in files_of(tmp_path, kind) for row in read(file)]
    assert rows == list(range(1, COUNT + 1))


def test_what_can_be_kept_of_an_interrupted_export_is_kept(export, tmp_path, monkeypatch):
    """Ctrl+C between two batches: the file so far is completed."""
    original = TableMaker.take
    calls = []

    def interrupted(self, messages):
        calls.append(messages[-1].seq)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, messages)

    with monkeypatch.context() as patch:
        patch.setattr(TableMaker, "take", interrupted)
        code, error = export("--format", "qvd", "-o", tmp_path / "all.qvd")
        assert code != EXIT_OK
        assert "--resume" in error
    first = [row["seq"] for row in read(tmp_path / "all.qvd")]
    assert first == list(range(1, calls[1] + 1))

    export("--resume", "-o", tmp_path / "all.qvd")
    files = files_of(tmp_path, "qvd")
    assert [row["seq"] for file in files for row in read(file)] == list(range(1, COUNT + 1))


def test_a_file_that_exists_stays(export, tmp_path):
    (tmp_path / "mine.qvd").write_bytes(b"mine")
    code, error = export("--format", "qvd", "-o", tmp_path / "mine.qvd")
    assert code == EXIT_USAGE
    assert "exists and stays" in error
    assert (tmp_path / "mine.qvd").read_bytes() == b"mine"
    assert [path.name for path in tmp_path.iterdir()] == ["mine.qvd"]


def test_a_table_is_not_for_standard_output(export):
    code, error = export("--format", "parquet")
    assert code == EXIT_USAGE
    assert "-o" in error


@pytest.mark.parametrize("ending", ["parquet", "qvd"])
def test_a_name_that_promises_another_format_is_refused(export, made, ending):
    """``-o all.parquet`` alone would put JSON lines into it, and no reader would take them."""
    code, error = export("-o", f"promised.{ending}")
    assert code == 64
    assert f"--format {ending}" in error
    assert not (made / f"promised.{ending}").exists()
