"""What goes wrong while tasks are started and waited for over HTTP."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable

import pytest
import requests
from appliance_process import DEADLINE_S, QUICK, until
from http_site import HttpProcess, HttpSite, session
from marked_site import PROXY, QLIK_CONFIG, MarkedSite
from qlik_http_site import QlikHttpSite

from appliance.counters import Counter
from appliance.http_api import server_calls
from appliance.qlik.simulated import FaultKind, SimulatedQlik, SimulatedTask, Site

QUICK_ID = "5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b10"


def site(*names: str, long: tuple[str, ...] = ()) -> Site:
    """Tasks whose runs end at once, and those whose runs do not end."""
    found = Site(trigger_delay_s=0.0, concurrency=50)
    for name in (*names, *long):
        duration_s = 600 if name in long else 0.05
        found.add_task(SimulatedTask(name, duration_s=duration_s, tags=("nightly",)))
    return found


def in_thread(work: Callable[[], requests.Response]) -> Callable[[], requests.Response]:
    """Begin a request; returns what waits for its answer."""
    found: list[requests.Response] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()

    def answer() -> requests.Response:
        thread.join(DEADLINE_S)
        return found[0]

    return answer


def test_waits_are_bounded_and_a_client_that_goes_frees_its_place(tmp_path) -> None:
    """One request waits; the next is answered at once and counted, until the first has gone."""
    with QlikHttpSite(site("Quick", long=("Long",)), tmp_path, http="max_waiting = 1") as rig:
        ended = rig.start("Quick", wait="10m").headers["location"]
        path = rig.start("Long").headers["location"]
        assert not is_full(rig, ended)
        request = f"GET {path}?wait=1h HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        with rig.raw(request.encode()):
            until(lambda: is_full(rig, ended), "the first request waits")
            assert rig.start("Long", wait="1h").status_code == 202
            assert rig.counted(Counter.HTTP_REQUESTS_NOT_WAITED_FOR) > 0
        until(lambda: not is_full(rig, ended), "its place is free")


def is_full(rig: QlikHttpSite, ended: str) -> bool:
    """Whether a wait is refused now. One for what has ended takes nobody's place."""
    before = rig.counted(Counter.HTTP_REQUESTS_NOT_WAITED_FOR)
    assert rig.ask("GET", f"{ended}?wait=1h").status_code == 200
    return rig.counted(Counter.HTTP_REQUESTS_NOT_WAITED_FOR) > before


def test_a_stop_answers_all_that_wait(tmp_path) -> None:
    """503 with the time after which to ask again, and what goes on."""
    wanted = site("Quick", long=("A", "B"))
    with QlikHttpSite(wanted, tmp_path, http="max_waiting = 2") as rig:
        ended = rig.start("Quick", wait="10m").headers["location"]
        number = rig.start("A").json()["execution"]
        answers = [
            in_thread(lambda: requests.get(f"{rig.url}/executions/{number}?wait=1h", timeout=60)),
            in_thread(lambda: requests.post(f"{rig.url}/tasks/B/start?wait=1h", timeout=60)),
        ]
        until(lambda: is_full(rig, ended), "both wait")
        rig.appliance.stop()
        for answer in answers:
            found = answer()
            assert found.status_code == 503
            assert int(found.headers["retry-after"]) > 0
            assert found.headers["content-type"] == "application/problem+json"
        assert rig.appliance.wait(DEADLINE_S)


def test_while_the_server_is_away_a_start_waits_as_a_message_does(tmp_path) -> None:
    """One task by name or id is taken; what may be several tasks, or a list, is not."""
    away = QlikHttpSite(site("Quick"), tmp_path)
    away.qlik.refuse()
    with away as rig:
        task = next(iter(rig.qlik.site.tasks))
        by_name, by_id = rig.start("Quick"), rig.start(task)
        assert (by_name.status_code, by_id.status_code) == (202, 202)
        assert not by_name.json()["final"]
        for answer in (
            rig.ask("POST", "/tasks/start", json={"tag": "nightly"}),
            rig.ask("GET", "/tasks"),
        ):
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) > 0
        rig.qlik.heal()
        for answer in (by_name, by_id):
            ended = rig.ask("GET", answer.headers["location"] + "?wait=10m").json()
            assert ended["state"] == "succeeded", ended


def test_a_server_that_hangs_holds_up_nothing_but_what_needs_it(tmp_path, monkeypatch) -> None:
    """A start by name is taken after a bounded time; an id, the log of messages and health at once."""
    monkeypatch.setattr(server_calls, "LIMIT_S", 0.3)
    hanging = QlikHttpSite(site("Quick", "Other"), tmp_path)
    hanging.qlik.fail(FaultKind.HANG)
    with hanging as rig:
        task = next(iter(rig.qlik.site.tasks))
        asked = [in_thread(lambda: rig.start("Other")) for _ in range(12)]
        assert rig.start(task).status_code == 202
        assert rig.ask("GET", "/executions").status_code == 200
        assert rig.ask("POST", "/messages/a", data=b"1").status_code == 200
        assert {each().status_code for each in asked} == {202}
        rig.qlik.heal()
        for one in rig.ask("GET", "/executions").json()["executions"]:
            ended = rig.ask("GET", f"/executions/{one['execution']}?wait=10m").json()
            assert ended["state"] == "succeeded", ended


def test_without_a_qlik_server_nothing_is_taken(tmp_path) -> None:
    with HttpSite(tmp_path) as rig:
        for method, path in (("POST", "/tasks/Quick/start"), ("GET", "/tasks")):
            answer = rig.ask(method, path)
            assert (answer.status_code, "No Qlik server" in answer.json()["detail"]) == (503, True)


def test_what_can_t_be_noted_is_not_started(tmp_path) -> None:
    """503 while the task database can't be written; a repeat with the same key starts once."""
    with QlikHttpSite(site(long=("Quick", "Other")), tmp_path) as rig:
        store, state = rig.appliance.tasks._store, rig.appliance.tasks._state
        assert rig.start("Quick").status_code == 202
        with state.lock:
            (pages,) = store._db.execute("PRAGMA page_count").fetchone()
            store._db.execute(f"PRAGMA max_page_count = {pages}")
        number = 0
        while (answer := rig.start("Other", headers={"Idempotency-Key": f"key-{number}"})).ok:
            number += 1  # each key is a row, until the file is full
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        again = rig.start("Other", headers={"Idempotency-Key": f"key-{number}"})
        assert (again.status_code, "not taken" in again.json()["detail"]) == (503, True)
        with state.lock:
            store._db.execute("PRAGMA max_page_count = 100000")
        assert rig.start("Other", headers={"Idempotency-Key": f"key-{number}"}).ok
        task = next(one.id for one in rig.qlik.site.tasks.values() if one.name == "Other")
        assert rig.qlik.wait_for(lambda: rig.qlik.starts(task) == 1)


def test_a_key_is_known_after_a_crash_in_the_start_call(tmp_path) -> None:
    """What the disk has while the Qlik server begins the run: a repeat starts nothing again."""
    after = tmp_path / "after"

    def copy(_task: str, _run: str, _at_ns: int) -> None:
        if not after.exists():
            shutil.copytree(tmp_path / "before" / "data", after / "data")

    wanted, key = MarkedSite([QUICK_ID], copy), {"Idempotency-Key": "once"}
    with QlikHttpSite(wanted, tmp_path / "before") as rig:
        number = rig.start(QUICK_ID, wait="10m", headers=key).json()["execution"]
    with QlikHttpSite(wanted, after) as rig:
        again = rig.start(QUICK_ID, wait="10m", headers=key)
        assert again.headers["idempotency-replayed"] == "true"
        assert (again.json()["execution"], again.json()["state"]) == (number, "succeeded")
        assert rig.start(QUICK_ID, headers=key, data='{"partial": true}').status_code == 422
    assert wanted.started == [QUICK_ID]


@pytest.mark.campaign
def test_a_kill_between_request_and_answer_starts_once(tmp_path) -> None:
    """Clients repeat their requests, with their keys, until they have an answer."""
    names = [f"Task {number}" for number in range(8)]
    with SimulatedQlik(site=site(*names), proxies=[PROXY]) as qlik:
        more = QLIK_CONFIG.format(url=qlik.url)
        with HttpProcess(tmp_path, more, program=QUICK) as process:
            kill_while_starting(process, names)
        runs = sorted(run.task.name for run in qlik.site.runs())
        assert runs == names


def kill_while_starting(process: HttpProcess, names: list[str]) -> None:
    """Start each task with a key of its own, while the appliance is killed and started again."""
    process.start()
    urls = [process.url]
    begun = threading.Event()
    waiting, ended = list(names), []

    def work() -> None:
        while waiting:
            name = waiting.pop()
            number = 0
            while True:
                try:
                    with session() as client:
                        answer = client.post(
                            f"{urls[-1]}/tasks/{name}/start?wait=10m",
                            headers={"Idempotency-Key": f"{name} once".replace(" ", "-")},
                            timeout=DEADLINE_S,
                        )
                except (requests.ConnectionError, requests.Timeout):
                    answer = None
                begun.set()
                if answer is not None and answer.status_code == 200:
                    ended.append((name, answer.json()["state"]))
                    break
                number += 1
                assert number < 10_000
                time.sleep(0.02)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for each in threads:
        each.start()
    assert begun.wait(DEADLINE_S)
    process.kill()
    process.start()
    urls.append(process.url)
    for each in threads:
        each.join(DEADLINE_S)
    assert sorted(ended) == sorted((name, "succeeded") for name in names)
