"""What stands for the placeholders of a text about an execution (config/placeholders.py).

The values are data as they came: whoever puts them into a text, a topic or a page makes them safe
for that. Not for: reading a template.
"""

from __future__ import annotations

from appliance.model import Cause, Execution, Task, sender
from appliance.tasks.outcomes import time_text

_NS = 1_000_000_000


def values_of(execution: Execution, task: Task | None, appliance: str) -> dict[str, str]:
    """A value for each name of ``OF_EXECUTIONS``.

    Args:
        execution: whose outcome is told.
        task: its task as the server's list has it, if it is known.
        appliance: ``service.name``.
    """
    cause, began, ended = execution.cause, execution.started_ns, execution.ended_ns
    took = (ended - began) / _NS if began is not None and ended is not None else None
    return {
        "task": execution.task_name or (task.name if task else "") or execution.task_id,
        "task_id": execution.task_id,
        "app": task.app_name if task else "",
        "app_id": task.app_id if task else "",
        "state": execution.state.value,
        "reason": execution.reason,
        "execution": str(execution.id),
        "execution_id": execution.execution_id,
        "requested": time_text(execution.requested_ns) or "",
        "started": time_text(began) or "",
        "ended": time_text(ended) or "",
        "duration": "" if took is None else f"{max(took, 0.0):.1f}",
        "node": execution.node,
        "attempts": str(execution.attempts),
        "cause": cause_text(cause),
        "topic": cause.topic,
        "client": sender(cause.client_id),
        "rule": cause.rule,
        "log": "\n".join(execution.log_tail),
        "appliance": appliance,
    }


def cause_text(cause: Cause) -> str:
    """What asked for an execution, in words: ``"message 7 on plant/x from plc-1"``."""
    if cause.seq:
        client = sender(cause.client_id) or "an unknown client"
        return f"{cause.kind} {cause.seq} on {cause.topic} from {client}"
    if cause.kind == "http":
        return f"over HTTP by {cause.rule}"
    return f"{cause.kind} {cause.rule}".rstrip()
