"""One publisher, one message at a time: what of it is the disk, the process, the appliance.

Beside the bare loop of write and forced write: a server that does nothing else
(minimal_server.py), mosquitto, which forces nothing, and the appliance.

Usage: python tests/benchmarks/one_at_a_time.py [--folder DIR] [--rounds 3] [--seconds 3]
"""

from __future__ import annotations

import sys

import load
import rig
from journal_commit import bare
from rig import HERE, Broker, Process, Results

WAYS = {
    "inline": "minimal server, disk wait on the loop",
    "thread": "minimal server, disk wait in a thread",
    "none": "minimal server, nothing forced",
}
BARE = "bare loop of write and forced write"


def main() -> None:
    options = rig.arguments(__doc__ or "", seconds=3.0)
    results = Results("One message at a time: the floor")
    with rig.scratch(options.folder) as folder:
        for number in range(options.rounds):
            here = folder / str(number)
            here.mkdir()
            here.chmod(0o755)

            def measure(name: str, broker: Broker) -> None:
                rate = load.run(broker.port, connections=1, window=1, seconds=options.seconds)
                results.add(name, rate, "acks/s")

            before = bare(here, options.seconds / 2)
            for way, name in WAYS.items():
                port = rig.free_port()
                command = [sys.executable, str(HERE / "minimal_server.py"), way, str(port)]
                log = here / f"{way}.log"
                server = Process(way, [*command, str(here / way)], log, cwd=here)
                try:
                    rig.until(lambda: server.said("listening"), f"{way} listens", rig.START_S)
                    measure(name, Broker(way, port, server.pid))
                finally:
                    server.end()
            with rig.mosquitto(here) as broker:
                measure("mosquitto, nothing forced", broker)
            (here / "appliance").mkdir()
            with rig.appliance(here / "appliance") as broker:
                measure("appliance", broker)
            results.add(BARE, (before + bare(here, options.seconds / 2)) / 2, "writes/s")
    for name in (*WAYS.values(), "mosquitto, nothing forced", "appliance"):
        results.compare(f"{name}: to the bare loop", name, BARE)
    rig.finish(options, results)


if __name__ == "__main__":
    main()
