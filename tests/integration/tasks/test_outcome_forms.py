"""``[[outcome]]``: what subscribers of Butler's topics, and of one's own, get from real runs."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import certificates
import msgspec
import paho.mqtt.publish as mqtt_publish
import pytest
from appliance_process import QUICK, ApplianceProcess, until
from tasks_rig import START_TOPIC, Broker, JournaledRig, MemorySource, Rig, client_of

from appliance.config.tables import AllowConfig, OutcomeConfig, TriggerConfig
from appliance.counters import Counter
from appliance.model import TaskKind
from appliance.qlik.simulated import FaultKind, Outcome, SimulatedQlik
from appliance.qlik.simulated.server import TlsFiles
from appliance.qlik.simulated.site import SimulatedTask
from appliance.tasks import outcome_lookup
from appliance.tasks.store import Publication

BUTLER = tuple(
    OutcomeConfig(form=one)
    for one in ("task_failure", "task_failure_full", "task_aborted", "task_aborted_full")
)
FAILURE, FULL = "qliksense/task_failure", "qliksense/task_failure_full"


class Raw(Broker):
    """Keeps payloads that are no JSON, too."""

    def __call__(self, topic: str, payload: bytes, *rest: Any) -> None:
        is_json = payload[:1] == b"{"
        super().__call__(
            topic, payload if is_json else msgspec.json.encode(payload.decode()), *rest
        )

    def on(self, topic: str) -> list[Any]:
        return [body for on, body, *_ in self.published if on == topic]


@pytest.fixture
def qlik() -> Iterator[SimulatedQlik]:
    with SimulatedQlik() as simulated:
        yield simulated


def open_rig(folder: Path, qlik: SimulatedQlik, *rules: TriggerConfig, **settings: Any) -> Rig:
    settings = {"outcomes": BUTLER, "broker": Raw()} | settings
    return Rig(folder / "tasks.db", client_of(qlik), *rules, **settings)


def failing(qlik: SimulatedQlik, name: str = "Reload sales", **settings: Any) -> SimulatedTask:
    settings = {"duration_s": 0.05, "outcomes": (Outcome.FAIL,), "tags": ("nightly",)} | settings
    return qlik.add_task(name, **settings)


def test_those_who_listen_on_butlers_topics_go_on(qlik, tmp_path: Path) -> None:
    """Name and object of a run that failed; one that was aborted, on the other topics."""
    task = failing(qlik, app_id="5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b99", app_name="Sales",
                   properties=(("plant", "north"),))  # fmt: skip
    long = qlik.add_task("Long", duration_s=60, app_id=task.app_id, app_name="Sales")
    with open_rig(tmp_path, qlik) as rig:
        rig.source.put(START_TOPIC, task.id)
        rig.broker.wait_for(task.id, "failed")
        assert rig.broker.on(FAILURE) == ["Reload sales"]
        (full,) = rig.broker.on(FULL)
        assert (full["taskId"], full["appName"], full["qs_taskTags"]) == (
            task.id,
            "Sales",
            ["nightly"],
        )
        assert full["qs_taskCustomProperties"] == [{"name": "plant", "value": "north"}]
        row = full["qs_taskMetadata"]
        assert (row["id"], row["schemaPath"]) == (task.id, "ReloadTask")
        # As it is after this run, not as a list had it before.
        assert row["operational"]["lastExecutionResult"]["status"] == 8
        rig.source.put(START_TOPIC, long.id)
        rig.broker.wait_for(long.id, "running")
        rig.engine.stop_execution(rig.newest().id, "an operator")
        rig.broker.wait_for(long.id, "aborted")
        assert rig.broker.on("qliksense/task_aborted") == ["Long"]
        (aborted,) = rig.broker.on("qliksense/task_aborted_full")
        assert aborted["qs_appMetadata"]["name"] == "Sales"
        assert len(rig.broker.on(FAILURE)) == 1
        assert rig.engine.counters().get(Counter.OUTCOMES_WITHOUT_TASK_ROW, 0) == 0


def test_a_failure_is_told_after_the_last_retry_whoever_started_the_run(qlik, tmp_path) -> None:
    """A repeated attempt that succeeds is no failure; a program that fails is no reload."""
    good = failing(qlik, "Second try", max_retries=1, outcomes=(Outcome.FAIL, Outcome.SUCCESS))
    bad = failing(qlik, "No luck", max_retries=1)
    other = failing(qlik, "Script", kind=TaskKind.EXTERNAL_PROGRAM)
    with open_rig(tmp_path, qlik, elsewhere_s=0.03) as rig:
        rig.wait_until(lambda: rig.engine._poller._ended_until is not None)
        for task in (good, bad, other):
            qlik.run_elsewhere(task.id)
        for task, state in ((good, "succeeded"), (bad, "failed"), (other, "failed")):
            rig.broker.wait_for(task.id, state)
        assert rig.broker.on(FAILURE) == ["No luck"]


def test_a_server_that_does_not_give_its_row_holds_no_failure_back(
    qlik, tmp_path, monkeypatch
) -> None:
    """The object goes out with what is known, and it is counted; an error, and no answer."""
    monkeypatch.setattr(outcome_lookup, "LIMIT_S", 0.2)
    monkeypatch.setattr(outcome_lookup, "PAUSE_S", 0.0)
    task = failing(qlik)
    with open_rig(tmp_path, qlik) as rig:
        rig.engine.tasks()
        for number, kind in enumerate((FaultKind.STATUS, FaultKind.HANG), 1):
            qlik.fail(kind, path="reloadtask/full", status=500)
            rig.source.put(START_TOPIC, task.id)
            rig.broker.wait_for(task.id, "failed", times=number)
            full = rig.broker.on(FULL)[-1]
            assert (full["taskName"], full["qs_taskMetadata"]) == ("Reload sales", {})
            assert full["qs_taskTags"] == ["nightly"]
            assert rig.engine.counters()[Counter.OUTCOMES_WITHOUT_TASK_ROW] == number
            qlik.heal()


def test_other_tables_count_at_once(qlik, tmp_path) -> None:
    """A reload of the configuration changes what the next outcome is told as."""
    task = failing(qlik)
    own = OutcomeConfig(topic="out/{task}/{state}", fields={"n": "{attempts}"}, retain=True, qos=0)
    with open_rig(tmp_path, qlik) as rig:
        for number, outcomes in enumerate((BUTLER[:1], (own,)), 1):
            rig.engine.take(rig.engine.rules_of([], [], AllowConfig(), [], outcomes))
            rig.engine.start_task(task.id, "an operator")
            rig.broker.wait_for(task.id, "failed", times=number)
        assert len(rig.broker.on(FAILURE)) == 1
        assert rig.broker.on("out/Reload sales/failed") == [{"n": 1}]
        kept = [retain for topic, _, retain, _ in rig.broker.published if topic.startswith("out/")]
        assert kept == [True]


def test_a_rule_may_listen_there_and_a_task_never_starts_itself(qlik, tmp_path) -> None:
    """By name, by tag and by id: the outcome says which task it is about, whatever its topic is."""
    task = failing(qlik)
    repair = qlik.add_task("Repair", duration_s=0.05, tags=("nightly",))
    rules = [
        TriggerConfig(topic=START_TOPIC, task="payload"),
        TriggerConfig(topic=FAILURE, task={"tag": "nightly"}),
        TriggerConfig(topic=FULL, task={"name": "Reload sales"}),
        TriggerConfig(topic="qliksense/#", task="payload", name="all"),
    ]
    source = MemorySource()
    with JournaledRig(
        tmp_path / "tasks.db", client_of(qlik), *rules, source=source, broker=Raw(), outcomes=BUTLER
    ) as rig:
        source.put(START_TOPIC, task.id)
        rig.broker.wait_for(repair.id, "succeeded")
        rig.wait_until(lambda: rig.engine._state.cursors.taken == source.last_seq)
        assert qlik.starts(task.id) == qlik.starts(repair.id) == 1


def test_what_the_journal_has_is_not_published_again(qlik, tmp_path) -> None:
    """The process ends between the message and the note of it: the database is as it is then."""
    task, source = failing(qlik), MemorySource()
    broker, found = Raw(), Raw()
    with JournaledRig(
        tmp_path / "tasks.db", client_of(qlik), source=source, broker=broker, outcomes=BUTLER
    ) as rig:
        publish = rig.engine._workers._publish

        def published(publications: Sequence[Publication]) -> int:
            seq = publish(publications)
            if broker.on(FULL) and not (tmp_path / "then.db").exists():
                with (
                    contextlib.closing(sqlite3.connect(tmp_path / "tasks.db")) as now,
                    contextlib.closing(sqlite3.connect(tmp_path / "then.db")) as then,
                ):
                    now.backup(then)
                    source.told = len(source.messages)
            return seq

        rig.engine._workers._publish = published
        source.put(START_TOPIC, task.id)
        broker.wait_until(lambda: broker.on(f"appliance/tasks/{task.id}/last"))
        rig.wait_until(lambda: not rig.engine._state._outbox)
    del source.messages[source.told :]
    again = JournaledRig(
        tmp_path / "then.db", client_of(qlik), source=source, broker=found, outcomes=BUTLER
    )
    assert [one.topic for _, one in again.engine._store.outbox()].count(FULL) == 1
    with again as rig:
        rig.wait_until(lambda: not rig.engine._state._outbox)
    assert len(broker.on(FULL)) == 1
    assert not found.on(FULL)
    assert not found.on(FAILURE)


CONFIG = (
    """
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:PORT"
"""
    + certificates.QLIK_CONFIG
    + """
[[recorder]]
topic = "#"
path = "all.json"
metadata = true
[[trigger]]
topic = "qliksense/start_task"
task = "payload"
[[outcome]]
form = "task_failure"
[[outcome]]
form = "task_failure_full"
"""
)


@pytest.mark.campaign  # it starts the appliance three times
def test_told_once_over_kills(tmp_path: Path) -> None:
    """Killed while the server is asked for its row, and again once the outcome is told."""
    files = certificates.make(tmp_path / "certificates")
    tls = TlsFiles(files.server, files.server_key, client_ca=files.root)
    task = SimulatedTask("Reload sales", duration_s=0.1, outcomes=(Outcome.FAIL,))
    with SimulatedQlik([task], tls=tls) as qlik:
        config = CONFIG.format(url=qlik.url)
        with ApplianceProcess(tmp_path, config, program=QUICK) as process:
            process.start()
            qlik.fail(FaultKind.HANG, path="reloadtask/full")
            mqtt_publish.single(START_TOPIC, task.id, 1, hostname="127.0.0.1", port=process.port)
            assert qlik.wait_for(lambda: qlik.faults.bitten[FaultKind.HANG.value] > 0, 20)
            process.kill()
            qlik.heal()
            process.start()
            until(lambda: recorded(process, FULL), "the failure is told")
            process.kill()
            process.start()
            mqtt_publish.single("mark", "1", 1, hostname="127.0.0.1", port=process.port)
            until(lambda: recorded(process, "mark"), "what came behind it is recorded")
            assert process.end() == 0
        (name,) = recorded(process, FAILURE)
        assert name["payload"] == {"$text": "Reload sales"}
        (full,) = recorded(process, FULL)
        assert full["payload"]["qs_taskMetadata"]["id"] == task.id
        assert qlik.starts() == 1


def recorded(process: ApplianceProcess, topic: str) -> list[dict[str, Any]]:
    messages = json.loads((process.data / "all.json").read_text("utf-8"))
    return [one for one in messages if one["topic"] == topic]
