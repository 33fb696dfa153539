"""A day of messages in minutes: what grows in files, memory and cost, and what does not.

A real journal and seven recorders get the messages of a day, hour by hour, with the times that they
would have had; the clock of the recorders goes along. Each hour has a line: processor time of a
message, memory of the process, files and bytes on the disk. With bounds (``rotate``, ``keep``) the
last hour must look like the first ones; without, only the size of files grows.

Usage: python tests/benchmarks/day_of_growth.py [--a_second 10]
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import rig

from appliance.config.tables import DatabaseConfig, KeepConfig, RecorderConfig, RotateConfig
from appliance.journal.journal import Journal
from appliance.model import Message
from appliance.recorders.recorders import Recorders

HOURS = 24
SENSORS = 50
BEGIN_NS = 1_795_824_000 * 10**9
"""Midnight, so that the day has one date."""
_AT_A_TIME = 1000


def configs(data: Path) -> list[RecorderConfig]:
    """Recorders of every kind, with the bounds that an operator would give them."""
    rec = data / "rec"
    hourly = RotateConfig(every=3600)
    return [
        RecorderConfig(topic="plant/#", path=str(rec / "all.jsonl"), format="jsonl"),
        RecorderConfig(topic="plant/#", path=str(rec / "all.json"), format="json"),
        RecorderConfig(
            topic="plant/#",
            path=str(rec / "{date}" / "{hour}.csv"),
            format="csv",
            metadata=True,
            compression="gzip",
            rotate=hourly,
            keep=KeepConfig(files=6),
        ),
        RecorderConfig(
            topic="plant/{sensor}",
            path=str(rec / "a.parquet"),
            format="parquet",
            metadata=True,
            rotate=hourly,
        ),
        RecorderConfig(
            topic="plant/{sensor}",
            path=str(rec / "b.qvd"),
            format="qvd",
            metadata=True,
            rotate=hourly,
            keep=KeepConfig(age=6 * 3600),
        ),
        RecorderConfig(topic="plant/#", path=str(rec / "last.json"), mode="latest", metadata=True),
        RecorderConfig(
            topic="plant/#",
            name="table",
            metadata=True,
            database=DatabaseConfig(url=f"sqlite:///{rec / 'table.sqlite'}"),
        ),
    ]


class Day:
    """The journal, the recorders, and a clock that follows the messages."""

    def __init__(self, data: Path) -> None:
        data.mkdir()
        self.now_ns = BEGIN_NS
        self.data = data
        self.journal = Journal(
            data / "journal.db", sync="os", keep_s=1e7, max_bytes=10**10, housekeeping_s=60
        )
        self.journal.start(lambda *_: None)
        self.recorders = Recorders(
            configs(data),
            data / "recorders.db",
            clock_ns=lambda: self.now_ns,
            installation=lambda: "abcdefghij2345678923",
        )
        self.recorders.open(self.journal.last_seq, self.journal)
        self.recorders.start(self.journal.follower)

    def hour(self, number: int, a_second: int) -> None:
        """One hour's messages, until all recorders have them."""
        step_ns = 10**9 // a_second
        count = 3600 * a_second
        for start in range(0, count, _AT_A_TIME):
            messages = []
            for each in range(start, min(start + _AT_A_TIME, count)):
                self.now_ns = BEGIN_NS + number * 3600 * 10**9 + each * step_ns
                value = {"temperature": 20 + each % 97 / 8, "unit": "C", "n": each}
                payload = json.dumps(value).encode()
                topic = f"plant/sensor{each % SENSORS}"
                seq = self.journal.next_seq()
                messages.append(Message(seq, self.now_ns, topic, payload, 1, client_id="plc"))
            self.journal.extend(messages, sum(len(m.payload) for m in messages) + 100_000, None)
            while self.journal.next_seq() - self.journal.last_seq > 20_000:
                time.sleep(0.005)
        self.journal.flush(60)
        while any(state.lag for state in self.recorders.states()):
            time.sleep(0.05)


def main() -> None:
    options = rig.arguments("A day of messages in minutes.", a_second=10)
    results = rig.Results("A day of growth")
    with rig.scratch(options.folder) as folder:
        day = Day(folder / "data")
        print("hour  us a message  memory MB  files  closed  MB on disk")
        for number in range(HOURS):
            began = time.process_time()
            day.hour(number, options.a_second)
            cost = (time.process_time() - began) / (3600 * options.a_second) * 1e6
            memory = rig.rss_kb(os.getpid()) / 1024
            files = [path for path in (day.data / "rec").rglob("*") if path.is_file()]
            closed = sum(state.files for state in day.recorders.states())
            size = sum(path.stat().st_size for path in files) / 1e6
            print(
                f"{number + 1:4}  {cost:12.1f}  {memory:9.1f}  {len(files):5}  {closed:6}"
                f"  {size:10.1f}",
                flush=True,
            )
            if 1 < number < HOURS / 4 or number >= HOURS * 3 / 4:
                part = "first" if number < HOURS / 2 else "last"
                results.add(f"cost of a message, {part} quarter", cost, "us")
                results.add(f"memory, {part} quarter", memory, "MB")
        assert day.recorders.stop(60)
        day.journal.close(30)
    for what in ("cost of a message", "memory"):
        text = f"{what}, last to first quarter of the day"
        results.compare(text, f"{what}, last quarter", f"{what}, first quarter", "<= 1.2")
    rig.finish(options, results)


if __name__ == "__main__":
    main()
