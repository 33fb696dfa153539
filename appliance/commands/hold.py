"""``appliance hold``, ``release``, ``list``: what an appliance holds for a maintenance window.

A request goes the way of an attached terminal's actions: signed in, journaled, logged. Not for:
what a hold does (tasks/holds.py), the connection (remote/).
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, time
from typing import Any

import msgspec

from appliance.commands.output import print_json
from appliance.commands.target import client_name, config_of, target_of
from appliance.config.values import parse_duration
from appliance.engine_api import Holds, HoldState
from appliance.errors import EXIT_OK, ApplianceError, UsageError
from appliance.log.sanitize import escape
from appliance.problems import held_text, moment_text
from appliance.remote import protocol
from appliance.remote.command_link import CommandLink
from appliance.tasks.outcomes import time_text
from appliance.time_of_day import next_time

_CONNECT_S = 10.0
_LONGEST_S = 10 * 366 * 86400.0
_ANY_TIME_S = 10**9
_HEADINGS = ("HELD", "UNTIL", "BY", "SINCE", "WAITING", "REASON")
_WIDEST = 60
"""Characters of a column; a longer text moves the rest of its row."""

_HOLD: Callable[[bytes], HoldState] = msgspec.msgpack.Decoder(HoldState).decode
_HOLDS: Callable[[bytes], Holds] = msgspec.msgpack.Decoder(Holds).decode


def execute(options: argparse.Namespace) -> int:
    """Hold, release or list; returns the exit code."""
    ask = _question(options)
    target = target_of(
        options,
        config=config_of(options),
        client=client_name(f"terminal-{options.action}"),
        timeout_s=_CONNECT_S,
    )
    link = CommandLink(target)
    try:
        link.open()
        ask(link)
    finally:
        with contextlib.suppress(ApplianceError):
            link.close()
    return EXIT_OK


def _question(options: argparse.Namespace) -> Callable[[CommandLink], None]:
    """What is asked of the appliance. Raises ``UsageError`` before anything is sent."""
    if options.action == "list" or (options.action == "hold" and options.list):
        return lambda link: _list(link, options)
    kind, name = _named(options)
    if options.action == "release":
        return lambda link: _release(link, options, kind, name)
    if options.for_time is not None and options.until is not None:
        raise UsageError("--for and --until are two ways to name the end; give one of them")
    end = _end(options)
    return lambda link: _hold(link, options, kind, name, end)


def _named(options: argparse.Namespace) -> tuple[str, str]:
    kind, name = options.kind, options.name
    if kind is None:
        raise UsageError(f"say what: appliance {options.action} everything, or a kind and a name")
    if (name is None) != (kind == "everything"):
        wrong = "has no name" if kind == "everything" else "needs a name"
        raise UsageError(f"{kind} {wrong}; see: appliance {options.action} --help")
    return kind, name or ""


def _end(options: argparse.Namespace) -> Callable[[int], int | None]:
    """When the hold ends, by the time that the appliance's clock shows."""
    if options.until is not None:
        text = options.until
        _read(text, _ANY_TIME_S)  # a mistake is told before anything is sent
        return lambda now_ns: _moment(text, now_ns)
    if options.for_time is None:
        return lambda _now_ns: None
    try:
        seconds = parse_duration(options.for_time)
    except ValueError as error:
        raise UsageError(f"--for {options.for_time}: {error}") from None
    if not 0 < seconds <= _LONGEST_S:
        raise UsageError(f"--for {options.for_time}: write a time above zero, ten years at most")
    return lambda now_ns: now_ns + int(seconds * 10**9)


def _moment(text: str, now_ns: int) -> int:
    """A time in ns since 1970: a time of day is the next one, else it has its date.

    Raises ``UsageError``.
    """
    now_s = now_ns // 10**9
    found_s = _read(text, now_s)
    if found_s - now_s > _LONGEST_S:
        raise UsageError(f"--until {text}: write a time within ten years")
    return int(found_s) * 10**9


def _read(text: str, now_s: int) -> float:
    try:
        found_s = _next_time(text.strip(), now_s)
        return datetime.fromisoformat(text.strip()).timestamp() if found_s is None else found_s
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            f"--until {text}: write a time of day (06:00) or a date with a time (2026-12-01 06:00)"
        ) from None


def _next_time(text: str, now_s: int) -> float | None:
    """When the clock shows a time of day next, in s since 1970; ``None`` if the text is none.

    Local, unless it has a zone of its own.
    """
    try:
        wanted = time.fromisoformat(text if text[1:2] != ":" else f"0{text}")
    except ValueError:
        return None
    return next_time(wanted, now_s)


def _hold(
    link: CommandLink,
    options: argparse.Namespace,
    kind: str,
    name: str,
    end: Callable[[int], int | None],
) -> None:
    present = link.request(protocol.GetHolds(), _HOLDS)
    now_ns = present.taken_ns
    asked = protocol.Hold(kind, name, end(now_ns), options.reason or "", options.drop)
    found = link.request(asked, _HOLD)
    if options.json:
        print_json(_described(found))
        return
    mark = "-- " if name.startswith("-") else ""
    named = "everything" if kind == "everything" else f"{kind} {mark}{shlex.quote(name)}"
    _print(f"{found.shown} is held {held_text(found, now_ns)}")
    for before in present.holds:
        if (before.kind, before.name) == (found.kind, found.name):
            _print(f"before, it was held {held_text(before, now_ns)}")
    _print(f"it is released by: appliance release {named}")


def _release(link: CommandLink, options: argparse.Namespace, kind: str, name: str) -> None:
    found = link.request(protocol.Release(kind, name), _HOLD)
    if options.json:
        print_json(_described(found))
        return
    waited = {0: "nothing waited", 1: "1 start that waited goes on"}.get(
        found.waiting, f"{found.waiting} starts that waited go on"
    )
    _print(f"{found.shown} is released; {waited}")


def _list(link: CommandLink, options: argparse.Namespace) -> None:
    found = link.request(protocol.GetHolds(), _HOLDS)
    if options.json:
        print_json([_described(one) for one in found.holds])
        return
    if not found.holds:
        sys.stderr.write("nothing is held\n")
        return
    for line in _table(found.holds, found.taken_ns):
        _print(line)


def _table(holds: Sequence[HoldState], now_ns: int) -> Iterator[str]:
    rows = [_HEADINGS, *(_row(one, now_ns) for one in holds)]
    sizes = [min(_WIDEST, max(map(len, column))) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(size) for cell, size in zip(row, sizes, strict=True)]
        yield "  ".join(cells).rstrip()


def _row(hold: HoldState, now_ns: int) -> tuple[str, ...]:
    return (
        escape(hold.shown),
        "it is released" if hold.until_ns is None else moment_text(hold.until_ns, now_ns),
        escape(hold.who),
        moment_text(hold.since_ns, now_ns),
        _waiting(hold),
        escape(hold.reason) or "-",
    )


def _waiting(hold: HoldState) -> str:
    if not hold.drop:
        return str(hold.waiting)
    return f"{hold.waiting}, more dropped" if hold.waiting else "dropped"


def _described(hold: HoldState) -> dict[str, Any]:
    """A hold for programs."""
    return {
        "kind": hold.kind,
        "name": hold.name,
        "title": hold.title,
        "until": None if hold.until_ns is None else time_text(hold.until_ns),
        "since": time_text(hold.since_ns),
        "by": hold.by,
        "reason": hold.reason,
        "drops": hold.drop,
        "waiting": hold.waiting,
    }


def _print(text: str) -> None:
    sys.stdout.write(f"{escape(text)}\n")
