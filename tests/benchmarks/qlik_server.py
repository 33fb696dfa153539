"""The simulated Qlik server as a process, for latency.py: ``python qlik_server.py TASKS``.

Says ``port NUMBER``, then at each line that it reads prints the start POSTs that arrived since the
last, as JSON ``{task id: nanoseconds since the epoch}``. Task ids are ``00000000-0000-4000-8000-``
and twelve digits. Ends when its input ends.
"""

from __future__ import annotations

import json
import sys

from appliance.qlik.simulated import SimulatedQlik, SimulatedTask, Site


def task_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


TURN_S = 0.0001
"""A request that arrives is noted at once, also while the answer to another is put together: a real
server has more than one lock."""


def main(count: int) -> None:
    sys.setswitchinterval(TURN_S)
    tasks = [
        SimulatedTask(f"Task {number}", id=task_id(number), duration_s=0.2)
        for number in range(count)
    ]
    # Few old runs are kept: looking through them would slow the server, and with it our calls.
    site = Site(concurrency=count, keep_runs=60)
    for task in tasks:
        site.add_task(task)
    with SimulatedQlik(site=site, keep_requests=200_000) as server:
        print(f"port {server.port}", flush=True)
        for _ in sys.stdin:
            arrived: dict[str, int] = {}
            for seen in server.requests:
                if seen.method == "POST" and "/start" in seen.path:
                    arrived.setdefault(seen.path.split("/")[3].lower(), seen.at_ns)
            server.forget_requests()
            print(json.dumps(arrived), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
