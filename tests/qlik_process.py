"""A simulated Qlik server as a process: ``python qlik_process.py TASKS SECONDS [--runs-twice]``.

Says its port; then, at each line that it reads, which runs began: JSON ``{task id: [nanoseconds,
...]}``, and how many start calls came. Each run takes SECONDS. ``--runs-twice``: a task that runs is
started again, where other servers refuse. Ends when its input ends.
"""

from __future__ import annotations

import json
import sys

from appliance.qlik.simulated import SimulatedQlik, SimulatedTask, Site


def task_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def main(count: int, seconds: float, *, runs_twice: bool) -> None:
    site = Site(concurrency=count, keep_runs=100_000, refuse_running=not runs_twice)
    for number in range(count):
        site.add_task(SimulatedTask(f"Task {number}", id=task_id(number), duration_s=seconds))
    with SimulatedQlik(site=site, keep_requests=1000) as server:
        print(server.port, flush=True)
        for _ in sys.stdin:
            runs: dict[str, list[int]] = {}
            for run in site.runs():
                runs.setdefault(run.task.id, []).append(run.created_ns)
            print(json.dumps([runs, server.starts()]), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), runs_twice="--runs-twice" in sys.argv)
