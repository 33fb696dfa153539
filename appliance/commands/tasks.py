"""``appliance tasks``: the tasks that the configured user sees, with the ids that start them.

Not for: what else is known of them (task_table.py).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Container, Iterator, Sequence

from appliance.commands import task_table
from appliance.commands.output import print_json
from appliance.config.reading import load_tables
from appliance.config.tables import Config
from appliance.engine_api import ServerTask, ServerTasks
from appliance.errors import EXIT_OK, ConfigError
from appliance.log.sanitize import escape
from appliance.model import Task, TaskKind
from appliance.qlik.connect import connect
from appliance.tasks.catalog import AllowList
from appliance.tasks.timers import Timers
from appliance.tasks.verdicts import Triggers
from appliance.ui import task_list


def execute(options: argparse.Namespace) -> int:
    """List the tasks; returns the exit code. Raises ``ConfigError`` or ``QlikError``."""
    is_whole = options.long or options.tree or options.json
    config, problem = _config(options.config, is_whole=is_whole)
    if config.qlik is None:
        raise ConfigError(f'{options.config}: there is no [qlik]; add it, see "appliance init"')
    server = connect(config.qlik)
    try:
        # The error's exit code tells whether it may pass, is a refusal, or needs a fix.
        server.check()
        tasks = server.tasks()
        known = task_table.known_tasks(config, server, tasks, time.time_ns()) if is_whole else None
    finally:
        server.close()
    wanted = options.search.casefold()
    found = sorted(
        (task for task in tasks if any(wanted in text.casefold() for text in _texts(task))),
        key=lambda task: task.name.casefold(),
    )
    allow = AllowList(config.allow)
    if known is not None:
        wanted_ids = {task.id.lower() for task in found}
        _print_known(known, wanted_ids, options)
        problem = problem or known.problem
    else:
        for task in found:
            sys.stdout.write(f"{task.id}  {escape(task.name)}{_remarks(task, tasks, allow)}\n")
    if problem:
        sys.stderr.write(f"{escape(problem)}\n")
    if options.json:
        return EXIT_OK
    if not found:
        what = "that this user may see"
        if wanted:
            what = f"with {options.search!r} in its name, id, app, tags or properties"
        sys.stderr.write(f"{server.label} has no task {what}\n")
    return EXIT_OK


def _config(path: str, *, is_whole: bool) -> tuple[Config, str]:
    """The configuration, and why its rules and timers are not among what starts a task."""
    if is_whole:
        try:
            config = load_tables(path, qlik=(), allow=(), trigger=(), timer=(), service=("name",))
            # They are compiled here, too, since the lists of ids is there without them.
            Triggers(config.trigger, service_name=config.service.name)
            Timers(config.timer, service_name=config.service.name)
        except ConfigError as error:
            return load_tables(path, qlik=(), allow=()), f"Rules and timers are left out: {error}"
        return config, ""
    return load_tables(path, qlik=(), allow=()), ""


def _print_known(known: ServerTasks, wanted: Container[str], options: argparse.Namespace) -> None:
    def takes(one: ServerTask) -> bool:
        return one.task.id in wanted

    tasks = task_list.ordered(known.tasks, "name")
    if options.json:
        print_json([task_table.described(one) for one in tasks if takes(one)])
        return
    rows = task_list.tree(tasks, takes) if options.tree else task_list.flat(filter(takes, tasks))
    names = {one.task.id: one.task.name for one in tasks}
    if rows:
        for line in task_table.lines(rows, names, time.time_ns()):
            sys.stdout.write(f"{line}\n")


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
