"""``appliance health``: the health of a running appliance, for programs and people."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from appliance.commands.output import print_json
from appliance.config.reading import load_data_dir
from appliance.errors import EXIT_OK, EXIT_UNAVAILABLE
from appliance.log.sanitize import escape
from appliance.ops.health import Report, look
from appliance.storage import files

_ROOM_BYTES = 64_000
"""More than a report has."""


def execute(options: argparse.Namespace) -> int:
    """Tell it; the exit code is 0 while messages are accepted, else 69."""
    data_dir = load_data_dir(options.config)
    found = look(data_dir)
    why = ""
    if found is None:
        # A running appliance has no such problem, and its health is asked for every few seconds.
        from appliance.engine import databases  # noqa: PLC0415  it imports the engine's rooms

        why = "; ".join(
            [
                f"no appliance runs with the data directory {data_dir}",
                *databases.problems(data_dir),
            ]
        )
    elif found.is_old:
        pid, silent_s = found.report.pid, found.silent_s
        why = f"the appliance (pid {pid}) has not said anything for {silent_s:.0f} s"
        if _is_full(data_dir):
            why += f"; no disk space is left in {data_dir}, so it may be unable to: make room there"
    report = None if found is None else found.report
    if options.json:
        print_json(_body(report, why))
    elif why:
        sys.stdout.write(f"bad: {why}\n")
    else:
        assert report is not None
        sys.stdout.write(_text(report, time.time_ns()))
    return EXIT_UNAVAILABLE if why or report is None or report.is_bad else EXIT_OK


def _is_full(folder: Path) -> bool:
    """Whether the appliance has no room to say how it is."""
    with contextlib.suppress(OSError):
        return files.free_bytes(folder) < _ROOM_BYTES
    return False


def _body(found: Report | None, why: str) -> dict[str, Any]:
    body: dict[str, Any] = {} if found is None else msgspec.to_builtins(found)
    return body | {"status": "bad", "reason": why} if why else body


def _text(found: Report, now: int) -> str:
    hours, rest = divmod(max(0, now - found.started_ns) // 1_000_000_000, 3600)
    head = f"{found.status}: {found.name} {found.version}, pid {found.pid}"
    counts = (
        f"{found.clients} client{'s' * (found.clients != 1)}, "
        f"{found.messages_in} message{'s' * (found.messages_in != 1)} accepted"
    )
    lines = [f"{head}, running for {hours}h{rest // 60:02d}m, {counts}"]
    for part in found.parts:
        text = f"  {escape(part.text)}" if part.text else ""
        lines.append(f"  {part.level:<5}{escape(part.name)}{text}")
    lines += [f"  {escape(text)}" for text in found.acknowledged]
    return "\n".join(lines) + "\n"
