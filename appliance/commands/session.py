"""``appliance session list|end``: the sessions of a running appliance's clients."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from appliance.commands.output import print_json
from appliance.config.reading import load_data_dir
from appliance.config.values import format_duration
from appliance.errors import EXIT_OK, UsageError
from appliance.log.sanitize import escape
from appliance.ops.control_file import ask
from appliance.ops.listed_sessions import ListedSession

_HEADINGS = ("CLIENT", "USER", "MQTT", "CONNECTED", "SUBS", "QUEUED", "BYTES", "EXPIRY")
_NUMBERS = frozenset({"SUBS", "QUEUED", "BYTES"})
_WIDEST = 60
"""Characters of a column; a longer name moves the rest of its row."""


def execute(options: argparse.Namespace) -> int:
    """List the sessions, or end one; returns the exit code."""
    data_dir = load_data_dir(options.config)
    if options.action == "list":
        return _list(data_dir, options)
    return _end(data_dir, options)


def _list(data_dir: Path, options: argparse.Namespace) -> int:
    wanted = options.search.casefold()
    found = [
        each
        for each in _sessions(data_dir)
        if wanted in each.client_id.casefold() or wanted in (each.user or "").casefold()
    ]
    if options.json:
        print_json(found)
        return EXIT_OK
    if not found:
        what = f" with {options.search!r} in its client id or user" if wanted else ""
        sys.stderr.write(f"there is no session{what}\n")
        return EXIT_OK
    for line in _table(found):
        sys.stdout.write(f"{line}\n")
    return EXIT_OK


def _sessions(data_dir: Path) -> Iterator[ListedSession]:
    after, more = "", True
    while more:
        answer = ask(data_dir, "session-list", client_id=after)
        yield from answer.sessions
        more = answer.more and bool(answer.sessions)
        if more:
            after = answer.sessions[-1].client_id


def _table(found: Sequence[ListedSession]) -> Iterator[str]:
    rows = [_HEADINGS, *map(_row, found)]
    sizes = [min(_WIDEST, max(map(len, column))) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.rjust(size) if heading in _NUMBERS else cell.ljust(size)
            for cell, size, heading in zip(row, sizes, _HEADINGS, strict=True)
        ]
        yield "  ".join(cells).rstrip()


def _row(session: ListedSession) -> tuple[str, ...]:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(session.since_ns / 1e9))
    return (
        escape(session.client_id),
        "-" if session.user is None else escape(session.user),
        session.protocol or "-",
        f"since {since}" if session.is_connected else f"until {since}",
        str(session.subscription_count),
        str(session.queued),
        str(session.queued_bytes),
        _expiry(session.expiry_s),
    )


def _expiry(seconds: int | None) -> str:
    if seconds is None:
        return "never"
    return format_duration(seconds) if seconds else "with its connection"


def _end(data_dir: Path, options: argparse.Namespace) -> int:
    if not options.yes and sys.stdin.isatty():
        _confirm(options.client_id)
    answer = ask(data_dir, "session-end", client_id=options.client_id)
    if not answer.done:
        raise UsageError(" ".join(answer.lines))
    sys.stdout.write("".join(f"{escape(line)}\n" for line in answer.lines))
    return EXIT_OK


def _confirm(client_id: str) -> None:
    """Raises ``UsageError`` unless the operator says yes."""
    sys.stderr.write(
        f"End the session of {escape(client_id)}? Its connection, its subscriptions and the"
        " messages that wait for it are lost. [y/N] "
    )
    sys.stderr.flush()
    if sys.stdin.readline().strip().casefold() not in ("y", "yes"):
        raise UsageError("nothing was changed")
