"""Recorders in a burst: from the first message until all of them are in the file.

Ten publishers send 1.5 million messages of 64 bytes as fast as they are acknowledged. Recording
gives way while they send and catches up afterwards, so the figure is of both together. A series of
files is complete when its last file has its name. mosquitto's acknowledgements a second, in the
same round, stand for the speed of the machine: a target is a share of them.

Usage: python tests/benchmarks/recorders.py [--count 1500000] [--rounds 3] [--only parquet]
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import load
import rig
from rig import Meter, Results

from appliance.recorders.csv import CsvFormat
from appliance.recorders.format import Format
from appliance.recorders.json import JsonFormat
from appliance.recorders.jsonl import JsonLinesFormat
from appliance.model import Message

MOSQUITTO = 157_000
"""Acknowledgements a second where the targets were set."""
TARGETS = {"jsonl": 90_000, "json": 70_000, "csv": 60_000, "parquet": 60_000, "qvd": 30_000}
TEXTS: dict[str, type[Format]] = {"jsonl": JsonLinesFormat, "json": JsonFormat, "csv": CsvFormat}

RECORDER = """
[[recorder]]
topic = "bench/#"
path = "recordings/bench.{0}"
format = "{0}"
"""
PARTS = """metadata = true
rotate = {{messages = {0}, every = "1h", size = "1GB"}}
"""
PART_MESSAGES = {"parquet": 500_000, "qvd": 100_000}
END_S = 300.0


def text_size(kind: str, count: int) -> int:
    """The length of a file of ``count`` messages of the load."""
    made = TEXTS[kind](metadata=False)
    message = Message(1, time.time_ns(), "bench/topic", load.JSON)
    opening = made.opening(message)  # it decides the columns of csv
    separators = len(made.separator) * (count - 1) + len(made.closing)
    return len(opening) + count * len(made.element(message)) + separators


def is_recorded(kind: str, folder: Path, count: int) -> Callable[[], bool]:
    """Whether all messages are in the file, or in files of their own."""
    if kind in TEXTS:
        file, size = folder / f"bench.{kind}", text_size(kind, count)
        return lambda: file.exists() and file.stat().st_size >= size
    parts = -(-count // PART_MESSAGES[kind])
    return lambda: len(list(folder.glob(f"bench-*.{kind}"))) >= parts


def burst(results: Results, kind: str, here: Path, count: int) -> None:
    extra = RECORDER.format(kind)
    if kind not in TEXTS:
        extra += PARTS.format(PART_MESSAGES[kind])
    # Without a path of its own each round would find the files of the one before.
    here.mkdir(parents=True)
    extra = extra.replace("recordings/", f"{(here / 'recordings').as_posix()}/")
    is_done = is_recorded(kind, here / "recordings", count)
    with rig.appliance(here, extra) as broker:
        resting = rig.rss_kb(broker.pid)
        meter = Meter(broker.pid)
        meter.begin()
        begun, acknowledged = load.burst(broker.port, count)
        while not is_done():
            if time.monotonic() > acknowledged + END_S:
                raise SystemExit(f"{kind} is not complete after {END_S:.0f} s")
            time.sleep(0.02)
        ended = time.monotonic()
        meter.end()
        results.add(f"{kind}: recorded", count / (ended - begun), "messages/s", meter.share)
        results.add(f"{kind}: acknowledged", count / (acknowledged - begun), "acks/s")
        results.add(f"{kind}: memory more", (rig.rss_kb(broker.pid) - resting) / 1024, "MB")


def main() -> None:
    options = rig.arguments(__doc__ or "", count=1_500_000, seconds=4.0)
    results = Results(f"Recorders: a burst of {options.count:,} messages of 64 bytes")
    with ExitStack() as stack:
        folder = stack.enter_context(rig.scratch(options.folder))
        for number in range(options.rounds):
            print(f"round {number + 1}", flush=True)
            here = folder / str(number)
            here.mkdir(mode=0o755)
            with rig.mosquitto(here) as broker:
                rate = load.run(broker.port, connections=10, window=100, seconds=options.seconds)
            results.add("mosquitto", rate, "acks/s")
            for kind, target in TARGETS.items():
                if options.only in kind:
                    results.add(f"{kind}: target", target * rate / MOSQUITTO, "messages/s")
                    burst(results, kind, here / kind, options.count)
    for kind in TARGETS:
        results.compare(f"{kind} to target", f"{kind}: recorded", f"{kind}: target", ">= 1")
    rig.finish(options, results)


if __name__ == "__main__":
    main()
