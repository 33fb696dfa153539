"""What the client reads of a run: node, queue, notes, reason, script log; and of runs of others."""

from __future__ import annotations

import logging
import tracemalloc
from collections.abc import Iterator

import pytest

from appliance.model import ExecutionState
from appliance.qlik import rows
from appliance.qlik.client_managed import ClientManaged
from appliance.qlik.ended_runs import OVERLAP_NS
from appliance.qlik.server import ENDED_LOOK_BACK_NS, Ended, QlikError, Report
from appliance.qlik.simulated import FaultKind, ManualClock, Outcome, SimulatedQlik
from appliance.qlik.simulated.site import SimulatedTask, Site
from appliance.qlik.transport import Transport

SECOND_NS = 1_000_000_000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def qlik(clock: ManualClock) -> Iterator[SimulatedQlik]:
    with SimulatedQlik(site=Site(clock=clock, concurrency=1)) as server:
        yield server


@pytest.fixture
def client(qlik: SimulatedQlik, clock: ManualClock) -> Iterator[ClientManaged]:
    headers = {"X-Qlik-User": "UserDirectory=INTERNAL;UserId=sa_repository"}
    made = ClientManaged(Transport(qlik.url, headers=headers, timeout_s=5.0, clock=clock))
    yield made
    made.close()


def report_of(client: ClientManaged, task: SimulatedTask, run: str) -> Report:
    return client.poll([run], [task.id])[run]


# --- one run ------------------------------------------------------------------------------------


def test_a_run_has_its_node_its_time_in_the_queue_and_the_notes(
    qlik: SimulatedQlik, client: ClientManaged, clock: ManualClock
) -> None:
    """The scheduler notes each change of state; the server gives its notes in no order."""
    busy = qlik.add_task("A", duration_s=60)
    task = qlik.add_task("B", duration_s=10)
    client.start(busy.id)
    clock.advance(1)
    run = client.start(task.id).execution_id
    clock.advance(9)
    waiting = report_of(client, task, run)
    assert waiting.state is ExecutionState.QUEUED
    assert (waiting.queued_ns, waiting.queued_s) == (clock() - 9 * SECOND_NS, None)
    clock.advance(81)
    report = report_of(client, task, run)
    assert report.state is ExecutionState.SUCCEEDED
    assert report.node == "qlik1.example.com"
    assert report.queued_ns == waiting.queued_ns
    assert report.queued_s == pytest.approx(59, abs=1)
    assert [note.at_ns for note in report.details] == sorted(note.at_ns for note in report.details)
    assert report.details[0].text == "Changing task state to Triggered"
    assert "FinishedSuccess" in report.details[-1].text


def test_a_session_without_a_result_says_where_and_since_when(
    qlik: SimulatedQlik, client: ClientManaged, clock: ManualClock
) -> None:
    """Right after the start the session is all that the server has of the run."""
    qlik.site.results_after_s = 5
    task = qlik.add_task("A", duration_s=60)
    run = client.start(task.id).execution_id
    report = report_of(client, task, run)
    assert (report.node, report.queued_ns) == ("qlik1.example.com", clock())


NOTES = (
    "Changing task state to Triggered",
    "Trying to start task. Sending task to slave-node QS01.acme.local",
    "Changing task state from Triggered to Started",
    "Message from ReloadProvider: Reload failed in Engine. Check engine or script logs.",
    "Reference to scriptlog added",
    "Changing task state from Started to FinishedFail",
)


def test_the_reason_of_a_failure_is_none_of_the_scheduler_s_own_notes() -> None:
    """Every run has those; what the reload said stands among them as information."""
    row = {
        "executionID": "82acfca0-1473-41e7-920d-01869e3d299a",
        "taskID": "fb0f317d-da91-4b86-aafa-0174ae1e8c8f",
        "status": 8,
        "startTime": "2024-05-02T10:00:01.000Z",
        "stopTime": "2024-05-02T10:00:41.000Z",
        "details": [
            {
                "detailsType": 2,
                "message": note,
                "detailCreatedDate": f"2024-05-02T10:00:{10 + number}.000Z",
            }
            for number, note in enumerate(NOTES)
        ],
    }
    report = rows.execution_report([row], None)
    assert report.state is ExecutionState.FAILED
    assert report.reason == NOTES[3]
    assert report.queued_s == 2


# --- its script log -----------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["value", "string", "text"])
def test_each_form_of_the_newer_way_s_answer_is_understood(
    qlik: SimulatedQlik, client: ClientManaged, clock: ManualClock, form: str
) -> None:
    """An object with the id, a JSON text, or the id alone."""
    qlik.repository.old_script_log = False
    qlik.repository.log_file_form = form
    task = qlik.add_task("A", outcomes=(Outcome.FAIL,), log=("Error: Table not found",))
    run = client.start(task.id).execution_id
    clock.advance(5)
    assert client.log_tail(report_of(client, task, run), 5) == ["Error: Table not found"]


def test_a_log_of_any_size_takes_little_memory(
    qlik: SimulatedQlik, client: ClientManaged, clock: ManualClock
) -> None:
    """It is larger than an answer may be otherwise, and only its end is kept while it comes."""
    size = 70_000_000
    qlik.fail(FaultKind.LONG_TEXT, path="download/", size=size, text="Error: Table not found")
    task = qlik.add_task("A", outcomes=(Outcome.FAIL,))
    run = client.start(task.id).execution_id
    clock.advance(5)
    report = report_of(client, task, run)
    tracemalloc.start()
    try:
        assert client.log_tail(report, 5)[-1] == "Error: Table not found"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The server's side of it is in this process, too: a piece of 1 MB at a time.
    assert peak < size / 5


def test_a_login_page_is_no_log(
    qlik: SimulatedQlik, client: ClientManaged, clock: ManualClock
) -> None:
    """A proxy may answer the download with its form and status 200."""
    qlik.fail(FaultKind.LOGIN_PAGE, path="download/")
    task = qlik.add_task("A", outcomes=(Outcome.FAIL,))
    run = client.start(task.id).execution_id
    clock.advance(5)
    with pytest.raises(QlikError, match="login"):
        client.log_tail(report_of(client, task, run), 5)


def test_a_server_that_is_away_is_not_asked_on_the_other_way(
    qlik: SimulatedQlik, client: ClientManaged, clock: ManualClock
) -> None:
    """The error is that of the connection, so nothing was asked in vain twice."""
    task = qlik.add_task("A", outcomes=(Outcome.FAIL,))
    run = client.start(task.id).execution_id
    clock.advance(5)
    report = report_of(client, task, run)
    qlik.refuse()
    with pytest.raises(QlikError) as caught:
        client.log_tail(report, 5)
    assert caught.value.label == "refused"


# --- runs that ended ----------------------------------------------------------------------------


def ids(ended: Ended) -> list[str]:
    return [report.execution_id for report in ended.reports]


def run_at_once(qlik: SimulatedQlik, clock: ManualClock, task: SimulatedTask) -> str:
    run = qlik.run_elsewhere(task.id)
    clock.advance(2)
    qlik.site.advance()
    return run


def test_runs_that_ended_are_listed_by_one_call(
    qlik: SimulatedQlik, client: ClientManaged, clock: ManualClock
) -> None:
    """None of before the first question, then each that ended since, oldest first."""
    task = qlik.add_task("A", duration_s=1, outcomes=(Outcome.FAIL,), error_text="Error: no table")
    run_at_once(qlik, clock, task)
    client.check()
    clock.advance(OVERLAP_NS / SECOND_NS + 1)
    first = client.ended(None, ())
    assert (ids(first), first.until_ns // SECOND_NS) == ([], clock() // SECOND_NS)
    runs = [run_at_once(qlik, clock, task) for _ in range(3)]
    asked = len(qlik.requests)
    ended = client.ended(first.until_ns, ())
    assert ids(ended) == runs
    assert {report.reason for report in ended.reports} == {"Error: no table"}
    assert ended.until_ns > first.until_ns
    assert [seen.path for seen in qlik.requests[asked:]] == ["/qrs/executionresult/full"]
    clock.advance(OVERLAP_NS / SECOND_NS + 10)
    assert ids(client.ended(clock() - SECOND_NS, ())) == []


def test_an_attempt_that_the_server_repeats_is_no_end(
    qlik: SimulatedQlik, client: ClientManaged, clock: ManualClock
) -> None:
    """Its session goes on, which the caller has seen just before."""
    qlik.site.retry_delay_s = 60
    task = qlik.add_task("A", duration_s=1, max_retries=1, outcomes=(Outcome.FAIL, Outcome.SUCCESS))
    client.check()
    first = client.ended(None, ())
    run = run_at_once(qlik, clock, task)
    running = {report.execution_id for report in client.running()}
    assert running == {run}
    assert ids(client.ended(first.until_ns, running)) == []
    clock.advance(70)
    (report,) = client.ended(first.until_ns, ()).reports
    assert report.state is ExecutionState.SUCCEEDED


def test_a_server_whose_clock_is_set_back_is_asked_from_its_own_time(
    qlik: SimulatedQlik, client: ClientManaged, clock: ManualClock
) -> None:
    """Otherwise no run would be seen for as long as the clock went back."""
    task = qlik.add_task("A", duration_s=1)
    client.check()
    before = clock() + 5 * 3600 * SECOND_NS
    run = run_at_once(qlik, clock, task)
    ended = client.ended(before, ())
    assert ids(ended) == [run]
    assert ended.until_ns <= clock() + SECOND_NS


def test_a_run_of_yesterday_is_not_told_after_a_long_stop(
    qlik: SimulatedQlik, client: ClientManaged, clock: ManualClock
) -> None:
    """An outcome may start further tasks; one of the last hour is told."""
    task = qlik.add_task("A", duration_s=1)
    client.check()
    stopped = client.ended(None, ()).until_ns
    run_at_once(qlik, clock, task)
    clock.advance(2 * ENDED_LOOK_BACK_NS / SECOND_NS)
    recent = run_at_once(qlik, clock, task)
    client.check()
    assert ids(client.ended(stopped, ())) == [recent]


@pytest.mark.parametrize("refusal", ["400", "no effect", "other zone", "500"])
def test_a_server_that_takes_no_filter_by_time_is_asked_for_each_task_s_last_result(
    qlik: SimulatedQlik,
    client: ClientManaged,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    refusal: str,
) -> None:
    """Said once; from then on the filter is not tried any more."""
    old = qlik.add_task("Old", duration_s=1)
    run_at_once(qlik, clock, old)
    clock.advance(OVERLAP_NS / SECOND_NS + 10)
    task, other = (qlik.add_task(name, duration_s=1) for name in "AB")
    client.check()
    first = client.ended(None, ())
    runs = {run_at_once(qlik, clock, each) for each in (task, other)}
    if refusal == "500":
        qlik.fail(FaultKind.STATUS, path="executionresult/full", status=500, times=1)
    elif refusal == "400":
        qlik.repository.takes_time_filters = False
    else:
        listed = client._list

        def misread(path: str, condition: str = "", *, orderby: str = "") -> list[rows.Row]:
            is_by_time = "stopTime" in condition
            if is_by_time and refusal == "other zone":
                return []
            return listed(path, "" if is_by_time else condition, orderby=orderby)

        monkeypatch.setattr(client._ended_runs, "_list", misread)
        # Ours, or one that was running at an earlier look.
        client.poll(list(runs), [task.id, other.id])
    for _ in range(2):
        assert set(ids(client.ended(first.until_ns, ()))) == runs
    asked = [seen.query.get("filter", "") for seen in qlik.requests]
    assert sum("stopTime" in each for each in asked) == (1 if refusal in {"400", "500"} else 0)
    warnings = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "by the time of their end" in warnings[0].getMessage()


def test_a_server_that_is_away_is_not_taken_for_one_without_filters(
    qlik: SimulatedQlik, client: ClientManaged, clock: ManualClock
) -> None:
    """It answers nothing else either, so the filter is tried again."""
    task = qlik.add_task("A", duration_s=1)
    client.check()
    first = client.ended(None, ())
    run = run_at_once(qlik, clock, task)
    qlik.fail(FaultKind.STATUS, path="/qrs/", status=500)
    with pytest.raises(QlikError):
        client.ended(first.until_ns, ())
    qlik.heal()
    assert ids(client.ended(first.until_ns, ())) == [run]
    assert "stopTime" in qlik.requests[-1].query["filter"]


def test_more_ends_than_are_taken_up_at_a_time_are_counted(
    qlik: SimulatedQlik,
    client: ClientManaged,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The newest are returned."""
    monkeypatch.setattr("appliance.qlik.ended_runs.ENDED_LIMIT", 2)
    task = qlik.add_task("A", duration_s=1)
    client.check()
    first = client.ended(None, ())
    runs = [run_at_once(qlik, clock, task) for _ in range(3)]
    ended = client.ended(first.until_ns, ())
    assert (ids(ended), ended.left_out) == (runs[1:], 1)
