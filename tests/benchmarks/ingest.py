"""Durable QoS 1 ingest: acknowledgements a second, beside mosquitto and stock amqtt.

The appliance acknowledges what is on the disk (``sync = "always"``); mosquitto runs without
persistence and amqtt has none, so both acknowledge what they have merely read. 64 byte payloads,
no outside subscriber. With a recorder, with the UI, and with a long journal.

Usage: python tests/benchmarks/ingest.py [--folder DIR] [--rounds 3] [--seconds 4] [--long 10000000]
"""

from __future__ import annotations

import os
import time
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import load
import rig
from journal_commit import bare
from rig import Broker, Meter, Results

from appliance.broker.door import RETAINED_TABLES
from appliance.broker.session_store import TABLES as SESSION_TABLES
from appliance.storage import files
from appliance.journal.journal import Journal
from appliance.model import Message

LOADS = {"10 x 100": (10, 100), "1 x 20": (1, 20), "1 x 1": (1, 1)}
SIMULATED = """
[qlik]
edition = "simulated"
[[trigger]]
topic = "qliksense/start_task"
task = "payload"
"""


def measure(results: Results, broker: Broker, loads: list[str], seconds: float, what: str) -> None:
    for name in loads:
        connections, window = LOADS[name]
        meter = Meter(broker.pid)
        rate = load.run(
            broker.port,
            connections=connections,
            window=window,
            seconds=seconds,
            begun=meter.begin,
        )
        meter.end()
        results.add(f"{name}, {what}", rate, "acks/s", meter.share)


def in_place(folder: Path, seconds: float) -> float:
    """Like ``bare``, but within a file that has its size already: no metadata to write."""
    descriptor = os.open(folder / "in-place", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.write(descriptor, b"x" * 2**22)
    os.fsync(descriptor)
    record = b"x" * 150
    end = time.perf_counter() + seconds
    count = 0
    while time.perf_counter() < end:
        os.pwrite(descriptor, record, count * 150 % 2**22)
        files.sync_file(descriptor)
        count += 1
    os.close(descriptor)
    return count / seconds


def prefill(folder: Path, count: int) -> None:
    """Write a journal of ``count`` messages, as the appliance would have."""
    path = folder / "data" / "journal.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    journal = Journal(path, sync="os", keep_s=30 * 86400, max_bytes=10**10)
    for tables in (RETAINED_TABLES, SESSION_TABLES):
        journal.define(tables)  # an appliance refuses a journal without the broker's tables
    journal.start(lambda _messages, _entries: None)
    payload = b"x" * 64
    batch = 20_000
    for start in range(0, count, batch):
        now = time.time_ns()
        for _ in range(min(batch, count - start)):
            seq = journal.next_seq()
            message = Message(seq, now, "bench/topic", payload, 1, client_id="filler")
            journal.append(message, None)
        while journal.stats().pending > batch:
            time.sleep(0.002)
    if not journal.close(60):
        raise SystemExit("the journal could not be filled")


def main() -> None:
    options = rig.arguments(__doc__ or "", seconds=4.0, long=10_000_000)
    seconds, only = options.seconds, options.only
    results = Results("Ingest, QoS 1, 64 bytes, no outside subscriber")
    everything = list(LOADS)

    def case(what: str, make: AbstractContextManager[Broker], loads: list[str]) -> None:
        if only in what:
            with make as broker:
                measure(results, broker, loads, seconds, what)

    with ExitStack() as stack:
        folder = stack.enter_context(rig.scratch(options.folder))
        short, long = folder / "short", folder / "long"
        if options.long and only in "long journal":
            began = time.monotonic()
            prefill(short, 10_000)
            prefill(long, options.long)
            size = (long / "data" / "journal.db").stat().st_size
            results.add(
                "filling the long journal", options.long / (time.monotonic() - began), "messages/s"
            )
            results.add("size of the long journal", size / options.long, "bytes a message")
        for number in range(options.rounds):
            print(f"round {number + 1}", flush=True)
            here = folder / str(number)
            for name in ("plain", "recorder", "ui", "all"):
                (here / name).mkdir(parents=True)
            here.chmod(0o755)
            case("mosquitto", rig.mosquitto(here), everything)
            case("amqtt", rig.stock_amqtt(here), everything)
            # Around the appliance, because a shared disk is fast in one minute and slow in the next.
            before = bare(folder, seconds / 2), in_place(folder, seconds / 2)
            case("appliance", rig.appliance(here / "plain"), ["1 x 1"])
            after = bare(folder, seconds / 2), in_place(folder, seconds / 2)
            results.add("1 x 1, bare loop, file grows", (before[0] + after[0]) / 2, "writes/s")
            results.add("1 x 1, bare loop, in place", (before[1] + after[1]) / 2, "writes/s")
            case("appliance", rig.appliance(here / "plain"), ["10 x 100", "1 x 20"])
            case(
                "with a recorder",
                rig.appliance(here / "recorder", rig.RECORDER),
                ["10 x 100", "1 x 20"],
            )
            case("with the UI", rig.appliance(here / "ui", ui=True), ["10 x 100"])
            case(
                "with recorder, trigger, UI",
                rig.appliance(here / "all", rig.RECORDER + SIMULATED, ui=True),
                ["10 x 100"],
            )
            if options.long and only in "long journal":
                case("short journal", rig.appliance(short), ["10 x 100", "1 x 20"])
                case("long journal", rig.appliance(long), ["10 x 100", "1 x 20"])
    results.compare(
        "10 x 100: to mosquitto", "10 x 100, appliance", "10 x 100, mosquitto", ">= 1.2"
    )
    results.compare("10 x 100: to amqtt", "10 x 100, appliance", "10 x 100, amqtt", ">= 5")
    results.compare("1 x 20: to mosquitto", "1 x 20, appliance", "1 x 20, mosquitto", ">= 0.25")
    results.compare(
        "1 x 1: to the bare loop, file grows",
        "1 x 1, appliance",
        "1 x 1, bare loop, file grows",
    )
    results.compare(
        "1 x 1: to the bare loop, in place",
        "1 x 1, appliance",
        "1 x 1, bare loop, in place",
    )
    results.compare("with a recorder", "10 x 100, with a recorder", "10 x 100, appliance")
    results.compare("with the UI", "10 x 100, with the UI", "10 x 100, appliance", ">= 0.9")
    results.compare(
        "with recorder, trigger, UI",
        "10 x 100, with recorder, trigger, UI",
        "10 x 100, appliance",
        ">= 0.8",
    )
    results.compare(
        "long journal to short", "10 x 100, long journal", "10 x 100, short journal", ">= 0.95"
    )
    results.compare(
        "long journal to short, 1 x 20", "1 x 20, long journal", "1 x 20, short journal", ">= 0.95"
    )
    rig.finish(options, results)


if __name__ == "__main__":
    main()
