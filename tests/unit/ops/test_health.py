"""What programs that watch the appliance are promised: one word, numbers, and no stale news."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from appliance import cli
from appliance.ops import health
from appliance.ops.metrics import exposition
from appliance.ops.systemd import SystemdNotifier
from appliance.engine_api import (
    Health,
    JournalState,
    ListenerState,
    QlikState,
    RecorderState,
    RuleState,
    Snapshot,
    TimerState,
    UploadState,
)

OK = Health("ok")
SNAPSHOT = Snapshot(
    taken_ns=10**18,
    name="appliance",
    version="1",
    started_ns=10**18 - 90 * 10**9,
    listeners=(ListenerState("mqtt", "127.0.0.1:1883", "tcp", tls=False, health=OK),),
    clients_connected=3,
    journal=JournalState(OK, last_seq=7),
    qlik=QlikState("simulated", "simulated", OK),
    recorders=(RecorderState("#", 'a "b"\\c\n.json', "json", OK, recorded=5),),
    rules=(RuleState("rule", "a/#", "task x", matched=2, started=1, rejected=1),),
    timers=(),
    executions=(),
    messages_in=7,
    counters=(("another_version_total", 4), ("logins_refused_total", 2)),
    activity=(("executions_failed_total", 3),),
)
replace = msgspec.structs.replace


def test_what_is_bad_is_what_keeps_messages_out() -> None:
    """A journal that can't write is bad; a Qlik server that is down is a warning, since a restart
    of the appliance would not fix it."""
    assert health.report(SNAPSHOT).status == "ok"
    off = replace(SNAPSHOT, qlik=replace(SNAPSHOT.qlik, health=Health("off")))
    assert health.report(off).status == "ok"
    down = replace(SNAPSHOT, qlik=replace(SNAPSHOT.qlik, health=Health("bad", "refused")))
    assert health.report(down).status == "warn"
    full = replace(SNAPSHOT, journal=JournalState(Health("bad", "disk full")))
    assert health.report(full).is_bad
    listener = replace(SNAPSHOT.listeners[0], health=Health("bad"))
    assert health.report(replace(SNAPSHOT, listeners=(listener,))).is_bad


def test_a_raised_alarm_is_a_warning() -> None:
    """A machine that has fallen silent is told to a monitor, with the timer's name; it is no
    reason to start the appliance again. Once an operator paused the timer, that is what is told."""
    quiet = TimerState("quiet", "silence", None, detail="no message on a/#", silent_since_ns=1)
    found = health.report(replace(SNAPSHOT, timers=(quiet,)))
    assert found.status == "warn"
    assert health.Part("timer quiet", "bad", "no message on a/#") in found.parts
    paused = replace(quiet, paused=True)
    found = health.report(replace(SNAPSHOT, timers=(paused,)))
    assert found.status == "warn"
    assert health.Part("paused timers", "warn", "quiet") in found.parts
    assert not any(part.name == "timer quiet" for part in found.parts)


def test_the_metrics_can_be_read_by_prometheus() -> None:
    """Prometheus' own parser reads every line, with any characters in a name."""
    found = {
        (sample.name, *map(sample.labels.get, sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(exposition(SNAPSHOT).decode())
        for sample in family.samples
    }
    assert found["appliance_messages_received_total",] == 7
    assert found["appliance_clients",] == 3
    assert found["appliance_recorded_messages_total", 'a "b"\\c\n.json'] == 5
    assert found["appliance_trigger_messages_total", "rejected", "rule"] == 1
    assert found["appliance_logins_refused_total",] == 2
    assert found["appliance_executions_failed_total",] == 3
    assert found["appliance_polls_failed_total",] == 0
    assert found["appliance_events_total", "logins refused"] == 2
    assert found["appliance_events_total", "another version"] == 4
    assert found["appliance_health", "all"] == 0


def test_recorders_are_told_by_name_with_their_files_and_uploads() -> None:
    """A database has no path: health and metrics know its recorder by its name and target."""
    files = RecorderState(
        "#", "/data/a.qvd", "qvd", OK, 7, name="a", target="/data/a.qvd", files=4, size_bytes=99,
        upload=UploadState(Health("bad", "no space named x"), waiting=3, last_ns=2 * 10**9),
    )  # fmt: skip
    away = Health("bad", "no answer")
    table = RecorderState(
        "#", "", "json", away, name="t", target="postgresql://db/m, table t", files=0
    )
    snapshot = replace(SNAPSHOT, recorders=(files, table))
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(exposition(snapshot).decode())
        for sample in family.samples
    }
    assert samples["appliance_recorder_files", "a"] == 4
    assert samples["appliance_recorder_bytes", "a"] == 99
    assert samples["appliance_recorder_uploads_waiting", "a"] == 3
    assert samples["appliance_recorder_last_upload_seconds", "a"] == 2
    assert ("appliance_recorder_files", "t") not in samples
    assert samples["appliance_recorded_messages_total", "postgresql://db/m, table t"] == 0
    parts = {part.name: part.text for part in health.report(snapshot).parts}
    assert parts["recorder t"] == "no answer"
    assert parts["upload of /data/a.qvd"] == "no space named x"
    assert parts["recorder /data/a.qvd"] == ""


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = cli.main(list(arguments))
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out + err


def test_health_believes_no_old_report(tmp_path, monkeypatch, capsys) -> None:
    """An appliance that was killed, or stands still, is told from one that runs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").write_text("")
    code, out = call(capsys, "health")
    assert code == 69
    assert "no appliance runs" in out
    data = tmp_path / "data"
    data.mkdir()
    now = time.time_ns()
    assert health.write(data, health.report(replace(SNAPSHOT, taken_ns=now)))
    code, out = call(capsys, "health")
    assert code == 0
    assert out.startswith("ok: appliance 1, pid")
    code, out = call(capsys, "health", "--json")
    assert code == 0
    assert json.loads(out)["status"] == "ok"
    minute = 60 * 10**9
    old = health.report(replace(SNAPSHOT, taken_ns=now - minute))
    health.write(data, replace(old, since_boot_ns=old.since_boot_ns - minute))
    code, out = call(capsys, "health", "--json")
    assert code == 69
    assert json.loads(out)["status"] == "bad"
    assert "has not said anything for 6" in json.loads(out)["reason"]
    assert "disk" not in json.loads(out)["reason"]
    with monkeypatch.context() as patch:
        patch.setattr(health.files, "free_bytes", lambda _folder: 0)
        code, out = call(capsys, "health")
    assert code == 69
    assert f"no disk space is left in {data.resolve()}" in out
    (data / "health.json").write_text("{")
    assert call(capsys, "health")[0] == 69


class Machine:
    """Its two clocks, and an appliance that writes its next report after ``next_s`` seconds."""

    def __init__(self, data: Path, next_s: float | None) -> None:
        self.data, self.next_s = data, next_s
        self.steady, self.ahead, self.waited_s = 500 * 10**9, 10**18, 0.0

    def write(self) -> None:
        report = health.report(replace(SNAPSHOT, taken_ns=self.steady + self.ahead))
        health.write(self.data, replace(report, since_boot_ns=self.steady))

    def sleep(self, seconds: float) -> None:
        self.steady += round(seconds * 1e9)
        self.waited_s += seconds
        if self.next_s is not None and self.waited_s >= self.next_s:
            self.next_s = None
            self.write()

    def look(self) -> health.Found:
        found = health.look(
            self.data, lambda: self.steady + self.ahead, lambda: self.steady, self.sleep
        )
        assert found is not None
        return found


@pytest.mark.parametrize("step_s", [2 * 86400, -5 * 3600])
def test_a_clock_that_was_set_is_no_silent_appliance(tmp_path, step_s) -> None:
    """Until the next report the two clocks differ about the last one: the next one is waited for.
    If none comes, the appliance hangs, also where the time of day says that it wrote just now."""
    for next_s, is_old in ((4.9, False), (None, True)):
        machine = Machine(tmp_path, next_s)
        machine.write()
        assert not machine.look().is_old
        assert machine.waited_s == 0
        machine.steady += 3 * 10**9
        machine.ahead += step_s * 10**9
        assert machine.look().is_old is is_old
        assert machine.waited_s < health.OLD_AFTER_S
    hangs = Machine(tmp_path, None)
    hangs.write()
    hangs.steady += 60 * 10**9
    hangs.ahead -= 60 * 10**9
    assert hangs.look().is_old


def test_a_full_disk_costs_the_report_and_nothing_else(tmp_path) -> None:
    """Where the report can't be written, nothing fails."""
    (tmp_path / "health.json.new").mkdir()
    assert not health.write(tmp_path, health.report(SNAPSHOT))
    health.remove(tmp_path)


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="systemd is on Linux")
def test_systemd_hears_ready_alive_and_stopping(tmp_path) -> None:
    """The states arrive as sd_notify(3) has them; without systemd nothing happens."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(path)
        listening.settimeout(10)
        manager = SystemdNotifier(
            {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(os.getpid())}
        )
        manager.ready("listening")
        manager.alive("3\nclients")
        manager.stopping()
        assert listening.recv(1000) == b"READY=1\nSTATUS=listening"
        assert listening.recv(1000) == b"WATCHDOG=1\nSTATUS=3 clients"
        assert listening.recv(1000).startswith(b"STOPPING=1")
        other = SystemdNotifier({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"})
        other.alive("x")
        assert listening.recv(1000) == b"STATUS=x"
    manager.alive("nobody listens any more")
    SystemdNotifier({}).ready("no systemd")


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="systemd is on Linux")
def test_a_systemd_that_does_not_read_holds_nothing_up(tmp_path) -> None:
    """With its queue full, telling returns at once."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(path)
        manager = SystemdNotifier({"NOTIFY_SOCKET": path})
        for _ in range(2000):
            manager.alive("x" * 1000)
