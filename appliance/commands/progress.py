"""Progress of starts on standard error, and the lines that say how they ended.

On a terminal one line is renewed; elsewhere each change of state is a line. Not for: JSON.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TextIO

from appliance.commands.status_line import StatusLine
from appliance.log.sanitize import escape
from appliance.model import Execution, ExecutionState

_NS = 1_000_000_000


def named(execution: Execution) -> str:
    """The task's name, or its id, so that a terminal can't be steered by it."""
    return escape(execution.task_name or execution.task_id or "the task")


def outcome_line(execution: Execution, *, is_waited_for: bool) -> str:
    """How a start ended, or that it was accepted; with the script log's last lines."""
    if not is_waited_for:
        waits = f", {escape(execution.reason)}" if execution.reason else ""
        return f"{named(execution)}: accepted (execution {execution.id}){waits}\n"
    text = f"{named(execution)}: {execution.state.value}"
    if execution.started_ns is not None and execution.ended_ns is not None:
        text += f" after {max(0, execution.ended_ns - execution.started_ns) / _NS:.1f} s"
    text += f" (execution {execution.id})"
    if execution.reason:
        text += f": {escape(execution.reason)}"
    log = execution.log_tail or tuple(filter(None, (execution.log_problem,)))
    lines = [text, *(f"  {escape(line)}" for line in log)]
    return "".join(f"{line}\n" for line in lines)


class Progress:
    """Shows executions on a stream."""

    def __init__(self, stream: TextIO, *, is_quiet: bool = False) -> None:
        self._stream = stream
        self._is_quiet = is_quiet
        self._line = StatusLine(stream)
        self._told: dict[int, tuple[ExecutionState, str]] = {}
        self._shown: Sequence[Execution] = ()

    def say(self, text: str) -> None:
        """One line that stays."""
        if not self._is_quiet:
            self._line.clear()
            self._stream.write(f"{escape(text)}\n")
            self._stream.flush()

    def show(self, executions: Sequence[Execution]) -> None:
        """The present states."""
        self._shown = executions
        if self._line.is_terminal:
            self.tick()
            return
        for each in executions:
            state = (each.state, each.reason)
            if self._told.get(each.id) != state and not each.state.is_final:
                self._told[each.id] = state
                why = f": {each.reason}" if each.reason else ""
                self.say(f"{named(each)}: {each.state.value} (execution {each.id}){why}")

    def tick(self) -> None:
        """Renew the line of a terminal."""
        if not self._is_quiet and self._shown:
            self._line.show(self._text())

    def clear(self) -> None:
        """Remove the line of a terminal."""
        self._line.clear()

    def _text(self) -> str:
        going = [each for each in self._shown if not each.state.is_final]
        if not going:
            return ""
        ended = len(self._shown) - len(going)
        head = f"{ended} of {len(self._shown)} ended; " if len(self._shown) > 1 else ""
        first = going[0]
        text = f"{head}{named(first)}: {first.state.value}"
        if first.started_ns is not None:
            text += f" {_clock(time.time_ns() - first.started_ns)}"
            if first.usual_s is not None:
                text += f", usually {_clock(int(first.usual_s * _NS))}"
        return f"{text} {escape(first.reason)}".rstrip()


def _clock(duration_ns: int) -> str:
    minutes, seconds = divmod(max(0, duration_ns) // _NS, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
