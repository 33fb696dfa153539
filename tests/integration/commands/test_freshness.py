"""Late data as a user meets it: the command, health, metrics, a topic, an acknowledgement."""

from __future__ import annotations

import io
import json
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from appliance_process import QUICK, ApplianceProcess, free_port, until

from appliance import cli
from appliance.broker.users import Users
from appliance.mqtt.client import Client, Target
from appliance.problems import problems
from appliance.qlik.simulated import Outcome, SimulatedQlik
from appliance.qlik.simulated.site import SimulatedTask
from appliance.remote.client_engine import AttachedEngine
from appliance.secret import Secret

CONFIG = """
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:PORT"
[access]
users_file = "users.txt"
operators = ["admin"]
viewers = ["anna"]
[metrics]
bind = "127.0.0.1:METRICS"
[qlik]
edition = "client-managed"
url = "QLIK"
header = {name = "X-Qlik-User", value = "UserDirectory=INTERNAL; UserId=sa"}
[[trigger]]
name = "orders"
topic = "orders"
task = {name = "Reload Sales"}
fresh_within = "1s"
"""


class Site:
    """An appliance with one rule, its server, and a terminal that is attached."""

    def __init__(self, folder: Any) -> None:
        self.task = SimulatedTask("Reload Sales", outcomes=(Outcome.NEVER,), app_name="Sales")
        self.qlik = SimulatedQlik([self.task])
        self.metrics_port = free_port()
        config = CONFIG.replace("QLIK", self.qlik.start())
        config = config.replace("METRICS", str(self.metrics_port))
        self.process = ApplianceProcess(folder, config, program=QUICK)
        users = Users(str(folder / "users.txt"))
        for name in ("admin", "anna", "plc"):
            users.add(name, b"secret")
        self.process.start()
        self.engine = AttachedEngine(self.target("admin", "admin-terminal"))
        self.engine.open(20)

    def target(self, user: str, client_id: str) -> Target:
        return Target(
            "127.0.0.1",
            self.process.port,
            client_id=client_id,
            username=user,
            password=Secret("secret"),
        )

    def publish(self, topic: str) -> None:
        with Client(self.target("plc", "plc-1")) as client:
            client.publish(topic, b"x", qos=1, retain=False)

    def metrics(self) -> str:
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode()

    def close(self) -> None:
        self.engine.close()
        self.process.kill()
        self.qlik.stop()


@pytest.fixture
def site(tmp_path) -> Iterator[Site]:
    opened = Site(tmp_path)
    yield opened
    opened.close()


@pytest.mark.campaign
def test_late_data_by_every_entrance(site, capfd, monkeypatch):
    """One message, a run that does not end: late after a second, fresh when the run succeeds."""

    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"secret\n")))
        connection = ("-c", str(site.process.config), "-u", "anna", "--password-stdin")
        assert cli.main(["freshness", *arguments, *connection]) == 0
        out, err = capfd.readouterr()
        return out + err

    assert call() == "no message has asked for a task yet\n"
    site.publish("orders")
    site.process.wait_for_line("Reload Sales: Its data is stale for 1 s")
    until(lambda: problems(site.engine.snapshot()), "a problem")
    (problem,) = problems(site.engine.snapshot())
    assert problem.text.startswith("Reload Sales is stale for ")
    assert "(fresh_within 1 s): no successful run began after message" in problem.text
    lines = call().splitlines()
    assert lines[0].startswith("TASK") and lines[1].startswith("Reload Sales  late, stale ")
    assert call("stock") == "no task with 'stock' in its name, app or id is followed\n"
    assert "EVERY 1h: P50" in call("--late", "--every", "1h")
    (described,) = json.loads(call("sales", "--json", "--every", "1h"))
    assert (described["freshness"], described["appName"]) == ("late", "Sales")
    assert described["schedule"]["runs"] == 168
    found = site.metrics()
    assert "appliance_tasks_late 1.0" in found
    assert 'appliance_task_stale_seconds{task="Reload Sales"}' in found
    assert 'appliance_health{part="late data"} 1.0' in found
    site.engine.acknowledge_problem("stale", site.task.id, str(problem.occurrence), "new disks", "")
    until(lambda: not problems(site.engine.snapshot()), "no problem")
    site.qlik.site.finish(site.task.id, Outcome.SUCCESS)
    until(lambda: not site.engine.snapshot().stale_count, "fresh data")
    (fresh,) = site.engine.freshness()
    assert fresh.stale_since_ns is None and fresh.messages == 1
    assert site.engine.freshness_day(site.task.id) == [(fresh.fresh_ns, fresh.worst_s)]
    assert 'appliance_message_to_fresh_seconds_bucket{le="+Inf"} 1.0' in site.metrics()
    retained = site.engine.retained(f"appliance/tasks/{site.task.id}/freshness")
    assert retained is not None and json.loads(retained.payload)["freshness"] in ("stale", "late")
