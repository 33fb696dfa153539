"""``appliance tasks``: the tasks that the configured user sees, with the ids that start them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

from appliance.commands.output import print_json
from appliance.config.reading import load_tables
from appliance.errors import EXIT_OK, ConfigError
from appliance.log.sanitize import escape
from appliance.model import Task, TaskKind
from appliance.qlik.connect import connect
from appliance.tasks.catalog import AllowList


def execute(options: argparse.Namespace) -> int:
    """List the tasks; returns the exit code. Raises ``ConfigError`` or ``QlikError``."""
    config = load_tables(options.config, qlik=(), allow=())
    if config.qlik is None:
        raise ConfigError(f'{options.config}: there is no [qlik]; add it, see "appliance init"')
    server = connect(config.qlik)
    try:
        # The error's exit code tells whether it may pass, is a refusal, or needs a fix.
        server.check()
        tasks = server.tasks()
    finally:
        server.close()
    wanted = options.search.casefold()
    found = sorted(
        (task for task in tasks if any(wanted in text.casefold() for text in _texts(task))),
        key=lambda task: task.name.casefold(),
    )
    allow = AllowList(config.allow)
    if options.json:
        print_json(found)
        return EXIT_OK
    for task in found:
        sys.stdout.write(f"{task.id}  {escape(task.name)}{_remarks(task, tasks, allow)}\n")
    if not found:
        what = "that this user may see"
        if wanted:
            what = f"with {options.search!r} in its name, id, app, tags or properties"
        sys.stderr.write(f"{server.label} has no task {what}\n")
    return EXIT_OK


def _texts(task: Task) -> Iterator[str]:
    """What a search looks at: each property that a trigger may name a task by."""
    yield from (task.name, task.id, task.app_name, task.app_id, *task.tags, task.kind.text)
    yield from (f"{name}={value}" for name, value in task.properties)


def _remarks(task: Task, tasks: Sequence[Task], allow: AllowList) -> str:
    remarks = [] if task.kind is TaskKind.RELOAD else [task.kind.text]
    if not task.enabled:
        remarks.append("disabled")
    if not allow.allows(task.id.lower(), task, lambda: tasks):
        remarks.append("not in [allow]")
    if task.app_name:
        remarks.append(f"app {escape(task.app_name)}")
    if task.tags:
        remarks.append(f"tags {', '.join(map(escape, task.tags))}")
    remarks += [f"{escape(name)}={escape(value)}" for name, value in task.properties]
    return f"  ({'; '.join(remarks)})" if remarks else ""
