"""How fast rules are rehearsed: messages that concern none of them, some, and all.

It makes the journal of history.py (payloads of about 100 bytes, 200 topics), or uses the one that an
earlier run left in the folder. ``appliance export`` and ``appliance stats`` over the same journal in
the same run are the peers: the ratios mean more than the numbers. Every line is a process of its
own, with its start (0.4 s here). The work is the time of the processor, which other programs on the
machine change less than the time by the clock.

Usage: python tests/benchmarks/rehearse.py [--folder FOLDER] [--messages N] [--chunk N] [--only NAME]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import history

from appliance.engine import databases
from appliance.journal import FILE_NAME
from appliance.journal.index import FILE_NAME as INDEX
from appliance.journal.indexer import Indexer
from appliance.journal.journal import Journal

RULE = '[[trigger]]\nname = "{0}"\ntopic = "{1}"\ntask = {{name = "Reload {0}"}}\n{2}\n'
RULES = {
    "one rule, no message": [("sales", "erp/sales/done", "")],
    "wildcards, no message": [("sales", "plant/+/+/done", ""), ("all", "+/line3/done/#", "")],
    "500 rules, no message": [(f"rule {n}", f"plant/line{n}/done", "") for n in range(500)],
    "2 messages": [("door", "plant/rare/door", "")],
    "one of 200 topics": [("sensor", "plant/line7/sensor77/state", 'cooldown = "1m"')],
    "one of 200, when fails": [("sensor", "plant/line7/sensor77/state", 'when = {state = "done"}')],
    "all, when fails": [("all", "plant/#", 'when = {state = "done"}')],
    "all, debounced": [("all", "plant/#", 'debounce = "30s"')],
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--messages", type=int, default=3_000_000)
    parser.add_argument("--chunk", type=int, default=1000, help="messages of a commit")
    parser.add_argument("--only", default="", help="a part of a line's name")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(exist_ok=True)
        print(f"{options.messages:,} messages, {options.chunk} a commit", flush=True)
        if not (folder / FILE_NAME).exists():
            history.make(folder, options.messages, options.chunk)
        (folder / INDEX).unlink(missing_ok=True)
        run(folder, options.messages, options.only)


def run(folder: Path, count: int, only: str) -> None:
    _, export_s, export_worked_s = called(folder, "", "export", "-o", str(folder / "export.out"))
    (folder / "export.out").unlink()
    _, stats_s, stats_worked_s = called(folder, "", "stats", "--json")
    show("export", count, export_s, export_worked_s)
    show("stats", count, stats_s, stats_worked_s)
    for indexed in False, True:
        if indexed:
            index(folder, count)
        for name, rules in RULES.items():
            if only not in name:
                continue
            text = "".join(RULE.format(*one) for one in rules)
            out, took_s, worked_s = called(
                folder, text, "rehearse", "--since", "2000-01-01", "--json"
            )
            starts = json.loads(out)["would"]["total"]["starts"]
            ratio = export_worked_s / worked_s
            title = f"{name}{', index' if indexed else ''}"
            show(title, count, took_s, worked_s, f", export / {ratio:.1f}, {starts:,} starts")


def show(title: str, count: int, took_s: float, worked_s: float, more: str = "") -> None:
    print(
        f"{title:30} {took_s:7.2f} s, {worked_s:6.2f} s of work,"
        f" {count / worked_s:10,.0f} messages/s of work{more}",
        flush=True,
    )


def called(folder: Path, rules: str, *arguments: str) -> tuple[bytes, float, float]:
    """Standard output, seconds by the clock, and of the processor (not on Windows)."""
    config = folder / "config.toml"
    config.write_text(
        f'[service]\ndata_dir = "{folder.as_posix()}"\n[qlik]\nedition = "simulated"\n{rules}',
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "appliance", *arguments, "-c", str(config)]
    began, before = time.perf_counter(), os.times()
    done = subprocess.run(command, check=True, capture_output=True)  # noqa: S603
    took_s, after = time.perf_counter() - began, os.times()
    worked_s = after.children_user - before.children_user
    worked_s += after.children_system - before.children_system
    return done.stdout, took_s, worked_s or took_s


def index(folder: Path, count: int) -> None:
    journal = Journal(folder / FILE_NAME, sync="os", keep_s=1e12, max_bytes=10**12)
    for tables in databases.JOURNAL_TABLES:
        journal.define(tables)
    journal.start(lambda *_: None)
    indexer = Indexer(journal, folder / INDEX)
    indexer.start()
    assert indexer.wait_for(count, 600)
    indexer.stop(60)
    journal.close(10)


if __name__ == "__main__":
    main()
