"""What the screens of topics and of values cost with very many topics, and how fast they answer.

The appliance runs with its UI on a terminal of 140 x 40 while QoS 1 messages with numbers come at a
steady rate on 50,000 topics in turn; each screen is measured beside the same load without the UI.
"Key to handler" is from the byte on the terminal until the action of "down" begins.

Usage: python tests/benchmarks/terminal_topics.py [--folder DIR] [--rounds 3] [--seconds 20]
       [--rate 10000] [--topics 50000]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import rig
from rig import HERE, Meter, Results
from terminal_ui import Probe, Terminal, percentile_ms, running

KEYS = 40
LATER_S = 30.0


class Spread:
    """A load on many topics in a process of its own."""

    def __init__(self, port: int, options: argparse.Namespace, seconds: float) -> None:
        command = [sys.executable, str(HERE / "load.py"), str(port), "spread"]
        command += [str(options.rate), str(seconds), str(options.topics)]
        self._process = subprocess.Popen(command)
        self._all_s = options.topics / options.rate

    def __enter__(self) -> None:
        time.sleep(2 + 1.2 * self._all_s)  # until each topic had a message

    def __exit__(self, *_error: object) -> None:
        self._process.terminate()
        self._process.wait()


def keys(terminal: Terminal, probe: Probe) -> list[float]:
    """Milliseconds from a key to its action."""
    found = []
    probe.take("key")
    for _ in range(KEYS):
        pressed = time.monotonic_ns()
        terminal.press(b"j")
        until = time.monotonic() + 10
        while not (said := probe.take("key")):
            if time.monotonic() > until:
                raise SystemExit("a key was never answered")
            time.sleep(0.0005)
        found.append((said[0] - pressed) / 1e6)
        time.sleep(0.13)  # another moment of the frame each time
    return found


def measure(results: Results, here: Path, options: argparse.Namespace, screen: str) -> None:
    with running(here / screen, ui=screen != "headless") as (port, pid, probe, terminal):
        whole = 6 * options.seconds + 2 * LATER_S + 60
        with Spread(port, options, whole):
            if terminal is not None:
                opened = {"live": b"1", "topics": b"2o", "values": b"v"}[screen]
                for key in opened:
                    terminal.press(bytes([key]))
                    time.sleep(3)
            probe.take("lag")
            meter = Meter(pid)
            time.sleep(options.seconds)
            meter.end()
            results.add(f"processor, {screen}", meter.share * 100, "%")
            results.add(f"loop lag p99, {screen}", percentile_ms(probe.take("lag")), "ms")
            if terminal is None:
                return
            found = keys(terminal, probe)
            results.add(f"key to handler, {screen}, p50", rig.percentile(found, 0.5), "ms")
            results.add(f"key to handler, {screen}, p95", rig.percentile(found, 0.95), "ms")
            time.sleep(LATER_S)  # two trees, and what it keeps of the newest messages
            results.add(f"memory, {screen}", rig.rss_kb(pid) / 1000, "MB")
            time.sleep(LATER_S)
            results.add(f"memory later, {screen}", rig.rss_kb(pid) / 1000, "MB")


def main() -> None:
    options = rig.arguments(__doc__ or "", seconds=20.0, rate=10_000.0, topics=50_000)
    results = Results("Screens with very many topics, on the whole appliance")
    with rig.scratch(options.folder) as folder:
        for number in range(options.rounds):
            here = folder / str(number)
            here.mkdir()
            for screen in ("headless", "live", "topics", "values"):
                measure(results, here, options, screen)
    for screen in ("live", "topics", "values"):
        for busy, idle in zip(
            results.values[f"processor, {screen}"], results.values["processor, headless"],
            strict=True,
        ):  # fmt: skip
            results.add(f"the share of a core, {screen}", busy - idle, "%")
        results.limit(f"the share of a core, {screen}", "<= 20")
        results.limit(f"key to handler, {screen}, p95", "<= 50")
        results.compare(
            f"memory: half a minute later, {screen}",
            f"memory later, {screen}",
            f"memory, {screen}",
            "<= 1.05",
        )
    rig.finish(options, results)


if __name__ == "__main__":
    main()
