"""How long starts take, and what the appliance needs in memory.

Times are from exec. "Listening" is the log line that says so; "first paint" is the first text on a
terminal of 140 x 40, beside a Textual application with one line of text.

Usage: python tests/benchmarks/startup.py [--folder DIR] [--rounds 3]
"""

from __future__ import annotations

import compileall
import subprocess
import sys
import time
from pathlib import Path

import load
import rig
from rig import HERE, Process, Results

DEMO_LIKE = (
    rig.RECORDER
    + """
[qlik]
edition = "simulated"
[[trigger]]
topic = "qliksense/start_task"
task = "payload"
"""
)
MESSAGES = 100_000
REST_S = 3.0


def version() -> float:
    began = time.perf_counter()
    subprocess.run(
        [str(Path(sys.executable).with_name("appliance")), "--version"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - began


def python() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return time.perf_counter() - began


def listening(folder: Path, extra: str) -> float:
    """Seconds until the log says "listening on"."""
    port = rig.write_config(folder, extra)
    command = [sys.executable, "-m", "appliance", "run", "--headless"]
    began = time.perf_counter()
    process = subprocess.Popen(
        [*command, "-c", str(folder / "config.toml")],
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    with process.stderr:
        for line in process.stderr:
            if "listening on" in line:
                taken = time.perf_counter() - began
                break
        else:
            raise SystemExit("it never listened")
        load.connect("127.0.0.1", port, "proof").close()
        process.terminate()
        process.stderr.read()
    process.wait()
    return taken


def first_paint(folder: Path, command: list[str], log: str) -> float:
    """Seconds until there is text on the terminal."""
    process = Process(
        log, [sys.executable, str(HERE / "terminal.py"), *command], folder / log, cwd=folder
    )
    try:
        rig.until(lambda: process.said("painted"), f"{log} paints", rig.START_S)
        return float(process.log.read_text().split("painted ")[1].split()[0])
    finally:
        process.end()


def memory(results: Results, folder: Path, extra: str, *, ui: bool, what: str) -> None:
    with rig.appliance(folder, extra, ui=ui) as broker:
        time.sleep(REST_S)
        results.add(f"memory at rest, {what}", rig.rss_kb(broker.pid) / 1000, "MB")
        load.publish(broker.port, MESSAGES)
        time.sleep(REST_S)
        results.add(f"memory after 100,000 messages, {what}", rig.rss_kb(broker.pid) / 1000, "MB")


def main() -> None:
    options = rig.arguments(__doc__ or "")
    results = Results("Start and memory")
    compileall.compile_dir(HERE.parent.parent / "appliance", quiet=1)
    with rig.scratch(options.folder) as folder:
        cases = {"nothing configured": "", "recorder, trigger, Qlik": DEMO_LIKE}
        for number in range(options.rounds):
            here = folder / str(number)
            results.add("python -c pass", python() * 1000, "ms")
            results.add("appliance --version", version() * 1000, "ms")
            for what, extra in cases.items():
                place = here / what
                place.mkdir(parents=True)
                results.add(f"listening, {what}", listening(place, extra) * 1000, "ms")
                results.add(f"listening again, {what}", listening(place, extra) * 1000, "ms")
            command = [sys.executable, str(HERE / "empty_app.py")]
            results.add(
                "first paint, empty Textual app", first_paint(here, command, "empty") * 1000, "ms"
            )
            rig.write_config(here, DEMO_LIKE)
            command = [sys.executable, "-m", "appliance", "run", "-c", str(here / "config.toml")]
            results.add("first paint, appliance", first_paint(here, command, "ours") * 1000, "ms")
            for what, extra in cases.items():
                for ui in (False, True):
                    place = here / f"{what} {ui}"
                    place.mkdir()
                    name = f"{what}, {'with UI' if ui else 'headless'}"
                    memory(results, place, extra, ui=ui, what=name)
    for name, limit in (
        ("appliance --version", 150),
        ("listening, recorder, trigger, Qlik", 600),
        ("memory at rest, recorder, trigger, Qlik, headless", 45),
        ("memory at rest, recorder, trigger, Qlik, with UI", 70),
    ):
        results.limit(name, f"<= {limit}")
    results.compare(
        "first paint: to an empty Textual app",
        "first paint, appliance",
        "first paint, empty Textual app",
        "<= 1.5",
    )
    rig.finish(options, results)


if __name__ == "__main__":
    main()
