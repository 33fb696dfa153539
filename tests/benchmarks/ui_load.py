"""What the terminal UI costs under load: CPU, key to screen, memory, first paint, hung terminal.

``python tests/benchmarks/ui_load.py [--rate 10000] [--seconds 20]``

The UI runs as a process of its own on a pseudo terminal of 140x40 that is read as fast as it
writes, against the hand-made engine of the UI's tests. That engine makes its messages in the UI's
own thread, so the same process is measured again with ``--rate 0`` and with the making alone; all
three are printed. Not for: the broker's own cost (see the other benchmarks).
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import select
import statistics
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

TESTS = Path(__file__).parent.parent / "ui"
ENGINE = TESTS / "fake_engine.py"
COLUMNS, ROWS = 140, 40


class Terminal:
    """A process on a pseudo terminal, its output read in a thread."""

    def __init__(self, command: list[str]) -> None:
        self.ours, theirs = os.openpty()
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        environment = dict(os.environ, TERM="xterm-256color", COLORTERM="truecolor")
        self.begun = time.perf_counter()
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment
        )
        os.close(theirs)
        self.arrived = threading.Condition()
        self.tail = b""
        self.written = 0
        self.stopped = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while not self.stopped.is_set():
            if not select.select([self.ours], [], [], 0.2)[0]:
                continue
            try:
                data = os.read(self.ours, 1 << 16)
            except OSError:
                return
            with self.arrived:
                self.tail = (self.tail + data)[-200_000:]
                self.written += len(data)
                self.arrived.notify_all()

    def wait(self, wanted: bytes, timeout_s: float = 30) -> float:
        """Seconds until ``wanted`` is in what was written since ``forget``."""
        begun = time.perf_counter()
        with self.arrived:
            if not self.arrived.wait_for(lambda: wanted in self.tail, timeout_s):
                raise SystemExit(f"{wanted!r} never came")
        return time.perf_counter() - begun

    def forget(self) -> None:
        with self.arrived:
            self.tail = b""

    def press(self, key: bytes) -> None:
        os.write(self.ours, key)

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def close(self) -> None:
        self.stopped.set()
        self.process.terminate()
        self.process.wait(30)
        with contextlib.suppress(OSError):
            os.close(self.ours)


def cpu_share(terminal: Terminal, seconds: float) -> float:
    before, begun = terminal.cpu_s(), time.perf_counter()
    time.sleep(seconds)
    return (terminal.cpu_s() - before) / (time.perf_counter() - begun) * 100


def making_share(rate: float, seconds: float) -> float:
    """CPU that the hand-made engine itself takes for its messages."""
    code = (
        f"import sys, time; sys.path.insert(0, {str(TESTS)!r})\n"
        "from fake_engine import FakeEngine\n"
        f"engine = FakeEngine(time.time_ns, rate={rate}); last = 0\n"
        f"end = time.perf_counter() + {seconds}\n"
        "begun = time.process_time()\n"
        "while time.perf_counter() < end:\n"
        "    engine.snapshot(); new = engine.live(last, 2000)\n"
        "    last = new[-1].seq if new else last; time.sleep(0.1)\n"
        "print(time.process_time() - begun)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(out.stdout) / seconds * 100


def first_paint() -> tuple[float, float]:
    """Seconds to the first screen: an empty Textual app, and the UI; the best of three."""
    empty = "from textual.app import App\nfrom textual.widgets import Label\n"
    empty += "class A(App):\n    def compose(self): yield Label('first paint')\nA().run()"
    times: dict[str, list[float]] = {"empty": [], "ui": []}
    for _ in range(3):
        for name, command, wanted in (
            ("empty", [sys.executable, "-c", empty], b"first paint"),
            ("ui", [sys.executable, str(ENGINE), "--run-for", "30"], b"all well"),
        ):
            terminal = Terminal(command)
            terminal.wait(wanted)
            times[name].append(time.perf_counter() - terminal.begun)
            terminal.close()
    return min(times["empty"]), min(times["ui"])


def key_times(terminal: Terminal, count: int) -> list[float]:
    """Seconds from a key to the answer on the screen (the filter line opens and closes)."""
    found = []
    for _ in range(count):
        terminal.forget()
        terminal.press(b"/")
        found.append(terminal.wait(b"filter"))
        terminal.press(b"\x1b")
        time.sleep(0.35)  # a lone Esc is told from a sequence by waiting
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rate", type=float, default=10_000)
    parser.add_argument("--seconds", type=float, default=15)
    wanted = parser.parse_args()
    empty, ui = first_paint()
    print(f"first paint: empty Textual app {empty:.2f} s, the UI {ui:.2f} s ({ui / empty:.2f} x)")
    for rate in (0.0, wanted.rate):
        command = [sys.executable, str(ENGINE), "--rate", str(rate), "--run-for", "600"]
        terminal = Terminal(command)
        terminal.wait(b"all well")
        time.sleep(2)
        before = terminal.memory_mb()
        share = cpu_share(terminal, wanted.seconds)
        bytes_before = terminal.written
        keys = sorted(key_times(terminal, 30))
        print(
            f"{rate:,.0f} msg/s at {COLUMNS}x{ROWS}: {share:.1f} % of a core, "
            f"key to screen p50 {statistics.median(keys) * 1000:.0f} ms, "
            f"p95 {keys[int(len(keys) * 0.95)] * 1000:.0f} ms, "
            f"memory {before:.0f} -> {terminal.memory_mb():.0f} MB, "
            f"{(terminal.written - bytes_before) / 1000:.0f} KB written meanwhile"
        )
        terminal.close()
    print(f"of that, making {wanted.rate:,.0f} msg/s takes {making_share(wanted.rate, 5):.1f} %")


if __name__ == "__main__":
    main()
