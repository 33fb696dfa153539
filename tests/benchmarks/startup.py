"""How long starts take, and what the appliance needs in memory.

Times are from exec. "Listening" is the log line that says so; "first paint" is the first text on a
terminal of 140 x 40, beside a Textual application with one line of text.

Usage: python tests/benchmarks/startup.py [--folder DIR] [--rounds 3]
With APPLIANCE_PROGRAM=.../appliance, the frozen program of packaging/build is measured as well.
"""

from __future__ import annotations

import compileall
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
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
NOTIFY = '[[notify]]\nurl = "json://127.0.0.1:9/hook"\n'
CASES = {
    "nothing configured": "",
    "recorder, trigger, Qlik": DEMO_LIKE,
    "recorder, trigger, Qlik, notify": DEMO_LIKE + NOTIFY,
}
MESSAGES = 100_000
REST_S = 3.0
PROGRAM = (sys.executable, "-m", "appliance")


def short(command: list[str]) -> tuple[float, float]:
    """Milliseconds until a short command has ended, and how many of them on a processor."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    taken = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return taken * 1000, used * 1000


def listening(
    folder: Path, extra: str, program: Sequence[str] = PROGRAM
) -> tuple[float, float, float]:
    """The same until the log says "listening on", and the memory at rest in MB."""
    port = rig.write_config(folder, extra)
    command = [*program, "run", "--headless"]
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
                used = rig.cpu_s(process.pid)
                break
        else:
            raise SystemExit("it never listened")
        load.connect("127.0.0.1", port, "proof").close()
        resting = 0.0
        if program is not PROGRAM:
            time.sleep(REST_S)
            resting = rig.rss_kb(process.pid) / 1000
        process.terminate()
        process.stderr.read()
    process.wait()
    return taken * 1000, used * 1000, resting


def first_paint(folder: Path, command: list[str], log: str) -> tuple[float, float]:
    """The same until there is text on the terminal."""
    process = Process(
        log, [sys.executable, str(HERE / "terminal.py"), *command], folder / log, cwd=folder
    )
    try:
        rig.until(lambda: process.said("painted"), f"{log} paints", rig.START_S)
        taken, used = process.log.read_text().split("painted ")[1].split()[:2]
        return float(taken) * 1000, float(used) * 1000
    finally:
        process.end()


def memory(results: Results, folder: Path, extra: str, *, ui: bool, what: str) -> None:
    with rig.appliance(folder, extra, ui=ui) as broker:
        time.sleep(REST_S)
        results.add(f"memory at rest, {what}", rig.rss_kb(broker.pid) / 1000, "MB")
        load.publish(broker.port, MESSAGES)
        time.sleep(REST_S)
        results.add(f"memory after 100,000 messages, {what}", rig.rss_kb(broker.pid) / 1000, "MB")


def starts(results: Results, here: Path) -> None:
    def add(what: str, measured: tuple[float, float]) -> None:
        results.add(what, measured[0], "ms")
        results.add(f"{what}: of that on a processor", measured[1], "ms")

    add("python -c pass", short([sys.executable, "-c", "pass"]))
    command = str(Path(sys.executable).with_name("appliance"))
    add("appliance --version", short([command, "--version"]))
    for what, extra in CASES.items():
        place = here / what
        place.mkdir()
        add(f"listening, {what}", listening(place, extra)[:2])
        if frozen := os.environ.get("APPLIANCE_PROGRAM"):
            place = here / f"{what} frozen"
            place.mkdir()
            taken, used, resting = listening(place, extra, [frozen])
            add(f"listening, {what}, frozen", (taken, used))
            results.add(f"memory at rest, {what}, headless, frozen", resting, "MB")
    empty = [sys.executable, str(HERE / "empty_app.py")]
    add("first paint, empty Textual app", first_paint(here, empty, "empty"))
    rig.write_config(here, DEMO_LIKE)
    ours = [sys.executable, "-m", "appliance", "run", "-c", str(here / "config.toml")]
    add("first paint, appliance", first_paint(here, ours, "ours"))


def main() -> None:
    options = rig.arguments(__doc__ or "")
    results = Results("Start and memory")
    compileall.compile_dir(HERE.parent.parent / "appliance", quiet=1)
    with rig.scratch(options.folder) as folder:
        for number in range(options.rounds):
            here = folder / str(number)
            here.mkdir()
            if options.only in "start":
                starts(results, here)
            if options.only in "memory":
                for what, extra in CASES.items():
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
    for what in ("listening, {}", "memory at rest, {}, headless"):
        with_it, without = (what.format(case) for case in (*CASES,)[:0:-1])
        results.compare(f"{what.format('with notify')}: to without", with_it, without, "<= 1.1")
    results.compare(
        "first paint: to an empty Textual app",
        "first paint, appliance",
        "first paint, empty Textual app",
        "<= 1.5",
    )
    results.compare(
        "first paint: to an empty Textual app, on a processor",
        "first paint, appliance: of that on a processor",
        "first paint, empty Textual app: of that on a processor",
    )
    rig.finish(options, results)


if __name__ == "__main__":
    main()
