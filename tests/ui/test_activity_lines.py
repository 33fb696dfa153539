"""The few lines about tasks that a screen of 80 columns has room for."""

from fake_engine import S, story

from appliance.engine_api import Health, RecorderState
from appliance.model import Cause, Execution, ExecutionState
from appliance.ui.lines import line_width
from appliance.ui.views import activity
from msgspec.structs import replace

NOW = 1_790_000_000 * S
REASON = "Cannot open file 'lib://suppliers/prices.xlsx'\nThe error occurred here"


def execution(number: int, state: ExecutionState, reason: str = "") -> Execution:
    cause = Cause("message", number, "qliksense/start_task", "plc-07")
    began = NOW - 5 * S
    return Execution(
        number, "", f"Task {number}", state, cause, began, started_ns=began, ended_ns=NOW,
        reason=reason,
    )  # fmt: skip


def texts(executions: list[Execution], rows: int) -> list[str]:
    lines = activity.execution_lines(executions, NOW, 80, rows, utc=True)
    return ["".join(text for text, _ in line).rstrip() for line in lines]


FAILED = [execution(n, ExecutionState.FAILED, REASON) for n in (9, 8, 7)]
RUNNING = [execution(n, ExecutionState.RUNNING) for n in (6, 5, 4)]
DONE = [execution(n, ExecutionState.SUCCEEDED) for n in (3, 2, 1)]


def test_on_three_rows_the_latest_failure_has_its_reason_on_a_line() -> None:
    lines = texts([FAILED[0], *DONE], 3)
    assert "Task 9" in lines[0] and "Cannot" not in lines[0]
    assert lines[1].strip() == "Cannot open file 'lib://suppliers/prices.xlsx'"
    assert "Task 3" in lines[2]
    lines = texts([RUNNING[0], FAILED[0], *DONE], 3)
    assert "Task 6" in lines[0] and "Task 9" in lines[1]
    assert lines[2].strip().startswith("Cannot open")


def test_where_no_row_is_left_the_reason_is_beside_the_failure() -> None:
    lines = texts([*RUNNING[:2], FAILED[0]], 3)
    assert "Task 9" in lines[2] and "Cannot open" in lines[2]


def test_on_three_rows_one_reason_has_a_line_the_next_failure_keeps_its_own() -> None:
    lines = texts(FAILED, 3)
    assert "Task 9" in lines[0] and lines[1].strip().startswith("Cannot open")
    assert "Task 8" in lines[2] and "Cannot open" in lines[2]


def test_with_room_each_failure_has_its_reason_on_a_line() -> None:
    lines = texts(FAILED, 6)
    assert [("Cannot open" in line, "Task" in line) for line in lines] == [
        (False, True),
        (True, False),
    ] * 3


def test_the_clock_line_counts_what_is_recorded() -> None:
    snapshot = story().snapshot()
    recorders = tuple(
        RecorderState("a", f"{name}.json", "json", Health("ok"), recorded=count)
        for name, count in (("a", 7), ("b", 5))
    )
    for cells, shown in ((120, True), (60, False)):
        line = activity.clock_line(replace(snapshot, recorders=recorders), NOW, cells)
        assert ("recorded 12" in "".join(text for text, _ in line)) is shown
        assert line_width(line) <= max(cells, 80)
    line = activity.clock_line(replace(snapshot, recorders=()), NOW, 120)
    assert "recorded" not in "".join(text for text, _ in line)


def test_the_clock_line_names_a_recorder_that_does_not_keep_up_and_no_other() -> None:
    """Messages gather before a recording, so a few always wait."""
    for lag, shown in ((0, False), (12, False), (1001, True)):
        recorder = RecorderState("a", "a.json", "json", Health("ok"), lag=lag)
        line = activity.clock_line(replace(story().snapshot(), recorders=(recorder,)), NOW, 120)
        assert ("behind" in "".join(text for text, _ in line)) is shown
