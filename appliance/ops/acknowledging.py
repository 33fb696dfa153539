"""``appliance acknowledge`` with names, on the side of the running appliance.

Not for: the file that the request comes in (control_file.py), what is a problem (problems.py).
"""

from __future__ import annotations

from appliance.engine_api import Engine, Snapshot
from appliance.errors import ApplianceError
from appliance.ops.control_file import Request
from appliance.problems import Problem, acknowledged, acknowledgement_text, problems

_NO_NAME = "appliance acknowledge"


def acknowledge(engine: Engine, request: Request) -> tuple[bool, list[str]]:
    """Acknowledge what is called so; returns whether all of it was, and a line for each."""
    lines, done = [], True
    snapshot = engine.snapshot()
    for name in request.names:
        found = [one for one in problems(snapshot) if one.is_called(name)]
        if not found:
            lines.append(_unknown(name, engine.snapshot()))
            done = False
        for one in found:
            try:
                made = engine.acknowledge_problem(
                    one.kind, one.name, one.occurrence, request.note, request.by or _NO_NAME
                )
                lines.append(f"acknowledged: {made.text}")
            except ApplianceError as error:
                lines.append(f"{name}: {error}")
                done = False
    return done, lines


def take_back(engine: Engine, request: Request) -> tuple[bool, list[str]]:
    """Show again what is called so; returns whether all of it is, and a line for each."""
    lines, done = [], True
    known = acknowledged(engine.snapshot())
    for name in request.names:
        wanted = name.strip().casefold()
        found = [one for one in known if wanted in (one.name.casefold(), one.title.casefold())]
        if not found:
            lines.append(f"{name} is not acknowledged. appliance acknowledge --list says what is.")
            done = False
        for one in found:
            try:
                engine.unacknowledge_problem(one.kind, one.name, request.by or _NO_NAME)
                lines.append(f"shown again: {one.text}")
            except ApplianceError as error:
                lines.append(f"{name}: {error}")
                done = False
    return done, lines


def listed(snapshot: Snapshot) -> list[str]:
    """What can be acknowledged, then what is, with who, when and why; a line each."""
    lines = [f"{_called(one)}: {one.text}" for one in problems(snapshot) if one.kind]
    lines += [acknowledgement_text(one) for one in acknowledged(snapshot)]
    return lines or ["nothing can be acknowledged, and nothing is"]


def _called(one: Problem) -> str:
    return one.title or one.name


def _unknown(name: str, snapshot: Snapshot) -> str:
    names = list(dict.fromkeys(_called(one) for one in problems(snapshot) if one.kind))
    if not names:
        return f"Nothing that is called {name} needs attention, and nothing can be acknowledged."
    shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    return f"Nothing that is called {name} needs attention. These can be acknowledged: {shown}."
