"""``appliance freshness``: how fresh the data of each task is, and what is late, and why.

A request goes the way of an attached terminal's: signed in, for viewers too. Not for: what is fresh
(tasks/freshness.py), the screen (ui/screens/freshness.py).
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from appliance.commands.output import print_json
from appliance.commands.target import client_name, config_of, target_of
from appliance.config.values import format_duration, parse_duration
from appliance.engine_api import TaskFreshness
from appliance.errors import EXIT_OK, ApplianceError, UsageError
from appliance.log.sanitize import escape
from appliance.problems import duration_text
from appliance.remote import protocol
from appliance.remote.command_link import CommandLink
from appliance.tasks.freshness_report import described

_CONNECT_S = 10.0
_HEADINGS = ("TASK", "DATA", "P50", "P95", "WORST", "MESSAGES", "RUNS", "SAVED")
_WIDEST = 40
"""Characters of a column; a longer text moves the rest of its row."""
_FRESHNESS: Callable[[bytes], list[TaskFreshness]] = msgspec.msgpack.Decoder(
    list[TaskFreshness]
).decode


def execute(options: argparse.Namespace) -> int:
    """Print the table; returns the exit code. Raises ``ApplianceError``."""
    every_s = _interval(options.every)
    target = target_of(
        options,
        config=config_of(options),
        client=client_name("terminal-freshness"),
        timeout_s=_CONNECT_S,
    )
    link = CommandLink(target)
    try:
        link.open()
        tasks = link.request(protocol.GetFreshness(), _FRESHNESS)
    finally:
        with contextlib.suppress(ApplianceError):
            link.close()
    wanted = options.task.casefold()
    found = [
        one
        for one in tasks
        if any(wanted in text.casefold() for text in (one.name, one.app, one.task_id))
        and (one.is_late or not options.late)
    ]
    if options.json:
        print_json([_json(one, every_s) for one in found])
        return EXIT_OK
    if not found:
        sys.stderr.write(_nothing(options, tasks))
        return EXIT_OK
    for line in table(found, every_s, time.time_ns()):
        sys.stdout.write(f"{escape(line)}\n")
    return EXIT_OK


def _interval(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        seconds = float(parse_duration(text))
    except ValueError as error:
        raise UsageError(f"--every {text}: {error}") from None
    if seconds < 1:
        raise UsageError(f"--every {text}: write a second or more")
    return seconds


def _nothing(options: argparse.Namespace, tasks: Sequence[TaskFreshness]) -> str:
    if not tasks:
        return "no message has asked for a task yet\n"
    kind = "late" if options.late else "followed"
    named = f" with {escape(options.task)!r} in its name, app or id" if options.task else ""
    return f"no task{named} is {kind}\n"


def table(found: Sequence[TaskFreshness], every_s: float | None, now_ns: int) -> Iterator[str]:
    """The lines of the table, with what a schedule would give if ``every_s`` is given."""
    headings = [*_HEADINGS]
    if every_s is not None:
        named = f"EVERY {format_duration(every_s)}"
        headings += [f"{named}: P50", "P95", "WORST", "RUNS"]
    rows = [(*headings, "WHY"), *(_row(one, every_s, now_ns) for one in found)]
    sizes = [min(_WIDEST, max(map(len, column))) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(size) for cell, size in zip(row, sizes, strict=True)]
        yield "  ".join(cells).rstrip()


def _row(one: TaskFreshness, every_s: float | None, now_ns: int) -> tuple[str, ...]:
    cells = [
        one.name,
        _state(one, now_ns),
        *map(_span, (one.p50_s, one.p95_s, one.worst_s)),
        str(one.messages),
        str(one.runs),
        str(one.merged),
    ]
    if every_s is not None:
        other = one.by_schedule(every_s)
        cells += [*map(_span, (other.p50_s, other.p95_s, other.worst_s)), str(other.runs)]
    return (*cells, one.why or "-")


def _state(one: TaskFreshness, now_ns: int) -> str:
    if one.stale_since_ns is None:
        return "fresh"
    since = duration_text(max(0.0, (now_ns - one.stale_since_ns) / 1e9))
    return f"late, stale {since}" if one.is_late else f"stale {since}"


def _span(seconds: float | None) -> str:
    return "-" if seconds is None else duration_text(seconds)


def _json(one: TaskFreshness, every_s: float | None) -> dict[str, Any]:
    body = described(one)
    if every_s is not None:
        other = one.by_schedule(every_s)
        body["schedule"] = {
            "everySeconds": every_s,
            "p50Seconds": other.p50_s,
            "p95Seconds": other.p95_s,
            "worstSeconds": other.worst_s,
            "runs": other.runs,
        }
    return body
