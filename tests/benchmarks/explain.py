"""How long an explanation takes: 1,000 tasks, 200 rules, and a backlog of requests that wait.

The task engine is the real one, with a simulated Qlik server over HTTP; its list of tasks was read
before, as it is in an appliance that runs. The target is 50 ms.

Usage: python tests/benchmarks/explain.py [--rounds N] [--waiting N]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tasks_rig import Rig, client_of

from appliance.config.tables import AllowConfig, TriggerConfig
from appliance.model import Message
from appliance.qlik.simulated import SimulatedQlik
from appliance.remote import protocol

TASKS, RULES = 1000, 200
WHEN = {"state": "done", "rows": {">": 3}, "p.q.0": {"matches": "^a.*z$"}}
DONE = b'{"state": "done", "rows": 5, "p": {"q": ["abcz"]}}'


def rules() -> list[TriggerConfig]:
    """Half of them listen on topics of their own, half on one wildcard; every fourth on a tag."""
    return [
        TriggerConfig(
            name=f"rule {number}",
            topic=f"plant/{number}/done" if number % 2 else "line/#",
            task={"tag": "nightly"} if number % 4 == 0 else {"name": f"Task {number}"},
            when=WHEN,
            debounce=600.0,
            cooldown=60.0,
        )
        for number in range(RULES)
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--waiting", type=int, default=10_000, help="requests that wait")
    options = parser.parse_args()
    with SimulatedQlik() as qlik, tempfile.TemporaryDirectory() as folder:
        for number in range(TASKS):
            tags = ("nightly",) if number % 10 == 0 else ()
            qlik.add_task(f"Task {number}", tags=tags, duration_s=600.0)
        waiting = TriggerConfig(
            name="backlog", topic="backlog/+", task="topic", debounce=3600.0, expire=86400.0
        )
        allow = AllowConfig(tags=("nightly",), names=tuple(f"Task {n}" for n in range(0, TASKS, 2)))
        with Rig(
            Path(folder) / "tasks.db", client_of(qlik), *rules(), waiting, allow=allow, sync="os"
        ) as rig:
            rig.engine.tasks()
            for number in range(options.waiting):
                rig.source.put(f"backlog/Task x{number}", b"")
            rig.wait_until(lambda: len(rig.engine._planner.open) >= options.waiting, 60.0)
            print(f"{TASKS} tasks, {RULES} rules, {options.waiting} requests wait")
            for name, topic, payload in (
                ("no rule listens", "hall/door", DONE),
                ("one rule, when fails", "plant/7/done", b'{"state": "no"}'),
                ("one rule, one task", "plant/7/done", DONE),
                ("100 rules, tags of 100 tasks", "line/7/done", DONE),
            ):
                show(rig, name, topic, payload, options.rounds)


def show(rig: Rig, name: str, topic: str, payload: bytes, rounds: int) -> None:
    took, encoded = [], b""
    for _ in range(rounds):
        began = time.perf_counter()
        found = rig.engine.explain(Message(0, time.time_ns(), topic, payload, client_id="plc"))
        took.append((time.perf_counter() - began) * 1000)
        encoded = protocol.encode(found)
    took.sort()
    print(
        f"{name:30} median {statistics.median(took):6.2f} ms,"
        f" 95 of 100 {took[int(len(took) * 0.95)]:6.2f} ms, longest {took[-1]:6.2f} ms,"
        f" {len(found.rules)} rules, {len(found.starts) + found.starts_left_out} starts,"
        f" {len(encoded) / 1000:.0f} KB"
    )


if __name__ == "__main__":
    main()
