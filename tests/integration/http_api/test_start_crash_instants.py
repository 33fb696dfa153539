"""A start over HTTP with a key is made once, whenever a kill or a power cut comes.

The writes of a process that starts tasks are noted (disk_model.py), and among them each run that
the server begins and each answer. For many instants the disk as it may be after a crash is made, an
appliance is started there, and all requests are sent again with their keys.
"""

from __future__ import annotations

import logging
from collections import Counter as Multiset
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from appliance_process import DEADLINE_S, QUICK, until
from disk_model import Disk, Operation, Tracer
from http_site import HttpProcess, HttpSite, session
from marked_site import PROXY, QLIK_CONFIG, MarkedSite
from quick_appliance import WAITS

from appliance.qlik.simulated import SimulatedQlik
from appliance.tasks import engine as task_engine
from appliance.tasks.engine import TaskEngine

pytestmark = [
    pytest.mark.posix("the library that sees writes is preloaded on Linux"),
    pytest.mark.campaign,
]

TASKS = [f"5f8b1c2e-0d4a-4c55-9a1b-0000000000{number:02d}" for number in range(4)]
INSTANTS = 12


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in WAITS.items():
        monkeypatch.setitem(TaskEngine.__init__.__kwdefaults__, name, value)
    logging.disable(logging.INFO)
    yield
    logging.disable(logging.NOTSET)


def live(folder: Path) -> list[Operation]:
    """Start the tasks, and end by a kill."""
    life = folder / "life"
    tracer = Tracer(life / "data", folder)
    site = MarkedSite(TASKS, lambda *run: tracer.mark(" ".join(map(str, ("run", *run)))))
    with (
        SimulatedQlik(site=site, proxies=[PROXY]) as qlik,
        HttpProcess(
            life,
            QLIK_CONFIG.format(url=qlik.url),
            program=QUICK,
            environment=tracer.environment,
        ) as process,
        session() as client,
    ):
        process.start()
        url = process.url
        tracer.mark("listening")
        for task in TASKS:
            answer = client.post(
                f"{url}/tasks/{task}/start", headers={"Idempotency-Key": task}, timeout=DEADLINE_S
            )
            tracer.mark(f"answered {task} {answer.json()['execution']}")
        until(lambda: set(site.started) == set(TASKS), "all are started")
    return tracer.operations()


def look(target: Path, disk: Disk, number: int) -> None:
    """Start an appliance on what a crash left, and send all requests again."""
    site = MarkedSite(TASKS)
    answered: dict[str, int] = {}
    for mark in disk.marks:
        match mark.split():
            case ["run", task, run, at_ns]:
                site.put_back(task, run, int(at_ns))
            case ["answered", task, execution]:
                answered[task] = int(execution)
    with (
        SimulatedQlik(site=site, proxies=[PROXY]) as qlik,
        HttpSite(target, QLIK_CONFIG.format(url=qlik.url)) as rig,
    ):
        for task in TASKS:
            path = f"/tasks/{task}/start?wait=10m"
            answer = rig.ask("POST", path, headers={"Idempotency-Key": task})
            found = answer.json()
            assert (answer.status_code, found["state"]) == (200, "succeeded"), (number, found)
            if task in answered:
                assert answer.headers["idempotency-replayed"] == "true", number
                assert found["execution"] == answered[task], number
    assert Multiset(site.started) == Multiset(TASKS), number


def test_a_crash_at_any_instant_starts_once(tmp_path: Path, monkeypatch) -> None:
    """Every third one is a kill, the others are power cuts."""
    operations = live(tmp_path)
    disk = Disk(tmp_path / "life" / "data")
    first = next(
        number
        for number, one in enumerate(operations)
        if (one.kind, one.data) == ("m", b"listening")
    )
    length = len(operations) - first
    wanted = {first + length * each // INSTANTS for each in range(1, INSTANTS + 1)}
    for number, operation in enumerate(operations, 1):
        disk.do(operation)
        if number not in wanted:
            continue
        target = tmp_path / f"at-{number}"
        with monkeypatch.context() as patch:
            if number % 3:
                disk.after_power_cut(target / "data", Random(number))
                # The machine was started again.
                patch.setattr(task_engine, "_boot_ns", lambda clock_ns: clock_ns())
            else:
                disk.after_kill(target / "data")
            look(target, disk, number)
