"""Tasks and executions as JSON. Executions have the members of the appliance's topics, and more.

Not for: what the topics have (tasks/outcomes.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from appliance.model import Execution, ExecutionState
from appliance.tasks.outcomes import describe, time_text
from appliance.tasks.overview import KnownTask


def execution_json(execution: Execution) -> dict[str, Any]:
    """One execution."""
    found = describe(execution)
    found["final"] = execution.state.is_final
    found["usualSeconds"] = execution.usual_s
    if execution.next_attempt_ns is not None:
        found["nextAttempt"] = time_text(execution.next_attempt_ns)
    if execution.answered_by:
        found["answeredBy"] = execution.answered_by
    return found


def task_json(known: KnownTask) -> dict[str, Any]:
    """One task."""
    task, newest = known.task, known.newest
    properties: dict[str, list[str]] = {}
    for name, value in task.properties:
        properties.setdefault(name, []).append(value)
    return {
        "id": task.id,
        "name": task.name,
        "kind": task.kind.text,
        "enabled": task.enabled,
        "appId": task.app_id,
        "appName": task.app_name,
        "tags": task.tags,
        "customProperties": properties,
        "partial": task.partial,
        "usualSeconds": known.usual_s,
        "nextTimer": time_text(known.next_ns),
        "newestExecution": None if newest is None else execution_json(newest),
    }


def is_over(execution: Execution) -> bool:
    """Whether it has its outcome, and the end of the script log if there is one to come."""
    return execution.state.is_final and not lacks_log(execution)


def lacks_log(execution: Execution) -> bool:
    """Whether the run failed, and the end of its script log is still to come."""
    return (
        execution.state is ExecutionState.FAILED
        and bool(execution.execution_id)
        and not (execution.log_tail or execution.log_problem)
    )


def answer(
    body: dict[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """An answer that no one keeps; with ``next`` in the body, the link to it as well."""
    found = {"Cache-Control": "no-store", **(headers or {})}
    if body.get("next"):
        found["Link"] = f'<{body["next"]}>; rel="next"'
    return Response(msgspec.json.encode(body), status, found, media_type="application/json")
