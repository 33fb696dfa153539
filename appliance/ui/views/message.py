"""One message as lines: its facts, what it led to, its payload.

Not for: fetching it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from appliance import sparkplug
from appliance.engine_api import Mark, RecorderState, RuleState, Snapshot
from appliance.model import (
    Execution,
    Message,
    bridge_of,
    bridged_publisher,
    is_own,
    sender,
)
from appliance.mqtt import topics
from appliance.ui import formats, payload, symbols
from appliance.ui.columns import Column, Table
from appliance.ui.lines import Line
from appliance.ui.text import fit, printable, words_in, wrap
from appliance.ui.views.activity import by, progress

TABLE = Table(
    Column("TIME", 12, key="time"),
    Column("CLIENT", 8, 16, 40, from_cells=84),
    Column("TOPIC", 12, 32, 80, keeps_end=True),
    Column("Q", 1),
    Column("", 1),
    Column("PAYLOAD", 16, 36, None),
    Column("→ TASK", 10, 20, 60),
)
"""A list of messages."""


def heading(cells: int, *, show_age: bool) -> Line:
    """The row above a list of messages."""
    return TABLE.heading(cells, time="AGE" if show_age else "TIME")


def row(
    message: Message,
    mark: Mark | None,
    when: str,
    full_size: int | None,
    cells: int,
    *,
    task: str = "",
) -> Line:
    """One message in a list: time, client, topic, QoS and retain, payload, what it led to.

    ``task``: the name of the task that it asked for.
    """
    own = is_own(message.client_id)
    text = payload.preview(message.payload, full_size, message.topic)
    return TABLE.row(
        cells,
        (
            (when, "dim"),
            (printable(message.client_id), "dim"),
            (printable(message.topic), "dim" if own else ""),
            (str(message.qos), "dim"),
            ("R" if message.retain else "", "dim"),
            (text, "dim" if own else "info" if text.startswith("<") else ""),
            _led_to(mark, task),
        ),
    )


def _led_to(mark: Mark | None, task: str) -> Line:
    if mark is None:
        return []
    found: Line = [(mark_text(mark), symbols.tone(mark.state))]
    return [*found, (f" {printable(task)}", "")] if task else found


def mark_text(mark: Mark) -> str:
    """``▶ 0:01``, ``✗ 403``, ``✓ x3``."""
    times = f" x{mark.count}" if mark.count > 1 else ""
    return f"{symbols.sign(mark.state)} {printable(mark.label)}{times}".rstrip()


def facts(
    message: Message,
    snapshot: Snapshot,
    size: int,
    *,
    utc: bool,
    now_ns: int,
    places: Mapping[str, str],
    retained: Line,
) -> list[Line]:
    """The head of a message's detail.

    ``places``: where in each recorder's file it stands; ``retained``: what the topic retains.
    """
    age = formats.ago((now_ns - message.received_ns) / 1e9)
    received = formats.date_and_time(message.received_ns, utc=utc)
    lines: list[Line] = [
        [(" topic    ", "dim"), (printable(message.topic), "strong")],
        [(" received ", "dim"), (received, ""), (f"  ({age})", "dim")],
        *_sender(message),
        [
            (" qos ", "dim"),
            (str(message.qos), ""),
            ("   retain ", "dim"),
            ("yes" if message.retain else "no", ""),
            *_dup(message),
            ("   size ", "dim"),
            (formats.size(size), ""),
            ("   format ", "dim"),
            (_format(message, size), ""),
        ],
    ]
    if retained:
        lines.append([(" retained ", "dim"), *retained])
    lines += _properties(message)
    lines += [_rule(rule) for rule in snapshot.rules if topics.matches(rule.topic, message.topic)]
    lines += [
        _recorded(one, places.get(one.name or one.path, ""), snapshot.data_dir)
        for one in snapshot.recorders
        if topics.matches(one.topic, message.topic)
    ]
    return lines


def _format(message: Message, size: int) -> str:
    if sparkplug.is_topic(message.topic) and sparkplug.may_be(message.payload):
        return "Sparkplug B"
    return payload.kind(message.payload, cut=size > len(message.payload))


def _sender(message: Message) -> list[Line]:
    """The client; or the bridge, and who published it at the other broker as far as is known."""
    bridge = bridge_of(message.client_id)
    if not bridge:
        user = f"  user {printable(message.username)}" if message.username else ""
        client = printable(sender(message.client_id))
        return [[(" client   ", "dim"), (client, ""), (f"  {message.address}{user}", "dim")]]
    publisher = bridged_publisher(message)
    there = f"client {printable(publisher)}" if publisher else "an unknown client"
    return [
        [
            (" came by  ", "dim"),
            (f"bridge {printable(bridge)}", ""),
            (f" from {printable(message.address)},", "dim"),
        ],
        [("          there published by ", "dim"), (there, "" if publisher else "dim")],
    ]


def _dup(message: Message) -> Line:
    """Whether it is marked as sent again; a bridge knows which message it repeats."""
    if not message.dup or not bridge_of(message.client_id):
        return [("   dup ", "dim"), ("yes, sent again" if message.dup else "no", "")]
    original = f" of message {formats.number(message.packet_id)}" if message.packet_id else ""
    return [("   ", ""), (f"a repeat{original}", "warn")]


def retained_line(message: Message, kept: Message | None) -> Line:
    """What the broker holds for new subscribers of the message's topic."""
    if kept is None:
        return [("nothing", "dim")] if message.retain else []
    if kept.seq == message.seq:
        return [("this message", "ok")]
    shown = payload.preview(kept.payload, topic=kept.topic)
    return [(f"message {formats.number(kept.seq)} ", ""), (shown, "dim")]


def _rule(rule: RuleState) -> Line:
    name = f"  ({printable(rule.name)})" if rule.name and rule.name != rule.topic else ""
    return [
        (" rule     ", "dim"),
        (printable(rule.topic), ""),
        (f" → {printable(rule.target)}{name}", "dim"),
    ]


def _recorded(recorder: RecorderState, place: str, data_dir: str) -> Line:
    where: Line = [(f", {place}", "strong")] if place else []
    return [
        (" recorded ", "dim"),
        (printable(formats.target(recorder.shown, data_dir)), ""),
        *where,
    ]


def _properties(message: Message) -> list[Line]:
    if message.properties is None:
        return []
    found = message.properties.decoded()
    parts = [
        f"content type {found.content_type}" if found.content_type else "",
        f"response topic {found.response_topic}" if found.response_topic else "",
        f"expires after {found.message_expiry_s} s" if found.message_expiry_s is not None else "",
        f"correlation {found.correlation_data.hex()}" if found.correlation_data else "",
        *(f"{name}={value}" for name, value in found.user_properties),
    ]
    shown = "  ".join(printable(part) for part in parts if part)
    return [[(" mqtt 5   ", "dim"), (shown, "")]] if shown else []


def why_nothing(mark: Mark | None, message: Message, snapshot: Snapshot) -> list[str]:
    """Why a message started nothing, as far as the snapshot tells; the engine knows more."""
    if any(topics.matches(rule.topic, message.topic) for rule in snapshot.rules):
        if mark is None:
            return ["A trigger listens on its topic; ⏎ says why it did not act."]
        return [f"{mark_text(mark)}: ⏎ says why."]
    if not snapshot.rules:
        return ["The configuration has no trigger, so no message starts a task."]
    return ["No trigger listens on its topic."]


def outcome(
    message: Message,
    mark: Mark | None,
    execution: Execution | None,
    reasons: Sequence[str],
    *,
    now_ns: int,
    cells: int,
    utc: bool,
    key: str = "",
) -> list[Line]:
    """What a message led to, in a few lines; ``reasons``: why it started nothing.

    ``key`` is the one that shows the whole explanation.
    """
    if execution is None or mark is None:
        tone = symbols.tone(mark.state) if mark is not None else "dim"
        head: Line = [(" It started nothing", tone)]
        if mark is not None:
            head.append((f"  {mark_text(mark)}", "dim"))
        if key:
            head.append((f"   {key} shows each check", "dim"))
        found = [head]
        for reason in reasons:
            found += [[(f"   {row}", "")] for row in words_in(reason, cells - 4)]
        return found
    lines: list[Line] = [
        [
            (f" {symbols.sign(execution.state)} ", symbols.tone(execution.state)),
            (printable(execution.task_name or execution.task_id), "strong"),
            ("  ", ""),
            *progress(execution, now_ns),
        ]
    ]
    asked = execution.cause.seq
    if asked and asked != message.seq:
        lines.append([(f"   merged: message {formats.number(asked)} asked for it first", "dim")])
    if execution.reason:
        tone = "bad" if execution.state.is_bad else "dim"
        for part in execution.reason.split("\n"):
            lines += [[(f"   {row}", tone)] for row in words_in(part, cells - 4)]
    lines += [
        [("   ", ""), (formats.time_with_ms(step.at_ns, utc=utc), "dim"), (f" {step.text}", "")]
        for step in execution.steps
    ]
    if mark.count > 1:
        lines.append([(f"   and {mark.count - 1} more: see 3 Tasks", "dim")])
    return lines


def payload_lines(text: Sequence[str], cells: int, *, wrapped: bool) -> list[Line]:
    """Payload text as rows; ``wrapped`` breaks long lines, else they are cut with ``…``."""
    if not wrapped:
        return [[(f" {line}", "")] for line in text]
    return [[(f" {piece}", "")] for line in text for piece in wrap(line, cells - 2)]


def peek(
    message: Message,
    mark: Mark | None,
    execution: Execution | None,
    snapshot: Snapshot,
    *,
    size: int,
    now_ns: int,
    cells: int,
    rows: int,
    utc: bool,
) -> list[Line]:
    """The selected message beside its outcome, for the foot of a wide screen."""
    left_cells = cells * 5 // 9
    seconds = (now_ns - message.received_ns) / 1e9
    who = f" {printable(sender(message.client_id))}  {message.address}  {formats.ago(seconds)}"
    facts_text = f"{who}  qos {message.qos}  {formats.size(size)}"
    text = payload.pretty(message.payload) if size == len(message.payload) else None
    shown = text if text is not None else [payload.preview(message.payload, size)]
    left: list[Line] = [[(facts_text, "dim")], *payload_lines(shown, left_cells, wrapped=False)]
    if len(left) > rows:
        left = [*left[: rows - 1], [(f" … {len(left) - rows + 1} more lines: ⏎", "dim")]]
    right = [_rule(rule) for rule in snapshot.rules if topics.matches(rule.topic, message.topic)]
    reasons = [] if execution is not None else why_nothing(mark, message, snapshot)
    right += outcome(
        message,
        mark,
        execution,
        reasons,
        now_ns=now_ns,
        cells=cells - left_cells - 1,
        utc=utc,
    )
    right += [
        _recorded(one, "", snapshot.data_dir)
        for one in snapshot.recorders
        if topics.matches(one.topic, message.topic)
    ]
    return _beside(left, right[:rows], left_cells)


def _beside(left: Sequence[Line], right: Sequence[Line], left_cells: int) -> list[Line]:
    lines: list[Line] = []
    for index in range(max(len(left), len(right))):
        first = left[index] if index < len(left) else []
        second = right[index] if index < len(right) else []
        text = fit("".join(part for part, _ in first), left_cells)
        tone = first[0][1] if first else ""
        lines.append([(text, tone), ("│", "dim"), *second])
    return lines


def cause_line(execution: Execution) -> Line:
    """Where an execution came from."""
    cause = execution.cause
    line: Line = [(" by       ", "dim"), (printable(by(cause)), "")]
    if cause.topic:
        line.append((f"  on {printable(cause.topic)}", "dim"))
    if cause.rule and cause.rule != cause.topic and cause.kind != "http":
        line.append((f"  rule {printable(cause.rule)}", "dim"))
    if cause.seq:
        line.append((f"  message {formats.number(cause.seq)}", "dim"))
    return line
