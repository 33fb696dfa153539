"""Timers over HTTP: Butler's schedules and the appliance's own calls, in force and on the disk."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from appliance_process import QUICK, until
from http_site import HttpProcess, HttpSite, session

from appliance.engine import schedules
from appliance.engine.reload import reload
from appliance.http_api.butler.schedules import id_of
from appliance.model import ExecutionState
from appliance.qlik.simulated import SimulatedQlik

CONFIG = """
[qlik]
edition = "client-managed"
url = "{url}"
header = {{name = "X-Qlik-User", value = "UserDirectory=INTERNAL; UserId=sa"}}
[[timer]]
name = "night shift"
cron = "30 4 * * *"
task = {{name = "Reload sales"}}
[[timer]]
name = "line 7"
silence = "1h"
topic = "plant/7/#"
"""


@pytest.fixture
def qlik() -> Iterator[SimulatedQlik]:
    with SimulatedQlik() as simulated:
        simulated.add_task("Reload sales", duration_s=0.05)
        yield simulated


def wanted(qlik: SimulatedQlik, **fields: object) -> dict[str, object]:
    (task,) = qlik.site.tasks.values()
    return {
        "name": "Each second/Ö #1",
        "cronSchedule": "* * * * * *",
        "timezone": "Europe/Stockholm",
        "qlikSenseTaskId": task.id,
        "startupState": "started",
        "tags": ["x"],
    } | fields


@pytest.mark.campaign
def test_a_schedule_that_is_made_starts_its_task_at_once_and_after_a_restart(
    qlik, tmp_path
) -> None:
    """It is there as it was, stopped or started, and gone for good once it is deleted."""
    config = CONFIG.format(url=qlik.url)
    with HttpSite(tmp_path, config) as site:
        made = site.ask("POST", "/v4/schedules", json=wanted(qlik)).json()
        assert uuid.UUID(made["id"]).version == 4
        assert qlik.wait_for(lambda: qlik.starts() > 0)
        stopped = site.ask("POST", "/v4/schedules", json=wanted(qlik, startupState="stop")).json()
        names = [one.name for one in site.appliance.tasks.timers() if one.kind == "schedule"]
        assert f"Each second-Ö -1 {made['id'][:8]}" in names
        site.ask("PUT", f"/v4/schedules/{made['id']}/stop")
    before = qlik.starts()
    with HttpSite(tmp_path, config) as site:
        found = site.ask("GET", "/v4/schedules").json()
        assert [one["name"] for one in found] == ["night shift", made["name"], stopped["name"]]
        assert [one["lastKnownState"] for one in found] == ["started", "stopped", "stopped"]
        assert found[1] == {**made, "lastKnownState": "stopped"}
        # What is due in the meantime is not made up.
        assert (
            site.ask("PUT", f"/v4/schedules/{stopped['id']}/start").json()[0]["id"] == stopped["id"]
        )
        assert qlik.wait_for(lambda: qlik.starts() > before)
        for one in (made, stopped):
            assert site.ask("DELETE", f"/v4/schedules/{one['id']}").status_code == 204
            assert site.ask("DELETE", f"/v4/schedules/{one['id']}").status_code == 400
        metas = site.appliance.tasks._store.metas()
        assert not [name for name in metas if made["id"][:8] in name or stopped["id"][:8] in name]
    assert json.loads((tmp_path / "data" / schedules.FILE_NAME).read_text("utf-8")) == []


def test_a_reload_of_the_configuration_keeps_what_was_made(qlik, tmp_path) -> None:
    """Beside new tables, and in its state."""
    with HttpSite(tmp_path, CONFIG.format(url=qlik.url)) as site:
        made = site.ask("POST", "/v4/schedules", json=wanted(qlik, startupState="stopped")).json()
        site.ask("PUT", f"/v4/schedules/{id_of('night shift')}/stop")
        path = tmp_path / "config.toml"
        more = '[[timer]]\nname = "noon"\nevery = "1h"\npublish = {topic = "a"}\n'
        path.write_text(path.read_text("utf-8") + more, "utf-8")
        is_done, lines = reload(site.appliance)
        assert is_done, lines
        found = {one["name"]: one for one in site.ask("GET", "/v4/schedules").json()}
        states = {name: one["lastKnownState"] for name, one in found.items()}
        assert states == {"night shift": "stopped", "noon": "started", made["name"]: "stopped"}
        assert found["noon"]["cronSchedule"] == "every 1h"
        assert "line 7" not in found


def test_a_timer_has_the_id_that_callers_know(qlik, tmp_path) -> None:
    """`id` is what Butler's schedule had: who stops it by that id need not change."""
    config = CONFIG.format(url=qlik.url).replace('"night shift"', '"night shift"\nid = "task-1"')
    with HttpSite(tmp_path, config) as site:
        (stopped,) = site.ask("PUT", "/v4/schedules/task-1/stop").json()
        assert (stopped["id"], stopped["lastKnownState"]) == ("task-1", "stopped")
        assert site.ask("GET", "/v4/schedules?id=task-1").json()[0]["name"] == "night shift"


def test_operators_change_and_viewers_look(qlik, tmp_path) -> None:
    """Others do neither where there are rules; the answers have the form of each kind of call."""
    access = """operators = ["ops"]
viewers = ["view"]
rule = [{user = "*", publish = ["#"], subscribe = ["#"], start = ["*"]}]"""
    with HttpSite(
        tmp_path, CONFIG.format(url=qlik.url), users=("ops", "view", "etl"), access=access
    ) as site:
        asked = [("GET", "/v4/schedules"), ("GET", "/timers"),
                 ("PUT", f"/v4/schedules/{id_of('night shift')}/stop"),
                 ("POST", "/timers/night shift/fire")]  # fmt: skip
        codes = {
            user: [site.ask(*one, user).status_code for one in asked]
            for user in ("etl", "view", "ops")
        }
        assert codes == {"etl": [403] * 4, "view": [200, 200, 403, 403], "ops": [200] * 4}
        assert site.ask("PUT", f"/v4/schedules/{id_of('night shift')}/stop").status_code == 401
        assert "statusCode" in site.ask("POST", "/v4/schedules", "view", json={}).json()


def test_own_calls_list_fire_pause_and_resume(qlik, tmp_path) -> None:
    with HttpSite(tmp_path, CONFIG.format(url=qlik.url)) as site:
        found = site.ask("GET", "/timers").json()["timers"]
        assert [(one["name"], one["kind"]) for one in found] == [
            ("night shift", "schedule"),
            ("line 7", "silence"),
        ]
        paused = site.ask("POST", "/timers/night%20shift/pause").json()
        assert (paused["paused"], paused["due"]) == (True, None)
        assert site.ask("POST", "/timers/night%20shift/fire").status_code == 200
        assert qlik.wait_for(lambda: qlik.starts() == 1)
        resumed = site.ask("POST", "/timers/night%20shift/resume").json()
        assert (resumed["paused"], resumed["due"] is not None) == (False, True)
        assert site.ask("POST", "/timers/line%207/fire").json()["silentSince"]
        assert site.ask("POST", "/timers/line%207/fire").status_code == 409
        assert site.ask("POST", "/timers/no/fire").status_code == 404
        (execution,) = site.appliance.tasks.executions(1)
        assert execution.cause.kind == "timer"
        assert execution.state is not ExecutionState.REJECTED


def test_there_is_a_bound(qlik, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(schedules, "MOST", 1)
    with HttpSite(tmp_path, CONFIG.format(url=qlik.url)) as site:
        new = wanted(qlik, startupState="stop")
        assert site.ask("POST", "/v4/schedules", json=new).status_code == 201
        answer = site.ask("POST", "/v4/schedules", json=new)
        assert answer.status_code == 400
        assert "There are 1 schedules already" in answer.json()["message"]
        assert (
            site.ask("POST", "/v4/schedules", json=wanted(qlik, name="a" * 300)).status_code == 400
        )


def test_a_damaged_file_is_set_aside_and_said(qlik, tmp_path) -> None:
    """The appliance starts, and its health says what is lost until somebody acknowledges it."""
    data = tmp_path / "data"
    data.mkdir()
    (data / schedules.FILE_NAME).write_bytes(b'[{"name": "cut')
    with HttpSite(tmp_path, CONFIG.format(url=qlik.url)) as site:
        assert len(site.ask("GET", "/v4/schedules").json()) == 1
        assert "schedules that were made over HTTP" in site.appliance.losses.health.text
        assert [one.name for one in data.glob("schedules.json.damaged-*")]


SOME = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
FIELDS = ("name", "cronSchedule", "timezone", "qlikSenseTaskId", "startupState", "tags")


@pytest.mark.campaign  # two starts of the appliance and some fifty requests
def test_any_body_has_an_answer_and_what_was_made_stays_usable(qlik, tmp_path) -> None:
    """No error of the server, whatever the fields are; the list and the file can be read after."""
    config = CONFIG.format(url=qlik.url)
    with HttpSite(tmp_path, config) as site:

        @settings(max_examples=25, deadline=None)
        @given(
            fields=st.dictionaries(st.sampled_from(FIELDS), SOME, max_size=3),
            left_out=st.sets(st.sampled_from(FIELDS), max_size=1),
        )
        def ask(fields: dict[str, object], left_out: set[str]) -> None:
            body = {**wanted(qlik, startupState="stop"), **fields}
            sent = json.dumps({key: one for key, one in body.items() if key not in left_out})
            answer = site.ask(
                "POST", "/v4/schedules", data=sent, headers={"Content-Type": "application/json"}
            )
            assert answer.status_code in (201, 400), answer.text
            if answer.status_code == 201:
                (found,) = site.ask("GET", f"/v4/schedules?id={answer.json()['id']}").json()
                assert found == answer.json()

        ask()
        kept = site.ask("GET", "/v4/schedules").json()
    with HttpSite(tmp_path, config) as site:
        assert site.ask("GET", "/v4/schedules").json() == kept


@pytest.mark.campaign  # it starts the appliance twice
def test_killed_after_the_answer_a_schedule_is_there(qlik, tmp_path: Path) -> None:
    """201 means that it is on the disk."""
    config = CONFIG.format(url=qlik.url)
    with HttpProcess(tmp_path, config, program=QUICK) as process, session() as client:
        process.start()
        made = client.post(
            f"{process.url}/v4/schedules", json=wanted(qlik, startupState="stop"), timeout=60
        )
        assert made.status_code == 201
        process.kill()
        kept = json.loads((process.data / schedules.FILE_NAME).read_text("utf-8"))
        assert [one["id"] for one in kept] == [made.json()["id"]]
        process.start()
        found = client.get(f"{process.url}/v4/schedules", timeout=60).json()
        assert found[-1] == made.json()
        until(lambda: qlik.starts() == 0, "nothing is started")
        assert process.end() == 0
