"""Operating a running appliance: health, metrics, reload, log level, watchdog, backup."""

from __future__ import annotations

import json
import re
import signal
import socket
import sqlite3
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from appliance_process import QUICK, ApplianceProcess, until

from appliance.engine import databases
from appliance.ops import backup as backups, control_file
from appliance.storage.database import Database
from appliance import cli
from appliance.errors import UnavailableError, UsageError
from appliance.mqtt.client import Client, Target
from appliance.journal import FILE_NAME

pytestmark = pytest.mark.campaign  # processes of their own

CONFIG = """
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:PORT"
[metrics]
bind = "127.0.0.1:0"
[[recorder]]
topic = "/demo/integers"
path = "recordings/integers.json"
"""


@pytest.fixture
def call(capfd, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str]:
        code = cli.main(list(arguments))
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out + err

    return run


@pytest.fixture
def appliance(tmp_path):
    with ApplianceProcess(tmp_path, CONFIG, program=QUICK) as process:
        yield process


def recorded(process: ApplianceProcess) -> list[int]:
    return json.loads((process.data / "recordings" / "integers.json").read_text())


def test_an_operator_asks_and_turns_what_can_be_turned(appliance, call) -> None:
    """health, metrics, log-level and reload work on a running appliance; a restart is asked for
    where one is needed, and a wrong configuration changes nothing."""
    appliance.start()
    line = appliance.wait_for_line("monitoring on")
    address = re.search(r"http://[\d.:]+", line)[0]
    until(lambda: call("health")[0] == 0, "health is told")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{address}/metrics", timeout=10) as answer:
        assert b"appliance_health" in answer.read()
    with opener.open(f"{address}/healthz", timeout=10) as answer:
        assert json.load(answer)["pid"] == appliance.process.pid

    with Client(Target("127.0.0.1", appliance.port, client_id="device"), keepalive_s=60) as device:
        until(lambda: '"device"' in call("session", "list", "--json")[1], "its session is listed")
        assert call("session", "end", "device", "--yes")[0] == 0
        with pytest.raises(UnavailableError):
            device.receive()
    assert '"device"' not in call("session", "list", "--json")[1]
    assert call("log-level", "debug")[0] == 0
    appliance.wait_for_line("the log level is debug")
    text = appliance.config.read_text()
    appliance.config.write_text(text.replace('"data"', '"data"\nlog_level = "warning"') + "max=1\n")
    code, told = call("reload")
    assert code == 78, told
    assert "`max`" in told
    assert call("health")[0] == 0, "a mistake in the file does not make the appliance unwell"
    appliance.config.write_text(
        text.replace('"data"', '"data"\nlog_level = "warning"').replace(":0", ":9464")
    )
    code, told = call("reload")
    assert code == 0, told
    assert "log_level is warning" in told
    assert "counts now: [service] log_level" in told
    assert "counts from the next start: [metrics] bind" in told
    until(lambda: json.loads(call("health", "--json")[1])["logLevel"] == "warning", "it counts")
    with ThreadPoolExecutor(12) as callers:
        answers = [callers.submit(control_file.ask, appliance.data, "reload") for _ in range(12)]
    assert all(each.result().done for each in answers), "all who ask at one moment are answered"
    assert not [*appliance.data.glob("request-*"), *appliance.data.glob("answer-*")]
    assert call("acknowledge") == (0, "no loss is known\n")
    assert appliance.end() == 0
    for path in appliance.data.glob("journal.db*"):
        path.unlink()
    appliance.begin()
    loss = "  bad  data  The journal ends at message 0"
    until(lambda: loss in call("health")[1], "the loss is told")
    assert call("health")[0] == 69
    code, told = call("acknowledge")
    assert (code, told[:35]) == (0, "acknowledged: The journal ends at m")
    until(lambda: call("health")[0] == 0, "the health is well again")
    assert appliance.end() == 0
    code, told = call("health")
    assert code == 69
    assert "no appliance runs" in told
    code, told = call("reload")
    assert code == 69
    assert "No appliance runs" in told


def test_a_variable_that_only_the_service_has_hinders_no_command(
    appliance, call, tmp_path, monkeypatch
) -> None:
    """The configuration has a variable that the manager of the service sets for the service alone:
    an administrator's health, log-level and reload work without it."""
    monkeypatch.setenv("APPLIANCE_TEST_PASSWORD", "secret")
    appliance.config.write_text(
        appliance.config.read_text()
        + '[[notify]]\nurl = "json://127.0.0.1:1/${APPLIANCE_TEST_PASSWORD}"\n'
    )
    appliance.start()
    monkeypatch.delenv("APPLIANCE_TEST_PASSWORD")
    until(lambda: call("health")[0] == 0, "health is told")
    assert call("log-level", "debug")[0] == 0
    code, told = call("reload")
    assert code == 0, told
    assert call("check")[0] == 78


@pytest.mark.posix("there is no SIGHUP and no systemd")
def test_systemd_s_view_ready_fed_reloaded_stopped(appliance, tmp_path, monkeypatch) -> None:
    """READY comes when it listens, the watchdog is fed, SIGHUP reloads and does not end it, lines
    for the system's journal carry a severity."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        monkeypatch.setenv("WATCHDOG_USEC", "60000000")
        appliance.begin()
        assert manager.recv(1000).startswith(b"READY=1")
        assert manager.recv(1000).startswith(b"WATCHDOG=1")
        appliance.config.write_text(appliance.config.read_text() + "\n[limits]\nmax_retained = 5\n")
        appliance.send(signal.SIGHUP)
        appliance.wait_for_line("counts now: [limits] max_retained")
        appliance.config.write_text("[nonsense]\n")
        appliance.send(signal.SIGHUP)
        appliance.wait_for_line("the configuration is wrong and nothing is changed")
        appliance.send(signal.SIGTERM)
        said = b""
        while not said.startswith(b"STOPPING=1"):
            said = manager.recv(1000)
    assert appliance.exit_code() == 0


def test_a_backup_taken_under_way_is_whole_and_can_be_gone_on_with(appliance, call) -> None:
    """What was acknowledged before the backup is in it; an appliance that starts with it records
    on without losing or repeating anything."""
    appliance.start()
    for number in range(5):
        assert call("publish", "-t", "/demo/integers", "-m", str(number))[0] == 0
    until(lambda: recorded(appliance) == [0, 1, 2, 3, 4], "it is recorded")
    code, told = call("backup", "copy")
    assert code == 0, told
    assert call("publish", "-t", "/demo/integers", "-m", "5")[0] == 0
    code, told = call("backup", "copy")
    assert code == 64
    assert "exists and is not changed" in told
    code, told = call("restore", "copy")
    assert code == 69
    assert "in use" in told
    assert appliance.end() == 0
    code, told = call("restore", "copy")
    assert code == 64
    assert "has a journal, which is not overwritten" in told

    appliance.data.rename(appliance.folder / "old")
    assert call("restore", "copy")[0] == 0
    assert recorded(appliance) == [0, 1, 2, 3, 4]
    kept = {each.name for each in appliance.data.iterdir()}
    left_out = {"appliance.lock", "health.json", "index.db"}
    missing = {each.name for each in (appliance.folder / "old").iterdir()} - kept - left_out
    assert not missing, "what a part of the appliance keeps is in the backup"
    assert "index.db" not in kept, "it is made anew"
    appliance.start()
    assert call("publish", "-t", "/demo/integers", "-m", "6")[0] == 0
    until(lambda: recorded(appliance) == [0, 1, 2, 3, 4, 6], "it goes on after the backup")
    assert appliance.end() == 0


@pytest.mark.posix("Windows does not delete a file that is open")
@pytest.mark.campaign
def test_a_deleted_data_directory_ends_the_appliance(appliance, call) -> None:
    """It stops in order with exit code 69 and says why, before another one starts there."""
    appliance.start()
    assert call("publish", "-t", "/demo/integers", "-m", "1")[0] == 0
    appliance.data.rename(appliance.folder / "moved")
    appliance.data.mkdir()
    appliance.wait_for_line("was deleted or replaced")
    assert appliance.exit_code() == 69
    assert not any("Traceback" in line for line in appliance.lines)


def test_a_damaged_backup_is_not_put_back(tmp_path) -> None:
    """A byte that changed, a list that points elsewhere, a folder that is none: each is told, and
    nothing takes the journal's place."""
    data = tmp_path / "data"
    data.mkdir()
    Database(data / FILE_NAME, databases.LAYOUTS[FILE_NAME], busy_s=1.0).open(0).close()
    (data / "a.json").write_text("[1]")
    copy = tmp_path / "copy"
    manifest = backups.backup(data, copy)
    assert [each.path for each in manifest.files] == ["a.json", FILE_NAME]
    (copy / "a.json").write_text("[2]")
    with pytest.raises(UsageError, match="damaged or changed"):
        backups.restore(copy, tmp_path / "new")
    assert not (tmp_path / "new" / FILE_NAME).exists()
    (copy / "backup.json").write_text(
        '{"version":"1","taken":"","files":[{"path":"../x","size":1,"sha256":""}]}'
    )
    with pytest.raises(UsageError, match="outside of it"):
        backups.restore(copy, tmp_path / "new")
    with pytest.raises(UsageError, match="not a complete backup"):
        backups.restore(data, tmp_path / "new")
    with pytest.raises(UsageError, match="is in the data directory"):
        backups.backup(data, data / "copy")


def test_a_journal_of_a_newer_appliance_is_left_alone(appliance) -> None:
    """After a downgrade the appliance refuses with exit code 78, and the journal is untouched."""
    path: Path = appliance.data / FILE_NAME
    appliance.start()
    assert appliance.end() == 0
    with sqlite3.connect(path) as database:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        database.execute(f"PRAGMA user_version = {version + 1}")
    database.close()
    before = path.read_bytes()
    appliance.begin()
    assert appliance.exit_code() == 78
    assert any("written by a newer appliance" in line for line in appliance.lines)
    assert not any("Traceback" in line for line in appliance.lines)
    assert path.read_bytes() == before
