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
"""The row that keys act on."""
CURSOR_ASIDE = "·"
"""The chosen row of a list that has not the focus."""
ACTIVE = "►"
"""Before the heading of the list that has the focus."""


def _states_by_sign() -> list[tuple[str, str, str]]:
    """Each sign of a state with all the words that it stands for."""
    words: dict[tuple[str, str], list[str]] = {}
    for one, word, tone in _STATES.values():
        words.setdefault((one, tone), []).append(word)
    return [(one, tone, ", ".join(found)) for (one, tone), found in words.items()]


LEGEND: Final = (
    *_states_by_sign(),
    ("x3", "", "beside an outcome: the message asked for three starts"),
    ("●", "ok", "a part is well; a client is connected"),
    ("▲", "warn", "a part needs a look; something was refused, dropped or late"),
    ("✗", "bad", "a part does not work; an alarm is raised"),
    ("○", "dim", "a part is off; a client is away, and its session is kept; a task is disabled"),
    (PAUSED, "warn", "paused or held: a timer, a rule, a client; the view"),
    (RULE, "info", "a rule of the configuration ([[trigger]])"),
    (TIMER, "info", "a timer; what a rule starts; the task that a message started"),
    ("R", "accent", "retained: new subscribers get the message at once"),
    ("Q", "", "the quality of service: 0, 1 or 2"),
    (CURSOR, "info", "the row that keys act on"),
    (CURSOR_ASIDE, "dim", "the chosen row of a list without the focus"),
    (ACTIVE, "accent", "the list with the focus, on a page with two"),
    ("▾", "", "a level of topics that is open"),
    ("▸", "", "a level of topics that is folded, with the number of topics in it"),
    ("▼", "head", "the rows are sorted by this column"),
    ("█▎·", "run", "how far a run is, by the time that the task usually takes"),
    ("▁▄█", "info", "a curve or the runs of a task, the newest at the right"),
    ("…", "", "cut; the detail or a wider terminal has the rest"),
    ("␛�", "", "a character that would change the terminal, or has no picture"),
)
"""Every sign of the screens with its tone and meaning, for the help."""


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
