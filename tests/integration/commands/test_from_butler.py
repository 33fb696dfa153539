"""A configuration of Butler, taken over, runs: what Butler's clients do goes on as before."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import certificates
import pytest
from appliance_process import ApplianceProcess, free_port, until
from other_brokers import Mosquitto, Remote

from appliance.qlik.simulated import Outcome, SimulatedQlik, SimulatedTask, TlsFiles

BUTLER = """
Butler:
  mqttConfig:
    enable: true
    brokerHost: 127.0.0.1
    brokerPort: {broker}
    azureEventGrid:
      enable: false
    taskFailureSendFull: true
    taskAbortedSendFull: true
    subscriptionRootTopic: qliksense/#
    taskStartTopic: qliksense/start_task
    taskFailureTopic: qliksense/task_failure
    taskFailureFullTopic: qliksense/task_failure_full
    taskAbortedTopic: qliksense/task_aborted
    taskAbortedFullTopic: qliksense/task_aborted_full
  configQRS:
    authentication: certificates
    host: localhost
    port: {qlik}
    useSSL: true
    headers:
      static:
        - name: X-Qlik-User
          value: UserDirectory=Internal;UserId=sa_repository
  cert:
    clientCert: certificates/client.pem
    clientCertKey: certificates/client_key.pem
    clientCertCA: certificates/root.pem
"""
START = "qliksense/start_task"
FAILURE = "qliksense/task_failure"


@pytest.fixture
def task() -> SimulatedTask:
    return SimulatedTask("Reload sales", duration_s=0.1, outcomes=(Outcome.FAIL,))


@pytest.mark.campaign  # a broker and the appliance as processes
def test_starts_and_failures_go_by_the_broker_that_butler_used(
    tmp_path: Path, task: SimulatedTask
) -> None:
    """A task id on Butler's topic starts the task; subscribers there get Butler's messages.

    A message that came while neither Butler nor a trigger was there is started from the journal.
    """
    files = certificates.make(tmp_path / "certificates")
    tls = TlsFiles(files.server, files.server_key, client_ca=files.root)
    with (
        Mosquitto(tmp_path / "broker", users=False) as broker,
        SimulatedQlik([task], tls=tls) as qlik,
        Remote(broker, "source") as source,
    ):
        (tmp_path / "production.yaml").write_text(
            BUTLER.format(broker=broker.port, qlik=qlik.port), "utf-8"
        )
        appliance("init", "--from-butler", "production.yaml", "taken/config.toml", folder=tmp_path)
        text = (tmp_path / "taken" / "config.toml").read_text("utf-8")
        assert 'edition = "client-managed"' in text
        port = free_port()
        text = text.replace("127.0.0.1:1883", f"127.0.0.1:{port}")
        without = text.replace("[[trigger]]", "# [[trigger]]").replace(
            'topic = "qliksense/start_task"\ntask', '# topic = "qliksense/start_task"\n# task'
        )
        source.subscribe("qliksense/#")
        with ApplianceProcess(tmp_path / "taken", without, port=port) as process:
            process.start()
            process.wait_for_line("is connected to")
            appliance("check", "--connect", folder=process.folder)
            # Butler is stopped, and the trigger is not there yet.
            since = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() - 60))
            source.publish(START, task.id)
            source.wait_acknowledged(1)
            until(
                lambda: task.id in appliance("export", "-t", START, folder=process.folder),
                "the message is in the journal",
            )
            assert qlik.starts() == 0
            process.config.write_text(text, "utf-8")
            appliance("reload", folder=process.folder)
            appliance(
                "replay", "-t", START, "--since", since, "--speed", "max", "--start-tasks",
                "--host", "127.0.0.1", "--port", str(broker.port), folder=process.folder,
            )  # fmt: skip
            source.wait(lambda: topics(source).count(FAILURE) == 1, "the failure is told")
            assert qlik.starts() == 1

            source.publish(START, task.id.upper())
            source.wait(lambda: topics(source).count(FAILURE) == 2, "the next one is told")
            source.wait(lambda: topics(source).count(f"{FAILURE}_full") == 2, "in full, too")
            assert qlik.starts() == 2
            names = {each.payload.decode() for each in list(source.got) if each.topic == FAILURE}
            assert names == {task.name}
            assert process.end() == 0


def topics(source: Remote) -> list[str]:
    return [each.topic for each in list(source.got)]


def appliance(*arguments: str, folder: Path) -> str:
    """Run a command in a folder; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "appliance", *arguments],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
