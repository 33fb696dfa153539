"""What can be held of a thing on a page: its task, its rule or timer, its client, everything.

Not for: asking for the hold (screens/hold_dialog.py).
"""

from __future__ import annotations

from typing import NamedTuple

from appliance.engine_api import HoldState, ServerTask
from appliance.model import APP, Execution
from appliance.ui.text import printable


class Target(NamedTuple):
    """Something that can be held."""

    kind: str
    """As in ``HoldState``."""
    name: str = ""
    title: str = ""
    """Its name for people, where ``name`` is none."""

    @property
    def shown(self) -> str:
        return printable(f"{self.kind} {self.title or self.name}".rstrip())


STARTERS = {"rule": "trigger", "outcome": "trigger", "timer": "timer"}
"""What can be held of the things that start a task: their kinds, and the kinds of their holds."""

_MOST = 20

EVERYTHING = Target("everything")
"""Can be held on every page."""


def of_execution(execution: Execution) -> list[Target]:
    """The task of an execution, then the rule or timer and the client that asked for it."""
    found = []
    if execution.task_id and not execution.task_id.startswith(APP):
        found.append(Target("task", execution.task_id, execution.task_name))
    cause = execution.cause
    if cause.kind == "message":
        found += [Target("trigger", cause.rule)] if cause.rule else []
        found += of_client(cause.client_id)
    elif cause.kind == "timer" and cause.rule:
        found.append(Target("timer", cause.rule))
    return found


def of_client(client_id: str) -> list[Target]:
    """A client; nothing for the appliance itself, a bridge or HTTP."""
    is_client = client_id and not client_id.startswith("$")
    return [Target("client", client_id)] if is_client else []


def of_server_task(item: ServerTask) -> list[Target]:
    """A task of the server, then the rules and timers that start it, some at most."""
    if item.task.id.startswith(APP):
        return []
    found = [Target("task", item.task.id, item.task.name)]
    starting = ((STARTERS.get(one.kind), one.name) for one in item.starters)
    found += [Target(kind, name) for kind, name in dict.fromkeys(starting) if kind is not None]
    return found[:_MOST]


def of_hold(hold: HoldState) -> Target:
    """What is held."""
    return Target(hold.kind, hold.name, hold.title)
