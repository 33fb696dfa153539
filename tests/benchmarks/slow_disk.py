"""One publisher, one message at a time, on disks of different speed, beside a bare loop.

What a forced write takes is the disk's; what the way through the appliance adds is the
appliance's. The disk at hand is made slower, for both alike, by strace's fault injection: each
``fdatasync`` comes back later by a given time.

Usage: python tests/benchmarks/slow_disk.py [--folder DIR] [--rounds 3] [--seconds 3]
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import load
import rig
from journal_commit import bare
from rig import Results

DELAYS_US = (0, 250, 1000, 4000)
TARGET_FROM_US = 1000
"""The target holds for disks that need a millisecond or more. On a faster disk the processor
decides, as one_at_a_time.py shows: a minimal server with a thread reaches 0.45 there."""


def slowed(delay_us: int) -> list[str]:
    """The beginning of a command whose forced writes take that much longer."""
    return [
        *("strace", "-D", "-f", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=fdatasync"),
        *("-e", f"inject=fdatasync:delay_exit={delay_us}"),
    ]


def bare_slowed(folder: Path, seconds: float, delay_us: int) -> float:
    """The bare loop's forced writes a second."""
    command = [*slowed(delay_us), sys.executable, __file__, "--bare", str(folder), str(seconds)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout)


def main() -> None:
    if sys.argv[1:2] == ["--bare"]:
        print(bare(Path(sys.argv[2]), float(sys.argv[3])))
        return
    options = rig.arguments(__doc__ or "", seconds=3.0)
    results = Results("One message at a time on a slower disk")
    with rig.scratch(options.folder) as folder:
        for number in range(options.rounds):
            for delay_us in DELAYS_US:
                name = f"forced write + {delay_us / 1000:g} ms"
                here = folder / f"{number}-{delay_us}"
                here.mkdir()
                before = bare_slowed(here, options.seconds / 2, delay_us)
                with rig.appliance(here, under=slowed(delay_us)) as broker:
                    rate = load.run(broker.port, connections=1, window=1, seconds=options.seconds)
                after = bare_slowed(here, options.seconds / 2, delay_us)
                results.add(f"{name}: bare loop", (before + after) / 2, "writes/s")
                results.add(f"{name}: appliance", rate, "acks/s")
    for delay_us in DELAYS_US:
        name = f"forced write + {delay_us / 1000:g} ms"
        target = ">= 0.6" if delay_us >= TARGET_FROM_US else ""
        results.compare(
            f"{name}: to the bare loop", f"{name}: appliance", f"{name}: bare loop", target
        )
    rig.finish(options, results)


if __name__ == "__main__":
    main()
