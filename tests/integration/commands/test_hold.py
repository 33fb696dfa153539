"""``appliance hold``, ``release`` and ``list`` against an appliance process with a Qlik server."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime

import pytest
from appliance_process import QUICK, ApplianceProcess, until

from appliance import cli
from appliance.commands import hold
from appliance.engine_api import HoldState
from appliance.errors import EXIT_UNAVAILABLE, EXIT_USAGE, NoPermissionError, UnavailableError
from appliance.mqtt.client import Client, Target
from appliance.ops import health
from appliance.qlik.simulated import SimulatedQlik

CONFIG = """
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:PORT"
[qlik]
edition = "client-managed"
url = "QLIK"
header = {name = "X-Qlik-User", value = "UserDirectory=INTERNAL; UserId=sa"}
[[trigger]]
topic = "qliksense/start_task"
task = "payload"
"""


@pytest.fixture
def call(capfd):
    """Runs a command in this process; returns exit code, standard output and error."""

    def run(process: ApplianceProcess | None, *arguments: str) -> tuple[int, str, str]:
        connection = () if process is None else ("-c", str(process.config))
        code = cli.main([*arguments, *connection])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run


def client(process: ApplianceProcess, client_id: str) -> Client:
    return Client(Target("127.0.0.1", process.port, client_id=client_id))


def publish(process: ApplianceProcess, topic: str, payload: bytes, times: int = 1) -> None:
    with client(process, "plc-1") as sender:
        for _ in range(times):
            sender.publish(topic, payload, qos=1, retain=False)


def status_of(process: ApplianceProcess) -> dict[str, object]:
    with client(process, "watcher") as watcher:
        watcher.subscribe("appliance/status")
        return json.loads(watcher.receive(20.0)[1])


def listed(call, process: ApplianceProcess) -> list[dict[str, object]]:
    code, out, _ = call(process, "list", "--json")
    assert code == 0
    return json.loads(out)


@pytest.mark.campaign
def test_a_maintenance_window_with_a_kill_in_it(tmp_path, call) -> None:
    """Held, killed, listed, released: fifty messages are one start, and everybody could see it."""
    with SimulatedQlik() as qlik:
        task = qlik.add_task("Reload sales", duration_s=0.1)
        config = CONFIG.replace("QLIK", qlik.url)
        with ApplianceProcess(tmp_path, config, program=QUICK) as process:
            process.start()
            code, out, _ = call(
                process, "hold", "everything", "--for", "2h", "--reason", "new disks"
            )
            assert code == 0
            assert out.startswith("everything is held until ")
            assert "it is released by: appliance release everything" in out
            process.wait_for_line("new disks")
            code, out, _ = call(
                process, "hold", "everything", "--for", "3h", "--reason", "new disks"
            )
            assert out.splitlines()[1].startswith("before, it was held until ")
            process.wait_for_line("(before: by ")
            with client(process, "press-7") as press:
                assert call(process, "hold", "client", "press-7")[0] == 0
                with pytest.raises(UnavailableError):
                    press.receive(20.0)
            publish(process, "qliksense/start_task", task.id.encode(), 50)
            until(lambda: listed(call, process)[0]["waiting"] == 1, "a start that waits")
            process.kill()
            process.start()
            (everything, press) = listed(call, process)
            assert (everything["kind"], everything["reason"]) == ("everything", "new disks")
            assert press["name"] == "press-7"
            until(lambda: listed(call, process)[0]["waiting"] == 1, "the same start")
            with pytest.raises((NoPermissionError, UnavailableError)), client(process, "press-7"):
                pass
            (told, _) = until(lambda: status_of(process)["holds"], "the status topic")
            assert (told["reason"], told["drops"]) == ("new disks", False)
            until(lambda: _health(process).startswith("everything is held until "), "the health")
            assert task.runs == 0
            code, out, _ = call(process, "list")
            assert "new disks" in out
            code, out, _ = call(process, "release", "everything")
            assert (code, out) == (0, "everything is released; 1 start that waited goes on\n")
            assert call(process, "release", "client", "press-7")[0] == 0
            with client(process, "press-7"):
                pass
            until(lambda: task.runs == 1, "one run")
            assert call(process, "hold", "--list")[2] == "nothing is held\n"
            code, _, err = call(process, "hold", "task", "Reload sale")
            assert code == EXIT_USAGE
            assert 'Did you mean "Reload sales"' in err
        assert call(process, "list")[0] == EXIT_UNAVAILABLE
    assert task.runs == 1


def _health(process: ApplianceProcess) -> str:
    found = health.read(process.data)
    assert found is not None
    return next(part.text for part in found.parts if part.name == "holds")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("hold",), "say what"),
        (("hold", "everything", "now"), "everything has no name"),
        (("hold", "task"), "task needs a name"),
        (("hold", "taks", "a"), "did you mean task?"),
        (("hold", "everything", "--for", "soon"), "not a duration"),
        (("hold", "everything", "--for", "0s"), "above zero"),
        (("hold", "everything", "--until", "tomorrow"), "write a time of day"),
        (("hold", "everything", "--until", "25:00"), "write a time of day"),
        (("hold", "everything", "--until", "9:60"), "write a time of day"),
        (("hold", "everything", "--for", "1h", "--until", "06:00"), "two ways"),
        (("release", "moon"), "choose from: everything, task, trigger, timer, client"),
    ],
)
def test_a_slip_is_told_before_anything_is_sent(call, arguments, said) -> None:
    code, _, err = call(None, *arguments, "--host", "127.0.0.1", "--port", "1")
    assert code == EXIT_USAGE
    assert said in err


def test_a_time_of_day_is_the_next_one() -> None:
    """By the clock of this machine, whatever its zone."""
    noon = int(time.mktime((2026, 11, 30, 12, 0, 0, 0, 0, -1))) * 10**9
    for text, moved_h in (
        ("13:30", 1.5),
        ("12:00", 24),
        ("6:00", 18),
        ("2026-12-01 12:00", 24),
        (datetime.fromtimestamp(noon // 10**9, UTC).strftime("%H:%M+00:00"), 24),
    ):
        assert hold._moment(text, noon) == noon + int(moved_h * 3600) * 10**9


def test_what_waited_before_a_hold_that_drops_is_listed() -> None:
    held = HoldState("task", "a", None, "", "ann", 1, drop=True, waiting=3)
    assert hold._row(held, 2)[4] == "3, more dropped"
