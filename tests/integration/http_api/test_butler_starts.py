"""Butler's start call and reload call: what they lead to at the Qlik server, and for whom."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from appliance_process import until
from quick_appliance import WAITS
from http_site import HttpSite
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.http_api.butler.start_body import TYPES
from appliance.model import ExecutionState
from appliance.qlik.simulated import SimulatedQlik
from appliance.qlik.simulated.site import Outcome, SimulatedTask
from appliance.tasks.engine import TaskEngine

SALES, COSTS, BROKEN, LONG = (f"5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b1{number}" for number in range(4))
APP, BROKEN_APP, LONG_APP = (f"1f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b2{number}" for number in range(3))
QLIK = """
[qlik]
edition = "client-managed"
url = "URL"
health_check = "1s"
header = {name = "X-Qlik-User", value = "UserDirectory=INTERNAL; UserId=sa"}
"""
RULES = """
operators = ["admin"]
viewers = ["viewer"]
[[access.rule]]
user = "loader"
start = ["Reload S*"]
[[access.rule]]
user = "plc"
publish = ["#"]
"""


def tasks() -> list[SimulatedTask]:
    return [
        SimulatedTask("Reload Sales", SALES, duration_s=0.05, tags=("nightly",),
                      properties=(("Group", "a"), ("Other", "b"))),
        SimulatedTask("Reload Costs", COSTS, duration_s=0.05, tags=("nightly",), app_id=APP),
        SimulatedTask("Broken", BROKEN, duration_s=0.05, outcomes=(Outcome.FAIL,), app_id=BROKEN_APP),
        SimulatedTask("Long", LONG, duration_s=600.0, app_id=LONG_APP),
    ]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """The server is asked often, and not about runs of others: of other tests' appliances."""
    defaults = TaskEngine.__init__.__kwdefaults__
    assert defaults is not None
    with pytest.MonkeyPatch.context() as patch:
        for name, value in WAITS.items():
            patch.setitem(defaults, name, value)
        yield


@contextlib.contextmanager
def running(folder: Path, qlik: SimulatedQlik, **parts: Any) -> Iterator[HttpSite]:
    with HttpSite(folder, QLIK.replace("URL", qlik.url), **parts) as site:
        yield site


@pytest.fixture(scope="module")
def qlik() -> Iterator[SimulatedQlik]:
    with SimulatedQlik(tasks()) as server:
        yield server


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, quick: None, qlik: SimulatedQlik
) -> Iterator[HttpSite]:
    """An appliance without users."""
    with running(tmp_path_factory.mktemp("open"), qlik) as found:
        yield found


def start(site: HttpSite, items: Any, user: str | None = None, task: str = "-") -> dict[str, Any]:
    found = site.ask("PUT", f"/v4/reloadtask/{task}/start", user, json=items)
    assert found.status_code == 200, found.text
    return found.json()


def by_id(task: str) -> dict[str, Any]:
    return {"type": "starttaskid", "payload": {"taskId": task}}


def by_tag(tag: str) -> dict[str, Any]:
    return {"type": "starttasktag", "payload": {"tag": tag}}


def by_property(name: str, value: str) -> dict[str, Any]:
    payload = {"customPropertyName": name, "customPropertyValue": value}
    return {"type": "starttaskcustomproperty", "payload": payload}


def newest(site: HttpSite) -> int:
    return max((one.id for one in site.appliance.tasks.executions(200)), default=0)


def ended(site: HttpSite, after: int) -> dict[str, str]:
    """The tasks of later executions with their outcomes, once all have one."""
    found = [one for one in site.appliance.tasks.executions(200) if one.id > after]
    if not found or not all(one.state.is_final for one in found):
        return {}
    return {one.task_name: one.state.value for one in found}


def test_each_task_that_is_listed_runs_once(site):
    """Named three times, it waits once; the answer lists it three times, as Butler's does."""
    before = newest(site)
    found = start(site, [by_tag("NIGHTLY"), by_id(SALES), by_property("group", "A")], task=COSTS)
    assert [one["taskName"] for one in found["tasksTag"]] == ["Reload Sales", "Reload Costs"]
    assert [one["taskId"] for one in found["tasksId"]["started"]] == [COSTS, SALES]
    assert [one["taskId"] for one in found["tasksCP"]] == [SALES]
    until(lambda: ended(site, before), "all executions have ended")
    assert ended(site, before) == {"Reload Sales": "succeeded", "Reload Costs": "succeeded"}
    assert newest(site) == before + 2
    causes = {one.cause for one in site.appliance.tasks.executions(2)}
    assert [(one.kind, "Butler call" in one.rule) for one in causes] == [("http", True)]


def test_name_and_value_of_a_custom_property_belong_together(site):
    """The server's own filter would take the name of one and the value of another."""
    assert start(site, [by_property("Group", "b")])["tasksCP"] == []


def test_a_call_that_is_sent_again_with_its_key_starts_nothing_again(site):
    """Butler knows no such key, so every repeat starts again there, and here without one."""
    before = newest(site)
    path, key = f"/v4/reloadtask/{SALES}/start", {"Idempotency-Key": "one"}
    first, second = (site.ask("PUT", path, json=[], headers=key) for _ in range(2))
    assert first.json() == second.json()
    other = site.ask("PUT", path, json=[by_id(COSTS)], headers=key)
    assert (other.status_code, other.json()["statusCode"]) == (422, 422)
    until(lambda: ended(site, before), "all executions have ended")
    assert newest(site) == before + 1


def test_a_repeat_and_a_reused_key_store_no_pair(site):
    """A late repeat would put an old value back; "Nothing was done" has to be true of pairs, too."""

    def send(value: str) -> int:
        item = {"namespace": "keyed", "key": "k", "value": value}
        body = [{"type": "keyvaluestore", "payload": item}]
        headers = {"Idempotency-Key": "pairs"}
        path = f"/v4/reloadtask/{SALES}/start"
        return site.ask("PUT", path, json=body, headers=headers).status_code

    def value() -> str:
        return site.ask("GET", "/v4/keyvalues/keyed?key=k").json()["value"]

    before = newest(site)
    assert (send("old"), value()) == (200, "old")
    assert (send("other"), value()) == (422, "old")
    site.ask("POST", "/v4/keyvalues/keyed", json={"key": "k", "value": "new"})
    assert (send("old"), value()) == (200, "new")
    until(lambda: ended(site, before), "all executions have ended")
    assert newest(site) == before + 1


def test_a_user_starts_what_its_rules_name(tmp_path, qlik):
    """``start`` decides by name or id; a tag with one other task is denied as a whole."""
    users = ("admin", "viewer", "loader", "plc")
    with running(tmp_path, qlik, users=users, access=RULES) as site:
        found = start(site, [by_id(SALES), by_id(COSTS), by_tag("nightly")], "loader")
        assert found["tasksId"]["denied"] == [{"taskId": COSTS}]
        assert [one["taskId"] for one in found["tasksId"]["started"]] == [SALES]
        assert found["tasksTagDenied"] == [{"tag": "nightly"}]
        assert start(site, [by_property("Group", "a")], "loader")["tasksCP"]
        assert start(site, [by_id(SALES)], "plc")["tasksId"]["denied"] == [{"taskId": SALES}]
        assert start(site, [by_tag("nightly")], "admin")["tasksTag"]
        reload = f"/v4/app/{APP}/reload"
        assert site.ask("PUT", reload, "loader", json={}).status_code == 403
        assert site.ask("PUT", reload, "admin", json={}).status_code == 201
        assert site.ask("GET", "/v4/apps/list", "plc").json() == []
        assert len(site.ask("GET", "/v4/apps/list", "viewer").json()) == 3

        pairs, body = "/v4/keyvalues/n", {"key": "k", "value": "v"}
        item = [{"type": "keyvaluestore", "payload": {"namespace": "n", **body}}]
        for user, may in (("admin", True), ("loader", True), ("viewer", False), ("plc", False)):
            status = site.ask("POST", pairs, user, json=body).status_code
            assert status == (201 if may else 403), user
            status = site.ask("PUT", "/v4/reloadtask/-/start", user, json=item).status_code
            assert status == (200 if may else 403), user
        assert site.ask("GET", f"{pairs}?key=k", "viewer").json()["value"] == "v"
        denied = site.ask("GET", f"{pairs}?key=k", "plc")
        assert list(denied.json()) == ["statusCode", "error", "message"]
        assert (denied.status_code, denied.json()["error"]) == (403, "Forbidden")
        stranger = site.ask("GET", "/v4/butlerping", "nobody")
        assert (stranger.status_code, stranger.json()["error"]) == (401, "Unauthorized")


def test_tasks_that_are_known_are_started_when_the_server_is_back(tmp_path):
    """A start is not lost with the server; a task that was never listed is invalid."""
    with SimulatedQlik(tasks()) as server, running(tmp_path, server) as site:
        before = newest(site)
        start(site, [])
        server.stop()
        found = start(site, [by_id(SALES), by_id(APP)])
        assert found["tasksId"] == {
            "started": [{"taskId": SALES, "taskName": "Reload Sales"}],
            "invalid": [{"taskId": APP}],
            "denied": [],
        }
        server.start()
        until(lambda: ended(site, before), "all executions have ended")
        assert ended(site, before) == {"Reload Sales": "succeeded"}


@pytest.mark.parametrize(
    ("app", "expected"),
    [
        (APP, {"Reload Costs": "succeeded", "Reload Sales": "succeeded"}),
        (BROKEN_APP, {"Broken": "failed", "Reload Costs": "succeeded"}),
    ],
)
def test_the_next_tasks_are_started_by_the_outcome_of_a_reload(site, app, expected):
    before = newest(site)
    body = {"startQSEoWTaskOnSuccess": [SALES], "startQSEoWTaskOnFailure": [COSTS]}
    assert site.ask("PUT", f"/v4/app/{app}/reload", json=body).status_code == 201
    until(lambda: ended(site, before) == expected, "the next task ran")


def test_the_next_tasks_are_started_after_a_restart_too(tmp_path, qlik):
    """They are noted with the reload, which goes on at the server meanwhile."""
    body = {"startQSEoWTaskOnSuccess": [COSTS], "startQSEoWTaskOnFailure": [SALES]}
    with running(tmp_path, qlik) as site:
        assert site.ask("PUT", f"/v4/app/{LONG_APP}/reload", json=body).status_code == 201
        until(
            lambda: site.appliance.tasks.executions(1)[0].state is ExecutionState.RUNNING, "it runs"
        )
    with running(tmp_path, qlik) as site:
        (long,) = site.appliance.tasks.executions(10)
        site.appliance.tasks.stop_execution(long.id, "test")
        wanted = {"Long": "aborted", "Reload Sales": "succeeded"}
        until(lambda: ended(site, 0) == wanted, "the next task ran")


@pytest.mark.campaign
def test_a_next_task_that_is_dropped_is_told_in_the_log(site, caplog):
    holding = site.appliance.tasks.holding
    holding.hold("task", SALES, None, "disks", True, "ann")
    try:
        body = {"startQSEoWTaskOnSuccess": [SALES]}
        assert site.ask("PUT", f"/v4/app/{APP}/reload", json=body).status_code == 201
        until(lambda: f"Task {SALES} is not started after execution" in caplog.text, "a line")
    finally:
        holding.release("task", SALES, "ann")


@pytest.mark.parametrize(
    ("app", "body"),
    [
        (APP, {"reloadMode": 1}),
        (APP, {"startQSEoWTaskOnSuccess": ["no id"]}),
        (APP, {"startQSEoWTaskOnFailure": [SALES] * 101}),
        (SALES, {}),
    ],
)
def test_a_reload_that_can_not_be_is_refused_and_starts_nothing(site, app, body):
    before = newest(site)
    found = site.ask("PUT", f"/v4/app/{app}/reload", json=body)
    assert found.status_code == 400
    assert newest(site) == before


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5)
    | st.sampled_from(["true", "1", SALES, *TYPES]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(
        st.sampled_from(["type", "payload", "taskId", "tag", "key", "value", "ttl", "namespace",
                         "customPropertyName", "customPropertyValue", "topic", "message",
                         "reloadMode", "partialReload", "startQSEoWTaskOnSuccess"]),
        inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
PATHS = (
    ("PUT", "/v4/reloadtask/-/start"),
    ("PUT", "/v4/mqttpublishmessage"),
    ("POST", "/v4/keyvalues/fuzz"),
    ("PUT", "/v4/app/no-id/reload"),
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(call=st.sampled_from(PATHS), body=VALUES)
def test_no_body_is_an_internal_error(site, call, body):
    found = site.ask(*call, data=json.dumps(body), headers={"Content-Type": "application/json"})
    assert found.status_code < 500
    if found.status_code >= 400:
        assert {"statusCode", "error", "message"} <= set(found.json())
