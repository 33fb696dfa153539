"""What the terminal UI costs the whole appliance, and how fast it answers, under a real load.

The appliance runs with its UI on a terminal of 140 x 40 while QoS 1 messages come at a steady
rate; the same load without the UI is measured beside it. "Key to handler" is from the byte on the
terminal until the key's action begins, "key to screen" until its answer is on the terminal. "Hung"
is a terminal that reads nothing for ten seconds. How much the UI takes from the highest rate is in
ingest.py.

Usage: python tests/benchmarks/terminal_ui.py [--folder DIR] [--rounds 3] [--seconds 15]
       [--rate 10000] [--messages 1000000]
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import select
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import load
import rig
from rig import HERE, Meter, Results

COLUMNS, ROWS = 140, 40
HUNG_S = 10.0
KEYS = 60
WARM_UP = 200_000
RECORDED = rig.RECORDER.replace("bench/#", "other/#")


class Terminal:
    """A process on a pseudo terminal, its output read in a thread."""

    def __init__(self, command: list[str], pass_fds: tuple[int, ...] = ()) -> None:
        self.ours, theirs = os.openpty()
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        environment = dict(os.environ, TERM="xterm-256color", COLORTERM="truecolor")
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, pass_fds=pass_fds
        )
        os.close(theirs)
        self.arrived = threading.Condition()
        self.tail = b""
        self.stopped = threading.Event()
        self.reads = threading.Event()
        self.reads.set()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while not self.stopped.is_set():
            self.reads.wait()
            if not select.select([self.ours], [], [], 0.2)[0]:
                continue
            try:
                data = os.read(self.ours, 1 << 16)
            except OSError:
                return
            with self.arrived:
                self.tail = (self.tail + data)[-200_000:]
                self.arrived.notify_all()

    def wait(self, wanted: bytes, timeout_s: float = 30) -> None:
        """Wait until ``wanted`` is in what was written since ``forget``."""
        with self.arrived:
            if not self.arrived.wait_for(lambda: wanted in self.tail, timeout_s):
                raise SystemExit(f"{wanted!r} never came")

    def forget(self) -> None:
        with self.arrived:
            self.tail = b""

    def press(self, key: bytes) -> None:
        os.write(self.ours, key)

    def hang(self) -> None:
        """Read nothing any more."""
        self.reads.clear()

    def read_on(self) -> None:
        self.reads.set()

    def close(self) -> None:
        self.stopped.set()
        self.reads.set()
        self.process.terminate()
        self.process.wait(30)
        with contextlib.suppress(OSError):
            os.close(self.ours)


class Probe:
    """What the appliance under test says on its pipe."""

    def __init__(self) -> None:
        self._ours, self.theirs = os.pipe()
        self._lock = threading.Lock()
        self._lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with os.fdopen(self._ours) as lines:
            for line in lines:
                with self._lock:
                    self._lines.append(line)

    def take(self, what: str) -> list[float]:
        """The values that came of one kind since they were last taken."""
        with self._lock:
            found = [line for line in self._lines if line.startswith(what)]
            self._lines = [line for line in self._lines if not line.startswith(what)]
        return [float(line.split()[1]) for line in found]


@contextlib.contextmanager
def running(folder: Path, *, ui: bool) -> Iterator[tuple[int, int, Probe, Terminal | None]]:
    """(port, process, probe, terminal) of an appliance that listens."""
    folder.mkdir()
    port = rig.write_config(folder, RECORDED)
    probe = Probe()
    command = [sys.executable, str(HERE / "ui_probe.py"), str(probe.theirs), "run"]
    command += ["-c", str(folder / "config.toml")]
    terminal = process = None
    if ui:
        terminal = Terminal(command, pass_fds=(probe.theirs,))
        pid = terminal.process.pid
    else:
        process = subprocess.Popen(
            [*command, "--headless"],
            pass_fds=(probe.theirs,),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        pid = process.pid
    os.close(probe.theirs)
    try:
        rig.until(lambda: rig._accepts(port), "it listens", rig.START_S)  # noqa: SLF001 - our own rig
        if terminal is not None:
            terminal.wait(b"all well")
        yield port, pid, probe, terminal
    finally:
        if terminal is not None:
            terminal.close()
        if process is not None:
            process.terminate()
            process.wait(30)


class Steady:
    """A steady load in a process of its own."""

    def __init__(self, port: int, rate: float, seconds: float) -> None:
        command = [sys.executable, str(HERE / "load.py"), str(port), "steady"]
        self._process = subprocess.Popen([*command, str(rate), str(seconds)])

    def __enter__(self) -> None:
        time.sleep(2)  # until it has its pace

    def __exit__(self, *_error: object) -> None:
        self._process.terminate()
        self._process.wait()


def keys(terminal: Terminal, probe: Probe) -> tuple[list[float], list[float]]:
    """Milliseconds from a key to its action and to its answer on the screen."""
    to_handler, to_screen = [], []
    probe.take("key")
    for _ in range(KEYS // 2):
        for answer in (b"PAUSED", b"FOLLOW"):
            terminal.forget()
            pressed = time.monotonic_ns()
            terminal.press(b" ")
            terminal.wait(answer)
            to_screen.append((time.monotonic_ns() - pressed) / 1e6)
            to_handler.append((probe.take("key")[0] - pressed) / 1e6)
            time.sleep(0.11)  # another moment of the frame each time
    return to_handler, to_screen


def measure(results: Results, here: Path, options: argparse.Namespace, *, ui: bool) -> None:
    rate, seconds = options.rate, options.seconds
    what = "with UI" if ui else "headless"
    with running(here / what, ui=ui) as (port, pid, probe, terminal):
        with Steady(port, rate, seconds + 3 * KEYS / 2 + HUNG_S + 20):
            probe.take("lag")
            meter = Meter(pid)
            time.sleep(seconds)
            meter.end()
            results.add(f"processor, {what}", meter.share * 100, "%")
            results.add(f"loop lag p99, {what}", percentile_ms(probe.take("lag")), "ms")
            if terminal is None:
                return
            to_handler, to_screen = keys(terminal, probe)
            for name, found in (("key to handler", to_handler), ("key to screen", to_screen)):
                results.add(f"{name}, p50", rig.percentile(found, 0.5), "ms")
                results.add(f"{name}, p95", rig.percentile(found, 0.95), "ms")
            terminal.hang()
            time.sleep(1)
            probe.take("lag")
            time.sleep(HUNG_S)
            results.add("loop lag p99, terminal hung", percentile_ms(probe.take("lag")), "ms")
            terminal.read_on()
            time.sleep(1)
        if options.messages:
            load.publish(port, WARM_UP)
            time.sleep(2)
            before = rig.rss_kb(pid) / 1000
            load.publish(port, options.messages)
            time.sleep(2)
            results.add("memory after the first messages", before, "MB")
            results.add("memory after a million more", rig.rss_kb(pid) / 1000, "MB")


def percentile_ms(seconds: list[float]) -> float:
    """What 99 of 100 lie at or below; of a hundred, all but one."""
    return sorted(seconds)[int(0.99 * (len(seconds) - 1))] * 1000


def main() -> None:
    options = rig.arguments(__doc__ or "", seconds=15.0, rate=10_000.0, messages=1_000_000)
    results = Results("Terminal UI, on the whole appliance")
    with rig.scratch(options.folder) as folder:
        for number in range(options.rounds):
            here = folder / str(number)
            here.mkdir()
            measure(results, here, options, ui=False)
            measure(results, here, options, ui=True)
    for busy, idle in zip(
        results.values["processor, with UI"], results.values["processor, headless"], strict=True
    ):
        results.add("the UI's share of a core", busy - idle, "%")
    results.limit("the UI's share of a core", "<= 20")
    results.limit("key to handler, p95", "<= 50")
    for what in ("headless", "with UI", "terminal hung"):
        results.limit(f"loop lag p99, {what}", "< 50")
    results.compare(
        "memory: after a million more messages",
        "memory after a million more",
        "memory after the first messages",
        "<= 1.05",
    )
    rig.finish(options, results)


if __name__ == "__main__":
    main()
