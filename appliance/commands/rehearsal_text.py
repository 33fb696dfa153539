"""What ``appliance rehearse`` found, for people and for programs.

Not for: the rehearsal itself (tasks/rehearsal.py).
"""

from __future__ import annotations

import shutil
import textwrap
import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from appliance import plot
from appliance.commands.replay import counted
from appliance.log.sanitize import escape
from appliance.model import Task
from appliance.tasks.rehearsal import Unmet
from appliance.tasks.rehearsed import HOUR_NS, Counts, Tally

_NARROW = 80
_LEAST = 40
"""Columns of the narrowest terminal that the text is wrapped for."""
_LEAST_NAME = 12
_ENDLESS = 10_000
"""Columns where standard output is no terminal: nothing is cut off."""
_PLOT_ROWS = 12
_MOST_BUCKETS = 60
"""Stretches of time in the plot, or in the table where there is no terminal."""
_HOURS = (1, 2, 3, 6, 12, 24, 48, 168)
_MOST_REASONS = 8
_WORDS = ("starts", "merged", "rejected", "skipped", "expired")


class Rehearsed(msgspec.Struct):
    """What is told."""

    since_ns: int
    until_ns: int
    journal: tuple[int, int]
    """When its first and its last message came; zeros if it has none."""
    rules: list[str]
    matched: dict[str, int]
    unmet: dict[str, Unmet]
    would: Tally
    did: Tally | None
    """What really happened; ``None`` if there is no ``tasks.db``."""
    known_since_ns: int
    """Since when ``tasks.db`` knows what happened; 0: it knows nothing."""
    waiting: int
    catalogue: str
    assumed: list[str]
    guessed: list[str]


def name_of(task: Task) -> str:
    return task.name or task.id


# --- for people ----------------------------------------------------------------------------------


def lines(found: Rehearsed, top: int, *, is_terminal: bool) -> Iterator[str]:
    """The whole answer. On a terminal with a plot, elsewhere with plain columns."""
    cells = _ENDLESS
    if is_terminal:
        cells = max(_LEAST, shutil.get_terminal_size((_NARROW, 24)).columns)

    def told(prose: Iterator[tuple[str, str]]) -> Iterator[str]:
        for head, text in prose:
            yield from _wrapped(head, text, cells) if is_terminal else (head + text,)

    yield from told(_prose(found, top))
    if found.rules and (found.would.total or (found.did and found.did.total)):
        yield from _tables(found, cells, top)
        yield from told(_reasons(found))
        yield ""
        yield from _over_time(found, cells, is_terminal=is_terminal)
    if found.rules:
        yield from told(_assumptions(found))


def _wrapped(head: str, text: str, cells: int) -> list[str]:
    """A sentence in lines, each below the beginning of the text."""
    found = textwrap.wrap(
        text,
        cells - 1,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_on_hyphens=False,
    )
    return found or [head]


def _prose(found: Rehearsed, top: int) -> Iterator[tuple[str, str]]:
    """Sentences, each with what stands before its text."""
    began, ended = found.journal
    yield "", f"From {_time(found.since_ns)} to {_time(found.until_ns)}. Nothing was started."
    if not found.rules:
        yield "", "The configuration has no trigger, so no message starts a task."
        return
    if not began:
        yield "", "The journal has no message yet."
        return
    if ended < found.since_ns or began >= found.until_ns:
        stretch = f"from {_time(began)} to {_time(ended)}"
        yield "", f"No message came in this time: the journal goes {stretch}."
        return
    yield from (("", text) for text in _limits(found))
    yield "", ""
    really = "" if found.did is None else f" (really: {found.did.total.starts:,})"
    yield "", f"Messages would have led to {counted(found.would.total.starts, 'start')}{really}."
    yield from (("  ", text) for text in _sentences(found, top))


def _limits(found: Rehearsed) -> Iterator[str]:
    """What limits the numbers."""
    began, _ = found.journal
    if began > found.since_ns:
        yield f"The journal begins at {_time(began)}."
    if found.did is None:
        yield "There is no tasks.db, so what really happened is not known."
    elif not found.known_since_ns:
        yield "tasks.db tells nothing of that time."
    elif found.known_since_ns > max(found.since_ns, began) + HOUR_NS:
        yield f"What really happened is known since {_time(found.known_since_ns)}."


def _tables(found: Rehearsed, cells: int, top: int) -> Iterator[str]:
    would, did = found.would, found.did
    real = did or Tally()
    for title, rows in (
        ("rule", _rows(would.rules, real.rules, found.rules)),
        ("task", _rows(would.tasks, real.tasks)),
        ("together", [("all", would.total, real.total)]),
    ):
        yield ""
        yield from _table(title, rows, cells, top, with_past=did is not None)


def _reasons(found: Rehearsed) -> Iterator[tuple[str, str]]:
    reasons = sorted(found.would.reasons.values(), key=lambda one: (-one.count, one.rule))
    if reasons:
        yield "", ""
        yield "", "Why messages would start nothing:"
    for one in reasons[:_MOST_REASONS]:
        message = f" (first: message {one.seq})" if one.seq and one.seq <= _LAST_NUMBER else ""
        example = f": {escape(one.example)}" if one.example else ""
        yield "  ", f"{one.count:,} x {escape(one.label)}, {escape(one.rule)}{example}{message}"
    if len(reasons) > _MOST_REASONS:
        yield "  ", f"and {len(reasons) - _MOST_REASONS} more kinds; --json has all"


_LAST_NUMBER = 2**61
"""Outcomes that the rehearsal made itself have numbers beyond."""


def _assumptions(found: Rehearsed) -> Iterator[tuple[str, str]]:
    yield "", ""
    yield "", "How this was found (docs/rehearse.md):"
    yield "  ", f"The tasks are {escape(found.catalogue)}."
    if found.assumed:
        yield "  ", f"Not among them, taken for granted: {_some(found.assumed)}."
    if found.would.total.starts:
        usual = "else as long as usual (median of the last good runs)"
        yield "  ", f"A run takes as long as it really took for the same message, {usual}."
    if found.guessed:
        yield "  ", f"No duration is known, so a minute was taken: {_some(found.guessed)}."
    if found.waiting:
        yield "  ", f"At the end {counted(found.waiting, 'request')} would still wait."


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(escape, names[:5])) + more


def _sentences(found: Rehearsed, top: int) -> Iterator[str]:
    """One for each rule and task, those with most starts first."""
    would = found.would
    pairs = [pair for pair, one in would.pairs.items() if one.starts]
    pairs.sort(key=lambda pair: (-would.pairs[pair].starts, pair))
    for pair in pairs[:top]:
        rule, task = pair
        today = ""
        if pair in would.today and found.since_ns < would.today_ns:
            today = f"; {would.today[pair]:,} today"
        yield (
            f"Rule {escape(rule)} would have started {escape(task)}"
            f" {counted(would.pairs[pair].starts, 'time')}{today}.{_really(found.did, pair)}"
        )
    if len(pairs) > top:
        yield f"and {len(pairs) - top:,} more pairs of rule and task; see --top"
    started = {rule for rule, _ in pairs}
    for rule in dict.fromkeys(found.rules):
        if rule in started:
            continue
        yield f"Rule {escape(rule)} would have started nothing: {_why_nothing(found, rule)}."


def _really(did: Tally | None, pair: tuple[str, str]) -> str:
    if did is None:
        return ""
    starts = did.pairs[pair].starts if pair in did.pairs else 0
    return f" Really: {counted(starts, 'time')}." if starts else " Really it did not."


def _why_nothing(found: Rehearsed, rule: str) -> str:
    met = found.matched.get(rule, 0)
    if not met and (unmet := found.unmet.get(rule)) is not None:
        came = f"{counted(unmet.count, 'message')} came on its topic and none met it"
        number = f"message {unmet.seq}" if unmet.seq <= _LAST_NUMBER else "an outcome"
        return f"{came}; {number}: {escape(unmet.why).rstrip('.')}"
    if not met:
        return "no message came on its topic"
    counts = found.would.rules.get(rule, Counts())
    parts = [f"{getattr(counts, word):,} {word}" for word in _WORDS[1:] if getattr(counts, word)]
    return f"{counted(met, 'message')} met it; {', '.join(parts) or 'all still wait'}"


_Row = tuple[str, Counts, Counts]


def _rows(
    would: dict[str, Counts], did: dict[str, Counts], names: Sequence[str] = ()
) -> list[_Row]:
    none = Counts()
    names = list(dict.fromkeys((*names, *would, *did)))
    rows = [(name, would.get(name, none), did.get(name, none)) for name in names]
    return sorted(rows, key=lambda row: (-max(row[1].starts, row[2].starts), row[0]))


def _table(
    title: str, rows: Sequence[_Row], cells: int, top: int, *, with_past: bool
) -> Iterator[str]:
    """What would have happened, and behind it in brackets what really did."""
    words = [
        word
        for word in _WORDS
        if word == "starts" or any(getattr(one, word) for row in rows for one in row[1:])
    ]
    heads = [f"{word} (really)" if with_past else word for word in words]
    if sum(len(head) + 2 for head in heads) > cells - _LEAST_NAME:
        heads = words  # a narrow terminal; the brackets stand in the first sentence, too
    table = [(title, *heads)]
    for name, would, did in rows[:top]:
        numbers = [f"{getattr(would, word):,}" for word in words]
        if with_past:
            real = [f"{getattr(did, word):,}" for word in words]
            numbers = [f"{one} ({two})" for one, two in zip(numbers, real, strict=True)]
        table.append((escape(name), *numbers))
    widths = [max(len(row[column]) for row in table) for column in range(1, len(words) + 1)]
    room = max(_LEAST_NAME, cells - sum(widths) - 2 * len(widths))
    first = min(room, max(len(row[0]) for row in table))
    for row in table:
        yield _cut(row[0], first).ljust(first) + "".join(
            f"  {cell:>{size}}" for cell, size in zip(row[1:], widths, strict=True)
        )
    if len(rows) > top:
        yield f"and {len(rows) - top:,} more; see --top"


def _cut(text: str, cells: int) -> str:
    return text if len(text) <= cells else f"{text[: cells - 1]}…"


def _over_time(found: Rehearsed, cells: int, *, is_terminal: bool) -> Iterator[str]:
    """Starts by time: a plot for a terminal, else a table."""
    hours = _bucket_hours(found)
    times, would, did = _buckets(found, hours)
    if not times:
        return
    each = "hour" if hours == 1 else f"{hours} hours" if hours < 24 else _days(hours // 24)
    has_past = found.did is not None
    if is_terminal and len(times) > 1:
        says = "1 as rehearsed, 2 as it really was" if has_past else "as rehearsed"
        yield from _wrapped("", f"Starts in each {each}: {says}", cells)
        series = [plot.Series("rehearsed", times, [one.starts for one in would])]
        if has_past:
            series.append(plot.Series("really", times, [one.starts for one in did]))
        for line in plot.lines(
            series, _first_ns(found), found.until_ns, cells - 1, _PLOT_ROWS, from_zero=True
        ):
            yield "".join(text for text, _ in line).rstrip()
        return
    rows = [
        (_time(at)[:-3], one, other)
        for at, one, other in zip(times, would, did, strict=True)
        if one or other
    ]
    yield from _table(f"each {each}", rows, cells, len(rows), with_past=has_past)


def _days(count: int) -> str:
    return "day" if count == 1 else f"{count} days"


def _bucket_hours(found: Rehearsed) -> int:
    hours = (found.until_ns - _first_ns(found)) / HOUR_NS
    return next((one for one in _HOURS if hours / one <= _MOST_BUCKETS), _HOURS[-1])


def _first_ns(found: Rehearsed) -> int:
    """Where the plot begins: not before the journal."""
    return max(found.since_ns, min(found.journal[0], found.until_ns))


def _buckets(found: Rehearsed, hours: int) -> tuple[list[int], list[Counts], list[Counts]]:
    """The beginnings of the stretches, and what is counted in each."""
    offset = time.localtime(found.since_ns / 1e9).tm_gmtoff // 3600
    first = (_first_ns(found) // HOUR_NS + offset) // hours
    last = ((found.until_ns - 1) // HOUR_NS + offset) // hours
    times = [(one * hours - offset) * HOUR_NS for one in range(first, last + 1)]
    counts = []
    for tally in (found.would, found.did or Tally()):
        each = [Counts() for _ in times]
        for hour, one in tally.hours.items():
            at = (hour + offset) // hours - first
            if 0 <= at < len(each):
                for word in _WORDS:
                    setattr(each[at], word, getattr(each[at], word) + getattr(one, word))
        counts.append(each)
    return times, counts[0], counts[1]


def _time(at_ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_ns / 1e9))


# --- for programs --------------------------------------------------------------------------------


def body(found: Rehearsed) -> dict[str, Any]:
    """The whole answer as JSON."""
    return {
        "since": _iso(found.since_ns),
        "until": _iso(found.until_ns),
        "journalBegins": _iso(found.journal[0]),
        "knownSince": _iso(found.known_since_ns),
        "tasks": found.catalogue,
        "assumedTasks": found.assumed,
        "tasksWithoutDuration": found.guessed,
        "stillWaiting": found.waiting,
        "would": _tally(found.would),
        "really": None if found.did is None else _tally(found.did),
        "matched": found.matched,
        "unmet": found.unmet,
    }


def _tally(tally: Tally) -> dict[str, Any]:
    return {
        "total": tally.total,
        "today": sum(tally.today.values()),
        "rules": tally.rules,
        "tasks": tally.tasks,
        "rulesAndTasks": [
            {"rule": rule, "task": task, "today": tally.today.get((rule, task), 0), "counts": one}
            for (rule, task), one in tally.pairs.items()
        ],
        "hours": [
            {"time": _iso(hour * HOUR_NS), "counts": one}
            for hour, one in sorted(tally.hours.items())
        ],
        "reasons": list(tally.reasons.values()),
    }


def _iso(at_ns: int) -> str | None:
    if not at_ns:
        return None
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_ns // 10**9))
