"""Tasks and executions over HTTP, against a simulated Qlik server over HTTPS."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from appliance_process import until
from qlik_http_site import QlikHttpSite

from appliance.qlik.simulated import Outcome, SimulatedTask, Site

QUICK = "5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b10"
LONG = "5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b11"
ODD = 'Wärme/1 "a+b" 100% ?x#y;é\u200d/start'
RULES = """
operators = ["boss"]
viewers = ["anna"]
[[access.rule]]
user = "*"
publish = ["#"]
[[access.rule]]
user = "plant"
start = ["quick*", "twin", "%s"]
""" % LONG.upper()  # fmt: skip
ALLOW = """
[allow]
names = ["Quick", "Failing", "Twin", "Long", "Tagged 1", "Tagged 2", 'Wärme/1 "a+b" 100%% ?x#y;é\u200d/start']
""".replace("%%", "%")
USERS = ("boss", "anna", "plant", "nobody")


def make_site() -> Site:
    site = Site(trigger_delay_s=0.0, concurrency=50)
    for task in (
        SimulatedTask(
            "Quick", id=QUICK, duration_s=0.05, app_name="Sales", app_id=LONG, tags=("x",)
        ),
        SimulatedTask("Long", id=LONG, duration_s=600.0, properties=(("plant", "7"),)),
        SimulatedTask("Failing", duration_s=0.05, outcomes=(Outcome.FAIL,), log=("one", "two é")),
        SimulatedTask("Twin"),
        SimulatedTask("Twin", app_name="Other"),
        SimulatedTask("Tagged 1", duration_s=0.05, tags=("nightly",)),
        SimulatedTask("Tagged 2", duration_s=0.05, tags=("nightly",)),
        SimulatedTask("Secret"),
        SimulatedTask(ODD, duration_s=0.05),
    ):
        site.add_task(task)
    return site


@pytest.fixture(scope="module")
def rig(tmp_path_factory) -> Iterator[QlikHttpSite]:
    """Users and rules."""
    folder = tmp_path_factory.mktemp("tasks")
    with QlikHttpSite(make_site(), folder, ALLOW, users=USERS, access=RULES) as site:
        yield site


@pytest.mark.parametrize("name", [QUICK, QUICK.upper(), "Quick", " Quick "])
def test_a_task_is_started_by_id_or_name_and_waited_for(rig, name: str) -> None:
    """The answer has the outcome; the start is another request's or an operator's for nobody."""
    answer = rig.start(name, "plant", "60")
    found = answer.json()
    assert (answer.status_code, found["state"], found["final"]) == (200, "succeeded", True), found
    assert answer.headers["location"] == f"/executions/{found['execution']}"
    assert found["executionId"] and found["started"] and found["ended"]
    assert found["cause"] == {"kind": "http", "topic": "", "seq": 0, "client": "", "rule": "plant"}
    story = rig.appliance.tasks.execution(found["execution"]).steps
    assert story[0].text == "Asked for over HTTP by plant"
    assert rig.ask("GET", answer.headers["location"], "plant").json() == found


@pytest.mark.campaign
def test_a_start_waits_for_the_end_of_a_hold(rig) -> None:
    """It is taken; where what comes meanwhile is dropped, the answer says so."""
    holding = rig.appliance.tasks.holding
    holding.hold("task", QUICK, None, "new disks", False, "ann")
    try:
        answer = rig.start("Quick", "plant")
        assert answer.status_code == 202
        found = rig.ask("GET", answer.headers["location"], "plant").json()
        assert (found["state"], found["reason"]) == (
            "waiting", "Held by ann (task Quick): new disks.",
        )  # fmt: skip
        holding.hold("task", QUICK, None, "new disks", True, "ann")
        refused = rig.start("Quick", "plant")
        assert refused.status_code == 503
        assert "Held by ann (task Quick)" in refused.json()["detail"]
    finally:
        holding.release("task", QUICK, "ann")
    waited = rig.ask("GET", answer.headers["location"] + "?wait=1m", "plant")
    assert waited.json()["state"] == "succeeded"


def test_without_wait_the_answer_comes_when_the_start_is_on_disk(rig) -> None:
    answer = rig.start("Quick", "plant")
    assert answer.status_code == 202
    waited = rig.ask("GET", answer.headers["location"] + "?wait=1m", "plant")
    assert (waited.status_code, waited.json()["state"]) == (200, "succeeded")


def test_a_name_may_have_any_characters(rig) -> None:
    """A slash, a plus and a percent sign are what they are; the name may end like the path."""
    assert rig.start(ODD, "boss", "60").json()["state"] == "succeeded"
    assert rig.ask("GET", f"/tasks/{quote(ODD, safe='')}", "anna").json()["name"] == ODD


def test_a_failure_has_its_reason_and_the_script_log(rig) -> None:
    answer = rig.start("Failing", "boss", "60")
    found = answer.json()
    assert (answer.status_code, found["state"], found["logTail"]) == (
        200,
        "failed",
        ["one", "two é"],
    )
    assert "Table not found" in found["reason"]
    log = rig.ask("GET", answer.headers["location"] + "/log", "anna")
    assert (log.status_code, log.text) == (200, "one\ntwo é\n")
    assert log.headers["content-type"] == "text/plain; charset=utf-8"


def test_a_script_log_that_was_kept_is_answered_whole(rig) -> None:
    """As the server has it; once it is deleted, its last lines."""
    kept = rig.appliance.tasks._kept_logs
    kept.take(3600.0, is_attached=False)
    place = rig.start("Failing", "boss", "60").headers["location"] + "/log"
    kept.take(None, is_attached=False)
    assert rig.ask("GET", place, "anna").content == "one\r\ntwo é\r\n".encode()
    kept.tidy(time.time_ns() + 7200 * 10**9)
    assert rig.ask("GET", place, "anna").text == "one\ntwo é\n"


def test_time_that_is_over_and_a_stop(rig) -> None:
    """The state at the end of the wait is 202; an operator's stop ends another one's wait."""
    answer = rig.start("Long", "plant", "50ms")
    number = answer.json()["execution"]
    assert (answer.status_code, answer.json()["final"]) == (202, False)
    until(lambda: rig.appliance.tasks.execution(number).state.value == "running", "it runs")
    seen = []
    waiter = threading.Thread(
        target=lambda: seen.append(rig.ask("GET", f"/executions/{number}?wait=10m", "anna").json())
    )
    waiter.start()
    assert rig.ask("POST", f"/executions/{number}/stop", "plant").status_code == 403
    assert rig.ask("POST", f"/executions/{number}/stop", "anna").status_code == 403
    stopped = rig.ask("POST", f"/executions/{number}/stop", "boss")
    assert stopped.status_code == 202
    waiter.join(60)
    assert seen[0]["state"] == "aborted"
    again = rig.ask("POST", f"/executions/{number}/stop", "boss")
    assert (again.status_code, again.headers["content-type"]) == (409, "application/problem+json")


@pytest.mark.parametrize(
    ("name", "user", "status", "part"),
    [
        ("Qick", "plant", 404, 'Did you mean "Quick"'),
        ("Secrat", "plant", 404, "check the spelling"),
        ("Long", "nobody", 403, "may not start task Long"),
        (LONG, "nobody", 403, f"may not start task {LONG}"),
        (LONG, "anna", 403, "may not start"),
        ("Failing", "plant", 403, "may not start task Failing"),
        ("Secret", "boss", 403, "[allow]"),
        ("Twin", "plant", 409, "use the task id"),
        ("00000000-0000-0000-0000-000000000000", "boss", 400, "zero id"),
        ("x" * 300, "boss", 400, "1 to 256 characters"),
    ],
)
def test_what_can_t_be_started_says_why(rig, name: str, user: str, status: int, part: str) -> None:
    starts = rig.qlik.starts()
    answer = rig.start(name, user)
    problem = answer.json()
    assert (answer.status_code, problem["status"]) == (status, status), problem
    assert part in problem["detail"]
    assert answer.headers["content-type"] == "application/problem+json"
    assert "Secret" not in problem["detail"] or user == "boss"
    assert rig.qlik.starts() == starts


def test_a_name_of_several_tasks_lists_them(rig) -> None:
    problem = rig.start("Twin", "boss").json()
    assert sorted(one["appName"] for one in problem["tasks"]) == ["", "Other"]
    assert {one["name"] for one in problem["tasks"]} == {"Twin"}


@pytest.mark.parametrize(
    ("query", "body", "part"),
    [
        ("wait=soon", "", "wait=soon: not a duration"),
        ("wait=61m", "", "at most 1h"),
        ("wait=-1", "", "wait=-1"),
        ("wait=1&wait=2", "", "more than once"),
        ("waits=1", "", "no parameter 'waits'"),
        ("", "[", "must be empty, or an object"),
        ("", '{"taskId": "x"}', "'taskId'"),
        ("", '{"partial": 1}', "partial must be true or false"),
        ("", '{"variables": {"a": []}}', "variables must be"),
    ],
)
def test_a_wrong_request_starts_nothing(rig, query: str, body: str, part: str) -> None:
    starts = rig.qlik.starts()
    answer = rig.ask("POST", f"/tasks/Quick/start?{query}", "boss", data=body)
    assert (answer.status_code, rig.qlik.starts()) == (400, starts)
    assert part in answer.json()["detail"]


def test_a_body_names_tasks_as_a_message_does(rig) -> None:
    """Tags, lists and Butler's form; all of them or none."""
    answer = rig.ask("POST", "/tasks/start?wait=60", "boss", json={"tag": "nightly"})
    found = answer.json()["executions"]
    assert answer.status_code == 200
    assert [(one["taskName"], one["state"]) for one in found] == [
        ("Tagged 1", "succeeded"),
        ("Tagged 2", "succeeded"),
    ]
    starts = rig.qlik.starts()
    both = rig.ask("POST", "/tasks/start", "plant", json=[QUICK, {"taskName": "Tagged 1"}])
    assert (both.status_code, rig.qlik.starts()) == (403, starts)
    one = rig.ask("POST", "/tasks/start?wait=60", "plant", data=QUICK)
    assert one.headers["location"] == f"/executions/{one.json()['executions'][0]['execution']}"
    assert rig.ask("POST", "/tasks/start", "plant", data="").status_code == 400


def test_a_key_starts_once(rig) -> None:
    """The same request has the same answer; another one is a mistake; keys are each user's own."""
    key = {"Idempotency-Key": "night-run-1"}
    first = rig.start("Quick", "plant", "60", headers=key)
    assert "idempotency-replayed" not in first.headers
    number = first.json()["execution"]
    starts = rig.qlik.starts()
    again = rig.start("Quick", "plant", headers=key)
    assert (again.status_code, again.json()["execution"]) == (200, number)
    assert again.headers["idempotency-replayed"] == "true"
    quoted = rig.start("Quick", "plant", headers={"Idempotency-Key": '"night-run-1"'})
    assert quoted.json()["execution"] == number
    other = rig.start("Quick", "plant", headers=key, data='{"partial": true}')
    assert other.status_code == 422
    assert rig.start("Long", "plant", headers=key).status_code == 422
    assert rig.start("Quick", "plant", headers={"Idempotency-Key": "a b"}).status_code == 400
    assert rig.qlik.starts() == starts
    own = rig.start("Quick", "boss", "60", headers=key)
    assert own.json()["execution"] != number
    assert rig.qlik.starts() == starts + 1


def test_many_at_once_with_one_key_start_once(rig) -> None:
    starts = rig.qlik.starts()
    found = []

    def ask() -> None:
        answer = rig.start("Quick", "plant", "60", headers={"Idempotency-Key": "at-once"})
        found.append((answer.status_code, answer.json()["execution"]))

    threads = [threading.Thread(target=ask) for _ in range(10)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert len(found) == 10
    assert len(set(found)) == 1
    assert rig.qlik.starts() == starts + 1


def test_each_sees_what_it_may(rig) -> None:
    """A viewer sees all, a user with rules its own tasks and executions, another one nothing."""
    mine = rig.start("Quick", "plant", "60").json()["execution"]
    other = rig.start("Failing", "boss", "60").json()["execution"]
    seen = {
        user: {one["execution"] for one in rig.ask("GET", "/executions", user).json()["executions"]}
        for user in USERS
    }
    assert {mine, other} <= seen["boss"] & seen["anna"]
    assert mine in seen["plant"] and other not in seen["plant"]
    assert not seen["nobody"]
    assert rig.ask("GET", f"/executions/{other}", "plant").status_code == 404
    assert rig.ask("GET", f"/executions/{other}/log", "plant").status_code == 404
    assert rig.ask("GET", f"/executions/{mine}", "nobody").status_code == 404
    names = {
        user: [one["name"] for one in rig.ask("GET", "/tasks", user).json()["tasks"]]
        for user in USERS
    }
    assert len(names["boss"]) == len(names["anna"]) == 9
    assert names["plant"] == ["Long", "Quick", "Twin", "Twin"]
    assert names["nobody"] == []
    assert rig.ask("GET", "/tasks/Secret", "plant").status_code == 404


def test_executions_come_in_pages(rig) -> None:
    """``next`` leads on to each execution once, the newest first."""
    for _ in range(3):
        rig.start("Quick", "plant", "60")
    path, seen = "/executions?task=quick&state=succeeded,failed&limit=2", []
    while path:
        answer = rig.ask("GET", path, "anna")
        body = answer.json()
        assert ("link" in answer.headers) == (body["next"] is not None)
        seen += [one["execution"] for one in body["executions"]]
        assert {one["taskName"] for one in body["executions"]} <= {"Quick"}
        path = body["next"] and body["next"].removeprefix(rig.url)
    assert len(seen) >= 3
    assert seen == sorted(set(seen), reverse=True)
    for query in ("state=ran", "limit=0", "limit=x", "before=-1", "sort=up"):
        assert rig.ask("GET", f"/executions?{query}", "anna").status_code == 400
    for number in ("0", "99999999999999999999", "x", "-1", "\u0663"):
        assert rig.ask("GET", f"/executions/{number}", "anna").status_code == 404


def test_a_task_has_what_is_known_of_it(rig) -> None:
    rig.start("Quick", "plant", "60")
    found = rig.ask("GET", "/tasks/Quick", "anna").json()
    assert (found["id"], found["appName"], found["tags"]) == (QUICK, "Sales", ["x"])
    assert found["newestExecution"]["state"] == "succeeded"
    assert found["usualSeconds"] is not None
    listed = rig.ask("GET", "/tasks?name=QUI&tag=x&state=succeeded", "anna").json()
    assert [one["id"] for one in listed["tasks"]] == [QUICK]
    assert rig.ask("GET", "/tasks?tag=y", "anna").json() == {"tasks": [], "count": 0, "next": None}
    long = rig.ask("GET", f"/tasks/{LONG}", "anna").json()
    assert long["customProperties"] == {"plant": ["7"]}
    page = rig.ask("GET", "/tasks?limit=2&offset=1", "anna").json()
    assert (len(page["tasks"]), page["count"]) == (2, 9)
    assert "offset=3" in page["next"]
    near = rig.ask("GET", "/tasks/Qick", "anna")
    assert (near.status_code, 'Is "Quick" meant' in near.json()["detail"]) == (404, True)
    assert rig.ask("GET", "/tasks/Twin", "anna").status_code == 409
