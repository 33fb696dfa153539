"""What starts a task, in words: for the screen of the server's tasks and ``appliance tasks``.

Not for: tones and columns (views/server_task.py).
"""

from __future__ import annotations

from collections.abc import Mapping

from appliance.engine_api import Starter

_SHORT = {"rule": "rule", "timer": "timer", "schedule": "Qlik"}
_LONG = {
    "rule": "rule",
    "timer": "timer",
    "outcome": "rule on outcomes",
    "schedule": "schedule of the server",
    "chain": "chain of the server",
}


def short(one: Starter, names: Mapping[str, str]) -> tuple[str, str]:
    """A word for its kind, and what to call it; ``names``: of the tasks, by their ids."""
    if one.after:
        return "after", ", ".join(names.get(task_id, task_id) for task_id, _ in one.after)
    if one.kind in ("outcome", "chain"):
        return "after", one.detail if one.kind == "outcome" else one.name
    return _SHORT.get(one.kind, one.kind), one.name


def kind(one: Starter) -> str:
    """What it is, in full."""
    return _LONG.get(one.kind, one.kind)


def after(one: Starter, names: Mapping[str, str]) -> str:
    """The tasks that it waits for and their ends; empty if it waits for none by name."""
    ends = [f"{names.get(task_id, task_id)} {on}".rstrip() for task_id, on in one.after]
    return " and ".join(ends)


def sentence(one: Starter, names: Mapping[str, str]) -> str:
    """All of it but its next time."""
    parts = [kind(one), one.name]
    if one.detail:
        parts.append(f"({one.detail})")
    if ends := after(one, names):
        parts.append(f"after {ends}")
    return " ".join(parts) + ("" if one.enabled else ", which is off")
