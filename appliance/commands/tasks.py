"""``appliance tasks``: the tasks that the configured user sees, with the ids that start them."""

from __future__ import annotations

import argparse
import sys

import msgspec

from appliance.config import load
from appliance.errors import EXIT_OK, ConfigError
from appliance.model import Task
from appliance.qlik.connect import connect
from appliance.safe_text import escape


def execute(options: argparse.Namespace) -> int:
    """List the tasks; returns the exit code. Raises ``ConfigError`` or ``QlikError``."""
    config = load(options.config)
    if config.qlik is None:
        raise ConfigError(f'{options.config}: there is no [qlik]; add it, see "appliance init"')
    server = connect(config.qlik)
    try:
        # What it raises says by its exit code whether it may pass, is denied or is to be mended.
        server.check()
        tasks = server.tasks()
    finally:
        server.close()
    wanted = options.search.casefold()
    found = sorted(
        (task for task in tasks if wanted in task.name.casefold() or wanted == task.id),
        key=lambda task: task.name.casefold(),
    )
    if options.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found)).decode() + "\n")
        return EXIT_OK
    for task in found:
        sys.stdout.write(f"{task.id}  {escape(task.name)}{_remarks(task)}\n")
    if not found:
        what = f"whose name has {options.search!r}" if wanted else "that this user may see"
        sys.stderr.write(f"{server.label} has no task {what}\n")
    return EXIT_OK


def _remarks(task: Task) -> str:
    remarks = [] if task.enabled else ["disabled"]
    if task.app_name:
        remarks.append(f"app {escape(task.app_name)}")
    if task.tags:
        remarks.append(f"tags {', '.join(map(escape, task.tags))}")
    return f"  ({'; '.join(remarks)})" if remarks else ""
