"""An explanation in words, for a page and for a command.

Not for: drawing it (views/explanation.py), or finding out what it says (the engine's).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from appliance.engine_api import ExplainedCheck, ExplainedRule, ExplainedStart, Explanation

_NOW_NS = 500_000_000
"""A start that is no further away than this is one now."""
_NAMED_OTHERS = 20
"""Rules that listen elsewhere and are named."""
FIELD_CELLS = 12
_FOUND = ("topic", "when", "asks for", "task")
"""Checks that compare something with what the message has."""

Clock = Callable[[int], str]
"""The time of day for nanoseconds since the epoch."""


class Row(NamedTuple):
    """One line: a heading, a check or a sentence."""

    kind: str
    """``"rule"``, ``"start"``, ``"text"``, or of a check ``"ok"``, ``"waits"``, ``"stops"``."""
    field: str
    text: str
    indent: int = 0


def conclusions(explanation: Explanation, at: Clock) -> list[tuple[str, str]]:
    """What comes of the message, a sentence each: the effect of a start, and the text."""
    starts = explanation.starts
    why = " ".join(explanation.reasons) or "No rule asks for a start."
    is_asked = any(all(each.ok for each in one.checks) for one in explanation.rules)
    if is_asked and not explanation.is_whole:
        return [("wait", f"Would ask for a start. {why} Whether and when is not known.")]
    if not starts:
        return [("nothing", f"Would start nothing. {why}")]
    found = [(one.effect, _of_start(one, explanation.taken_ns, at)) for one in starts]
    if explanation.starts_left_out:
        found.append(("wait", f"And {explanation.starts_left_out} more starts."))
    if count := explanation.unforeseen:
        who = "1 request waits" if count == 1 else f"{count} requests wait"
        found.append(("wait", f"Not foreseen: {who} that may start one of these tasks before."))
    return found


def _of_start(start: ExplainedStart, now_ns: int, at: Clock) -> str:
    reason = f" {start.reason}" if start.reason else ""
    when = ""
    if start.at_ns is not None:
        about = " at about" if start.is_guess else " at"
        when = " now" if start.at_ns - now_ns <= _NOW_NS else f"{about} {at(start.at_ns)}"
    match start.effect:
        case "start":
            return f"Would start {start.what}{when}.{reason}"
        case "merge":
            goes = f" It starts{when}." if when else ""
            return f"Would start nothing new for {start.what}.{reason}{goes}"
        case "wait":
            return f"Would start {start.what}{when or ' later'}.{reason}"
        case _:
            return f"Would not start {start.what}.{reason}"


def has_prospect(explanation: Explanation) -> bool:
    """Whether more is to be said than what a message of the journal led to."""
    return not explanation.seq or bool(explanation.starts)


def past(explanation: Explanation) -> str:
    """What a message of the journal led to, and why; empty for one that does not exist."""
    if not explanation.seq:
        return ""
    is_nothing = not explanation.led_to or explanation.led_to.startswith("It started nothing")
    reasons = explanation.reasons if is_nothing else ()
    return " ".join(filter(None, (explanation.led_to, *reasons)))


def rows(explanation: Explanation, at: Clock) -> list[Row]:
    """Everything that was looked at, field by field."""
    return list(_rows(explanation, at))


def _rows(explanation: Explanation, at: Clock) -> Iterator[Row]:
    for check in explanation.checks:
        yield _of_check(check, at)
    for rule in explanation.rules:
        of_topic = "" if rule.name == rule.topic else f"{rule.topic} → "
        yield Row("rule", rule.name, of_topic + rule.target)
        for check in rule.checks:
            yield _of_check(check, at)
        for start in rule.starts:
            yield Row("start", start.what, start.effect, 1)
            for check in start.checks:
                yield _of_check(check, at, 2)
    if explanation.others_count:
        names = [_named(one) for one in explanation.others[:_NAMED_OTHERS]]
        more = explanation.others_count - len(names)
        if more:
            names.append(f"{more} more")
        yield Row("text", "", f"Triggers that listen on other topics: {', '.join(names)}.")


def _named(rule: ExplainedRule) -> str:
    return rule.name if rule.name == rule.topic else f"{rule.name} ({rule.topic})"


def _of_check(check: ExplainedCheck, at: Clock, indent: int = 0) -> Row:
    kind = "stops" if not check.ok else "waits" if check.waits else "ok"
    text = check.found
    if check.wanted and check.found:
        text = f"{check.wanted}{'; found ' if check.field in _FOUND else ': '}{check.found}"
    parts = [text]
    if check.until_ns is not None:
        parts.append(f"until {at(check.until_ns)}")
    if kind != "ok" and check.reason and check.field != "when":
        parts.append(check.reason)
    return Row(kind, check.field, "; ".join(filter(None, parts)), indent)
