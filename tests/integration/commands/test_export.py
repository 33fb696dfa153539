"""``appliance export``: which messages, and how an export that did not end goes on."""

import contextlib
import errno
import json

import msgspec
import pytest

from appliance import cli
from appliance.commands import export_file
from appliance.engine import databases
from appliance.journal.journal import Journal
from appliance.model import Cause, Execution, ExecutionState, Message
from appliance.storage import files
from appliance.storage.database import Database
from appliance.tasks.records import Options, Record
from appliance.tasks.selector import TaskSelector

S = 10**9
T0 = 1_795_000_000 * S
"""2026-11-18 11:06:40 UTC."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data directory with 5000 messages, 100 a commit, and three starts."""
    folder = tmp_path_factory.mktemp("site")
    data = folder / "data"
    data.mkdir()
    journal = Journal(data / "journal.db", sync="os", keep_s=1e10, max_bytes=10**10)
    for tables in databases.JOURNAL_TABLES:
        journal.define(tables)
    journal.start(lambda *_: None)
    for number in range(1, 5001):
        journal.append(
            Message(
                journal.next_seq(),
                T0 + number * S,
                f"plant/{number % 5}",
                f'{{"n": {number}, "text": "{"Straße" if number == 77 else "x"}"}}'.encode(),
                client_id=f"plc-{number % 3}",
            ),
            None,
        )
        if number % 100 == 0:
            assert journal.flush(30)
    assert journal.close(30)
    with contextlib.closing(
        Database(data / "tasks.db", databases.LAYOUTS["tasks.db"], busy_s=1).open(0)
    ) as connection:
        for number, (seq, name, state) in enumerate(
            [(10, "Sales", "succeeded"), (20, "Sales", "failed"), (30, "Stock", "running")], 1
        ):
            execution = Execution(
                number, f"id-{name}", name, ExecutionState(state), Cause("message", seq), 0
            )
            record = Record(execution, TaskSelector("id", execution.task_id), Options(), 0, 0)
            connection.execute(
                "INSERT INTO executions VALUES (?, ?, 0, 0, ?)",
                (number, execution.task_id, msgspec.msgpack.encode(record)),
            )
            connection.execute("INSERT INTO answers VALUES (?, ?, '', 0, '')", (seq, number))
        connection.execute("INSERT INTO answers VALUES (40, 0, 'unknown', 0, 'rejected')")
    (folder / "config.toml").write_text('[service]\ndata_dir = "data"\n')
    return folder


@pytest.fixture
def export(made, monkeypatch, capfdbinary):
    """Calls the command in that folder; returns code, standard output, standard error."""
    monkeypatch.chdir(made)

    def run(*arguments):
        code = cli.main(["export", *arguments])
        out, err = capfdbinary.readouterr()
        assert b"Traceback" not in err
        return code, out, err.decode()

    return run


def numbers(out):
    return [json.loads(line)["seq"] for line in out.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--until", "2026-11-18T11:06:44Z"), [1, 2, 3]),
        (("--since", "2026-11-18T12:29:59Z"), [4999, 5000]),
        (("--client", "PLC-1", "-t", "plant/0", "--limit", "2"), [10, 25]),
        (("--text", "STRASSE"), [77]),
        (("--text", "straße", "--text", "plant/2"), [77]),
        (("--text", "straße", "--text", "plant/3"), []),
        (("--after", "4998"), [4999, 5000]),
        (("--state", "failed"), [20]),
        (("--state", "bad"), [20, 40]),
        (("--state", "open", "--state", "succeeded"), [10, 30]),
        (("--state", "open", "--state", "done"), [10, 30]),
        (("--task", "sales"), [10, 20]),
        (("--task", "id-stock", "--state", "any"), [30]),
        (("--state", "any", "--after", "10", "-t", "plant/0"), [20, 30, 40]),
        (("--state", "failed", "--text", "nowhere"), []),
    ],
)
def test_options_choose_messages(export, arguments, expected):
    """All options hold together; of several states one must hold."""
    code, out, err = export(*arguments)
    assert code == 0, err
    assert numbers(out) == expected
    plural = "s" * (len(expected) != 1)
    assert err.startswith(f"{len(expected)} message{plural}, looked through to number ")


def test_a_word_that_is_no_state_is_said(export):
    """The states are named."""
    code, _, err = export("--state", "broken")
    assert code == 64
    assert "failed" in err


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
@pytest.mark.parametrize("output", ["/", ".", ""])
def test_a_folder_is_no_file_to_export_to(export, output, form):
    code, _, err = export("--format", form, "-o", output)
    assert code == 64
    assert "no file" in err


@pytest.mark.parametrize("form", ["jsonl", "json", "csv"])
@pytest.mark.parametrize("stop_at", [0, 1, 2, 9])
def test_an_interrupted_export_goes_on_where_it_was(export, tmp_path, monkeypatch, form, stop_at):
    """The file is the same as of an export that was not interrupted, byte for byte."""
    whole, file = tmp_path / "whole", tmp_path / "file"
    options = ("--format", form, "--text", "x", "--limit", "4321")
    assert export(*options, "-o", str(whole))[0] == 0
    monkeypatch.setattr("appliance.journal.search._BYTES_AT_A_TIME", 10_000)
    original, calls = export_file.TextTarget.write, 0

    def write(self, messages, seq):
        nonlocal calls
        calls += 1
        original(self, messages, seq)
        if calls == stop_at + 1:
            self._file.write(b"half a li")
            if stop_at == 9:  # what a kill leaves behind the last note
                monkeypatch.setattr(self, "_keep_note", lambda: None)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(export_file.TextTarget, "write", write)
        code, _, err = export(*options, "-o", str(file))
    assert code == 130
    assert f"--resume -o {file}" in err
    assert export(*options, "-o", str(file))[0] == 64
    code, _, err = export("--resume", "--text", "y", "-o", str(file))
    assert code == 64
    assert "other options" in err
    code, _, err = export("--resume", "-o", str(file))
    assert code == 0, err
    assert err.startswith("4321 messages")
    assert file.read_bytes() == whole.read_bytes()
    assert list(tmp_path.iterdir()) == [whole, file] or not list(tmp_path.glob("*.unfinished"))
    code, _, err = export("--resume", "-o", str(file))
    assert code == 64
    assert "complete" in err


def test_a_full_disk_at_the_beginning_is_said_with_the_file(export, tmp_path, monkeypatch):
    """Nothing is left behind that the next attempt would take for another program's file."""

    def fail(_path, _content):
        raise OSError(errno.ENOSPC, "No space left on device")

    file = tmp_path / "new"
    with monkeypatch.context() as patch:
        patch.setattr(files, "replace_file", fail)
        code, _, err = export("-o", str(file))
    assert (code, list(tmp_path.iterdir())) == (69, [])
    assert f"{file}: it can't be written: No space left" in err
    assert export("-o", str(file), "--limit", "3")[0] == 0


def test_resume_begins_an_export_that_was_not_begun(export, tmp_path):
    """A script may always say --resume; without a file it has no meaning."""
    file = tmp_path / "new"
    assert export("--resume", "-o", str(file), "--limit", "3")[0] == 0
    assert numbers(file.read_bytes()) == [1, 2, 3]
    assert export("--resume")[0] == 64


def test_an_unfinished_file_that_was_changed_is_not_continued(export, tmp_path):
    """Too short, gone, or with a damaged note: it is said, and nothing is overwritten."""
    file = tmp_path / "file"
    note = export_file.Note({}, bytes=100)
    asked = dict(export_file_defaults())
    export_file.write_note(file, msgspec.structs.replace(note, asked=asked))
    assert "gone" in export("--resume", "-o", str(file))[2]
    file.write_bytes(b"short")
    assert "shorter" in export("--resume", "-o", str(file))[2]
    export_file.note_path(file).write_bytes(b"\xff")
    assert "damaged" in export("--resume", "-o", str(file))[2]
    assert file.read_bytes() == b"short"


def export_file_defaults():
    from appliance.commands.export import _DEFAULTS

    return _DEFAULTS


def test_progress_is_shown_on_a_terminal_only(export, tmp_path, monkeypatch):
    """A bar on standard error, with how many and how fast; a pipe gets one line."""
    assert export("-o", str(tmp_path / "a"))[2].count("\n") == 1
    shown = []
    monkeypatch.setattr("appliance.commands.export.Meter.is_due", True)
    monkeypatch.setattr(
        "appliance.commands.export.Meter.show",
        lambda _self, text, share: shown.append((text, share)),
    )
    monkeypatch.setattr("appliance.journal.search._BYTES_AT_A_TIME", 100_000)
    assert export("-o", str(tmp_path / "b"))[0] == 0
    assert len(shown) > 2
    assert shown[-1][0].startswith("5,000 messages, ")
    assert shown[-1][1] == 1.0


def test_a_stale_index_is_not_used(export, made, tmp_path):
    """The index of another journal, or none at all: the same messages come."""
    index = made / "data" / "index.db"
    for content in (b"", b"rubbish" * 1000):
        index.write_bytes(content)
        assert numbers(export("-t", "plant/0", "--limit", "2")[1]) == [5, 10]
    index.unlink()
