"""Several appliances on one site: a broker that all of them take messages from, and one Qlik server.

All are processes of their own. ``python tests/site_of_appliances.py`` prints the table of
docs/scaling.md. Not for: what one appliance does (tests/appliance_process.py).
"""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance_process import ApplianceProcess, until
from other_brokers import Mosquitto, Remote
from qlik_process import task_id

CONFIG = """
listener = []
[service]
data_dir = "data"
[[bridge]]
name = "plant"
host = "127.0.0.1"
port = {port}
[[bridge.subscribe]]
topic = "start"
{share}
[qlik]
edition = "client-managed"
url = "http://127.0.0.1:{qlik}"
header = {{name = "X-Qlik-User", value = "UserDirectory=INTERNAL;UserId=sa_repository"}}
other_appliances = {others}
[[trigger]]
topic = "start"
task = "payload"
"""


class QlikProcess:
    """The Qlik server: ``with QlikProcess(20, 0.3) as qlik``."""

    def __init__(self, tasks: int, seconds: float, *, runs_twice: bool = False) -> None:
        script = str(Path(__file__).parent / "qlik_process.py")
        more = ["--runs-twice"] if runs_twice else []
        self._process = subprocess.Popen(
            [sys.executable, script, str(tasks), str(seconds), *more],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lock = threading.Lock()
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def runs(self) -> tuple[dict[str, list[int]], int]:
        """When each task's runs began, and how many start calls came."""
        with self._lock:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write("\n")
            self._process.stdin.flush()
            runs, calls = json.loads(self._process.stdout.readline())
            return runs, calls

    def __enter__(self) -> QlikProcess:
        return self

    def __exit__(self, *_error: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


@dataclass
class Result:
    """What came of the messages."""

    messages: int
    bursts: int
    starts: int
    calls: int
    unanswered: int
    """Messages without a run that began after they were published."""


class SiteOfAppliances:
    """A broker, a Qlik server and appliances."""

    def __init__(self, folder: Path, broker: Mosquitto, qlik: QlikProcess) -> None:
        self.folder = folder
        self.broker = broker
        self.qlik = qlik
        self.appliances: list[ApplianceProcess] = []
        self._before = 0, 0

    def add(self, name: str, *, share: bool, others: bool) -> ApplianceProcess:
        """Start one more appliance; returns when it is subscribed."""
        config = CONFIG.format(
            port=self.broker.port,
            qlik=self.qlik.port,
            share='share = "site"' if share else "",
            others=str(others).lower(),
        )
        appliance = ApplianceProcess(self.folder / name, config)
        appliance.begin()
        appliance.wait_for_line("is connected to")
        self.appliances.append(appliance)
        return appliance

    def publish(
        self, burst: int, rounds: int, tasks: int, gap_s: float, *, first: int = 0
    ) -> dict[str, list[int]]:
        """Publish a burst of messages for each task in turn, in several rounds of ``gap_s``.

        Returns when the messages of each task left.
        """
        left: dict[str, list[int]] = {}
        numbers, chance = list(range(first, first + tasks)), random.Random(1)
        with Remote(self.broker, "publisher") as remote:
            for _ in range(rounds):
                chance.shuffle(numbers)
                for number in numbers:
                    end = time.monotonic() + gap_s / tasks
                    for _ in range(burst):
                        left.setdefault(task_id(number), []).append(time.time_ns())
                        remote.publish("start", task_id(number))
                    remote.wait_acknowledged(sum(map(len, left.values())))
                    time.sleep(max(0.0, end - time.monotonic()))
                self.after_round()
        return left

    def after_round(self) -> None:
        """For what happens between two rounds."""

    def wait_until_quiet(self, quiet_s: float, most_s: float = 120.0) -> None:
        """Wait until no run has begun for so long."""
        end = time.monotonic() + most_s
        seen, since = -1, time.monotonic()
        while time.monotonic() - since < quiet_s and time.monotonic() < end:
            runs, _ = self.qlik.runs()
            if (count := sum(map(len, runs.values()))) != seen:
                seen, since = count, time.monotonic()
            time.sleep(0.1)

    def begin_count(self) -> None:
        """Count runs and calls from now on."""
        runs, calls = self.qlik.runs()
        self._before = sum(map(len, runs.values())), calls

    def result(self, left: dict[str, list[int]], bursts: int) -> Result:
        runs, calls = self.qlik.runs()
        unanswered = sum(
            at > max(runs.get(task, [0])) + 1_000_000  # the server has milliseconds
            for task, times in left.items()
            for at in times
        )
        return Result(
            sum(map(len, left.values())),
            bursts,
            sum(map(len, runs.values())) - self._before[0],
            calls - self._before[1],
            unanswered,
        )


@contextlib.contextmanager
def site(
    folder: Path, tasks: int, seconds: float, *, runs_twice: bool = False
) -> Iterator[SiteOfAppliances]:
    """A site without appliances yet."""
    with (
        Mosquitto(folder / "mosquitto", users=False) as broker,
        QlikProcess(tasks, seconds, runs_twice=runs_twice) as qlik,
    ):
        here = SiteOfAppliances(folder, broker, qlik)
        try:
            yield here
        finally:
            for one in here.appliances:
                one.__exit__()


def measure(
    appliances: int,
    *,
    share: bool,
    others: bool,
    runs_twice: bool = False,
    kill: bool = False,
    tasks: int = 20,
    burst: int = 10,
    rounds: int = 5,
    seconds: float = 0.5,
    gap_s: float = 6.0,
) -> Result:
    """One row of the table."""
    with (
        tempfile.TemporaryDirectory() as folder,
        site(Path(folder), tasks, seconds, runs_twice=runs_twice) as here,
    ):
        for number in range(appliances):
            here.add(f"appliance {number}", share=share, others=others)
        # The test of the shared subscription gets its time, and the first starts tell each
        # appliance the server's clock.
        time.sleep(10.0)
        here.publish(4, 3, tasks, 4.0)
        here.wait_until_quiet(6.0)
        here.begin_count()
        done = 0

        def after_round() -> None:
            nonlocal done
            done += 1
            if kill and done == rounds // 2:
                here.appliances[0].kill()

        here.after_round = after_round  # type: ignore[method-assign]
        left = here.publish(burst, rounds, tasks, gap_s)
        here.wait_until_quiet(8.0)
        if kill:
            before = here.result(left, rounds * tasks)
            here.appliances[0].begin()
            here.wait_until_quiet(8.0)
            print("while it was down:", before, flush=True)
        return here.result(left, rounds * tasks)


def latency(*, others: bool, tasks: int = 60, gap_s: float = 0.5) -> list[float]:
    """Seconds from a message's PUBLISH to the run that it began, one message a task."""
    with (
        tempfile.TemporaryDirectory() as folder,
        site(Path(folder), tasks, 0.1) as here,
    ):
        here.add("appliance", share=False, others=others)
        warm_up = here.publish(1, 1, tasks, 15.0)
        left = {}
        for number in range(tasks):
            left |= here.publish(1, 1, 1, gap_s, first=number)
        here.wait_until_quiet(5.0)
        runs, _ = here.qlik.runs()
        assert len(warm_up) == tasks
        return sorted((max(runs[task]) - at[0]) / 1e9 for task, at in left.items())


ROWS: dict[str, dict[str, Any]] = {
    "one appliance": {"appliances": 1, "share": False, "others": False},
    "two, shared, without looks": {"appliances": 2, "share": True, "others": False},
    "two, shared, with looks": {"appliances": 2, "share": True, "others": True},
    "two, a copy each, without looks": {"appliances": 2, "share": False, "others": False},
    "two, a copy each, with looks": {"appliances": 2, "share": False, "others": True},
    "two, shared, with looks, one killed": {
        "appliances": 2,
        "share": True,
        "others": True,
        "kill": True,
    },
}


def main() -> None:
    """Print the rows whose names have one of the arguments in them; ``latency``: only that."""
    chosen = sys.argv[1:]
    if chosen == ["latency"]:
        for others in (False, True):
            found = latency(others=others)
            tenth = len(found) // 10
            print("with looks" if others else "without", found[len(found) // 2], found[-tenth])
        return
    for name, keys in ROWS.items():
        if chosen and not any(one in name for one in chosen):
            continue
        for runs_twice in (False, True):
            kind = "a running task is started again" if runs_twice else "or refused"
            print(name, kind, measure(runs_twice=runs_twice, **keys), sep=", ", flush=True)


if __name__ == "__main__":
    main()
