"""Outcomes in Butler's form at a broker that was there before: its subscribers go on."""

from __future__ import annotations

import json

import pytest
from appliance_process import until
from bridge_site import Site
from other_brokers import Mosquitto, Remote

from appliance.qlik.simulated import Outcome

pytestmark = [
    pytest.mark.posix("a broker of a Unix system is started"),
    pytest.mark.campaign,  # two processes are started
]

NAMES = ("task_failure", "task_failure_full")
FORMS = "".join(f'[[outcome]]\nform = "{one}"\n' for one in NAMES)


def test_who_listens_at_the_old_broker_gets_the_failure_of_a_task_started_there(tmp_path) -> None:
    """Publisher and subscriber know neither the appliance nor its address."""
    with (
        Mosquitto(tmp_path / "old") as old,
        Site(
            tmp_path / "appliance",
            old.port,
            subscribe="qliksense/start_task",
            publish=", ".join(f'{{topic = "qliksense/{one}"}}' for one in NAMES),
            tables=FORMS,
        ) as site,
        Remote(old, "watcher") as watcher,
        Remote(old, "source") as source,
    ):
        task = site.qlik.add_task("Reload sales", duration_s=0.05, outcomes=(Outcome.FAIL,))
        watcher.subscribe("qliksense/task_failure")
        watcher.subscribe("qliksense/task_failure_full")

        def comes_in() -> bool:
            source.publish("qliksense/start_task", "nothing")
            return bool(site.journaled())

        until(comes_in, "the bridge has its subscription")
        source.publish("qliksense/start_task", task.id)
        watcher.wait(lambda: len(watcher.got) == 2, "both messages")
        name, full = watcher.got
        assert (name.topic, name.payload) == ("qliksense/task_failure", b"Reload sales")
        assert json.loads(full.payload)["qs_taskMetadata"]["id"] == task.id
        assert not name.retain
        assert site.qlik.starts() == 1
        site.end()
