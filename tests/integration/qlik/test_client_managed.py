"""The client-managed client against the simulated Repository Service, over real HTTP."""

import threading
from collections.abc import Iterator

import pytest

from appliance.config.tables import HeaderConfig, QlikConfig
from appliance.secret import Secret
from appliance.model import APP, ExecutionState, ReloadOptions, TaskKind
from appliance.qlik.client_managed import ClientManaged
from appliance.qlik.connect import connect
from appliance.qlik.failures import StatusError
from appliance.qlik.server import QlikServer, RetryPolicy, QlikError
from appliance.qlik.simulated import FaultKind, ManualClock, Outcome, Proxy, SimulatedQlik
from appliance.qlik.transport import Transport

UNKNOWN = "00000000-0000-4000-8000-000000000001"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def qlik(clock: ManualClock) -> Iterator[SimulatedQlik]:
    proxies = [
        Proxy("hdr"),
        Proxy("jwt", kind="jwt", token="a.b.c"),
        Proxy("elsewhere", allowed_hosts=("sense.example.com",)),
    ]
    with SimulatedQlik(clock=clock, proxies=proxies) as server:
        yield server


@pytest.fixture
def client(qlik: SimulatedQlik, clock: ManualClock) -> Iterator[ClientManaged]:
    made = direct(qlik, clock)
    yield made
    made.close()


def direct(
    qlik: SimulatedQlik, clock: ManualClock, user: str = "sa_repository", **more: object
) -> ClientManaged:
    headers = {"X-Qlik-User": f"UserDirectory=INTERNAL;UserId={user}"}
    settings = {"timeout_s": 5.0, "headers": headers, "clock": clock} | more
    return ClientManaged(Transport(qlik.url, **settings))  # type: ignore[arg-type]  # settings of a test


@pytest.mark.parametrize("form", ["value", "string"])
def test_a_start_gives_an_execution_that_is_followed_to_its_end(
    qlik: SimulatedQlik, client: ClientManaged, clock: ManualClock, form: str
) -> None:
    """Both answer forms of start/synchronous are understood; the outcome has times and details."""
    qlik.repository.answer_form = form
    task = qlik.add_task("A", duration_s=5)
    started = client.start(task.id.upper())
    clock.advance(2)
    (running,) = client.poll([started.execution_id], [task.id]).values()
    assert running.state is ExecutionState.RUNNING
    assert [report.task_id for report in client.running()] == [task.id]
    clock.advance(10)
    report = client.poll([started.execution_id], [task.id])[started.execution_id]
    assert report.state is ExecutionState.SUCCEEDED
    assert report.duration_s == 5
    assert report.started_ns is not None
    assert report.ended_ns == report.started_ns + 5_000_000_000
    assert report.details[0].text == "Changing task state to Triggered"
    assert qlik.starts(task.id) == 1


def test_every_request_carries_its_own_key(qlik: SimulatedQlik, client: ClientManaged) -> None:
    """The XSRF key is sixteen characters, in query and header, and not the same each time."""
    client.check()
    client.tasks()
    keys = [seen.query["xrfkey"] for seen in qlik.requests]
    assert all(len(key) == 16 and key.isalnum() for key in keys)
    assert keys == [seen.headers["x-qlik-xrfkey"] for seen in qlik.requests]
    assert len(set(keys)) == len(keys)
    assert all(seen.status == 200 for seen in qlik.requests)


def test_a_failure_that_the_server_retries_is_still_running(
    qlik: SimulatedQlik, client: ClientManaged, clock: ManualClock
) -> None:
    """No failure is told that the server's own second attempt fixes."""
    task = qlik.add_task("A", duration_s=2, max_retries=1, outcomes=(Outcome.FAIL, Outcome.SUCCESS))
    execution_id = client.start(task.id).execution_id
    seen = []
    for _ in range(8):
        clock.advance(0.8)
        report = client.poll([execution_id], [task.id])[execution_id]
        seen.append((report.state, report.attempt))
    assert seen[0] == (ExecutionState.RUNNING, 1)
    assert seen[-1] == (ExecutionState.SUCCEEDED, 2)
    assert all(state is not ExecutionState.FAILED for state, _ in seen)


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Outcome.FAIL, ExecutionState.FAILED),
        (Outcome.ERROR, ExecutionState.FAILED),
        (Outcome.ABORT, ExecutionState.ABORTED),
        (Outcome.SKIP, ExecutionState.SKIPPED),
        (Outcome.RESET, ExecutionState.ABORTED),
    ],
)
def test_every_end_is_reported_with_a_reason(
    qlik: SimulatedQlik,
    client: ClientManaged,
    clock: ManualClock,
    outcome: Outcome,
    state: ExecutionState,
) -> None:
    """Each way to end badly has its state and a reason, without secrets."""
    task = qlik.add_task("A", outcomes=(outcome,), error_text="Password=Sommer2026; no table")
    execution_id = client.start(task.id).execution_id
    clock.advance(5)
    report = client.poll([execution_id], [task.id])[execution_id]
    assert report.state is state
    assert report.reason
    assert "Sommer" not in str(report)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"enabled": False}, "disabled"),
        ({"app_available": False}, "app is not available"),
    ],
)
def test_a_refused_start_says_why(
    qlik: SimulatedQlik, client: ClientManaged, settings: dict[str, object], reason: str
) -> None:
    """The zero id is a refusal, and the likely reason is looked up."""
    task = qlik.add_task("A", **settings)
    started = client.start(task.id)
    assert started.execution_id == ""
    assert reason in started.reason


def test_a_task_that_runs_is_said_to_run(qlik: SimulatedQlik, client: ClientManaged) -> None:
    """The second start of a running task is refused with that reason."""
    task = qlik.add_task("A", duration_s=60)
    client.start(task.id)
    assert "already running" in client.start(task.id).reason


def test_a_refusal_stays_a_refusal_when_its_reason_cannot_be_looked_up(
    qlik: SimulatedQlik, client: ClientManaged
) -> None:
    """The look for the reason never turns an answer into an error."""
    task = qlik.add_task("A", enabled=False)
    qlik.fail(FaultKind.STATUS, path="/task/full", status=503)
    started = client.start(task.id)
    assert (started.execution_id, "503" in started.reason) == ("", True)


def test_unknown_tasks_are_a_permanent_error(client: ClientManaged) -> None:
    """404 is not retried and says what it may mean."""
    with pytest.raises(QlikError, match="no task with this id") as caught:
        client.start(UNKNOWN)
    assert caught.value.retry is RetryPolicy.NEVER


@pytest.mark.parametrize("task_id", ["", "../../x", "a b", f"{UNKNOWN}/../about", "x' or 1 eq 1"])
def test_only_ids_reach_the_server(
    qlik: SimulatedQlik, client: ClientManaged, task_id: str
) -> None:
    """What is not a GUID never becomes part of a URL or filter."""
    for call in (
        lambda: client.start(task_id),
        lambda: client.since(task_id, 0),
        lambda: client.stop(task_id, UNKNOWN),
    ):
        with pytest.raises(QlikError) as caught:
            call()
        assert caught.value.label == "not an id"
    assert client.poll([task_id], [task_id]) == {}
    assert qlik.requests == []


def test_many_executions_take_few_requests(
    qlik: SimulatedQlik, client: ClientManaged, clock: ManualClock
) -> None:
    """A hundred executions are polled with one session list and three result lists."""
    tasks = [qlik.add_task(f"T{number}", duration_s=1) for number in range(100)]
    ids = [client.start(task.id).execution_id for task in tasks]
    clock.advance(60)
    qlik.forget_requests()
    reports = client.poll(ids, [task.id for task in tasks])
    assert len(reports) == 100
    assert {report.state for report in reports.values()} == {ExecutionState.SUCCEEDED}
    assert [seen.path.split("/")[2] for seen in qlik.requests] == [
        "executionsession",
        *["executionresult"] * 3,
    ]


def test_right_after_a_start_there_may_be_no_result_yet(
    qlik: SimulatedQlik, client: ClientManaged, clock: ManualClock
) -> None:
    """Without a result, the session shows that the run is under way."""
    qlik.site.results_after_s = 5
    task = qlik.add_task("A", duration_s=60)
    execution_id = client.start(task.id).execution_id
    clock.advance(1)
    report = client.poll([execution_id], [task.id])[execution_id]
    assert report.state is ExecutionState.RUNNING
    assert report.task_name == "A"


@pytest.mark.parametrize("results", ["lost", "stuck", "reset"])
def test_a_restart_that_forgets_sessions(
    qlik: SimulatedQlik, client: ClientManaged, clock: ManualClock, results: str
) -> None:
    """Nothing is guessed: no report, or one without a session, or the server's own Reset."""
    task = qlik.add_task("A", duration_s=60)
    execution_id = client.start(task.id).execution_id
    clock.advance(1)
    qlik.restart(results=results)
    report = client.poll([execution_id], [task.id]).get(execution_id)
    if results == "lost":
        assert report is None
    elif results == "stuck":
        assert report is not None
        assert (report.state, report.session_open) == (ExecutionState.RUNNING, False)
    else:
        assert report is not None
        assert report.state is ExecutionState.ABORTED


@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_only_an_absent_session_means_over(
    qlik: SimulatedQlik, client: ClientManaged, clock: ManualClock, status: int
) -> None:
    """A server that can't answer about sessions does not end an execution."""
    task = qlik.add_task("A", max_retries=1, duration_s=1, outcomes=(Outcome.FAIL,))
    execution_id = client.start(task.id).execution_id
    clock.advance(1.5)
    qlik.fail(FaultKind.STATUS, path="/executionsession", status=status)
    with pytest.raises(StatusError):
        client.poll([execution_id], [task.id])


def test_all_kinds_of_tasks_are_listed_and_started(
    qlik: SimulatedQlik, client: ClientManaged, clock: ManualClock
) -> None:
    """Reload, external program and user synchronisation tasks go the same way."""
    reload_task = qlik.add_task(
        "A", app_name="Sales", tags=("mqtt",), properties=(("factory", "7"), ("factory", "8"))
    )
    program = qlik.add_task("B", kind=TaskKind.EXTERNAL_PROGRAM)
    sync = qlik.add_task("C", kind=TaskKind.USER_SYNC, enabled=False)
    listed = {task.id: task for task in client.tasks()}
    assert {task.kind for task in listed.values()} == set(TaskKind) & {0, 1, 2}
    assert listed[reload_task.id].app_name == "Sales"
    assert listed[reload_task.id].tags == ("mqtt",)
    assert listed[reload_task.id].properties == (("factory", "7"), ("factory", "8"))
    assert not listed[sync.id].enabled
    execution_id = client.start(program.id).execution_id
    clock.advance(5)
    report = client.poll([execution_id], [program.id])[execution_id]
    assert report.state is ExecutionState.SUCCEEDED
    with pytest.raises(QlikError, match="404"):
        client.log_tail(report, 10)


def test_missing_rights_on_one_kind_leave_the_others(
    qlik: SimulatedQlik, client: ClientManaged
) -> None:
    """A user without rights to external programs still sees the reload tasks."""
    qlik.add_task("A")
    qlik.hide(TaskKind.EXTERNAL_PROGRAM)
    assert [task.name for task in client.tasks()] == ["A"]


def test_missing_rights_on_every_kind_are_an_error(
    qlik: SimulatedQlik, client: ClientManaged
) -> None:
    """An empty list is not shown where the server refused to give one."""
    for kind in (TaskKind.RELOAD, TaskKind.EXTERNAL_PROGRAM, TaskKind.USER_SYNC):
        qlik.hide(kind)
    with pytest.raises(QlikError, match="security rule"):
        client.tasks()


@pytest.mark.parametrize(("old", "new"), [(True, False), (False, True), (False, False)])
def test_the_script_log_comes_from_the_old_or_the_new_endpoint(
    qlik: SimulatedQlik, client: ClientManaged, clock: ManualClock, old: bool, new: bool
) -> None:
    """Servers before and after May 2025 both give their log, secrets masked."""
    qlik.repository.old_script_log, qlik.repository.new_script_log = old, new
    task = qlik.add_task("A", outcomes=(Outcome.FAIL,))
    execution_id = client.start(task.id).execution_id
    clock.advance(5)
    report = client.poll([execution_id], [task.id])[execution_id]
    if not (old or new):
        with pytest.raises(QlikError, match=r"scriptlog.*scriptlogfile"):
            client.log_tail(report, 20)
        return
    lines = client.log_tail(report, 20)
    assert lines[-1].endswith("Execution Failed")
    assert any("XPassword=***" in line for line in lines)
    assert "Sommer" not in "".join(lines)


def test_a_log_of_many_megabytes_is_cut_to_its_end(
    qlik: SimulatedQlik, client: ClientManaged, clock: ManualClock
) -> None:
    """Only the last lines are kept, whole ones."""
    log = tuple(f"{number:06} {'x' * 100}" for number in range(40_000))
    task = qlik.add_task("A", outcomes=(Outcome.FAIL,), log=log)
    execution_id = client.start(task.id).execution_id
    clock.advance(5)
    report = client.poll([execution_id], [task.id])[execution_id]
    assert list(client.log_tail(report, 3)) == list(log[-3:])
    assert list(client.log_tail(report, 0)) == []


def test_stop_aborts_the_run(
    qlik: SimulatedQlik, client: ClientManaged, clock: ManualClock
) -> None:
    """A stopped run is aborted, not failed."""
    task = qlik.add_task("A", outcomes=(Outcome.NEVER,))
    execution_id = client.start(task.id).execution_id
    clock.advance(1)
    client.stop(task.id, execution_id)
    clock.advance(1)
    report = client.poll([execution_id], [task.id])[execution_id]
    assert report.state is ExecutionState.ABORTED


@pytest.mark.parametrize("skew_s", [-3600.0, 0.0, 3600.0])
def test_the_look_before_a_repeat_allows_for_wrong_clocks(skew_s: float) -> None:
    """What began after the request is found, and what ran before is not, with any difference of the clocks."""
    ours, theirs = ManualClock(), ManualClock()
    theirs.advance(skew_s)
    with SimulatedQlik(clock=theirs) as qlik:
        client = direct(qlik, ours)
        task, other = qlik.add_task("A", duration_s=1), qlik.add_task("B", duration_s=1)
        client.start(task.id)
        for clock in (ours, theirs):
            clock.advance(60)
        after_ns = ours()
        assert list(client.since(task.id, after_ns)) == []
        begun = qlik.run_elsewhere(task.id)
        qlik.run_elsewhere(other.id)
        assert [report.execution_id for report in client.since(task.id, after_ns)] == [begun]
        for clock in (ours, theirs):
            clock.advance(60)
        (report,) = client.since(task.id, after_ns)
        assert (report.execution_id, report.state) == (begun, ExecutionState.SUCCEEDED)
        client.close()


def test_users_without_rights_or_inactive(qlik: SimulatedQlik, clock: ManualClock) -> None:
    """An inactive user is told so; one without rights sees nothing and may start nothing."""
    task = qlik.add_task("A")
    qlik.inactive_users.add("INTERNAL\\gone")
    qlik.rightless_users.add("INTERNAL\\nobody")
    with pytest.raises(QlikError, match="Activate the user"):
        direct(qlik, clock, "gone").check()
    nobody = direct(qlik, clock, "nobody")
    assert list(nobody.tasks()) == []
    with pytest.raises(QlikError, match="security rule") as caught:
        nobody.start(task.id)
    assert (caught.value.label, caught.value.retry) == ("403", RetryPolicy.NEVER)


# --- through a virtual proxy ---------------------------------------------------------------------


def proxied(qlik: SimulatedQlik, **settings: object) -> QlikServer:
    config = QlikConfig(edition="client-managed", **settings)  # type: ignore[arg-type]  # of a test
    return connect(config)


@pytest.mark.parametrize("way", ["header", "jwt", "ntlm"])
def test_a_proxy_is_signed_in_to_once_and_before_the_first_post(way: str) -> None:
    """A GET signs in, its cookie is kept by all threads, and a start is one POST."""
    if way == "ntlm":
        pytest.importorskip("requests_ntlm")
    proxies = [
        Proxy("hdr"),
        Proxy("jwt", kind="jwt", token="a.b.c"),
        Proxy("", kind="ntlm"),
    ]
    with SimulatedQlik(proxies=proxies, direct=False) as qlik:
        tasks = [qlik.add_task(f"T{number}") for number in range(4)]
        settings: dict[str, dict[str, object]] = {
            "header": {"url": f"{qlik.url}/hdr/", "header": HeaderConfig(name="hdr-usr"),
                       "user": "LAB\\bob"},
            "jwt": {"url": f"{qlik.url}/jwt/qrs", "jwt": Secret("a.b.c")},
            "ntlm": {"url": qlik.url, "ntlm": True, "user": "LAB\\bob", "password": Secret("x")},
        }  # fmt: skip
        client = proxied(qlik, **settings[way])
        threads = [threading.Thread(target=client.start, args=(task.id,)) for task in tasks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [qlik.starts(task.id) for task in tasks] == [1, 1, 1, 1]
        assert [seen.status for seen in qlik.posts] == [201, 201, 201, 201]
        assert sum("cookie" not in seen.headers for seen in qlik.requests) == (
            3 if way == "ntlm" else 1
        )
        client.close()


def test_a_post_that_meets_an_ended_session_is_not_repeated_by_itself(
    qlik: SimulatedQlik,
) -> None:
    """The proxy turned the POST away, so the caller may repeat it; a new sign-in comes first."""
    task = qlik.add_task("A")
    client = proxied(qlik, url=f"{qlik.url}/jwt", jwt=Secret("a.b.c"))
    client.check()
    qlik.end_sign_ins()
    with pytest.raises(QlikError) as caught:
        client.start(task.id)
    assert (caught.value.label, caught.value.retry) == ("signed out", RetryPolicy.SAFE)
    assert qlik.site.sessions() == []
    assert client.start(task.id).execution_id
    assert len(qlik.posts) == 2
    client.close()


def test_a_read_that_meets_an_ended_session_signs_in_anew(qlik: SimulatedQlik) -> None:
    """Polling goes on over the end of a proxy's session."""
    qlik.add_task("A")
    client = proxied(qlik, url=f"{qlik.url}/jwt", jwt=Secret("a.b.c"))
    assert len(client.tasks()) == 1
    qlik.end_sign_ins()
    qlik.fail(FaultKind.REDIRECT, path="/reloadtask/full", times=1)
    assert len(client.tasks()) == 1
    client.close()


@pytest.mark.parametrize(
    ("url", "settings", "label"),
    [
        ("/hdr", {"jwt": Secret("a.b.c")}, "login page"),  # the header is missing
        ("/jwt", {"jwt": Secret("wrong")}, "401"),
        ("/nosuch", {"jwt": Secret("a.b.c")}, "404"),
        ("/elsewhere", {"header": HeaderConfig(name="hdr-usr", value=Secret("x"))}, "400"),
    ],
)
def test_a_wrong_way_in_is_explained_and_not_retried(
    qlik: SimulatedQlik, url: str, settings: dict[str, object], label: str
) -> None:
    """Wrong header, token, prefix or host name: an error that a person has to fix."""
    client = proxied(qlik, url=qlik.url + url, **settings)
    with pytest.raises(QlikError) as caught:
        client.check()
    assert (caught.value.label, caught.value.retry) == (label, RetryPolicy.NEVER)
    with pytest.raises(QlikError) as caught:
        client.start(UNKNOWN)
    assert caught.value.retry is RetryPolicy.NEVER
    assert qlik.posts == []
    assert "a.b.c" not in str(caught.value)
    client.close()


def test_a_sign_in_that_breaks_leaves_the_start_safe_to_repeat(qlik: SimulatedQlik) -> None:
    """If the connection ends during the sign-in, the POST was certainly not sent."""
    task = qlik.add_task("A")
    client = proxied(qlik, url=f"{qlik.url}/jwt", jwt=Secret("a.b.c"))
    qlik.fail(FaultKind.DROP_BEFORE, times=1)
    with pytest.raises(QlikError) as caught:
        client.start(task.id)
    assert caught.value.retry is RetryPolicy.SAFE
    assert qlik.posts == []
    client.close()


def test_tasks_of_every_kind_are_listed_and_started(
    qlik: SimulatedQlik, client: ClientManaged, clock: ManualClock
) -> None:
    """Distribute and preload tasks have no list of their own; a start is the same call for all."""
    made = {kind: qlik.add_task(kind.name, kind=kind, duration_s=5) for kind in TaskKind}
    listed = client.tasks()
    assert {one.name: one.kind for one in listed} == {kind.name: kind for kind in TaskKind}
    assert len(listed) == len(TaskKind)
    for kind, task in made.items():
        started = client.start(task.id)
        clock.advance(1)
        assert [one.task_id for one in client.running()] == [task.id], kind
        clock.advance(10)
        (report,) = client.poll([started.execution_id], [task.id]).values()
        assert report.state is ExecutionState.SUCCEEDED
        assert kind is not TaskKind.RELOAD or client.log_tail(report, 5)


def test_a_distribution_is_followed_through_its_own_states(
    qlik: SimulatedQlik, client: ClientManaged, clock: ManualClock
) -> None:
    """13 is queued and 14 runs."""
    qlik.site.concurrency = 1
    tasks = [qlik.add_task(name, kind=TaskKind.DISTRIBUTE, duration_s=5) for name in "AB"]
    runs = [client.start(task.id).execution_id for task in tasks]
    clock.advance(1)
    reports = client.poll(runs, [task.id for task in tasks])
    assert [reports[run].status for run in runs] == [14, 13]
    assert [reports[run].state.value for run in runs] == ["running", "queued"]


@pytest.mark.parametrize("server", ["no filter by kind", "no list of all", "no rights for reloads"])
def test_a_server_that_shows_less_costs_only_that(
    qlik: SimulatedQlik, client: ClientManaged, server: str
) -> None:
    """The kinds that can be seen are listed."""
    for kind in TaskKind:
        qlik.add_task(kind.name, kind=kind)
    kinds = set(TaskKind)
    if server == "no filter by kind":
        qlik.repository.filters_by_kind = False
    elif server == "no list of all":
        qlik.repository.shows_all_tasks = False
        kinds -= {TaskKind.DISTRIBUTE, TaskKind.PRELOAD}
    else:
        qlik.hide(TaskKind.RELOAD)
        kinds -= {TaskKind.RELOAD}
    assert {one.kind for one in client.tasks()} == kinds


def test_an_app_without_a_task_is_reloaded_and_its_run_found(
    qlik: SimulatedQlik, client: ClientManaged, clock: ManualClock
) -> None:
    """The call gives neither a run nor a task: both are looked for."""
    app_id = qlik.add_app("Sales")
    (app,) = client.apps()
    assert (app.id, app.app_id, app.app_name) == (f"{APP}{app_id}", app_id, "Sales")
    started = client.start(app.id)
    (task,) = client.tasks()
    assert task.manual
    assert (started.task_id, started.execution_id) == (task.id, client.running()[0].execution_id)
    clock.advance(10)
    (report,) = client.poll([started.execution_id], [started.task_id]).values()
    assert report.state is ExecutionState.SUCCEEDED
    assert client.log_tail(report, 5)
    assert qlik.starts(app_id) == qlik.starts() == 1


def test_the_run_before_is_not_taken_for_the_new_one(
    qlik: SimulatedQlik, client: ClientManaged, clock: ManualClock
) -> None:
    """Also if it began within the slack of the clocks."""
    app = f"{APP}{qlik.add_app('Sales')}"
    first = client.start(app).execution_id
    qlik.site.finish(client.tasks()[0].id)
    assert client.start(app).execution_id != first


def test_a_run_of_an_app_that_shows_late_is_followed(
    qlik: SimulatedQlik, client: ClientManaged, clock: ManualClock
) -> None:
    """Until then the execution id stands for the first run since the call."""
    app = f"{APP}{qlik.add_app('Sales')}"
    qlik.fail(FaultKind.STATUS, path="/qrs/executionsession/full", method="GET", times=None)
    with pytest.raises(QlikError) as caught:
        client.start(app)
    assert caught.value.retry is RetryPolicy.SAFE
    assert qlik.starts() == 0
    qlik.heal()
    client._closing.set()  # one look after the call, not one each 0.3 s
    qlik.site.sessions_after_s = qlik.site.results_after_s = 5.0
    started = client.start(app)
    assert started.execution_id.startswith("after:")
    assert not started.task_id
    assert client.poll([started.execution_id], [app]) == {}
    (task,) = client.tasks()
    task = qlik.site.tasks[task.id]
    task.duration_s = 60.0
    clock.advance(6)
    reports = client.poll([started.execution_id], [app])
    assert reports[started.execution_id].task_id == task.id
    client.stop(app, started.execution_id)
    clock.advance(6)
    assert client.poll([started.execution_id], [app])[started.execution_id].state.value == "aborted"
    assert qlik.starts() == 1


def test_an_unknown_app_and_a_partial_reload_of_an_app_are_refused(
    qlik: SimulatedQlik, client: ClientManaged
) -> None:
    """For good, with what to do."""
    app = f"{APP}{qlik.add_app('Sales')}"
    for task_id, options, said in (
        (f"{APP}{UNKNOWN}", ReloadOptions(), "no app with this id"),
        (app, ReloadOptions(partial=True), 'tasks with "Partial reload" set'),
        (app, ReloadOptions(variables=(("a", "b"),)), "takes no variables"),
    ):
        with pytest.raises(QlikError, match=said) as caught:
            client.start(task_id, options=options)
        assert caught.value.retry is RetryPolicy.NEVER
    assert qlik.site.runs() == []


def test_an_apps_run_that_shows_late_is_not_the_one_before(
    qlik: SimulatedQlik, client: ClientManaged, clock: ManualClock
) -> None:
    """Another run of the app began within the slack of the clocks."""
    app = f"{APP}{qlik.add_app('Sales')}"
    qlik.site.app_duration_s = 0.1
    first = client.start(app).execution_id
    clock.advance(1.0)
    qlik.site.sessions_after_s = qlik.site.results_after_s = 0.5
    client._closing.set()  # one look after the call, not one each 0.3 s
    mark = client.start(app).execution_id
    assert mark.startswith("after:")
    assert client.poll([mark], [app]) == {}
    clock.advance(1.0)
    found = client.poll([mark], [app])[mark].execution_id
    assert found not in {first, mark}
