"""The rows of ``appliance tasks --long`` and ``--tree``: what is known without a running appliance.

The server tells the last runs, its schedules and chains; the configuration has rules and timers.
Not for: the lines of ids (tasks.py), executions of the appliance (its screens and ``[http]``).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from appliance.config.tables import Config
from appliance.engine_api import ServerTask, ServerTasks
from appliance.log.sanitize import escape
from appliance.model import Task
from appliance.qlik.server import QlikServer
from appliance.tasks import server_tasks
from appliance.tasks.catalog import AllowList
from appliance.tasks.event_list import EventList
from appliance.tasks.outcomes import time_text
from appliance.tasks.overview import KnownTask
from appliance.tasks.timers import TimedStart, Timers
from appliance.tasks.verdicts import Triggers
from appliance.ui import formats, starter_text, symbols
from appliance.ui.task_list import Row

_HEADINGS = ("ID", "TASK", "LAST", "SINCE", "USUALLY", "NEXT", "STARTED BY")
_WIDEST = 60
"""Characters of a column; a longer text moves the rest of its row."""


def known_tasks(
    config: Config, server: QlikServer, tasks: Sequence[Task], now_ns: int
) -> ServerTasks:
    """The tasks as the server and the configuration know them. Raises ``ConfigError``."""
    events, problem = EventList(server).get()
    if problem:
        problem = f"What the server starts by itself can't be read: {problem}"
    name = config.service.name
    tasks = [msgspec.structs.replace(one, id=one.id.lower()) for one in tasks]
    rules = Triggers(config.trigger, service_name=name).rules
    starting = server_tasks.WhatStarts(name).of(tasks, rules, _timers(config, now_ns), events)
    allow = AllowList(config.allow)
    return server_tasks.answer(
        [KnownTask(one, usual_s=one.last_duration_s) for one in tasks],
        starting,
        rules,
        allows=lambda task: allow.allows(task.id, task, lambda: tasks),
        problem=problem,
    )


def _timers(config: Config, now_ns: int) -> list[TimedStart]:
    """Timers that start tasks. When an interval ends, only a running appliance knows."""
    timers = Timers(config.timer, service_name=config.service.name)
    timers.load({}, now_ns)
    return [
        one
        if timers.timers[one.state.name].config.cron is not None
        else one._replace(state=msgspec.structs.replace(one.state, due_ns=None))
        for one in timers.timed_starts()
    ]


def lines(rows: Sequence[Row], names: Mapping[str, str], now_ns: int) -> Iterator[str]:
    """A table, its columns as wide as they need to be."""
    cells = [_HEADINGS, *(_cells(row, names, now_ns) for row in rows)]
    sizes = [min(_WIDEST, max(map(len, column))) for column in zip(*cells, strict=True)]
    for row in cells:
        shown = [cell.ljust(size) for cell, size in zip(row, sizes, strict=True)]
        yield "  ".join(shown).rstrip()


def _cells(row: Row, names: Mapping[str, str], now_ns: int) -> tuple[str, ...]:
    item = row.item
    since = "" if item.since_ns is None else formats.age((now_ns - item.since_ns) / 1e9)
    starters = [" ".join(starter_text.short(one, names)) for one in item.starters if one.enabled]
    return (
        item.task.id,
        row.branch + escape(item.task.name),
        "never" if item.state is None else symbols.word(item.state),
        since,
        "" if item.usual_s is None else f"~{formats.took(item.usual_s)}",
        _next(item, now_ns),
        escape(", ".join(starters)),
    )


def _next(item: ServerTask, now_ns: int) -> str:
    if not item.task.enabled:
        return "disabled"
    if item.next_ns is None:
        return ""
    form = "%H:%M" if item.next_ns - now_ns < 12 * 3600 * 10**9 else "%Y-%m-%d %H:%M"
    return time.strftime(form, time.localtime(item.next_ns // 10**9))


def described(item: ServerTask) -> dict[str, Any]:
    """A task for programs: what the server says of it, and what is known beside that."""
    found: dict[str, Any] = msgspec.to_builtins(item.task)
    return found | {
        "state": item.state,
        "since": None if item.since_ns is None else time_text(item.since_ns),
        "next": None if item.next_ns is None else time_text(item.next_ns),
        "allowed": item.is_allowed,
        "starters": [
            {
                "kind": one.kind,
                "name": one.name,
                "detail": one.detail,
                "enabled": one.enabled,
                "next": None if one.next_ns is None else time_text(one.next_ns),
                "after": [{"id": task_id, "end": end or "any"} for task_id, end in one.after],
            }
            for one in item.starters
        ],
    }
