"""``scheduler``: the entries of Butler's schedule file become ``[[timer]]`` tables.

Butler's program hands the time zone of an entry to its library under a name that the library does
not know, so its schedules follow the clock of Butler's server. The zone that the entry names is
taken here: it is what people read in the file. A note names each entry where the two differ.
Not for: the form of the times (config/butler_cron.py).
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

from appliance.commands.from_butler.draft import Draft
from appliance.commands.from_butler.section import Section
from appliance.commands.from_butler.toml_table import TomlTable
from appliance.commands.from_butler.yaml_tree import read_yaml
from appliance.config import butler_cron
from appliance.config.checks import GUID
from appliance.config.problems import shown
from appliance.config.timer_checks import is_zone
from appliance.errors import ApplianceError

_NOT_IN_NAMES = re.compile(r"[^\w .-]+")
_LONGEST_NAME = 60
_STARTED = ("start", "started")
_STOPPED = ("stop", "stopped")


def take(butler: Section, draft: Draft) -> None:
    """Add a ``[[timer]]`` for each entry of the schedule file."""
    scheduler = butler.section("scheduler")
    if not scheduler.enabled():
        return
    named = scheduler.text("configfile")
    file = draft.located(named)
    if file is None:
        reason = "the schedule file is not there; name it, and call the command again"
        scheduler.leave("configfile", reason)
        return
    try:
        item = read_yaml(file)
    except ApplianceError as error:
        scheduler.leave("configfile", f"it can't be read: {error}")
        return
    names: set[str] = set()
    ids: set[str] = set()
    entries = Section(item, file.name, draft.findings).sections("butlerSchedule")
    if not entries:
        scheduler.leave("configfile", "the file has no list butlerSchedule with entries")
    for entry in entries:
        table = _timer(entry, names, ids)
        if table is None:
            continue
        if not draft.tables or draft.tables[-1].name != "timer":
            above = f"Butler's schedules, from {file.name}."
            table.comment = f"{above} {table.comment}".strip()
        draft.add(table)
        if not table.missing:
            draft.scheduled_tasks.append(str(table.keys["task"]))


def _timer(entry: Section, names: set[str], ids: set[str]) -> TomlTable | None:
    written = entry.text("name")
    where = f"{entry.path} ({shown(written)})"
    task, text = entry.text("qlikSenseTaskId"), entry.text("cronSchedule")
    times = butler_cron.read(text)
    state = entry.text("startupState")
    zone = entry.text("timezone")
    entry.used("lastKnownState", "created")
    if entry.texts("tags"):
        entry.leave("tags", "a [[timer]] has none; GET /v4/schedules answers an empty list")
    if not GUID.fullmatch(task):
        entry.findings.leave(where, "its task is no task id; write it as [[timer]]")
        return None
    if times.problem:
        entry.findings.leave(
            where, f"its times can't be taken over ({shown(text)}): {times.problem}"
        )
        return None
    table = TomlTable("[[timer]]", {"name": _name(written, names)})
    if (known := entry.text("id")) and known not in ids:
        table.keys["id"] = known
        ids.add(known)
    elif known:
        entry.findings.differs(where, "its id is that of an entry above, so it gets another one")
    table.keys["task"] = task
    if times.every:
        table.keys["every"] = times.every
        entry.findings.differs(where, f"fires every {times.every}, counted from the first start")
    else:
        table.keys["cron"] = times.cron
        table.missing = _take_zone(zone, table, entry, where)
    if times.remark:
        entry.findings.differs(where, times.remark)
    if state not in _STARTED:
        table.missing = 'Stopped in Butler; to use it, remove the "# " below.'
        why = "" if state in _STOPPED else " there, because its startupState is not `started`"
        entry.findings.differs(where, f"it is stopped{why}, so it stands here as a comment")
    return table


def _take_zone(zone: str, table: TomlTable, entry: Section, where: str) -> str:
    """Write the time zone. Returns why the timer can't be in effect, or an empty text."""
    if zone and is_zone(zone):
        table.keys["timezone"] = zone
        if not _is_local(zone):
            entry.findings.differs(
                where,
                f"its time zone counts here ({shown(zone)}). Butler ignores it and goes by the "
                "clock of its server; if that is another one, change `timezone` or `cron`",
            )
        return ""
    found = local_zone()
    if found:
        table.keys["timezone"] = found
        what = f"is not known ({shown(zone)})" if zone else "is missing"
        entry.findings.differs(where, f"its time zone {what}; that of this machine is written")
        return ""
    entry.findings.differs(where, "it has no time zone that is known; write `timezone`")
    return 'Not in effect yet: write the time zone, and remove the "# " below.'


def _name(written: str, taken: set[str]) -> str:
    """A name that a timer can have, and that no other has."""
    name = _NOT_IN_NAMES.sub("-", written).strip()[:_LONGEST_NAME].strip(" -") or "schedule"
    found, number = name, 2
    while found in taken:
        found = f"{name[: _LONGEST_NAME - 6]} {number}"
        number += 1
    taken.add(found)
    return found


def _is_local(zone: str) -> bool:
    """Whether a zone has the time of this machine, this summer and this winter."""
    year = dt.datetime.now(dt.UTC).year
    moments = [dt.datetime(year, month, 15, 12, tzinfo=dt.UTC) for month in (1, 7)]
    return all(
        each.astimezone(ZoneInfo(zone)).utcoffset() == each.astimezone().utcoffset()
        for each in moments
    )


def local_zone() -> str:
    """The IANA name of this machine's time zone; empty where the system does not tell it."""
    if _is_local("UTC"):
        return "UTC"
    return next((name for name in _zone_names() if name and is_zone(name) and _is_local(name)), "")


def _zone_names() -> Iterator[str]:
    for place in (Path("/etc/timezone"), Path("/etc/localtime")):
        try:
            if place.is_symlink():
                yield str(place.resolve()).partition("zoneinfo/")[2]
            else:
                yield place.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            continue
