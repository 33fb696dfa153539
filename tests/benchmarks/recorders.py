"""Recorders in a burst: from the first message until all of them are in the file.

Ten publishers send 1.5 million messages of 64 bytes as fast as they are acknowledged. Recording
gives way while they send and catches up afterwards, so the figure is of both together. A series of
files is complete when its last file has its name. mosquitto's acknowledgements a second, just
before and after, stand for the speed of the machine: a target is a share of them.

Also what the last messages of such a recording cost in comparison with the first ones, rows a second
into PostgreSQL and MariaDB (with their own settings: each transaction is forced to the disk), memory,
how much a Parquet and a JSON lines recorder slow the acknowledgements down, and, with ``--wiredflow`` and the
path of a Python that has wiredflow 0.1.0, 2,000 messages in its storage and in a recorder.

Usage: python tests/benchmarks/recorders.py [--count 1500000] [--rounds 3] [--only parquet]
           [--wiredflow /path/to/python]
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import load
import rig
from rig import Meter, Results

import database_servers

from appliance.config.tables import RecorderConfig
from appliance.model import Message
from appliance.recorders.csv import CsvFormat
from appliance.recorders.format import Format
from appliance.recorders.formats import make_format, make_part_writer
from appliance.recorders.json import JsonFormat
from appliance.recorders.jsonl import JsonLinesFormat
from appliance.recorders.progress import Progress
from appliance.recorders.recording import Recording
from appliance.recorders.table_maker import TableMaker

MOSQUITTO = 157_000
"""Acknowledgements a second where the targets were set."""
TARGETS = {"jsonl": 90_000, "json": 70_000, "csv": 60_000, "parquet": 60_000, "qvd": 30_000}
POSTGRESQL = 20_000
"""Rows a second there."""
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


def mosquitto(results: Results, here: Path, seconds: float) -> float:
    """Its acknowledgements a second, now."""
    with rig.mosquitto(here) as broker:
        rate = load.run(broker.port, connections=10, window=100, seconds=seconds / 2)
    results.add("mosquitto", rate, "acks/s")
    return rate


def text_size(kind: str, count: int) -> int:
    """The length of a file of ``count`` messages of the load."""
    made = TEXTS[kind](metadata=False)
    message = Message(1, time.time_ns(), "bench/topic", load.JSON)
    opening = made.opening(message)  # it decides the columns of csv
    separators = len(made.separator) * (count - 1) + len(made.closing)
    return len(opening) + count * len(made.element(message)) + separators


def is_recorded(kind: str, folder: Path, count: int, part: int = 0) -> Callable[[], bool]:
    """Whether all messages are in the file, or in files of their own of ``part`` messages."""
    if kind in TEXTS:
        file, size = folder / f"bench.{kind}", text_size(kind, count)
        return lambda: file.exists() and file.stat().st_size >= size
    parts = -(-count // (part or PART_MESSAGES[kind]))
    return lambda: len(list(folder.glob(f"bench-*.{kind}"))) >= parts


def burst(results: Results, kind: str, here: Path, count: int) -> None:
    extra = RECORDER.format(kind)
    if kind not in TEXTS:
        extra += PARTS.format(PART_MESSAGES[kind])
    here.mkdir(parents=True)
    is_done = is_recorded(kind, here / "data" / "recordings", count)
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


Write = Callable[[Sequence[Message]], None]


def writer_of(kind: str, folder: Path) -> Write:
    """What writes messages to files of a format, without the rest of the appliance."""
    config = RecorderConfig(
        topic="#", path=str(folder / f"cost.{kind}"), format=kind, metadata=True
    )
    if kind in TEXTS:
        recording = Recording(
            Path(config.path), make_format(config), Progress(format="", seq=0), time.time_ns
        )
        recording.begin()
        return lambda messages: recording.append(messages, messages[-1].seq)
    maker = TableMaker(config)
    writer = make_part_writer(kind, "bench")
    rows = 0

    def write(messages: Sequence[Message]) -> None:
        nonlocal rows
        table = maker.take(messages)
        if not rows:
            writer.begin(folder / f"{messages[0].seq}.{kind}", table.columns)
        writer.write(table)
        rows += table.rows
        if rows >= PART_MESSAGES[kind]:
            writer.close(1, messages[-1].seq)
            rows = 0

    return write


def cost(results: Results, kind: str, folder: Path, count: int) -> None:
    """Processor time of a message among the first and the last fifth of a recording."""
    folder.mkdir(parents=True)
    write = writer_of(kind, folder)
    step = 5_000
    now = time.time_ns()
    taken = []
    for start in range(0, count, step):
        messages = [
            Message(seq, now + seq * 5_000, "bench/topic", load.JSON, 1, client_id="burst-1")
            for seq in range(start + 1, start + step + 1)
        ]
        began = time.thread_time()
        write(messages)
        taken.append(time.thread_time() - began)
    fifth = len(taken) // 5
    for name, part in (("first", taken[:fifth]), ("last", taken[-fifth:])):
        results.add(f"{kind}: cost, {name} fifth", sum(part) / fifth / step * 1e6, "us a message")


class ForcedPostgres(database_servers.PostgresServer):
    """As it is when nothing is configured: each transaction is forced to the disk."""

    def command(self) -> list[object]:
        return ["fsync=on" if part == "fsync=off" else part for part in super().command()]


class ForcedMariaDB(database_servers.MariaDBServer):
    """The same."""

    def command(self) -> list[object]:
        lax = "--innodb-flush-log-at-trx-commit"
        return [part for part in super().command() if not str(part).startswith(lax)]


DATABASE = """
[[recorder]]
topic = "bench/#"
name = "bench"
metadata = true
database = {{url = "{0}"}}
"""


def database(results: Results, name: str, here: Path, count: int) -> None:
    """From the first message until the last one is in a table, with all its metadata."""
    make, installed = {
        "postgresql": (ForcedPostgres, database_servers.POSTGRES),
        "mariadb": (ForcedMariaDB, database_servers.MARIADBD),
    }[name]
    if installed is None:
        print(f"  {name} is not installed", flush=True)
        return
    here.mkdir(parents=True)
    server = make()
    try:
        server.start()
        server.sql("CREATE DATABASE bench")
        with rig.appliance(here, DATABASE.format(server.url("bench"))) as broker:
            begun, _ = load.burst(broker.port, count)
            while True:
                if time.monotonic() > begun + END_S:
                    raise SystemExit(f"{name} is not complete after {END_S:.0f} s")
                ((seq,),) = server.sql("SELECT max(seq) FROM bench", "bench")
                if seq is not None and seq >= count:
                    break
                time.sleep(0.1)
            ended = time.monotonic()
            ((rows,),) = server.sql("SELECT count(*) FROM bench", "bench")
        assert rows == count, f"{rows} rows of {count} messages"
        results.add(f"{name}: recorded", count / (ended - begun), "rows/s")
    finally:
        server.close()


def memory(results: Results, here: Path, count: int) -> None:
    """Resident memory after a burst and when all of it is recorded, by recorder."""
    for kind in ("no", "jsonl", "parquet", "qvd"):
        folder = here / kind
        folder.mkdir(parents=True)
        extra = "" if kind == "no" else RECORDER.format(kind)
        if kind in PART_MESSAGES:
            extra += PARTS.format(count)
        is_done: Callable[[], bool] = lambda: True
        if kind != "no":
            is_done = is_recorded(kind, folder / "data" / "recordings", count, count)
        with rig.appliance(folder, extra) as broker:
            _, acknowledged = load.burst(broker.port, count)
            while not is_done() and time.monotonic() < acknowledged + END_S:
                time.sleep(0.1)
            results.add(f"memory, {kind} recorder", rig.rss_kb(broker.pid) / 1024, "MB")
    results.add(
        "memory, Parquet recorder above none",
        results.values["memory, parquet recorder"][-1] - results.values["memory, no recorder"][-1],
        "MB",
    )


def acknowledgements(results: Results, here: Path, seconds: float) -> None:
    """Acknowledgements a second without a recorder, and with two."""
    parquet = RECORDER.format("parquet") + PARTS.format(PART_MESSAGES["parquet"])
    for name, extra in (("no", ""), ("two", parquet + RECORDER.format("jsonl"))):
        folder = here / name
        folder.mkdir(parents=True)
        with rig.appliance(folder, extra) as broker:
            rate = load.run(broker.port, connections=10, window=100, seconds=seconds)
        results.add(f"acknowledged with {name} recorders", rate, "acks/s")


def beside_wiredflow(results: Results, here: Path, python: str, count: int = 2_000) -> None:
    """Messages that come one by one, in wiredflow's storage and in a recorder."""
    script = Path(__file__).with_name("wiredflow_storage.py")
    for kind in ("json", "csv"):
        folder = here / f"wiredflow-{kind}"
        folder.mkdir(parents=True)
        command = [python, str(script), kind, str(count), str(folder)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        seconds, first, last = map(float, said.split())
        results.add(f"{kind}: wiredflow's storage, {count:,} messages", seconds, "s")
        results.add(f"{kind}: wiredflow's storage, first tenth", first, "us a message")
        results.add(f"{kind}: wiredflow's storage, last tenth", last, "us a message")
        target = here / f"appliance-{kind}"
        target.mkdir()
        is_done = is_recorded(kind, target / "data" / "recordings", count)
        with rig.appliance(target, RECORDER.format(kind)) as broker:
            begun, _ = load.burst(broker.port, count, connections=1, window=1)
            while not is_done():
                if time.monotonic() > begun + END_S:
                    raise SystemExit(f"{kind} is not complete after {END_S:.0f} s")
                time.sleep(0.001)
            results.add(
                f"{kind}: appliance, {count:,} messages, each on the disk before the next",
                time.monotonic() - begun,
                "s",
            )


def main() -> None:
    options = rig.arguments(__doc__ or "", count=1_500_000, rows=300_000, seconds=4.0, wiredflow="")
    results = Results("Recorders")
    print(f"bursts of {options.count:,} messages of 64 bytes", flush=True)
    with ExitStack() as stack:
        folder = stack.enter_context(rig.scratch(options.folder))
        for number in range(options.rounds):
            print(f"round {number + 1}", flush=True)
            here = folder / str(number)
            here.mkdir(mode=0o755)
            rate = mosquitto(results, here, options.seconds)
            for kind, target in TARGETS.items():
                if options.only in kind:
                    burst(results, kind, here / kind, options.count)
                    # Before and after, because a shared machine is fast in one minute and slow in
                    # the next.
                    before, rate = rate, mosquitto(results, here, options.seconds)
                    scale = (before + rate) / 2 / MOSQUITTO
                    results.add(f"{kind}: target", target * scale, "messages/s")
                    cost(results, kind, here / f"{kind}-cost", options.count)
                    rate = mosquitto(results, here, options.seconds)
            for name in ("postgresql", "mariadb"):
                if options.only in name:
                    database(results, name, here / name, options.rows)
                    before, rate = rate, mosquitto(results, here, options.seconds)
                    if name == "postgresql":
                        target = POSTGRESQL * (before + rate) / 2 / MOSQUITTO
                        results.add(f"{name}: target", target, "rows/s")
            if options.only in "memory":
                memory(results, here / "memory", options.count // 3)
            if options.only in "acknowledged with recorders":
                acknowledgements(results, here / "acknowledged", options.seconds)
            if options.wiredflow:
                beside_wiredflow(results, here, options.wiredflow)
    for kind in TARGETS:
        results.compare(f"{kind} to target", f"{kind}: recorded", f"{kind}: target", ">= 1")
        results.compare(
            f"{kind}: cost of the last messages to the first ones",
            f"{kind}: cost, last fifth",
            f"{kind}: cost, first fifth",
            "<= 1.1",
        )
    results.compare("postgresql to target", "postgresql: recorded", "postgresql: target", ">= 1")
    results.limit("memory, Parquet recorder above none", "<= 60")
    results.compare(
        "acknowledged with Parquet and JSON lines recorders to without",
        "acknowledged with two recorders",
        "acknowledged with no recorders",
        ">= 0.85",
    )
    rig.finish(options, results)


if __name__ == "__main__":
    main()
