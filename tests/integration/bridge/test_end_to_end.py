"""A message at another broker starts a task here, once, and is acknowledged there."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import certificates
import pytest
from appliance_process import QUICK, ApplianceProcess
from other_brokers import PASSWORD, USER, Mosquitto, Remote

from appliance.qlik.simulated import SimulatedQlik
from appliance.qlik.simulated.server import TlsFiles
from appliance.qlik.simulated.site import SimulatedTask

TASK = "5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b10"
CONFIG = (
    """
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:PORT"
"""
    + certificates.QLIK_CONFIG
    + """
[[trigger]]
topic = "f7/start"
task = "payload"
[[bridge]]
name = "plant"
host = "127.0.0.1"
port = {port}
username = "{user}"
password_file = "password.txt"
subscribe = [{{topic = "start", local_prefix = "f7/"}}]
publish = [{{topic = "appliance/tasks/#", remote_prefix = "f7/"}}]
"""
)

pytestmark = pytest.mark.posix("the process is killed by a signal")


@pytest.fixture
def remote(tmp_path):
    with Mosquitto(tmp_path / "remote") as broker:
        yield broker


def test_start_and_outcome(tmp_path, remote):
    """The task starts once for each message, also for one of the time when the appliance was dead;
    its outcomes reach the broker."""
    files = certificates.make(tmp_path / "certificates")
    tls = TlsFiles(files.server, files.server_key, client_ca=files.root)
    task = SimulatedTask("Reload line 7", id=TASK, duration_s=0.1)
    with SimulatedQlik([task], tls=tls) as qlik, Remote(remote, "press") as press:
        (tmp_path / "password.txt").write_text(PASSWORD, "utf-8")
        (tmp_path / "password.txt").chmod(0o600)
        text = CONFIG.format(url=qlik.url, port=remote.port, user=USER)
        with ApplianceProcess(tmp_path, text, program=QUICK) as process:
            process.start()
            press.subscribe("f7/#")
            process.wait_for_line("bridge plant is subscribed to start")

            def outcomes():
                topic = f"f7/appliance/tasks/{TASK}/last"
                return [m for m in list(press.got) if m.topic == topic]

            press.publish("start", TASK)
            press.wait(lambda: len(outcomes()) == 1, "the first outcome")
            process.send(signal.SIGKILL)
            process.exit_code()
            press.publish("start", TASK)
            process.start()
            press.wait(lambda: len(outcomes()) >= 2, "the second outcome")
            assert process.end() == 0
            assert "Traceback" not in "\n".join(process.lines)
        assert qlik.starts(TASK) == 2
        assert all(json.loads(m.payload)["state"] == "succeeded" for m in outcomes())


@pytest.mark.campaign
def test_reload_of_the_file(tmp_path, remote):
    """A bridge that is written into the file of a running appliance connects; one that is taken
    out ends, and the appliance stops in order."""
    before = "[service]\ndata_dir = 'data'\n[[listener]]\nbind = '127.0.0.1:PORT'\n"
    bridge = f"""
[[bridge]]
name = "plant"
host = "127.0.0.1"
port = {remote.port}
username = "{USER}"
password = "{PASSWORD}"
subscribe = [{{topic = "a"}}]
"""
    with ApplianceProcess(tmp_path, before) as process:
        process.start()
        text = process.config.read_text("utf-8")
        process.config.write_text(text + bridge, "utf-8")
        process.config.chmod(0o600)
        command(process, "reload")
        process.wait_for_line("bridge plant is connected")
        process.config.write_text(text, "utf-8")
        assert "[[bridge]] plant (is gone)" in command(process, "reload")
        assert process.end() == 0


def command(process, *arguments):
    """What a command of the appliance answers."""
    done = subprocess.run(
        [sys.executable, "-m", "appliance", *arguments, "-c", str(process.config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout
