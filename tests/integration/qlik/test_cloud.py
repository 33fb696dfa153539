"""The Qlik Cloud client against the simulated tenant, over real HTTP."""

from collections.abc import Iterator

import pytest

from appliance.config.tables import QlikConfig
from appliance.secret import Secret
from appliance.model import ExecutionState
from appliance.qlik import cloud
from appliance.qlik.connect import connect
from appliance.qlik.server import RetryPolicy, QlikError, QlikServer
from appliance.qlik.simulated import FaultKind, ManualClock, Outcome, SimulatedQlik, SimulatedTask

APP = "b7c1d9e0-3a52-4f0e-8d11-62c4a9f0e733"
TASK = "673f0c21a7d94e5b8c10f2bb"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def qlik(clock: ManualClock) -> Iterator[SimulatedQlik]:
    with SimulatedQlik(clock=clock) as server:
        yield server


@pytest.fixture(params=["api key", "oauth"])
def tenant(
    request: pytest.FixtureRequest, qlik: SimulatedQlik, clock: ManualClock
) -> Iterator[QlikServer]:
    made = with_oauth(qlik, clock) if request.param == "oauth" else with_key(qlik, clock)
    yield made
    made.close()


def with_key(qlik: SimulatedQlik, clock: ManualClock, key: str = "simulated-api-key") -> QlikServer:
    config = QlikConfig(edition="cloud", url=qlik.url, api_key=Secret(key))
    return connect(config, clock=clock)


def with_oauth(
    qlik: SimulatedQlik, clock: ManualClock, secret: str = "simulated-secret"
) -> QlikServer:
    config = QlikConfig(
        edition="cloud", url=qlik.url, client_id="simulated-client", client_secret=Secret(secret)
    )
    return connect(config, clock=clock)


def app(qlik: SimulatedQlik, **settings: object) -> SimulatedTask:
    return qlik.add_task("A", app_id=APP, app_name="Line 7 quality", **settings)


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Outcome.SUCCESS, ExecutionState.SUCCEEDED),
        (Outcome.FAIL, ExecutionState.FAILED),
        (Outcome.ABORT, ExecutionState.ABORTED),
    ],
)
def test_an_app_is_reloaded_and_followed_to_its_end(
    qlik: SimulatedQlik,
    tenant: QlikServer,
    clock: ManualClock,
    outcome: Outcome,
    state: ExecutionState,
) -> None:
    """One POST by app id; queued, running, over, with times and a reason."""
    app(qlik, duration_s=5, outcomes=(outcome,), error_text="Password=Sommer2026; no table")
    reload_id = tenant.start(APP).execution_id
    states = [tenant.poll([reload_id], [APP])[reload_id].state]
    clock.advance(1)
    states.append(tenant.poll([reload_id], [APP])[reload_id].state)
    clock.advance(10)
    report = tenant.poll([reload_id], [APP])[reload_id]
    assert [*states, report.state] == [ExecutionState.QUEUED, ExecutionState.RUNNING, state]
    assert (report.duration_s, report.task_id) == (5, APP)
    assert bool(report.reason) == state.is_bad
    lines = tenant.log_tail(report, 5)
    assert lines
    assert "Sommer" not in f"{report}{lines}"
    assert qlik.starts(APP) == 1


def test_a_time_limit_of_the_tenant_is_a_failure_with_its_reason(
    qlik: SimulatedQlik, tenant: QlikServer, clock: ManualClock
) -> None:
    """EXCEEDED_LIMIT is told in words."""
    app(qlik, outcomes=(Outcome.NEVER,), timeout_min=180)
    reload_id = tenant.start(APP).execution_id
    clock.advance(4 * 3600)
    report = tenant.poll([reload_id], [APP])[reload_id]
    assert report.state is ExecutionState.FAILED
    assert "limit" in report.reason


def test_apps_are_listed_over_all_pages(qlik: SimulatedQlik, tenant: QlikServer) -> None:
    """Every app of the tenant, with any page size."""
    qlik.cloud.page_size = 7
    for number in range(30):
        qlik.add_task(f"T{number}", app_id=f"app-{number}", app_name=f"App {number}", tags=("x",))
    tasks = tenant.tasks()
    assert [task.id for task in tasks] == [f"app-{number}" for number in range(30)]
    assert {task.tags for task in tasks} == {("x",)}


def test_a_reload_that_already_runs_is_refused_with_the_reason(
    qlik: SimulatedQlik, tenant: QlikServer
) -> None:
    """A conflict is a refusal, not an error to be repeated."""
    app(qlik, duration_s=60)
    assert tenant.start(APP).execution_id
    refused = tenant.start(APP)
    assert refused.execution_id == ""
    assert "RELOADS-007" in refused.reason


def test_a_reload_can_be_cancelled_and_cancelling_twice_is_no_error(
    qlik: SimulatedQlik, tenant: QlikServer, clock: ManualClock
) -> None:
    """Stop cancels; a reload that is over stays over."""
    app(qlik, duration_s=60)
    reload_id = tenant.start(APP).execution_id
    clock.advance(1)
    tenant.stop(APP, reload_id)
    clock.advance(1)
    assert tenant.poll([reload_id], [APP])[reload_id].state is ExecutionState.ABORTED
    tenant.stop(APP, reload_id)


@pytest.mark.parametrize("shown_after_s", [0.0, 3600.0])
def test_a_task_of_qlik_cloud_is_started_and_its_run_found(
    qlik: SimulatedQlik,
    tenant: QlikServer,
    clock: ManualClock,
    shown_after_s: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The start gives no run id; the run is found at once, or later by the time of the start."""
    monkeypatch.setattr(cloud, "_LOOK_WAIT_S", 0.02)
    task = app(qlik, id=TASK, duration_s=5, outcomes=(Outcome.FAIL,))
    tenant.start(TASK)
    clock.advance(60)
    qlik.site.results_after_s = shown_after_s
    execution_id = tenant.start(TASK).execution_id
    assert execution_id.startswith("after:" if shown_after_s else "run:")
    if shown_after_s:
        assert tenant.poll([execution_id], [TASK]) == {}
    clock.advance(60)
    qlik.site.results_after_s = 0
    report = tenant.poll([execution_id], [TASK])[execution_id]
    assert report.state is ExecutionState.FAILED
    assert report.result_id == qlik.site.runs()[-1].execution_id
    assert report.reason == task.error_text
    assert qlik.starts(TASK) == 2


def test_the_look_before_a_repeat(
    qlik: SimulatedQlik, tenant: QlikServer, clock: ManualClock
) -> None:
    """Reloads that began after the request are found, older ones are not."""
    task = app(qlik, duration_s=1)
    qlik.run_elsewhere(task.id)
    clock.advance(60)
    after_ns = clock()
    tenant.check()
    assert list(tenant.since(APP, after_ns)) == []
    begun = qlik.run_elsewhere(task.id)
    assert [report.execution_id for report in tenant.since(APP, after_ns)] == [begun]


def test_a_reload_that_nobody_knows_is_absent(qlik: SimulatedQlik, tenant: QlikServer) -> None:
    """An unknown reload has no report, rather than a guess."""
    assert tenant.poll(["673f0c21a7d94e5b8c10f2aa"], [APP]) == {}
    with pytest.raises(QlikError, match="no app with this id") as caught:
        tenant.start(APP)
    assert caught.value.retry is RetryPolicy.NEVER


def test_what_runs_is_unknown_without_the_tenant_administrators_rights(
    qlik: SimulatedQlik, tenant: QlikServer
) -> None:
    """The list of all reloads is for administrators; for others nothing fails."""
    app(qlik)
    tenant.start(APP)
    assert list(tenant.running()) == []


def test_the_request_limit_is_passed_on(qlik: SimulatedQlik, tenant: QlikServer) -> None:
    """429 with retry-after: it was not carried out, and the server said how long to wait."""
    app(qlik)
    qlik.fail(FaultKind.STATUS, path="/reloads", status=429, retry_after_s=13)
    with pytest.raises(QlikError) as caught:
        tenant.start(APP)
    assert (caught.value.label, caught.value.retry) == ("429", RetryPolicy.SAFE)
    assert caught.value.retry_after_s == 13


def test_tokens_are_fetched_once_and_renewed_before_they_end(
    qlik: SimulatedQlik, clock: ManualClock
) -> None:
    """One token serves all calls until shortly before its end."""
    tenant = with_oauth(qlik, clock)
    for _ in range(5):
        tenant.check()
    assert qlik.cloud.tokens_issued == 1
    clock.advance(21600 - 30)
    tenant.check()
    assert qlik.cloud.tokens_issued == 2
    assert [seen.status for seen in qlik.requests if seen.path != "/oauth/token"] == [200] * 6
    tenant.close()


def test_a_token_that_was_revoked_is_replaced(qlik: SimulatedQlik, clock: ManualClock) -> None:
    """A read is made again with a new token; a start is left to the caller, as safe to repeat."""
    app(qlik)
    tenant = with_oauth(qlik, clock)
    tenant.check()
    qlik.cloud.forget_tokens()
    tenant.tasks()
    qlik.cloud.forget_tokens()
    with pytest.raises(QlikError) as caught:
        tenant.start(APP)
    assert (caught.value.label, caught.value.retry) == ("signed out", RetryPolicy.SAFE)
    assert tenant.start(APP).execution_id
    assert [seen.status for seen in qlik.posts] == [401, 201]
    tenant.close()


def test_wrong_keys_and_secrets_are_explained_and_not_shown(
    qlik: SimulatedQlik, clock: ManualClock
) -> None:
    """A wrong key is for a person to fix; it is in no text."""
    for tenant in (
        with_key(qlik, clock, "hunter2hunter2"),
        with_oauth(qlik, clock, "hunter2hunter2"),
    ):
        with pytest.raises(QlikError) as caught:
            tenant.start(APP)
        assert (caught.value.label, caught.value.retry) == ("401", RetryPolicy.NEVER)
        assert "hunter2" not in f"{caught.value!r}{caught.value}"
        tenant.close()


@pytest.mark.parametrize("kind", [FaultKind.DROP_AFTER, FaultKind.GARBAGE])
def test_a_start_whose_answer_was_lost_is_not_repeated(
    qlik: SimulatedQlik, tenant: QlikServer, clock: ManualClock, kind: FaultKind
) -> None:
    """One POST arrived, one reload runs, and the error says to look first."""
    app(qlik, duration_s=600)
    tenant.check()
    qlik.fail(kind, method="POST", path="/reloads", times=1)
    after_ns = clock()
    with pytest.raises(QlikError) as caught:
        tenant.start(APP)
    assert caught.value.retry is RetryPolicy.LOOK_FIRST
    assert qlik.starts(APP) == 1
    assert len(tenant.since(APP, after_ns)) == 1


@pytest.mark.parametrize("task_id", ["", "../users/me", "a/b", "x?y=1", "a" * 200])
def test_only_ids_reach_the_tenant(qlik: SimulatedQlik, tenant: QlikServer, task_id: str) -> None:
    """What can't be an id never becomes part of a URL."""
    with pytest.raises(QlikError) as caught:
        tenant.start(task_id)
    assert caught.value.label == "not an id"
    assert not qlik.requests
