"""Tasks of Qlik Cloud against the simulated tenant, over real HTTP: both interfaces."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from appliance.config.tables import QlikConfig
from appliance.model import ExecutionState, ReloadOptions
from appliance.qlik import cloud
from appliance.qlik.connect import connect
from appliance.qlik.diagnosis import diagnose
from appliance.qlik.server import QlikError, QlikServer, Report, RetryPolicy
from appliance.qlik.simulated import FaultKind, ManualClock, Outcome, SimulatedQlik, SimulatedTask
from appliance.qlik.simulated.cloud_tasks import INTERIM, SCHEDULING
from appliance.secret import Secret

APP = "b7c1d9e0-3a52-4f0e-8d11-62c4a9f0e733"
HEX_ID = "673f0c21a7d94e5b8c10f2bb"
GUID = "3f0c9a52-7b1e-4d88-9f0a-55d1c2e3f401"
LEGACY = "65b3b6339dabfe13223f8539"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def qlik(clock: ManualClock) -> Iterator[SimulatedQlik]:
    with SimulatedQlik(clock=clock) as server:
        yield server


@pytest.fixture(params=[SCHEDULING, INTERIM, "both"])
def interface(request: pytest.FixtureRequest, qlik: SimulatedQlik) -> str:
    """The tenant offers this interface, or both."""
    if request.param != "both":
        qlik.cloud.tasks.interfaces = {request.param}
    return str(request.param)


@pytest.fixture
def tenant(
    qlik: SimulatedQlik, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[QlikServer]:
    monkeypatch.setattr(cloud, "_LOOK_WAIT_S", 0.0)
    made = connect(config_of(qlik.url), clock=clock)
    yield made
    made.close()


def config_of(url: str) -> QlikConfig:
    return QlikConfig(edition="cloud", url=url, api_key=Secret("simulated-api-key"))


def task(qlik: SimulatedQlik, task_id: str = GUID, **settings: object) -> SimulatedTask:
    settings = {"app_id": APP, "app_name": "Line 7 quality", "is_cloud_task": True} | settings
    return qlik.add_task("Reload line 7", id=task_id, **settings)


def followed(tenant: QlikServer, execution_id: str, task_id: str = GUID) -> Report:
    return tenant.poll([execution_id], [task_id])[execution_id]


@pytest.mark.parametrize("task_id", [GUID, HEX_ID, HEX_ID.upper()])
@pytest.mark.parametrize("is_listed", [True, False])
def test_a_task_is_started_by_an_id_of_any_form(
    qlik: SimulatedQlik, tenant: QlikServer, interface: str, task_id: str, is_listed: bool
) -> None:
    """Over each interface, whether the list was read or not, and never as an app."""
    task(qlik, task_id.lower())
    if is_listed:
        assert {one.id for one in tenant.tasks()} == {APP, task_id.lower()}
    execution_id = tenant.start(task_id).execution_id
    assert execution_id == f"run:run-{qlik.site.runs()[-1].execution_id}"
    assert qlik.starts(task_id) == 1
    base = INTERIM if interface == INTERIM else SCHEDULING
    assert qlik.posts[-1].path == f"{base}/{task_id}/actions/start"


def test_an_app_that_is_in_no_list_yet_is_reloaded(qlik: SimulatedQlik, tenant: QlikServer) -> None:
    """No task has the id, so it is an app: one POST."""
    task(qlik)
    assert tenant.start(APP).execution_id == qlik.site.runs()[-1].execution_id
    assert [seen.path for seen in qlik.posts] == ["/api/v1/reloads"]


def test_all_tasks_are_listed_over_all_pages(
    qlik: SimulatedQlik, tenant: QlikServer, interface: str
) -> None:
    """250 tasks of one app: names, apps, disabled ones; the cursors are opaque."""
    for number in range(250):
        qlik.add_task(
            f"T{number:03}",
            id=f"task-{number}",
            app_id=APP,
            app_name="Line 7",
            is_cloud_task=True,
            enabled=number != 7,
        )
    found = [one for one in tenant.tasks() if one.id != APP]
    assert sorted(one.name for one in found) == [f"T{number:03}" for number in range(250)]
    assert {(one.app_id, one.app_name) for one in found} == {(APP, "Line 7")}
    assert [one.id for one in found if not one.enabled] == ["task-7"]
    lists = [seen for seen in qlik.requests if seen.path in (SCHEDULING, INTERIM)]
    assert len(lists) <= 6, interface


@pytest.mark.parametrize("gone_status", [404, 410])
def test_the_interface_that_the_tenant_offers_is_used(
    qlik: SimulatedQlik, tenant: QlikServer, clock: ManualClock, gone_status: int
) -> None:
    """404 and 410 mean that one is missing; when it changes, the next start goes over the other."""
    qlik.cloud.tasks.gone_status = gone_status
    one = task(qlik, HEX_ID, duration_s=1)
    for number, offered in enumerate((INTERIM, SCHEDULING, INTERIM), 1):
        qlik.cloud.tasks.interfaces = {offered}
        execution_id = tenant.start(HEX_ID).execution_id
        assert qlik.posts[-1].path.startswith(offered)
        clock.advance(60)
        assert followed(tenant, execution_id, HEX_ID).state is ExecutionState.SUCCEEDED
        assert one.runs == number


def test_a_list_that_fails_later_keeps_the_known_interface_in_use(
    qlik: SimulatedQlik, tenant: QlikServer
) -> None:
    """The apps are listed without new tasks, and tasks are started as before."""
    task(qlik)
    listed = tenant.tasks()
    qlik.fail(FaultKind.STATUS, method="GET", path=SCHEDULING, status=503, times=1)
    assert tenant.tasks() == listed
    assert tenant.start(GUID).execution_id.startswith("run:")


@pytest.mark.parametrize("worker", ["reload", "reloads", "RELOADS", "Reload"])
def test_a_failed_run_says_why_shows_its_log_and_can_be_stopped(
    qlik: SimulatedQlik, tenant: QlikServer, clock: ManualClock, worker: str
) -> None:
    """The reload behind a run has its reason, log and queue time, however its kind is spelt."""
    qlik.cloud.tasks.worker_type = worker
    task(qlik, duration_s=5, outcomes=(Outcome.FAIL,), error_text="Field 'A' not found")
    execution_id = tenant.start(GUID).execution_id
    assert followed(tenant, execution_id).state is ExecutionState.QUEUED
    clock.advance(1)
    assert followed(tenant, execution_id).state is ExecutionState.RUNNING
    clock.advance(30)
    report = followed(tenant, execution_id)
    assert (report.state, report.reason) == (ExecutionState.FAILED, "Field 'A' not found")
    assert (report.queued_s, report.duration_s) == (0.05, 5)
    for has_run_logs in (True, False):
        qlik.cloud.tasks.has_run_logs = has_run_logs
        assert "Field 'A' not found" in tenant.log_tail(report, 5)
    execution_id = tenant.start(GUID).execution_id
    clock.advance(1)
    tenant.stop(GUID, execution_id)
    clock.advance(1)
    assert followed(tenant, execution_id).state is ExecutionState.ABORTED


def test_a_run_without_its_reload_has_its_own_log() -> None:
    """The reload can't be seen any more: reason and log come from the run, and stop says so."""
    run = {
        **{"id": "run2", "taskId": GUID, "status": "FAILED", "triggeredBy": "manual"},
        **{"startedAt": "2025-08-31T23:28:04Z", "endedAt": "2025-08-31T23:28:06Z"},
        **{"workerType": "reloads", "workerId": LEGACY, "log": "Error: Field 'A' not found"},
    }

    class Tenant(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path.startswith(f"{INTERIM}/{GUID}/runs?")
            body = json.dumps({"data": [run], "links": {}} if found else {"errors": []}).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Tenant) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        tenant = connect(config_of(f"http://127.0.0.1:{server.server_port}"))
        report = followed(tenant, "run:run2")
        assert report.reason == "Field 'A' not found"
        assert tenant.log_tail(report, 5) == ["Error: Field 'A' not found"]
        tenant.close()
        server.shutdown()


@pytest.mark.parametrize("is_noted", [True, False])
def test_a_run_of_another_cause_is_never_taken_for_ours(
    qlik: SimulatedQlik, tenant: QlikServer, clock: ManualClock, is_noted: bool
) -> None:
    """The schedule starts the task just before the call, and again while its run is not seen."""
    qlik.cloud.tasks.notes_source = is_noted
    qlik.site.refuse_running = False
    task(qlik, duration_s=5)
    tenant.start(GUID)
    clock.advance(60)
    after_ns = clock()
    others = [qlik.run_elsewhere(GUID)]
    qlik.site.results_after_s = 5
    execution_id = tenant.start(GUID).execution_id
    ours = qlik.site.sessions()[-1].execution_id
    assert execution_id.startswith("after:")
    clock.advance(4)
    others.append(qlik.run_elsewhere(GUID))
    if is_noted:
        # The run of the schedule shows up first: ours is waited for.
        assert tenant.poll([execution_id], [GUID]) == {}
    clock.advance(60)
    qlik.site.results_after_s = 0
    if not is_noted:
        # Then only a run before the call can be told from ours.
        qlik.site._finished.remove(next(r for r in qlik.site.runs() if r.execution_id == others[0]))
    assert followed(tenant, execution_id).result_id == ours
    looked = [one.result_id for one in tenant.since(GUID, after_ns)]
    assert (looked == [ours]) is is_noted
    assert ours in looked


def test_two_starts_at_once_have_each_their_own_run(
    qlik: SimulatedQlik, tenant: QlikServer, clock: ManualClock
) -> None:
    """Two calls for one task whose runs show up later: no run is told twice."""
    for is_noted in (True, False):
        qlik.cloud.tasks.notes_source = is_noted
        qlik.cloud.tasks.interfaces = {SCHEDULING} if is_noted else {INTERIM}
        qlik.site.refuse_running = False
        one = task(qlik, GUID if is_noted else HEX_ID, duration_s=5)
        qlik.site.results_after_s = 1
        asked = [tenant.start(one.id).execution_id for _ in range(2)]
        clock.advance(2)
        qlik.site.results_after_s = 0
        reports = tenant.poll(asked, [one.id] * 2)
        begun = [run.execution_id for run in qlik.site.runs() if run.task is one]
        assert sorted(report.result_id for report in reports.values()) == sorted(begun)
        clock.advance(60)
        tenant.close()
        tenant = connect(config_of(qlik.url), clock=clock)
    tenant.close()


@pytest.mark.parametrize("kind", [FaultKind.DROP_AFTER, FaultKind.GARBAGE])
def test_a_start_whose_answer_was_lost_is_found(
    qlik: SimulatedQlik, tenant: QlikServer, clock: ManualClock, interface: str, kind: FaultKind
) -> None:
    """One POST arrived; a look finds the run, also with a client that knows nothing."""
    task(qlik, duration_s=600)
    tenant.check()
    qlik.fail(kind, method="POST", path="/start", times=1)
    after_ns = clock()
    with pytest.raises(QlikError) as caught:
        tenant.start(GUID)
    assert caught.value.retry is RetryPolicy.LOOK_FIRST
    another = connect(config_of(qlik.url), clock=clock)
    for client in (tenant, another):
        found = client.since(GUID, after_ns)
        assert [one.result_id for one in found] == [qlik.site.runs()[-1].execution_id], interface
    another.close()
    assert qlik.starts(GUID) == 1
    # Only the runs themselves say that there is none.
    for status in (400, 403, 404, 410, 503):
        qlik.fail(FaultKind.STATUS, path="/runs", status=status)
        with pytest.raises(QlikError):
            tenant.since(GUID, after_ns)
        qlik.heal()


@pytest.mark.parametrize(
    ("code", "why"),
    [("CONSECUTIVE-FAILURES", "failed too often"), ("OWNER-DELETED", "owner was deleted")],
)
def test_a_disabled_task_says_why_it_is_disabled(
    qlik: SimulatedQlik, tenant: QlikServer, interface: str, code: str, why: str
) -> None:
    """A refusal, with the reason that the tenant has for it and what to do."""
    task(qlik, enabled=False, disabled_code=code)
    tenant.tasks()
    refused = tenant.start(GUID)
    assert refused.execution_id == "", interface
    assert why in refused.reason
    assert "Enable it" in refused.reason


def test_a_task_that_runs_is_refused_as_busy(qlik: SimulatedQlik, tenant: QlikServer) -> None:
    """So that the request can wait for the end of that run."""
    task(qlik, duration_s=60)
    tenant.tasks()
    assert tenant.start(GUID).execution_id
    assert tenant.start(GUID).reason == "the task is already running"


@pytest.mark.parametrize("has_text_codes", [True, False])
def test_refusals_say_what_to_do(
    qlik: SimulatedQlik, tenant: QlikServer, interface: str, has_text_codes: bool
) -> None:
    """An unknown id, an app without rights or missing (403), the limit of requests, a service
    that is away: each has a sentence, and says whether a repetition makes sense."""
    qlik.cloud.tasks.has_text_codes = has_text_codes
    task(qlik)
    task(qlik, HEX_ID, app_available=False)
    tenant.tasks()

    def refusal(task_id: str) -> QlikError:
        with pytest.raises(QlikError) as caught:
            tenant.start(task_id)
        return caught.value

    for unknown in (LEGACY, "3f0c9a52-0000-4d88-9f0a-55d1c2e3f401"):
        assert refusal(unknown).retry is RetryPolicy.NEVER, interface
        assert "There is no" in str(refusal(unknown))
    assert "app:reload" in str(refusal(HEX_ID))
    assert refusal(HEX_ID).label == "403"
    qlik.fail(FaultKind.STATUS, path="/start", times=1, status=429, retry_after_s=13)
    limited = refusal(GUID)
    assert (limited.label, limited.retry, limited.retry_after_s) == ("429", RetryPolicy.SAFE, 13)
    away = json.dumps({"errors": [{"code": "CHO-024", "title": "Unavailable"}], "traceId": "x"})
    qlik.fail(FaultKind.STATUS, path="/start", times=1, status=503, text=away)
    gone = refusal(GUID)
    assert gone.retry is RetryPolicy.LOOK_FIRST
    assert "scheduling service" in str(gone)
    assert "Repository" not in str(gone)
    # What fails before the POST leaves nothing to look for.
    qlik.fail(FaultKind.DROP_BEFORE, path="/runs/last", times=2)
    assert refusal(GUID).retry is RetryPolicy.SAFE
    qlik.heal()
    assert tenant.start(GUID).execution_id


def test_a_legacy_task_that_was_migrated_is_started_as_the_new_one(
    qlik: SimulatedQlik, tenant: QlikServer, clock: ManualClock
) -> None:
    """Its old id is found among the tasks that were made of others."""
    task(qlik, migrated_from=LEGACY, duration_s=5)
    after_ns = clock()
    execution_id = tenant.start(LEGACY).execution_id
    clock.advance(10)
    assert followed(tenant, execution_id, LEGACY).state is ExecutionState.SUCCEEDED
    assert [one.execution_id for one in tenant.since(LEGACY, after_ns)] == [execution_id]
    assert qlik.starts(GUID) == 1


def test_partial_and_variables_reach_the_reload_of_an_app(
    qlik: SimulatedQlik, tenant: QlikServer
) -> None:
    """They are in the body of the call, and only what is asked for."""
    task(qlik, duration_s=60)
    options = ReloadOptions(partial=True, variables=(("vFrom", "2026-11-01"), ("vLine", "7")))
    reload_id = tenant.start(APP, options=options).execution_id
    assert json.loads(qlik.posts[-1].body) == {
        "appId": APP,
        "partial": True,
        "variables": {"vFrom": "2026-11-01", "vLine": "7"},
    }
    run = qlik.site.runs()[-1]
    assert run.execution_id == reload_id
    assert qlik.cloud.origins.of(run).partial is True


@pytest.mark.parametrize(
    ("task_id", "variables", "why"),
    [
        (APP, tuple((f"v{number}", "x") for number in range(21)), "at most 20"),
        (APP, (("v", "x" * 257),), "at most 256"),
        (APP, (("v" * 257, "x"),), "256"),
        (GUID, (("v", "x"),), "Name the app"),
        (HEX_ID, (("v", "x"),), "Name the app"),
    ],
)
@pytest.mark.parametrize("is_listed", [True, False])
def test_options_that_can_t_be_had_are_refused_with_the_reason(
    qlik: SimulatedQlik,
    tenant: QlikServer,
    task_id: str,
    variables: tuple[tuple[str, str], ...],
    why: str,
    is_listed: bool,
) -> None:
    """Nothing is started, and the reason says what to change."""
    task(qlik)
    task(qlik, HEX_ID)
    if is_listed:
        tenant.tasks()
    with pytest.raises(QlikError, match=why) as caught:
        tenant.start(task_id, options=ReloadOptions(variables=variables))
    assert caught.value.retry is RetryPolicy.NEVER
    assert qlik.site.runs() == []


@pytest.mark.parametrize("is_listed", [True, False])
def test_what_the_tenant_says_of_the_options_is_told(
    qlik: SimulatedQlik, tenant: QlikServer, is_listed: bool
) -> None:
    """A 400 for the body of a reload is not taken for an unknown app."""
    task(qlik)
    if is_listed:
        tenant.tasks()
    said = json.dumps({"errors": [{"code": "RELOADS-002", "title": "vFrom is reserved"}]})
    qlik.fail(FaultKind.STATUS, method="POST", path="/reloads", status=400, text=said)
    with pytest.raises(QlikError, match="vFrom is reserved") as caught:
        tenant.start(APP, options=ReloadOptions(variables=(("vFrom", "x"),)))
    assert caught.value.retry is RetryPolicy.NEVER


@pytest.mark.parametrize("is_administrator", [True, False])
@pytest.mark.parametrize("lists_last_run", [True, False])
def test_runs_of_others_are_seen_once_each_however_short(
    qlik: SimulatedQlik,
    tenant: QlikServer,
    clock: ManualClock,
    is_administrator: bool,
    lists_last_run: bool,
) -> None:
    """14 failing runs of 2 s of a task, two between two looks, are told as its runs with their
    reasons; a run of ours is known by the id that its start had."""
    qlik.cloud.is_administrator = is_administrator
    qlik.cloud.tasks.lists_last_run = lists_last_run
    other = task(qlik, duration_s=2, outcomes=(Outcome.FAIL,), error_text="Table not found")
    ours = task(qlik, HEX_ID, app_id=GUID.replace("3", "4"), duration_s=30)
    tenant.tasks()
    until_ns = tenant.ended(None, ()).until_ns
    seen: dict[str, Report] = {}
    own = tenant.start(ours.id).execution_id
    for look in range(7):
        for _ in range(2):
            qlik.run_elsewhere(other.id)
            clock.advance(1)
            going_on = {one.execution_id: one for one in tenant.running()}
            assert {one.task_id for one in going_on.values()} <= {other.id, ours.id}
            assert look > 1 or own in going_on
            clock.advance(5)
        ended = tenant.ended(until_ns, ())
        until_ns = ended.until_ns
        seen |= {one.execution_id: one for one in ended.reports}
    assert own in seen
    told = [one for one in seen.values() if one.task_id == other.id]
    assert len(told) == 14
    assert {(one.state, one.reason) for one in told} == {(ExecutionState.FAILED, "Table not found")}
    assert len(seen) == 15


def test_reloads_of_others_are_seen_by_an_administrator(
    qlik: SimulatedQlik, tenant: QlikServer, clock: ManualClock
) -> None:
    """Reloads in the hub or by the API, of apps without tasks."""
    qlik.cloud.is_administrator = True
    qlik.cloud.origins.elsewhere_type = "hub"
    qlik.add_task("A", app_id=APP, app_name="A", duration_s=2)
    until_ns = tenant.ended(None, ()).until_ns
    after_ns = clock()
    begun = [qlik.run_elsewhere(one.id) for one in qlik.site.tasks.values()]
    clock.advance(1)
    assert [one.execution_id for one in tenant.running()] == begun
    clock.advance(14)
    assert [one.execution_id for one in tenant.ended(until_ns, ()).reports] == begun
    # A reload that a person began in the hub is none of ours.
    assert list(tenant.since(APP, after_ns)) == []


@pytest.mark.parametrize(
    ("offered", "says"),
    [
        ({SCHEDULING, INTERIM}, "offers the scheduling tasks interface"),
        ({INTERIM}, "offers the interim tasks interface"),
        (set(), "offers no interface for tasks"),
    ],
)
def test_check_says_which_interface_the_tenant_offers(
    qlik: SimulatedQlik, offered: set[str], says: str
) -> None:
    """So that an operator knows what can be started."""
    task(qlik)
    qlik.cloud.tasks.interfaces = offered
    findings = diagnose(config_of(qlik.url))
    assert [one for one in findings if says in one.text and one.level == "ok"], findings
    assert any("1 apps and" in one.text for one in findings)


_ODD = [
    *("[]", "null", "0", '"x"', "{}", '{"data": null}', '{"data": {"id": 1}}', "not JSON", ""),
    '{"data": [null, 1, [], {}, {"id": null}], "links": []}',
    '{"data": [{"id": [], "metadata": 1, "startedAt": 0, "workerId": {}}], "links": {"next": 1}}',
    '{"data": [{"id": "x", "metadata": {"orchestration": {"attrs": 1, "lastRun": []}}}]}',
    '{"data": [{"id": "x"}], "links": {"next": {"href": "http://[?page=1"}}}',
    '{"data": [{"id": "x"}], "links": {"next": {"href": "?page=1"}}}',
    '{"id": "x", "status": 7, "startedAt": "9999-99-99", "workerType": 1, "log": 1}',
    '{"errors": [1, {"code": {}}], "logContent": []}',
]


@pytest.mark.parametrize("body", _ODD)
@pytest.mark.parametrize(
    "status",
    [200, *(pytest.param(status, marks=pytest.mark.campaign) for status in (400, 409, 503))],
)
def test_odd_answers_are_errors_and_nothing_else(
    qlik: SimulatedQlik, tenant: QlikServer, body: str, status: int
) -> None:
    """Whatever a tenant answers: a result or a ``QlikError``, and lists that repeat end."""
    task(qlik)
    tenant.tasks()
    mark = tenant.start(GUID).execution_id
    qlik.fail(FaultKind.STATUS, path="/api/", status=status, text=body)
    calls = [
        tenant.check,
        tenant.tasks,
        lambda: tenant.start(GUID),
        lambda: tenant.start(APP),
        lambda: tenant.start(LEGACY),
        lambda: tenant.poll([mark, "after:1:0a1b2c3d", LEGACY], [GUID, GUID, APP]),
        lambda: tenant.since(GUID, 0),
        lambda: tenant.since(APP, 0),
        tenant.running,
        lambda: tenant.ended(1, ()),
        lambda: tenant.log_tail(Report(mark, GUID, ExecutionState.FAILED), 5),
        lambda: tenant.stop(GUID, mark),
    ]
    for call in calls:
        with contextlib.suppress(QlikError):
            call()
