"""The commands beside a running appliance: publish, export, user."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from appliance_process import ApplianceProcess, until

from appliance import cli

CONFIG = """
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:PORT"
[access]
users_file = "users.txt"
"""


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApplianceProcess]:
    """An appliance of its own process, and its folder as the current one."""
    monkeypatch.chdir(tmp_path)
    with ApplianceProcess(tmp_path, CONFIG) as process:
        yield process.start()
        process.end()
        process.process.stderr.close()


@pytest.fixture
def call(capfdbinary: pytest.CaptureFixture[bytes]):
    def run(*arguments: str) -> tuple[int, bytes, str]:
        code = cli.main(list(arguments))
        out, err = capfdbinary.readouterr()
        assert b"Traceback" not in err
        return code, out, err.decode()

    return run


def exported(call, *arguments: str) -> list[dict[str, object]]:
    code, out, err = call("export", *arguments)
    assert code == 0, err
    return [json.loads(line) for line in out.splitlines()]


def test_what_was_published_can_be_exported_while_it_runs(running, call, tmp_path) -> None:
    """publish returns when the message is in the journal; export shows it, with the rest it knows."""
    for number, qos in enumerate("012"):
        text = f'{{"n": {number}}}'
        assert call("publish", "-t", f"plant/{number}", "-m", text, "-q", qos) == (0, b"", "")
    assert call("publish", "-t", "other", "-m", "not JSON", "-r") == (0, b"", "")
    lines = exported(call, "-t", "plant/+", "-t", "other")
    assert [line["topic"] for line in lines] == ["plant/0", "plant/1", "plant/2", "other"]
    assert lines[2]["payload"] == {"n": 2}
    assert lines[2]["qos"] == 2
    assert str(lines[3]["client"]).startswith("appliance-publish-")
    assert len(exported(call, "-t", "plant/#", "--limit", "2")) == 2
    assert len(exported(call, "-t", "plant/#", "--since", "1h")) == 3
    assert exported(call, "-t", "plant/#", "--since", "0s") == []
    assert exported(call, "-t", "plant/#", "--payload") == [{"n": 0}, {"n": 1}, {"n": 2}]
    code, out, _ = call("export", "-t", "plant/#", "--format", "json", "--payload")
    assert json.loads(out) == [{"n": 0}, {"n": 1}, {"n": 2}]
    code, out, _ = call("export", "-t", "nothing", "--format", "json")
    assert json.loads(out) == []
    code, out, _ = call("export", "-t", "plant/#", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out.decode())))
    assert [row["n"] for row in rows] == ["0", "1", "2"]
    file = tmp_path / "plant.jsonl"
    assert call("export", "-t", "plant/#", "-o", str(file))[0] == 0
    before = file.read_bytes()
    assert before.count(b"\n") == 3
    code, _, err = call("export", "-o", str(file))
    assert code == 64
    assert "stays as it is" in err
    assert file.read_bytes() == before


def test_a_user_added_while_it_runs_can_sign_in(tmp_path, call, monkeypatch) -> None:
    """`appliance user` takes effect without a restart: an added user comes in, a removed one does not."""
    monkeypatch.chdir(tmp_path)
    typed = tmp_path / "typed"

    def with_password(password: str, *arguments: str) -> tuple[int, bytes, str]:
        typed.write_text(f"{password}\n")
        with typed.open() as stdin:
            monkeypatch.setattr("sys.stdin", stdin)
            return call(*arguments, "--password-stdin")

    process = ApplianceProcess(tmp_path, CONFIG)
    assert with_password("first", "user", "add", "plc-1")[0] == 0
    publish = ("publish", "-t", "a", "-m", "x")
    with process:
        process.start()
        code, _, err = call(*publish)
        assert code == 77
        assert "sign in with -u NAME" in err
        assert with_password("second", *publish, "-u", "plc-2")[0] == 77
        assert with_password("second", "user", "add", "plc-2")[0] == 0
        assert with_password("second", *publish, "-u", "plc-2")[0] == 0
        assert call("user", "remove", "plc-2")[0] == 0
        assert with_password("second", *publish, "-u", "plc-2")[0] == 77
        assert with_password("first", *publish, "-u", "plc-1")[0] == 0
        process.end()
        process.process.stderr.close()


def test_export_before_the_first_run_says_so(tmp_path, monkeypatch, call) -> None:
    """Without a journal there is nothing to export, and the command does not make an empty one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").write_text(CONFIG.replace("PORT", "1883"))
    code, out, err = call("export")
    assert (code, out) == (69, b"")
    assert "has not run yet" in err
    assert not (tmp_path / "data").exists()


def test_a_damaged_journal_is_an_error_with_its_name(tmp_path, monkeypatch, call) -> None:
    """What is no database is said to be none, without a traceback and without a change to it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").write_text(CONFIG.replace("PORT", "1883"))
    (tmp_path / "data").mkdir()
    journal = tmp_path / "data" / "journal.db"
    journal.write_bytes(b"this is no database, whatever its name says" * 100)
    before = journal.read_bytes()
    code, _, err = call("export")
    assert code == 69
    assert "journal.db" in err
    assert journal.read_bytes() == before


def test_json_is_utf_8_whatever_the_terminal_has(tmp_path: Path, monkeypatch) -> None:
    """Programs read health, tasks and a log in JSON as UTF-8, also where redirected output has an old
    code page, as on Windows."""
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")
    name = "Größe 日本 😀"
    config = CONFIG.replace("[service]", '[service]\nlog_format = "json"')
    config += f"""
[qlik]
edition = "simulated"
[[recorder]]
topic = "plant"
path = "{name}.jsonl"
format = "jsonl"
"""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / f"{name}.jsonl").write_bytes(b"set aside and logged")
    with ApplianceProcess(tmp_path, config) as appliance:
        appliance.start()
        line = appliance.wait_for_line("A new file was created")
        assert name in json.loads(line)["message"]
        command = (sys.executable, "-m", "appliance")

        def told(*arguments: str) -> str:
            done = subprocess.run(
                [*command, *arguments, "--json", "-c", str(appliance.config)],
                capture_output=True,
                check=False,
            )
            return json.dumps(json.loads(done.stdout.decode()), ensure_ascii=False)

        assert f"{name}.jsonl" in until(lambda: told("health"), "the health is told")
        assert '"id"' in told("tasks")
        appliance.end()
