"""What the benchmarks have in common: brokers as processes, what they cost, and the result table.

Every figure is taken several times, the peers in turn within each round, and shown as a median;
a ratio is the median of the rounds' own ratios, so a slow moment of the machine hits both sides.
Linux only (it reads /proc). Not for: loads (load.py) and what is measured (the scripts).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import operator
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from appliance_process import free_port, until  # noqa: E402  # tests/ is on the path since the line above

# Bytecode is kept, as it is wherever the appliance is installed.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
_TICKS = os.sysconf("SC_CLK_TCK")
START_S = 30.0

MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"

_COMPARISONS = {">=": operator.ge, "<=": operator.le, "<": operator.lt}

# --- processes -------------------------------------------------------------------------------


class Process:
    """A process that is measured: started here, ended here."""

    def __init__(self, name: str, command: Sequence[str], log: Path, *, cwd: Path) -> None:
        self.name = name
        self.log = log
        with log.open("wb") as sink:
            self.process = subprocess.Popen(
                command,
                stdout=sink,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=cwd,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        self.pid = self.process.pid

    def said(self, part: str) -> bool:
        """Whether the log has this text; raises if the process ended without it."""
        text = self.log.read_text("utf-8", "replace")
        if part in text:
            return True
        if self.process.poll() is not None:
            raise SystemExit(f"{self.name} ended ({self.process.returncode}):\n{text}")
        return False

    def cpu_s(self) -> float:
        """Processor time used so far, in seconds."""
        return cpu_s(self.pid)

    def rss_kb(self) -> int:
        """Resident memory, in KB."""
        return rss_kb(self.pid)

    def end(self, timeout_s: float = 20.0) -> None:
        """Ask for the end; insist when it does not come."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                print(f"{self.name} did not end in {timeout_s:.0f} s", file=sys.stderr)
                self.process.kill()
                self.process.wait()


def cpu_s(pid: int) -> float:
    """Processor time that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def rss_kb(pid: int) -> int:
    """Resident memory of a process, in KB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


class Broker:
    """A broker that listens: where, and the process to watch."""

    def __init__(self, name: str, port: int, pid: int) -> None:
        self.name = name
        self.port = port
        self.pid = pid


CONFIG = """
[service]
data_dir = "{data}"
[[listener]]
bind = "127.0.0.1:{port}"
max_connections = 5000
[limits]
max_connections = 5000
max_connections_per_address = 5000
max_unauthenticated = 1000
[journal]
sync = "{sync}"
"""

RECORDER = """
[[recorder]]
topic = "bench/#"
path = "recordings/bench.json"
format = "json"
"""


def write_config(folder: Path, extra: str = "", *, sync: str = "always", data: str = "data") -> int:
    """Write ``config.toml``; returns the port."""
    port = free_port()
    text = CONFIG.format(port=port, sync=sync, data=data) + extra
    (folder / "config.toml").write_text(text, "utf-8")
    return port


@contextlib.contextmanager
def appliance(
    folder: Path,
    extra: str = "",
    *,
    sync: str = "always",
    data: str = "data",
    ui: bool = False,
    name: str = "appliance",
    under: Sequence[str] = (),
) -> Iterator[Broker]:
    """``appliance run``, headless or with its UI in a terminal of 140 x 40 that is read but not shown.

    ``extra`` is appended to the configuration; the data is in ``folder``; ``under`` is a command
    that runs the appliance as its own process.
    """
    port = write_config(folder, extra, sync=sync, data=data)
    run = [*under, sys.executable, "-m", "appliance", "run", "-c", str(folder / "config.toml")]
    if not ui:
        process = Process(name, [*run, "--headless"], folder / "appliance.log", cwd=folder)
        try:
            until(lambda: process.said("listening on"), f"{name} listens", START_S)
            yield Broker(name, port, process.pid)
        finally:
            process.end()
        return
    terminal = Process(
        name,
        [sys.executable, str(HERE / "terminal.py"), *run],
        folder / "terminal.log",
        cwd=folder,
    )
    try:
        until(lambda: terminal.said("painted"), f"{name} paints", START_S)
        until(lambda: _accepts(port), f"{name} listens", START_S)
        pid = int(terminal.log.read_text().split()[1])
        yield Broker(name, port, pid)
    finally:
        terminal.end()


def _accepts(port: int) -> bool:
    """Whether somebody listens; raises otherwise."""
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        return True


@contextlib.contextmanager
def mosquitto(folder: Path) -> Iterator[Broker]:
    """Mosquitto, persistence off, nothing else changed but the bounds that a benchmark meets."""
    port = free_port()
    config = folder / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n"
        "max_queued_messages 100000\nmax_inflight_messages 1000\nlog_dest stderr\n"
    )
    process = Process("mosquitto", [MOSQUITTO, "-c", str(config)], folder / "m.log", cwd=folder)
    try:
        until(lambda: process.said("running"), "mosquitto listens", START_S)
        yield Broker("mosquitto", port, process.pid)
    finally:
        process.end()


@contextlib.contextmanager
def stock_amqtt(folder: Path) -> Iterator[Broker]:
    """amqtt as it comes, with the one plugin that lets clients in."""
    port = free_port()
    process = Process(
        "amqtt",
        [sys.executable, str(HERE / "stock_amqtt.py"), str(port)],
        folder / "amqtt.log",
        cwd=folder,
    )
    try:
        until(lambda: process.said("listening"), "amqtt listens", START_S)
        yield Broker("amqtt", port, process.pid)
    finally:
        # Its shutdown waits for things that do not come; nothing of it is measured.
        process.process.send_signal(signal.SIGKILL)
        process.process.wait()


class Meter:
    """The share of one core that a process used between two moments."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._began = (time.perf_counter(), cpu_s(pid))
        self.share = 0.0

    def begin(self) -> None:
        self._began = (time.perf_counter(), cpu_s(self._pid))

    def end(self) -> None:
        at, used = self._began
        self.share = (cpu_s(self._pid) - used) / (time.perf_counter() - at)


# --- results ---------------------------------------------------------------------------------


class Results:
    """Figures by name, one a round, and how they compare."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.values: dict[str, list[float]] = {}
        self.cpu: dict[str, list[float]] = {}
        self.units: dict[str, str] = {}
        self.ratios: list[tuple[str, str, str, str]] = []
        """(what it says, above the line, below the line, target)"""
        self.limits: list[tuple[str, str]] = []

    def add(self, name: str, value: float, unit: str = "", cpu: float | None = None) -> None:
        """Note a figure; ``cpu`` is the share of one core that the measured process used."""
        self.values.setdefault(name, []).append(value)
        self.units[name] = unit
        share = ""
        if cpu is not None:
            self.cpu.setdefault(name, []).append(cpu)
            share = f", {cpu:.0%} of a core"
        print(f"  {name}: {_figure(value)} {unit}{share}", file=sys.stderr, flush=True)

    def compare(self, text: str, over: str, under: str, target: str = "") -> None:
        """A ratio of two figures; ``target`` is like ``">= 1.2"`` or ``"< 50"``, or empty."""
        self.ratios.append((text, over, under, target))

    def limit(self, name: str, target: str) -> None:
        """A target for a figure itself."""
        self.limits.append((name, target))

    def ratio(self, over: str, under: str) -> float:
        pairs = zip(self.values[over], self.values[under], strict=False)
        return median([a / b for a, b in pairs if b] or [float("nan")])

    def table(self) -> str:
        """Markdown."""
        lines = [
            f"### {self.title}",
            "",
            "| Measured | Median | Lowest to highest | Processor | For a whole core |",
            "|---|--:|--:|--:|--:|",
        ]
        for name, values in self.values.items():
            spread = f"{_figure(min(values))} to {_figure(max(values))}" if len(values) > 1 else ""
            cpu = whole = ""
            if shares := self.cpu.get(name):
                cpu = f"{median(shares):.0%}"
                whole = _figure(median([a / b for a, b in zip(values, shares, strict=True) if b]))
            value = f"{_figure(median(values))} {self.units[name]}".rstrip()
            lines.append(f"| {name} | {value} | {spread} | {cpu} | {whole} |")
        if self.ratios or self.limits:
            lines += ["", "| Compared | Measured | Target | |", "|---|--:|--:|---|"]
        for text, over, under, target in self.ratios:
            if over not in self.values or under not in self.values:
                continue
            ratio = self.ratio(over, under)
            lines.append(f"| {text} | {ratio:.2f} | {target} | {_verdict(ratio, target)} |")
        for name, target in self.limits:
            if name in self.values:
                value = median(self.values[name])
                lines.append(
                    f"| {name} | {_figure(value)} {self.units[name]} | {target}"
                    f" | {_verdict(value, target)} |"
                )
        return "\n".join(lines) + "\n"


def _verdict(value: float, target: str) -> str:
    if not target:
        return ""
    sign, number = target.split()
    met = _COMPARISONS[sign](value, float(number))
    return "met" if met else "not met"


def _figure(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 1 or not value else f"{value:.3f}"


# --- scripts ---------------------------------------------------------------------------------


def arguments(purpose: str, **defaults: float) -> argparse.Namespace:
    """``--folder``, ``--rounds`` and ``--out``, and a ``--name`` for each default given."""
    parser = argparse.ArgumentParser(description=purpose)
    parser.add_argument("--folder", type=Path, default=HERE.parent.parent / "build" / "benchmarks")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="append the table to this file")
    parser.add_argument("--only", default="", help="measure only what has this word in its name")
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    return options


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """An empty folder on the disk that is measured; removed afterwards."""
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as name:
        path = Path(name)
        path.chmod(0o755)  # mosquitto gives up root before it opens files
        yield path


def finish(options: argparse.Namespace, *results: Results) -> None:
    """Print the tables, and keep them if that was asked."""
    for one in results:
        print(one.table(), flush=True)
        if options.out:
            with options.out.open("a", encoding="utf-8") as file:
                file.write(one.table() + "\n")
            record = {"title": one.title, "values": one.values, "cpu": one.cpu, "units": one.units}
            with options.out.with_suffix(".jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share of all values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


Make = Callable[[Path], contextlib.AbstractContextManager[Broker]]
