"""Reading the Repository Service's rows: states, times, attempts, reasons."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.model import ExecutionState, TaskKind
from appliance.qlik import rows

_NEVER = "1753-01-01T00:00:00.000Z"


def result(status: int, created: str, **more: object) -> dict[str, object]:
    return {
        "id": "e91d0a6b-5f3c-4b27-8c44-1d7a9e2f6083",
        "executionID": "C2A7F3D4-91be-4d0a-a6f5-0b8e5d3c7a21",
        "taskID": "5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b10",
        "status": status,
        "createdDate": created,
        "startTime": _NEVER,
        "stopTime": _NEVER,
        "duration": 0,
        "fileReferenceID": rows.ZERO_ID,
        "details": [],
    } | more


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (1, "running"), (2, "running"), (3, "queued"), (4, "running"), (5, "running"),
        (6, "aborted"), (7, "succeeded"), (8, "failed"), (9, "skipped"), (10, "running"),
        (11, "failed"), (12, "aborted"), (13, "queued"), (14, "running"),
        (0, "running"), (15, "running"), (99, "running"), (None, "running"),
    ],
)  # fmt: skip
def test_every_status_number(status: int | None, state: str) -> None:
    """The status table of docs/qlik.md; a number without documentation is not an outcome."""
    assert rows.state_of(status) == state


def test_a_failure_is_final_only_without_a_session() -> None:
    """The server may still retry a failed attempt as long as it keeps the session."""
    failed = result(8, "2026-11-22T09:00:00.000Z")
    assert rows.execution_report([failed], {"id": "x"}).state is ExecutionState.RUNNING
    assert rows.execution_report([failed], None).state is ExecutionState.FAILED


def test_a_success_is_final_at_once() -> None:
    """No outcome waits for the session of a successful run to be cleaned up."""
    done = result(7, "2026-11-22T09:00:00.000Z")
    assert rows.execution_report([done], {"id": "x"}).state is ExecutionState.SUCCEEDED


def test_the_newest_attempt_counts_even_if_it_has_not_started() -> None:
    """A retry that waits in the queue has the year 1753 as its start, and is the newest still."""
    first = result(8, "2026-11-22T09:00:00.000Z", startTime="2026-11-22T09:00:00.500Z")
    second = result(3, "2026-11-22T09:01:00.000Z")
    report = rows.execution_report([second, first], {"id": "x"})
    assert (report.state, report.attempt) == (ExecutionState.QUEUED, 2)
    assert report.started_ns == rows.time_ns("2026-11-22T09:00:00.500Z")


def test_details_are_ordered_and_masked_and_explain_the_failure() -> None:
    """Details come in any order; the error among them is the reason; secrets are gone."""
    details = [
        {"message": "Changing task state from Started to FinishedFail", "detailsType": 2,
         "detailCreatedDate": "2026-11-22T09:00:09.140Z"},
        {"message": "Connection failed: Server=db1;Password=Sommer2026;", "detailsType": 0,
         "detailCreatedDate": "2026-11-22T09:00:09.100Z"},
        {"message": "Changing task state to Triggered", "detailsType": 2,
         "detailCreatedDate": "2026-11-22T09:00:00.210Z"},
    ]  # fmt: skip
    report = rows.execution_report([result(8, "2026-11-22T09:00:00Z", details=details)], None)
    assert report.details[0].text == "Changing task state to Triggered"
    assert report.reason == "Connection failed: Server=db1;Password=***;"


def test_a_failure_without_details_still_has_a_reason() -> None:
    """No outcome has an empty reason."""
    report = rows.execution_report([result(11, "2026-11-22T09:00:00Z")], None)
    assert "failed" in report.reason
    assert "11 Error" in report.reason


def test_tasks_carry_what_selectors_need() -> None:
    """Tags, custom properties as pairs, app, kind and limits are read."""
    task = rows.task(
        {
            "id": "5F8B1C2E-0d4a-4c55-9a1b-7e3d2f6a9b10",
            "name": "Reload line 7",
            "enabled": False,
            "app": {"id": "b7c1", "name": "Line 7 quality"},
            "tags": [{"name": "mqtt-start"}],
            "customProperties": [{"value": "line-7", "definition": {"name": "factory"}}],
            "maxRetries": 2,
            "taskSessionTimeout": 1440,
            "operational": {"lastExecutionResult": {"duration": 75788}},
        },
        TaskKind.RELOAD,
    )
    assert task.id == "5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b10"
    assert (task.enabled, task.app_name, task.tags) == (False, "Line 7 quality", ("mqtt-start",))
    assert task.properties == (("factory", "line-7"),)
    assert (task.max_retries, task.timeout_min, task.last_duration_s) == (2, 1440, 75.788)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=5,
)
_FIELDS = st.sampled_from(
    ["id", "executionID", "taskID", "status", "createdDate", "startTime", "stopTime", "duration",
     "details", "name", "tags", "customProperties", "app", "operational", "executionResult",
     "reloadTask", "retries", "enabled", "maxRetries"]
)  # fmt: skip


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(_FIELDS, _JSON, max_size=10), st.booleans())
def test_rows_of_any_shape_are_read(row: dict[str, object], with_session: bool) -> None:
    """A server of another version, or one gone mad, does not crash the appliance."""
    rows.task(row, TaskKind.RELOAD)
    rows.session_report(row)
    rows.execution_report([row, row], row if with_session else None)
    rows.grouped(rows.rows([row, 1, None]))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(min_value=0, max_value=4_000_000_000_000))
def test_times_survive_the_way_there_and_back(milliseconds: int) -> None:
    """A time that is written for a filter is read as the same millisecond."""
    at_ns = milliseconds * 1_000_000
    assert rows.time_ns(rows.date_text(at_ns)) == at_ns


def test_the_empty_date_is_no_time() -> None:
    """The year 1753 is Qlik's way to say never."""
    assert rows.time_ns(_NEVER) is None
    assert rows.time_ns("not a date") is None
    assert rows.time_ns("9999-12-31T23:59:59.999Z") is None
    assert rows.time_ns("0001-01-01T00:00:00.000Z") is None
    assert rows.time_ns(None) is None
