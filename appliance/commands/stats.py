"""``appliance stats``: how many messages the journal has of each topic and client, and how large.

Topics and clients are bounded in memory: past the bound, those that come new are counted together.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Iterable
from typing import Any

import msgspec

from appliance.commands.journal_range import JournalRange, journal_of, range_of
from appliance.commands.meter import Meter
from appliance.commands.output import print_json
from appliance.commands.replay import counted
from appliance.errors import EXIT_OK, UsageError
from appliance.journal.search import History
from appliance.log.sanitize import escape
from appliance.model import Message, sender

MOST_NAMES = 200_000
"""Topics, and as many clients, that are counted by themselves."""
_SECOND_NS = 1_000_000_000
_MINUTE_NS = 60 * _SECOND_NS
_NARROW = 80
_OTHERS = "(others)"


class Tally(msgspec.Struct):
    """What came on one topic, or from one client."""

    count: int = 0
    size: int = 0
    """Bytes of payloads."""
    largest: int = 0
    first_ns: int = 0
    last_ns: int = 0

    def add(self, size: int, received_ns: int) -> None:
        if not self.count:
            self.first_ns = received_ns
        self.count += 1
        self.size += size
        self.last_ns = received_ns
        self.largest = max(self.largest, size)


class Stats(msgspec.Struct):
    """The whole count."""

    total: Tally = msgspec.field(default_factory=Tally)
    topics: dict[str, Tally] = msgspec.field(default_factory=dict)
    clients: dict[str, Tally] = msgspec.field(default_factory=dict)
    minutes: dict[int, int] = msgspec.field(default_factory=dict)
    """Messages of each minute since 1970."""
    first_seq: int = 0
    last_seq: int = 0

    def add(self, messages: Iterable[Message]) -> None:
        """Count these."""
        total, topics, clients, minutes = self.total, self.topics, self.clients, self.minutes
        for message in messages:
            size, received_ns = len(message.payload), message.received_ns
            total.add(size, received_ns)
            topic = topics.get(message.topic)
            if topic is None:
                topic = _new(topics, message.topic)
            topic.add(size, received_ns)
            client = clients.get(message.client_id)
            if client is None:
                client = _new(clients, message.client_id)
            client.add(size, received_ns)
            minute = received_ns // _MINUTE_NS
            minutes[minute] = minutes.get(minute, 0) + 1
            if not self.first_seq:
                self.first_seq = message.seq
            self.last_seq = message.seq

    @property
    def busiest(self) -> tuple[int, int]:
        """The minute with most messages (ns since 1970), and how many those are."""
        if not self.minutes:
            return 0, 0
        minute, count = max(self.minutes.items(), key=lambda item: item[1])
        return minute * _MINUTE_NS, count


def _new(tallies: dict[str, Tally], name: str) -> Tally:
    return tallies.setdefault(name if len(tallies) < MOST_NAMES else _OTHERS, Tally())


def execute(options: argparse.Namespace) -> int:
    """Print the count; returns the exit code."""
    wanted = range_of(options)
    if options.top < 1:
        raise UsageError(f"--top {options.top}: write a number above zero")
    with journal_of(options.config) as history:
        found = count(history, wanted)
    if options.json:
        print_json(_body(found))
    else:
        cells = shutil.get_terminal_size((_NARROW, 24)).columns
        sys.stdout.write("\n".join(lines(found, options.top, max(cells, 60))) + "\n")
    return EXIT_OK


def count(history: History, wanted: JournalRange) -> Stats:
    """Count a range of the journal."""
    found = Stats()
    meter = Meter(sys.stderr)
    first, last = history.bounds()
    first = max(first, wanted.after_seq + 1)
    for piece in history.forward(wanted.asked, wanted.after_seq, last):
        found.add(piece.messages)
        if meter.is_due:
            share = (piece.last_seq - first + 1) / max(1, last - first + 1)
            meter.show(counted(found.total.count, "message"), share)
    meter.clear()
    return found


# --- for people ----------------------------------------------------------------------------------


def lines(found: Stats, top: int, cells: int) -> list[str]:
    """The count as text, in lines of at most ``cells`` characters."""
    total = found.total
    if not total.count:
        return ["no message in the journal fits"]
    at, most = found.busiest
    shown = [
        f"{counted(total.count, 'message')}, {_size(total.size)} of payloads",
        f"numbers {found.first_seq:,} to {found.last_seq:,}",
        f"from {_time(total.first_ns)} to {_time(total.last_ns)}",
        f"{_rate(total)} a second on average; busiest minute {_time(at)[:-3]}: {most:,}",
    ]
    for title, tallies in (("topic", found.topics), ("client", found.clients)):
        shown += ["", *_table(title, tallies, top, cells)]
    return shown


def _table(title: str, tallies: dict[str, Tally], top: int, cells: int) -> list[str]:
    rows = sorted(tallies.items(), key=lambda item: (-item[1].count, item[0]))
    heads = ("messages", "per s", "average", "largest", "last")
    table = [(f"{title} ({len(rows):,})", *heads)]
    for name, tally in rows[:top]:
        shown = escape(sender(name) if title == "client" else name) or "(unknown)"
        table.append(
            (
                shown,
                f"{tally.count:,}",
                _rate(tally),
                _size(tally.size // tally.count),
                _size(tally.largest),
                _time(tally.last_ns)[5:],
            )
        )
    widths = [max(len(row[column]) for row in table) for column in range(1, 6)]
    room = cells - sum(widths) - 2 * len(widths)
    name_cells = min(max(len(row[0]) for row in table), max(room, 12))
    found = [
        _cut(row[0], name_cells).ljust(name_cells)
        + "".join(f"  {cell:>{size}}" for cell, size in zip(row[1:], widths, strict=True))
        for row in table
    ]
    if len(rows) > top:
        rest = sum(tally.count for _, tally in rows[top:])
        found.append(f"and {len(rows) - top:,} more with {counted(rest, 'message')}; see --top")
    return found


def _cut(text: str, cells: int) -> str:
    """The end of a name tells more of it than its beginning."""
    return text if len(text) <= cells else f"…{text[len(text) - cells + 1 :]}"


def _rate(tally: Tally) -> str:
    rate = _per_second(tally)
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}" if rate >= 0.1 else f"{rate:.3f}"


def _per_second(tally: Tally) -> float:
    """Over the time between the first and the last message, at least a second."""
    return tally.count / max(1.0, (tally.last_ns - tally.first_ns) / _SECOND_NS)


def _size(size: int) -> str:
    number = float(size)
    for unit in ("B", "KB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            break
        number /= 1000
    return f"{number:,.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"


def _time(at_ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_ns / _SECOND_NS))


# --- for programs --------------------------------------------------------------------------------


def _body(found: Stats) -> dict[str, Any]:
    at, most = found.busiest
    return {
        **_tally(found.total),
        "firstSequence": found.first_seq,
        "lastSequence": found.last_seq,
        "busiestMinute": {"time": _iso(at), "messages": most} if most else None,
        "topics": _all("topic", found.topics),
        "clients": _all("client", found.clients),
    }


def _all(title: str, tallies: dict[str, Tally]) -> list[dict[str, Any]]:
    rows = sorted(tallies.items(), key=lambda item: (-item[1].count, item[0]))
    return [{title: name, **_tally(tally)} for name, tally in rows]


def _tally(tally: Tally) -> dict[str, Any]:
    return {
        "messages": tally.count,
        "bytes": tally.size,
        "largest": tally.largest,
        "perSecond": round(_per_second(tally), 3),
        "first": _iso(tally.first_ns),
        "last": _iso(tally.last_ns),
    }


def _iso(at_ns: int) -> str | None:
    if not at_ns:
        return None
    whole, rest = divmod(at_ns, _SECOND_NS)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{rest // 1_000_000:03d}Z"
