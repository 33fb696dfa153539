"""The life of the process on Windows: how it starts, is stopped, is killed and comes again."""

from __future__ import annotations

import json

import certificates
import paho.mqtt.client as mqtt
import pytest
from appliance_process import free_port, until
from windows_process import (
    ONE_RECORDER,
    TESTS,
    WindowsProcess,
    connected,
    run_appliance,
    windows_path,
)

from appliance.errors import EXIT_OK, EXIT_UNAVAILABLE
from appliance.qlik.simulated import SimulatedQlik
from appliance.qlik.simulated.server import TlsFiles
from appliance.qlik.simulated.site import SimulatedTask

TASK = "5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b10"
MESSAGES = 20_000

QLIK = """
[qlik]
edition = "client-managed"
url = "{url}"
user = 'INTERNAL\\sa_repository'
certificate = {{certfile = 'certificates\\client.pem', keyfile = 'certificates\\client_key.pem'}}
ca_file = 'certificates\\root.pem'
[[trigger]]
topic = "qliksense/start_task"
task = "payload"
"""


@pytest.fixture
def qlik(tmp_path):
    """A Qlik server over HTTPS that demands a client certificate."""
    files = certificates.make(tmp_path / "certificates")
    tls = TlsFiles(files.server, files.server_key, client_ca=files.root)
    with SimulatedQlik([SimulatedTask("Reload", id=TASK, duration_s=0.2)], tls=tls) as server:
        yield server


def is_published(info: mqtt.MQTTMessageInfo) -> bool:
    try:
        return info.is_published()
    except RuntimeError:  # it waits in paho's queue
        return False


def recorded(process: WindowsProcess) -> list[int]:
    text = (process.data / "recordings" / "line7.json").read_text("utf-8")
    return json.loads(text)


def test_what_was_acknowledged_is_there_after_terminate_process_and_a_task_starts_once(
    tmp_path, qlik
):
    """TerminateProcess in the middle of a burst: each acknowledged message is recorded once after
    the restart, in order, and the task of the acknowledged start message was started once."""
    with WindowsProcess(tmp_path, ONE_RECORDER + QLIK.format(url=qlik.url)) as appliance:
        appliance.start()
        client = connected(appliance.port)
        client.publish("qliksense/start_task", TASK, qos=1).wait_for_publish(30)
        sent = [client.publish("line/7", str(number), qos=1) for number in range(MESSAGES)]
        until(lambda: is_published(sent[20]), "the burst is under way")
        appliance.kill()
        client.loop_stop()
        acknowledged = [number for number, info in enumerate(sent) if is_published(info)]
        assert 20 < len(acknowledged) < MESSAGES
        appliance.start()
        until(lambda: set(acknowledged) <= set(recorded(appliance)), "all are recorded", 60)
        assert qlik.wait_for(lambda: qlik.starts(TASK) >= 1, 60)
        health = run_appliance("health", "-c", windows_path(appliance.config))
        assert health.returncode == EXIT_OK, health.stdout
        assert appliance.end() == EXIT_OK
    again = recorded(appliance)
    assert again == sorted(set(again))
    assert qlik.starts(TASK) == 1


@pytest.mark.parametrize("event", ["ctrl-c", "ctrl-break"])
def test_a_console_event_ends_the_appliance_in_order(tmp_path, event):
    """Ctrl+C and Ctrl+Break end it with 0; the recording is complete and its blanks are removed."""
    program = (windows_path(TESTS / "windows_break.py"),)
    with WindowsProcess(tmp_path, ONE_RECORDER, program=program) as appliance:
        appliance.start()
        client = connected(appliance.port)
        client.publish("line/7", "1", qos=1).wait_for_publish(30)
        assert appliance.end(event) == EXIT_OK, appliance.lines
        client.loop_stop()
    assert recorded(appliance) == [1]
    assert (appliance.data / "recordings" / "line7.json").read_bytes() == b"[\n  1\n]"
    assert "Traceback" not in "\n".join(appliance.lines)


def test_a_port_in_use_is_said(tmp_path):
    """A second program on the port: exit code 69 and a sentence with the port; no traceback."""
    with WindowsProcess(tmp_path / "a", ONE_RECORDER) as first:
        first.start()
        second = WindowsProcess(tmp_path / "b", ONE_RECORDER, port=first.port)
        with second:
            second.begin()
            assert second.exit_code() == EXIT_UNAVAILABLE
        said = "\n".join(second.lines)
        assert f"127.0.0.1:{first.port}" in said
        assert "in use" in said
        assert "Traceback" not in said
        assert first.end() == EXIT_OK


def test_a_second_appliance_on_the_data_is_refused(tmp_path):
    """The data directory is locked: exit code 69, a sentence that names it and the first's pid."""
    with WindowsProcess(tmp_path, ONE_RECORDER) as first:
        first.start()
        holder = (first.data / "appliance.lock").read_text().strip()
        other = ONE_RECORDER.replace('"data"', f"'{windows_path(first.data)}'")
        second = WindowsProcess(tmp_path / "b", other, port=free_port())
        with second:
            second.begin()
            assert second.exit_code() == EXIT_UNAVAILABLE
        said = "\n".join(second.lines)
        assert "in use by another appliance" in said
        assert f"pid {holder}" in said
        assert "Traceback" not in said
        assert first.end() == EXIT_OK


def test_start_waits_for_the_outcome(tmp_path, qlik):
    """``appliance start`` reaches the running appliance, and the exit code tells the outcome."""
    with WindowsProcess(tmp_path, ONE_RECORDER + QLIK.format(url=qlik.url)) as appliance:
        config = windows_path(appliance.config)
        assert run_appliance("start", "Reload", "-c", config).returncode == EXIT_UNAVAILABLE
        appliance.start()
        done = run_appliance("start", "Reload", "--wait", "--timeout", "2m", "-c", config)
        assert done.returncode == EXIT_OK, done.stdout + done.stderr
        assert "Reload: succeeded after" in done.stdout
        done = run_appliance("start", "Relaod", "-c", config)
        assert (done.returncode, "Did you mean" in done.stdout) == (14, True)
        assert qlik.starts(TASK) == 1
