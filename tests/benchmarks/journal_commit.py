"""How fast the journal makes messages durable, beside a bare loop of write + fdatasync.

Everything runs in turn in one process and on one disk, so the ratios mean more than the numbers.
The engine is imitated by a thread that appends messages in a window, as acknowledgements come, and
does some Python work for each, as the broker would.

Usage: python tests/benchmarks/journal_commit.py [folder] [seconds per measurement]
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from appliance.storage import files
from appliance.config.tables import RecorderConfig
from appliance.journal.journal import Journal
from appliance.model import Message
from appliance.recorders.recorders import Recorders

PAYLOAD = b'{"Generated number": "0", "unit": "pieces", "station": "press 12"}'
ROUNDS = 3


def bare(folder: Path, seconds: float) -> float:
    """Appends of one small record, each with its own fdatasync, a second."""
    descriptor = os.open(folder / "bare", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    record = b"x" * 150
    end = time.perf_counter() + seconds
    count = 0
    while time.perf_counter() < end:
        os.write(descriptor, record)
        files.sync_file(descriptor)
        count += 1
    os.close(descriptor)
    return count / seconds


def work(payload: bytes) -> int:
    """About what a broker does for a message in Python: 4 to 5 microseconds."""
    total = 0
    for byte in payload[:48]:
        total = (total * 31 + byte) & 0xFFFF
    return total


class Engine:
    """Keeps ``window`` messages unacknowledged."""

    def __init__(self, journal: Journal, window: int) -> None:
        self._journal = journal
        self._window = window
        self._done = 0
        self._news = threading.Event()
        self.latencies: list[float] = []

    def committed(self, entries: object) -> None:
        self._done += len(entries)  # type: ignore[arg-type]  # a sequence of entries
        self._news.set()

    def run(self, seconds: float) -> float:
        journal, sent = self._journal, 0
        self._done = 0
        began = time.perf_counter()
        end = began + seconds
        while time.perf_counter() < end:
            while sent - self._done < self._window:
                work(PAYLOAD)
                seq = journal.next_seq()
                journal.append(
                    Message(seq, time.time_ns(), "plant/press/12", PAYLOAD, 1, client_id="p12"),
                    None,
                )
                sent += 1
            self._news.wait()
            self._news.clear()
        return self._done / (time.perf_counter() - began)


def measure(folder: Path, *, sync: str, window: int, seconds: float, recorders: int) -> tuple:
    """Messages a second, median commit in milliseconds, slowest lag of a recorder."""
    with tempfile.TemporaryDirectory(dir=folder) as name, ExitStack() as stack:
        path = Path(name)
        journal = Journal(path / "journal.db", sync=sync, keep_s=1e6, max_bytes=10**10)
        engine = Engine(journal, window)
        journal.start(lambda _messages, entries: engine.committed(entries))
        stack.callback(journal.close, 30)
        configs = [
            RecorderConfig(topic="plant/#", path=str(path / f"{n}.{kind}"), format=kind)
            for n, kind in enumerate(["json", "jsonl", "csv"][:recorders])
        ]
        running = Recorders(configs, path / "recorders.db")
        running.open(0)
        running.start(journal.follower)
        stack.callback(running.stop, 30)
        engine.run(seconds / 4)
        rate = engine.run(seconds)
        lag = max((state.lag for state in running.states()), default=0)
        return rate, journal.stats().commit_ms, lag


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 2.0
    print(f"{'':34}{'messages/s':>12}{'commit ms':>11}{'lag':>8}{'x bare':>8}{'x no rec.':>11}")
    bares: list[float] = []
    plain: dict[int, list[float]] = {}
    cases = [
        (f"{sync}, window {window}, {recorders} recorders", sync, window, recorders)
        for sync in ("always", "os")
        for window, recorders in ((1, 0), (20, 0), (1000, 0), (1000, 1), (1000, 3))
    ]
    results: dict[str, list[tuple]] = {}
    for _ in range(ROUNDS):
        bares.append(bare(folder, seconds / 2))
        for name, sync, window, recorders in cases:
            result = measure(folder, sync=sync, window=window, seconds=seconds, recorders=recorders)
            results.setdefault(name, []).append(result)
    (folder / "bare").unlink()
    base = median(bares)
    print(f"{'bare write + fdatasync':34}{base:12,.0f}")
    for name, sync, window, recorders in cases:
        rate, commit, lag = (median(column) for column in zip(*results[name], strict=True))
        if recorders == 0:
            plain[window] = [rate]
        ratio = f"{rate / plain[window][0]:11.2f}" if recorders else ""
        print(f"{name:34}{rate:12,.0f}{commit:11.2f}{lag:8.0f}{rate / base:8.2f}{ratio}")


if __name__ == "__main__":
    main()
