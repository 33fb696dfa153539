"""Script logs of failed reloads as files: whole, for as long as they are to be kept, and no longer."""

from __future__ import annotations

import stat
import sys
import time
from pathlib import Path

import certificates
import msgspec
import pytest
from http_site import HttpSite
from notice_rig import notice
from tasks_rig import START_TOPIC, Rig, client_of, start_trigger

from appliance.config.tables import AllowConfig
from appliance.counters import Counter
from appliance.engine.reload import reload
from appliance.model import Execution
from appliance.ops.backup import backup
from appliance.qlik.simulated import Outcome, SimulatedQlik
from appliance.qlik.simulated.server import TlsFiles
from appliance.tasks.engine import TaskEngine
from appliance.tasks.kept_logs import KeptLogs

SECOND_NS = 1_000_000_000
DAY_S = 86400.0
LOG = ("line 1", "XPassword=Sommer2026", "Execution Failed")
KEPT = ["line 1", "XPassword=***", "Execution Failed"]


def run_fails(rig: Rig, task_id: str, count: int = 1) -> Execution:
    """Start a task that fails, and wait for what becomes of its script log."""
    rig.source.put(START_TOPIC, task_id)
    rig.wait_until(
        lambda: (
            len([one for one in rig.engine.executions(10) if one.log_tail or one.log_problem])
            == count
        )
    )
    return rig.newest()


def test_a_whole_log_is_kept_and_found_again_after_a_restart(tmp_path: Path) -> None:
    """With its masks; the outcome names the file. What was kept stays when it is still young."""
    with SimulatedQlik() as qlik:
        log = (*(f"number {number}" for number in range(1000)), *LOG)
        task = qlik.add_task(
            "Sales: Ärger/..\\ü", duration_s=0.02, outcomes=(Outcome.FAIL,), log=log
        )
        settings = {"keep_script_logs_s": DAY_S}
        with Rig(tmp_path / "tasks.db", client_of(qlik), **settings) as rig:
            rig.engine.tasks()  # so that names are known
            found = run_fails(rig, task.id)
            body = rig.broker.wait_until(
                lambda: [one for _, one, _, _ in rig.broker.published if "logTail" in one]
            )[0]
        path = rig.engine.kept_log(found)
        assert path == tmp_path / "script-logs" / found.log_file
        assert body["logFile"] == path.name
        assert path.read_text(encoding="utf-8").splitlines() == [*log[:1001], *KEPT[1:]]
        assert path.name.endswith("_1_Sales_Ärger_ü.log")
        again = Rig(tmp_path / "tasks.db", client_of(qlik), source=rig.source, **settings)
        with again as rig:
            assert rig.engine.kept_log(rig.newest()) == path


def test_keeping_is_turned_on_and_off_without_a_restart(tmp_path: Path) -> None:
    """Without the key no file is written. Turned off, the files go within an hour."""
    with SimulatedQlik() as qlik:
        task = qlik.add_task("Sales", duration_s=0.02, outcomes=(Outcome.FAIL,), log=LOG)
        with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:

            def take(keep_s: float | None) -> None:
                rules = rig.engine.rules_of(
                    (start_trigger(),), (), AllowConfig(), (), keep_script_logs_s=keep_s
                )
                rig.engine.take(rules)

            assert not run_fails(rig, task.id).log_file
            assert not (tmp_path / "script-logs").exists()
            take(DAY_S)
            found = run_fails(rig, task.id, 2)
            assert rig.engine.kept_log(found)
            take(None)
            assert not run_fails(rig, task.id, 3).log_file
            rig.engine._kept_logs.tidy(time.time_ns() + 3700 * SECOND_NS)
            assert rig.engine.kept_log(found) is None


class Kept:
    """A folder of logs, the counters, and executions that ended at a second each."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.counted: list[Counter] = []
        self.logs = KeptLogs(folder, self.counted.append, **settings)
        self.logs.take(100.0, is_attached=False)
        self.folder = folder

    def keep(self, number: int, text: str = "text") -> str:
        execution = msgspec.structs.replace(
            notice().execution, id=number, ended_ns=number * SECOND_NS
        )
        return self.logs.keep(execution, text)

    @property
    def numbers(self) -> list[int]:
        return sorted(int(path.name.split("_")[1]) for path in self.folder.iterdir())


def test_a_log_goes_when_its_time_is_over(tmp_path: Path) -> None:
    """By the time in its name, so also after a restart and when a copy has another date. Files of
    others stay, and half a file that a crash left goes."""
    kept = Kept(tmp_path)
    for number in (1, 50, 120):
        kept.keep(number)
    kept.logs.tidy(150 * SECOND_NS)
    assert kept.numbers == [50, 120]
    (tmp_path / f"{kept.keep(130)}.new").write_text("half")
    (tmp_path / "19700101T000000Z_mine.txt").write_text("of others")
    again = Kept(tmp_path)
    again.logs.tidy(171 * SECOND_NS)
    assert sorted(path.name.split("_")[1] for path in tmp_path.iterdir()) == [
        "120",
        "130",
        "mine.txt",
    ]
    again.logs.take(10.0, is_attached=False)
    again.logs.tidy(171 * SECOND_NS)
    assert [path.name for path in tmp_path.iterdir()] == ["19700101T000000Z_mine.txt"]


@pytest.mark.parametrize("settings", [{"max_files": 3}, {"max_bytes": 3000}])
def test_the_oldest_logs_make_room(tmp_path: Path, settings: dict) -> None:
    """Number and size are bounded, over a restart too; a counter says that it bit."""
    for first in (1, 4):
        kept = Kept(tmp_path, **settings)
        for number in range(first, first + 3):
            kept.keep(number, "x" * 1000)
    assert kept.numbers == [4, 5, 6]
    assert kept.counted == [Counter.SCRIPT_LOGS_DELETED_EARLY] * 3


def test_below_the_floor_no_log_is_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says which one is not kept, and why."""
    kept = Kept(tmp_path / "script-logs", has_room=lambda: False)
    assert not kept.keep(7)
    assert kept.counted == [Counter.SCRIPT_LOGS_NOT_KEPT]
    assert "Execution 7: its script log is not kept: less disk space is free" in caplog.text


def test_a_full_disk_costs_the_file_alone(small_disk: Path) -> None:
    """Nothing of it is left, and the next log that fits is kept."""
    kept = Kept(small_disk / "script-logs")
    assert not kept.keep(7, "x" * 4_000_000)
    assert kept.counted == [Counter.SCRIPT_LOGS_NOT_KEPT]
    assert kept.keep(8)
    assert kept.numbers == [8]


@pytest.mark.parametrize("name", ["", "..", "../tasks.db", "a/b.log", "20261129T234012Z_1.log/.."])
def test_only_names_of_kept_logs_are_found(tmp_path: Path, name: str) -> None:
    (tmp_path / "tasks.db").write_text("")
    assert Kept(tmp_path / "script-logs").logs.path_of(name) is None


@pytest.mark.campaign
def test_a_changed_configuration_keeps_logs_and_a_backup_leaves_them_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the appliance, after a reload of its file; for its owner alone."""
    for name in ("first_poll_s", "slowest_poll_s"):
        monkeypatch.setitem(TaskEngine.__init__.__kwdefaults__, name, 0.05)
    files = certificates.make(tmp_path / "certificates")
    tls = TlsFiles(files.server, files.server_key, client_ca=files.root)
    with SimulatedQlik(tls=tls) as qlik:
        qlik.add_task("Failing", duration_s=0.02, outcomes=(Outcome.FAIL,), log=LOG)
        with HttpSite(tmp_path, certificates.QLIK_CONFIG.format(url=qlik.url)) as site:
            start = "/tasks/Failing/start?wait=60"
            assert "logFile" not in site.ask("POST", start).json()
            config = tmp_path / "config.toml"
            text = config.read_text("utf-8")
            config.write_text(text.replace("[qlik]", '[qlik]\nkeep_script_logs = "30d"'), "utf-8")
            done, lines = reload(site.appliance)
            assert done, lines
            assert "changed, and counts now: [qlik] keep_script_logs" in lines
            file = site.ask("POST", start).json()["logFile"]
            path = tmp_path / "data" / "script-logs" / file
            assert path.read_text("utf-8").splitlines() == KEPT
            if sys.platform != "win32":
                assert not stat.S_IMODE(path.stat().st_mode) & 0o077
            manifest = backup(tmp_path / "data", tmp_path / "copy")
            assert not [one.path for one in manifest.files if "script-logs" in one.path]
