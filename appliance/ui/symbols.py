"""The sign, the word and the tone of every state, in one table for all screens.

A state is never shown by colour alone: each has a sign of its own shape and a word.
Not for: colours; a tone is a name that ``lines.py`` gives a style from the theme.
"""

from __future__ import annotations

from typing import Final

from appliance.model import Execution, ExecutionState

_STATES: Final = {
    ExecutionState.REQUESTED: ("○", "requested", "info"),
    ExecutionState.WAITING: ("◌", "waiting", "info"),
    ExecutionState.STARTING: ("▷", "starting", "info"),
    ExecutionState.RETRYING: ("↻", "retry", "warn"),
    ExecutionState.QUEUED: ("▷", "queued", "info"),
    ExecutionState.RUNNING: ("▶", "running", "run"),
    ExecutionState.SUCCEEDED: ("✓", "done", "ok"),
    ExecutionState.FAILED: ("✗", "failed", "bad"),
    ExecutionState.ABORTED: ("■", "aborted", "bad"),
    ExecutionState.SKIPPED: ("»", "skipped", "dim"),
    ExecutionState.REFUSED: ("✗", "refused", "bad"),
    ExecutionState.REJECTED: ("✗", "rejected", "bad"),
    ExecutionState.EXPIRED: ("✗", "expired", "bad"),
    ExecutionState.LOST: ("?", "lost", "bad"),
}
_LEVELS: Final = {
    "ok": ("●", "ok"),
    "warn": ("▲", "warn"),
    "bad": ("✗", "bad"),
    "off": ("○", "dim"),
}

LATE_FACTOR = 1.5
LATE_MIN_S = 5.0
PAUSED = "‖"
CONNECTED = "●"
AWAY = "○"
RULE = "◆"
TIMER = "→"
CURSOR = "▌"


def sign(state: ExecutionState) -> str:
    """One cell."""
    return _STATES[state][0]


def word(state: ExecutionState) -> str:
    """At most nine cells."""
    return _STATES[state][1]


def tone(state: ExecutionState) -> str:
    return _STATES[state][2]


def level_sign(level: str) -> str:
    """One cell for a ``Health.level``."""
    return _LEVELS.get(level, _LEVELS["warn"])[0]


def level_tone(level: str) -> str:
    return _LEVELS.get(level, _LEVELS["warn"])[1]


def seconds_running(execution: Execution, now_ns: int) -> float | None:
    """Seconds since the run began (or that it took); ``None`` if it has not begun."""
    if execution.started_ns is None:
        return None
    end = execution.ended_ns if execution.ended_ns is not None else now_ns
    return max(0.0, (end - execution.started_ns) / 1e9)


def is_late(execution: Execution, now_ns: int) -> bool:
    """Whether a run takes clearly longer than it usually does."""
    seconds = seconds_running(execution, now_ns)
    return (
        execution.state is ExecutionState.RUNNING
        and seconds is not None
        and execution.usual_s is not None
        and seconds > max(execution.usual_s * LATE_FACTOR, execution.usual_s + LATE_MIN_S)
    )
