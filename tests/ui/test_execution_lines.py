"""An execution as lines: what the server says of its run."""

from __future__ import annotations

import msgspec
import pytest

from appliance.engine_api import WaitState
from appliance.model import Cause, Execution, ExecutionState, Step
from appliance.ui.views import execution as view

NOW = 1_790_000_000_000_000_000
SECOND = 1_000_000_000
RUN = Execution(
    7,
    "8d31c0f8-0d36-4a0a-a8b4-3b0f6f2c5d10",
    "Reload sales",
    ExecutionState.FAILED,
    Cause("operator"),
    NOW,
    started_ns=NOW + 750 * SECOND,
    ended_ns=NOW + 800 * SECOND,
    reason="Error: Table not found",
    node="qlik2.example.com",
    queued_ns=NOW,
    queued_s=747.2,
    details=(
        Step(NOW, "Changing task state to Triggered"),
        Step(NOW + 747 * SECOND, "Changing task state from \x1b[31mQueued to Started"),
    ),
    log_problem='The server has a problem (status 500): "Failed to copy file."',
)


@pytest.mark.parametrize("cells", [40, 80, 200])
def test_node_queue_notes_and_a_missing_log_are_told(cells: int) -> None:
    """Whole at each width, and without what would change the terminal."""
    found = view.lines(RUN, None, NOW + 900 * SECOND, cells, utc=True)
    text = " ".join(" ".join("".join(piece for piece, _ in line) for line in found).split())
    assert "node qlik2.example.com" in text
    assert "queue 12m27s" in text or "queue 12:27" in text
    assert "Changing task state to Triggered" in text
    assert "to Started" in text
    assert "No script log" in text
    assert '"Failed to copy file."' in text
    assert "\x1b" not in text


def test_the_file_of_a_kept_script_log_is_named() -> None:
    kept = msgspec.structs.replace(RUN, log_tail=("last line",), log_file="1_7_Reload.log")
    found = view.lines(kept, None, NOW + 900 * SECOND, 200, utc=True)
    text = ["".join(piece for piece, _ in line).strip() for line in found]
    assert text[-1] == "The whole log was kept in the data directory: script-logs/1_7_Reload.log"


def test_who_asked_over_http_is_named_once() -> None:
    """The name is no rule, and steers no terminal."""
    cause = Cause("http", rule="an\x1b[31mna")
    asked = Execution(7, "id", "Reload sales", ExecutionState.RUNNING, cause, NOW, started_ns=NOW)
    found = view.lines(asked, None, NOW + SECOND, 80, utc=True)
    text = "\n".join("".join(piece for piece, _ in line) for line in found)
    assert text.count("HTTP an") == 1
    assert "rule" not in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("until_ns", "said"),
    [(None, "It goes on when the hold is released."), (NOW + 60 * SECOND, "It is tried next at")],
)
def test_a_start_that_is_held_says_until_when_and_can_be_started(until_ns, said: str) -> None:
    """An operator may end one wait of a maintenance window."""
    wait = WaitState("Reload sales #7", 7, "hold", "Held by ann (everything).", until_ns, NOW)
    found = view.wait_lines(wait, NOW, 80, utc=True)
    text = " ".join("".join(piece for piece, _ in line) for line in found)
    assert said in text
    assert "f starts it now" in text
