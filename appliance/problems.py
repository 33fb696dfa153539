"""What needs an operator's attention, decided in one place for all who show it.

``parts`` looks at one snapshot. The terminal's first line, ``appliance health``, ``/healthz`` and
``/metrics`` say what it finds, each in its own form. So they never differ. A problem
that happened (an alarm, a failed task, a loss) is left out once an operator acknowledges it, until
it happens again; what stands until it is mended (no connection, a full disk) can't be acknowledged.
Not for: forms (ui, ops), or finding out what is wrong (each part knows that of itself).
"""

from __future__ import annotations

import time
from collections.abc import Container, Sequence

import msgspec

from appliance.counters import label_of, text_of
from appliance.engine_api import (
    Acknowledgement,
    BridgeState,
    CounterBite,
    FailingTask,
    Health,
    HoldState,
    RecorderState,
    Snapshot,
    TaskFreshness,
    TimerState,
)

LOW_DISK_BYTES = 1_000_000_000
MAX_IN_TEXT = 5
"""Names in the text of a part; further ones are counted."""
MAX_HOLDS_NAMED = 10
"""Holds that are problems of their own; further ones are counted."""
BRIDGE_QUIET_S = 10.0
"""A bridge that lost its connection for less than this is no problem yet: brokers are restarted."""
BRIDGE_BAD_S = 300.0
"""A bridge that has been without a connection for longer than this is bad."""
BRIDGE_NEWS_S = 7 * 86400.0
"""For so long a gap or a parked message is a problem, unless an operator acknowledges it."""
BRIDGE_BEHIND = 50_000
"""Numbers of the journal that the way out of a connected bridge may be behind."""
KEPT_S = 7 * 86400.0
"""For so long an acknowledged loss of a start is listed."""
LOSS = "loss"
"""The kind of what a start found lost (``engine/losses.py``)."""
_ORDER = {"bad": 0, "warn": 1}

Identity = tuple[str, str, str]
"""Kind, name and occurrence of a problem."""


class Place(msgspec.Struct, frozen=True):
    """Where the terminal shows what is behind a problem."""

    kind: str
    """``"execution"``, ``"timer"``, ``"topic"``, ``"client"``, ``"bridge"``, ``"server"``,
    ``"freshness"`` (of a task), or a screen's name."""
    name: str = ""
    """The number of the execution, or the name of the timer, topic, client, bridge or
    task."""


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong now."""

    level: str
    """``"warn"`` or ``"bad"``."""
    text: str
    """The sentence, with the name of what has the problem at its beginning."""
    headline: str
    """A few words for the first line."""
    place: Place
    count: int = 1
    """How many things it stands for."""
    kind: str = ""
    """What it is a problem of: ``"task"``, ``"stale"``, ``"alarm"``, ``"counter"``, ``"gap"``,
    ``"parked"``, ``"missed"`` (the three of a bridge), ``"loss"``. Empty: it can't be
    acknowledged."""
    name: str = ""
    """Which one: the task's id, the timer, the counter's metric, the bridge."""
    occurrence: str = ""
    """Another text whenever it happens again."""
    title: str = ""
    """Its name for people, where ``name`` is none."""
    held: tuple[str, str] | None = None
    """Kind and name of the hold that it tells of."""

    @property
    def identity(self) -> Identity:
        return self.kind, self.name, self.occurrence

    def is_called(self, text: str) -> bool:
        """Whether a person means it by a text: its name or title, in any case."""
        wanted = text.strip().casefold()
        return bool(self.kind) and wanted in (self.name.casefold(), self.title.casefold())


class Part(msgspec.Struct, frozen=True):
    """One part of the appliance and its condition."""

    name: str
    level: str
    """``"ok"``, ``"warn"``, ``"bad"`` or ``"off"``."""
    text: str = ""
    problems: tuple[Problem, ...] = ()
    is_needed: bool = False
    """Whether messages are not accepted, or no task is started, while it is bad."""


def parts(snapshot: Snapshot) -> list[Part]:
    """Every part, in the order of importance, without what operators have acknowledged."""
    known = {(one.kind, one.name, one.occurrence) for one in snapshot.acknowledged}
    clients, log = Place("clients"), Place("log")
    found = []
    if snapshot.link is not None:
        found.append(_part("connection", snapshot.link, "connection", log))
    found += [
        _part(
            f"listener {one.name}",
            one.health,
            "listener",
            clients,
            title=f"listener {one.name or one.bind}",
            is_needed=True,
        )
        for one in snapshot.listeners
    ]
    found += [
        _part(f"port {one.name}", one.health, f"port {one.name}", log) for one in snapshot.http
    ]
    found += [
        _part("journal", snapshot.journal.health, "journal", log, is_needed=True),
        _part("tasks", snapshot.qlik.engine or Health("ok"), "task engine", log, is_needed=True),
    ]
    if snapshot.data is not None:
        found.append(_data(snapshot.data))
    if snapshot.memory is not None:
        found.append(_part("memory", snapshot.memory, "memory", clients))
    found.append(_disk(snapshot))
    if snapshot.qlik.database is not None:
        found.append(_part("task database", snapshot.qlik.database, "task database", log))
    found += [_bridge(one, snapshot.taken_ns, known) for one in snapshot.bridges]
    found.append(_qlik(snapshot))
    found += [
        _part(f"recorder {one.path or one.name}", one.health, _headline("recorder", one), clients)
        for one in snapshot.recorders
    ]
    found += [
        _part(f"upload of {one.path}", one.upload.health, _headline("upload", one), clients)
        for one in snapshot.recorders
        if one.upload is not None
    ]
    found += [_alarm(one, known) for one in snapshot.timers if one.is_alarm]
    return [
        *found,
        _held(snapshot),
        _failing(snapshot, known),
        _late(snapshot, known),
        _waiting(snapshot),
        _losses(snapshot, known),
        _paused(snapshot),
    ]


def acknowledged(snapshot: Snapshot) -> list[Acknowledgement]:
    """What operators have acknowledged and what still stands, the newest first."""
    standing = standing_in(snapshot)
    return [one for one in snapshot.acknowledged if may_stand(one, standing, snapshot)]


def may_stand(one: Acknowledgement, standing: Container[Identity], snapshot: Snapshot) -> bool:
    """Whether the problem that an operator acknowledged is still there, as far as is known.

    A loss of a start leaves nothing that stands once it is acknowledged: it counts for a week. The
    lists of failing and late tasks are bounded, so a task that is not named may be beyond.
    """
    if (one.kind, one.name, one.occurrence) in standing:
        return True
    if one.kind == LOSS:
        return snapshot.taken_ns - one.at_ns < int(KEPT_S * 1e9)
    if one.kind == "task":
        named = {task.task_id for task in snapshot.failing}
        return one.name not in named and snapshot.failing_count > len(named)
    if one.kind == "stale":
        late = {task.task_id or task.name for task in snapshot.stale if task.is_late}
        return one.name not in late and snapshot.late_count > len(late)
    return False


def acknowledgement_text(one: Acknowledgement) -> str:
    """``acknowledged by ann at 2026-11-30 06:51:07 UTC, ticket 4711: Reload HR failed: ...``."""
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(one.at_ns // 10**9))
    note = f", {one.note}" if one.note else ""
    return f"acknowledged by {one.by} at {at} UTC{note}: {one.text}"


def standing_in(snapshot: Snapshot) -> set[Identity]:
    """Every problem that can be acknowledged, whether it is or not."""
    found = problems(msgspec.structs.replace(snapshot, acknowledged=(), failing_acknowledged=0))
    return {one.identity for one in found if one.kind}


def _headline(what: str, recorder: RecorderState) -> str:
    return f"{what} {recorder.name}".rstrip()


def losses_in(snapshot: Snapshot) -> list[str]:
    """What an operator can acknowledge, a sentence each: losses of a start and of bridges."""
    kinds = (LOSS, "gap", "parked", "missed")
    return [one.text.removeprefix("data: ") for one in problems(snapshot) if one.kind in kinds]


def problems(snapshot: Snapshot) -> list[Problem]:
    """Everything that is wrong, the worst first."""
    found = [problem for part in parts(snapshot) for problem in part.problems]
    return sorted(found, key=lambda problem: _ORDER.get(problem.level, 1))


def _part(
    name: str,
    health: Health,
    headline: str,
    place: Place,
    *,
    title: str = "",
    is_needed: bool = False,
) -> Part:
    found: tuple[Problem, ...] = ()
    if health.level in _ORDER:
        text = f"{title or name}: {health.text or 'not well'}"
        found = (Problem(health.level, text, headline, place),)
    return Part(name, health.level, health.text, found, is_needed)


def _data(health: Health) -> Part:
    part = _part("data", health, "data lost", Place("log"))
    found = tuple(
        msgspec.structs.replace(one, kind=LOSS, name="data", occurrence=health.text)
        for one in part.problems
    )
    return msgspec.structs.replace(part, problems=found)


def _disk(snapshot: Snapshot) -> Part:
    if snapshot.disk is not None and snapshot.disk.level in _ORDER:
        return _part("disk", snapshot.disk, "disk nearly full", Place("clients"))
    free = snapshot.journal.disk_free_bytes
    if 0 < free < LOW_DISK_BYTES:
        text = f"only {free // 1_000_000} MB are free in {snapshot.data_dir}"
        return _part("disk", Health("warn", text), "disk nearly full", Place("clients"))
    return Part("disk", "ok")


def _qlik(snapshot: Snapshot) -> Part:
    qlik = snapshot.qlik
    if qlik.engine is not None and qlik.engine.level in _ORDER and qlik.health == qlik.engine:
        # It is the problem of the part "tasks": named once.
        return Part("qlik", qlik.health.level, qlik.health.text)
    headline = "Qlik away" if qlik.is_away else "Qlik"
    title = f"Qlik {qlik.label}".rstrip()
    return _part("qlik", qlik.health, headline, Place("server"), title=title)


def _alarm(timer: TimerState, known: Container[Identity]) -> Part:
    name = f"timer {timer.name}"
    found = Problem(
        "bad",
        f"{name}: {timer.detail}",
        f"alarm {timer.name}",
        Place("timer", timer.name),
        kind="alarm",
        name=timer.name,
        occurrence=str(timer.silent_since_ns),
    )
    if found.identity in known:
        return Part(name, "ok", f"acknowledged: {timer.detail}")
    return Part(name, "bad", timer.detail, (found,))


def _bridge(bridge: BridgeState, now_ns: int, known: Container[Identity]) -> Part:
    """A bridge: its connection, its subscriptions, and what was lost or left out lately."""
    title = f"bridge {bridge.name}"
    place = Place("bridge", bridge.name)
    found: list[Problem] = []

    def note(level: str, text: str, headline: str, count: int = 1) -> None:
        found.append(Problem(level, f"{title}: {text}", headline, place, count))

    def note_loss(kind: str, at_ns: int | None, text: str) -> None:
        """What an operator may acknowledge; the last time that it happened is its occurrence."""
        if at_ns is None or not _is_news(at_ns, now_ns):
            return
        one = Problem(
            "warn",
            f"{title}: {text}",
            f"{title} {kind}",
            place,
            kind=kind,
            name=bridge.name,
            occurrence=str(at_ns),
        )
        if one.identity not in known:
            found.append(one)

    level, text = bridge_level(bridge, now_ns), bridge.health.text
    if level in _ORDER and bridge.connected:
        note(level, text or "not well", title)
    elif level in _ORDER:
        note(level, text or f"no connection to {bridge.address}", f"{title} away")
    refused = [one for one in bridge.subscriptions if one.problem] if bridge.connected else []
    for one in refused[:MAX_IN_TEXT]:
        is_deaf = " brings nothing" if one.granted is None else ""
        note("warn", f"{one.topic}{is_deaf}: {one.problem}", f"{title}: {one.topic}")
    if (more := len(refused) - MAX_IN_TEXT) > 0:
        note("warn", f"{more} further topic filters have a problem", f"{title}: {more} more", more)
    times = "once" if bridge.gaps == 1 else f"{bridge.gaps} times"
    times = f"{times} since the start" if bridge.gaps else "before the last start"
    note_loss(
        "gap",
        bridge.gap_ns,
        f"messages may be missing, {bridge.address} had lost the session {times}. "
        "If you know it, run: appliance acknowledge",
    )
    note_loss(
        "parked",
        bridge.parked_ns,
        f"{bridge.parked} of the messages that go out were refused by {bridge.address} and "
        "left out since the start; the log says why. If you know it, run: appliance acknowledge",
    )
    note_loss(
        "missed",
        bridge.missed_ns,
        f"the journal has deleted up to {bridge.missed} messages before they went out to "
        f"{bridge.address}; raise journal.max_size. If you know it, run: appliance acknowledge",
    )
    if bridge.connected and bridge.lag > BRIDGE_BEHIND:
        note("warn", f"what goes out is {bridge.lag} numbers behind", f"{title} behind")
    worst = min((one.level for one in found), key=lambda one: _ORDER[one], default=level)
    words = "; ".join(one.text.removeprefix(f"{title}: ") for one in found) or text
    return Part(title, worst, words, tuple(found))


def bridge_level(bridge: BridgeState, now_ns: int) -> str:
    """The level of a bridge's connection: ``"ok"``, ``"warn"``, ``"bad"`` or ``"off"``."""
    level = bridge.health.level
    if bridge.connected or level in ("bad", "off"):
        return level
    away_s = 0.0 if bridge.since_ns is None else (now_ns - bridge.since_ns) / 1e9
    if away_s >= BRIDGE_BAD_S:
        return "bad"
    return "warn" if away_s >= BRIDGE_QUIET_S else "ok"


def _is_news(at_ns: int, now_ns: int) -> bool:
    return now_ns - at_ns < BRIDGE_NEWS_S * 1e9


def _failing(snapshot: Snapshot, known: Container[Identity]) -> Part:
    """The tasks whose last request ended badly, and that no operator has acknowledged."""
    found = [(one, _failure(one)) for one in snapshot.failing]
    shown = [(one, problem) for one, problem in found if problem.identity not in known]
    if not shown:
        return Part("failing tasks", "ok")
    hidden = max(snapshot.failing_acknowledged, len(found) - len(shown))
    count = max(snapshot.failing_count - hidden, len(shown))
    texts = [f"{one.name} ({one.state.value})" for one, _ in shown[:MAX_IN_TEXT]]
    problems_found = [problem for _, problem in shown]
    if (more := count - len(shown)) > 0:
        text = f"{more} further tasks fail; see their last executions"
        further = Problem("warn", text, f"{more} tasks fail", Place("tasks"), more)
        problems_found.append(further)
    return Part("failing tasks", "warn", _joined(texts, count), tuple(problems_found))


def _failure(task: FailingTask) -> Problem:
    return Problem(
        "warn",
        f"{task.name} {task.state.value}: {task.reason or 'no reason is known'}",
        f"{task.name} {task.state.value}",
        Place("execution", str(task.execution)),
        kind="task",
        name=task.task_id,
        occurrence=str(task.execution),
        title=task.name,
    )


def _losses(snapshot: Snapshot, known: Container[Identity]) -> Part:
    """The counters that tell of a loss in the last 24 hours."""
    found = [one for one in map(_loss, snapshot.bites) if one.identity not in known]
    if not found:
        return Part("losses", "ok")
    texts = [one.text.partition(". ")[0] for one in found[:MAX_IN_TEXT]]
    return Part("losses", "warn", _joined(texts, len(found)), tuple(found))


def _loss(bite: CounterBite) -> Problem:
    label = label_of(bite.name)
    times = "once" if bite.count == 1 else f"{bite.count} times"
    return Problem(
        "warn",
        f"{label}, {times}. {text_of(bite.name)}".rstrip(),
        label,
        Place("log"),
        kind="counter",
        name=bite.name,
        occurrence=bite.occurrence,
        title=label,
    )


def _late(snapshot: Snapshot, known: Container[Identity]) -> Part:
    """The tasks whose data is later than a rule wants it, and that nobody has acknowledged."""
    found = [_lateness(one, snapshot.taken_ns) for one in snapshot.stale if one.is_late]
    shown = [one for one in found if one.identity not in known]
    count = max(snapshot.late_count - (len(found) - len(shown)), len(shown))
    if not count:
        return Part("late data", "ok")
    text = _joined([one.headline for one in shown[:MAX_IN_TEXT]], count)
    if (more := count - len(shown)) > 0:
        words = f"{more} further tasks are late"
        shown.append(Problem("warn", words, words, Place("freshness"), more))
    return Part("late data", "warn", text, tuple(shown))


def _lateness(task: TaskFreshness, now_ns: int) -> Problem:
    since_s = (now_ns - (task.stale_since_ns or now_ns)) / 1e9
    within = f" (fresh_within {duration_text(task.fresh_within_s)})" if task.fresh_within_s else ""
    return Problem(
        "warn",
        f"{task.name} is stale for {duration_text(since_s)}{within}: no successful run began after "
        f"message {task.oldest_seq}. {task.why}",
        f"{task.name} stale {duration_text(since_s)}",
        Place("freshness", task.name),
        kind="stale",
        name=task.task_id or task.name,
        occurrence=str(task.oldest_seq),
        title=task.name,
    )


def duration_text(seconds: float) -> str:
    """A duration in a few characters, rounded down: ``16 min``."""
    whole = int(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min"
    if whole < 2 * 86400:
        return f"{whole // 3600} h" + (f" {whole % 3600 // 60} min" if whole % 3600 >= 60 else "")
    return f"{whole // 86400} d"


def _waiting(snapshot: Snapshot) -> Part:
    """The starts that wait longer than they should."""
    named = snapshot.waiting_long
    if not named:
        return Part("waiting starts", "ok")
    count = max(snapshot.waiting_long_count, len(named))
    texts = [one.name for one in named[:MAX_IN_TEXT]]
    text = f"{_joined(texts, count)}: {named[0].reason}"
    found = [
        Problem(
            "warn",
            f"{one.name} waits for its start: {one.reason}",
            f"{one.name} waits",
            Place("execution", str(one.execution)),
        )
        for one in named
    ]
    if (more := count - len(named)) > 0:
        words = f"{more} further starts wait"
        found.append(Problem("warn", words, words, Place("tasks"), more))
    return Part("waiting starts", "warn", text, tuple(found))


def _held(snapshot: Snapshot) -> Part:
    """What operators hold, for a maintenance window for example."""
    if not snapshot.holds:
        return Part("holds", "ok")
    now_ns = snapshot.taken_ns
    found = [
        Problem(
            "warn",
            f"{one.shown} is held {held_text(one, now_ns)}",
            _held_headline(one, now_ns),
            _held_place(one),
            held=(one.kind, one.name),
        )
        for one in snapshot.holds[:MAX_HOLDS_NAMED]
    ]
    if (more := len(snapshot.holds) - len(found)) > 0:
        words = f"{more} further holds"
        found.append(Problem("warn", words, words, Place("tasks"), more))
    texts = [one.text for one in found[:MAX_IN_TEXT]]
    return Part("holds", "warn", _joined(texts, len(snapshot.holds), "; "), tuple(found))


def held_text(hold: HoldState, now_ns: int) -> str:
    """``until 06:00 by ann: new disks; 14 starts wait``."""
    parts = [f"by {hold.who}" + (f": {hold.reason}" if hold.reason else "")]
    if hold.until_ns is not None:
        parts[0] = f"until {moment_text(hold.until_ns, now_ns)} {parts[0]}"
    if hold.drop:
        parts.append("what asks for a start meanwhile is dropped")
    if hold.waiting:
        parts.append("1 start waits" if hold.waiting == 1 else f"{hold.waiting} starts wait")
    return "; ".join(parts)


def moment_text(at_ns: int, now_ns: int) -> str:
    """A time of day here, with its date if it is another day's: ``06:00``."""
    at, now = time.localtime(at_ns // 10**9), time.localtime(now_ns // 10**9)
    return time.strftime("%H:%M" if at[:3] == now[:3] else "%Y-%m-%d %H:%M", at)


def _held_headline(hold: HoldState, now_ns: int) -> str:
    what = "all held" if hold.kind == "everything" else f"{hold.title or hold.name} held"
    return what if hold.until_ns is None else f"{what} until {moment_text(hold.until_ns, now_ns)}"


def _held_place(hold: HoldState) -> Place:
    if hold.kind in ("timer", "client"):
        return Place(hold.kind, hold.name)
    return Place("tasks")


def _paused(snapshot: Snapshot) -> Part:
    """Timers and waits that an operator paused."""
    named = [one for one in snapshot.timers if one.paused]
    if not named:
        return Part("paused timers", "ok")
    found = tuple(
        Problem(
            "warn",
            f"timer {one.name} is paused: it does nothing until it is continued",
            f"{one.name} paused",
            Place("timer", one.name),
        )
        for one in named
    )
    texts = [one.name for one in named[:MAX_IN_TEXT]]
    return Part("paused timers", "warn", _joined(texts, len(named)), found)


def _joined(texts: Sequence[str], count: int, sign: str = ", ") -> str:
    more = count - len(texts)
    return sign.join(texts) + (f" and {more} more" if more > 0 else "")
