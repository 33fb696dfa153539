"""The line of ``appliance start`` on a terminal."""

from __future__ import annotations

import io
import sys

import pytest
from rich.cells import cell_len

from appliance.commands.progress import Progress
from appliance.model import Cause, Execution, ExecutionState


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_line_never_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Letters of two cells count as two: of a line that wraps, the first row would stay."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "__stderr__", terminal)
    monkeypatch.setenv("COLUMNS", "40")
    name = "売上データの再読み込み" * 5
    execution = Execution(1, "", name, ExecutionState.RUNNING, Cause("operator"), 0)
    progress = Progress(terminal)
    progress.show([execution])
    line = terminal.getvalue().removeprefix("\r\x1b[K")
    assert line.startswith(name[:15])
    assert cell_len(line) < 40
