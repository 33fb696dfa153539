"""Which starts wait longer than they should.

Not for: why they wait (views.py), or deciding when a request goes (dispatcher.py).
"""

from __future__ import annotations

from appliance.model import Execution, ExecutionState

_S = 1_000_000_000
SERVER_S = 10
"""A start that waits for the server is named after so many seconds."""
TURN_S = 60
"""A start that waits for a free worker (or ``max_running``) is named after so many seconds."""
RUN_S = 3600
"""A start that waits for the present run is named after so many seconds."""
_LIMITS_S = {
    "server": SERVER_S,
    "retry": SERVER_S,
    "look": SERVER_S,
    "call": SERVER_S,
    "turn": TURN_S,
    "run": RUN_S,
}
"""By the kind of the wait. Debounce, cooldown and a pause were asked for: they are no problem,
however long they are."""


def is_too_long(execution: Execution, kind: str, now_ns: int) -> bool:
    """Whether an execution waits longer than it should; ``kind`` is that of its wait."""
    if execution.state.is_final or execution.state in (
        ExecutionState.QUEUED,
        ExecutionState.RUNNING,
    ):
        return False
    limit_s = _LIMITS_S.get(kind)
    if limit_s is None:
        return False
    since_ns = execution.requested_ns
    if kind in ("turn", "call") and execution.steps:
        # A debounce or a cooldown may have come before.
        since_ns = execution.steps[-1].at_ns
    return now_ns - since_ns > limit_s * _S
