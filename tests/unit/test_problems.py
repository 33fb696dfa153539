"""What is wrong is decided once: the first line, health and metrics name the same things."""

from __future__ import annotations

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from plain_snapshot import NOW, OK, WELL, bridge, failing, metrics, replace

from appliance.engine_api import (
    BridgeState,
    BridgeSubscriptionState,
    FailingTask,
    Health,
    HoldState,
    JournalState,
    ListenerState,
    QlikState,
    Snapshot,
    TaskFreshness,
    TimerState,
    WaitState,
)
from appliance.model import ExecutionState
from appliance.ops.health import report
from appliance.ops.metrics import exposition
from appliance.problems import Place, losses_in, moment_text, problems
from appliance.ui.lines import line_width, text_of
from appliance.ui.views import page_frame


def held(kind: str, name: str = "", **fields) -> HoldState:
    return HoldState(
        kind,
        name,
        **{"until_ns": None, "reason": "new disks", "by": "ann", "since_ns": NOW} | fields,
    )


def stale(name: str, *, late: bool, seconds: int = 1000) -> TaskFreshness:
    return TaskFreshness(
        f"id of {name}",
        name,
        stale_since_ns=NOW - seconds * 10**9,
        oldest_seq=12,
        waiting=1,
        fresh_within_s=900.0 if late else None,
        is_late=late,
        why="It runs.",
    )


PLANT = Place("bridge", "plant")
CASES = {
    "bridge that needs an operator": (
        {
            "bridges": (
                bridge(connected=False, since_ns=NOW, health=Health("bad", "wrong password")),
            )
        },
        "bridge plant",
        "bridge plant away",
        PLANT,
    ),
    "bridge away": (
        {"bridges": (bridge(connected=False, since_ns=NOW - 11 * 10**9, health=Health("warn")),)},
        "bridge plant",
        "bridge plant away",
        PLANT,
    ),
    "subscription refused": (
        {
            "bridges": (
                bridge(subscriptions=(BridgeSubscriptionState("a/#", problem="not authorised"),)),
            )
        },
        "bridge plant",
        "bridge plant: a/#",
        PLANT,
    ),
    "session lost": (
        {"bridges": (bridge(gaps=2, gap_ns=NOW - 3600 * 10**9),)},
        "bridge plant",
        "bridge plant gap",
        PLANT,
    ),
    "message parked": (
        {"bridges": (bridge(parked=1, parked_ns=NOW),)},
        "bridge plant",
        "bridge plant parked",
        PLANT,
    ),
    "messages missed": (
        {"bridges": (bridge(missed=7, missed_ns=NOW),)},
        "bridge plant",
        "bridge plant missed",
        PLANT,
    ),
    "bridge behind": (
        {"bridges": (bridge(lag=1_000_000),)},
        "bridge plant",
        "bridge plant behind",
        PLANT,
    ),
    "failing task": (
        {"failing": (failing(1, "Reload HR"),), "failing_count": 1},
        "failing tasks",
        "Reload HR failed",
        Place("execution", "1"),
    ),
    "late data": (
        {"stale": (stale("Reload HR", late=True),), "stale_count": 1, "late_count": 1},
        "late data",
        "Reload HR stale 16 min",
        Place("freshness", "Reload HR"),
    ),
    "paused timer": (
        {"timers": (TimerState("nightly", "schedule", None, paused=True),)},
        "paused timers",
        "nightly paused",
        Place("timer", "nightly"),
    ),
    "everything held": (
        {"holds": (held("everything", waiting=14),)},
        "holds",
        "all held",
        Place("tasks"),
    ),
    "timer held": (
        {"holds": (held("timer", "nightly"),)},
        "holds",
        "nightly held",
        Place("timer", "nightly"),
    ),
    "client held": (
        {"holds": (held("client", "press-7", until_ns=NOW + 10**9),)},
        "holds",
        "press-7 held until ",
        Place("client", "press-7"),
    ),
    "waiting start": (
        {
            "waiting_long": (
                WaitState("Reload HR #9", 9, "retry", "The connection was refused.", NOW, NOW),
            ),
            "waiting_long_count": 1,
        },
        "waiting starts",
        "Reload HR #9 waits",
        Place("execution", "9"),
    ),
    "task database": (
        {"qlik": replace(WELL.qlik, database=Health("bad", "it can't be written"))},
        "task database",
        "task database",
        Place("log"),
    ),
    "server": (
        {"qlik": replace(WELL.qlik, health=Health("bad", "The connection was refused."))},
        "qlik",
        "Qlik",
        Place("server"),
    ),
    "disk": (
        {"journal": replace(WELL.journal, disk_free_bytes=5_000_000)},
        "disk",
        "disk nearly full",
        Place("clients"),
    ),
}


def first_line(snapshot: Snapshot, cells: int = 80) -> str:
    line = page_frame.status(snapshot, NOW, cells, utc=True)
    assert line_width(line) <= cells
    return text_of(line)


def test_all_is_well_everywhere_or_nowhere() -> None:
    assert report(WELL).status == "ok"
    assert "✓ all well" in first_line(WELL)
    assert metrics(WELL)["appliance_health", "all"] == 0
    assert page_frame.alert(WELL, 80, "!") is None


@pytest.mark.parametrize(("changes", "part", "headline", "place"), CASES.values(), ids=CASES.keys())
def test_each_entrance_names_it(changes, part, headline, place) -> None:
    """The first line, health, /healthz (the same report) and /metrics."""
    snapshot = replace(WELL, **changes)
    found = report(snapshot)
    assert found.status == "warn"
    assert next(one for one in found.parts if one.name == part).level in ("warn", "bad")
    assert headline in first_line(snapshot)
    assert metrics(snapshot)["appliance_health", part] > 0
    assert metrics(snapshot)["appliance_health", "all"] == 1
    [problem] = problems(snapshot)
    assert problem.place == place
    alert = text_of(page_frame.alert(snapshot, 80, "!"))
    assert alert.rstrip().endswith("more: !")
    assert problem.text[:40] in alert


def test_many_problems_fit_on_the_first_line() -> None:
    """The worst are named, the others counted; nothing is pushed out of 80 columns."""
    named = tuple(failing(number, f"Reload {number} of a long name" * 3) for number in range(10))
    snapshot = replace(
        WELL,
        qlik=replace(WELL.qlik, health=Health("bad", "The connection was refused.")),
        failing=named,
        failing_count=31,
        timers=(TimerState("nightly", "schedule", None, paused=True),),
    )
    line = first_line(snapshot)
    assert "✗ Qlik" in line
    assert "+32" in line
    assert "+32 more: !" in text_of(page_frame.alert(snapshot, 80, "!"))
    [part] = [one for one in report(snapshot).parts if one.name == "failing tasks"]
    assert part.text.endswith("and 26 more")


def test_a_hold_says_until_when_by_whom_why_and_what_waits() -> None:
    """Also how many there are of each kind, and what waits in all."""
    until = NOW + 600 * 10**9
    snapshot = replace(
        WELL,
        holds=(
            held("everything", waiting=14, until_ns=until),
            held("task", "id-1", title="Reload HR", drop=True),
            *(held("client", f"press-{number}") for number in range(20)),
        ),
    )
    found = problems(snapshot)
    assert found[0].text == (
        f"everything is held until {moment_text(until, NOW)} by ann: new disks; 14 starts wait"
    )
    assert found[1].text == (
        "task Reload HR is held by ann: new disks; what asks for a start meanwhile is dropped"
    )
    assert sum(one.count for one in found) == 22
    [part] = [one for one in report(snapshot).parts if one.name == "holds"]
    assert part.text.endswith("and 17 more")
    numbers = metrics(snapshot)
    assert numbers["appliance_holds", "client"] == 20
    assert numbers["appliance_holds", "timer"] == 0
    assert numbers["appliance_held_requests",] == 14


@pytest.mark.parametrize(
    ("by", "shown"),
    [
        ("ann (terminal t-1 at 10.0.4.2:50122)", "ann"),
        ("somebody (terminal hold at-ann-1f at 10.0.4.2:50122)", "hold at-ann-1f"),
        ("somebody (terminal terminal-hold-ann-b-0a1b2c3d at 127.0.0.1:50122)", "ann-b"),
        ("somebody (terminal terminal-0a1b2c3d at 127.0.0.1:50122)", "terminal-0a1b2c3d"),
        ("terminal", "terminal"),
        ("somebody", "somebody"),
    ],
)
def test_who_holds_is_named_in_short(by: str, shown: str) -> None:
    """The log and the journal have the address too; a first line has no room for it."""
    snapshot = replace(WELL, holds=(held("everything", by=by),))
    assert problems(snapshot)[0].text == f"everything is held by {shown}: new disks"


def test_labels_stay_bounded() -> None:
    """Ten tasks at most become labels, however many fail and however long their names are."""
    named = tuple(failing(number, f"{number}" + "x" * 500) for number in range(10))
    found = metrics(replace(WELL, failing=named, failing_count=4000))
    labels = [key[1] for key in found if key[0] == "appliance_task_failing"]
    assert len(labels) == 10
    assert max(map(len, labels)) == 100
    assert found["appliance_tasks_failing",] == 4000


def test_stale_data_is_a_problem_only_if_it_is_late() -> None:
    """Every message makes a task stale for a while: that is no news."""
    snapshot = replace(WELL, stale=(stale("Reload HR", late=False),), stale_count=1)
    assert problems(snapshot) == []
    [late] = problems(
        replace(WELL, stale=(stale("Reload HR", late=True),), stale_count=1, late_count=1)
    )
    assert late.text == (
        "Reload HR is stale for 16 min (fresh_within 15 min): no successful run began after "
        "message 12. It runs."
    )
    assert late.identity == ("stale", "id of Reload HR", "12")


def test_late_tasks_beyond_those_that_are_named_are_counted() -> None:
    """The first line has one number for all."""
    named = tuple(stale(f"Task {number}", late=True) for number in range(20))
    found = problems(replace(WELL, stale=named, stale_count=900, late_count=700))
    assert found[-1].text == "680 further tasks are late"
    assert sum(one.count for one in found) == 700


def test_metrics_of_freshness() -> None:
    """Gauges that an alert can compare with a limit, and a histogram; ten tasks at most."""
    named = tuple(stale(f"Task {number}", late=True, seconds=number) for number in range(20))
    buckets = ((5.0, 3), (float("inf"), 4))
    found = metrics(
        replace(
            WELL,
            stale=named,
            stale_count=900,
            late_count=700,
            latency_buckets=buckets,
            latency_sum_s=77.5,
        )
    )
    assert (found["appliance_tasks_stale",], found["appliance_tasks_late",]) == (900, 700)
    labels = [key[1] for key in found if key[0] == "appliance_task_stale_seconds"]
    assert len(labels) == 10 and found["appliance_task_stale_seconds", "Task 9"] == 9
    assert found["appliance_message_to_fresh_seconds_bucket", "5.0"] == 3
    assert found["appliance_message_to_fresh_seconds_bucket", "+Inf"] == 4
    assert found["appliance_message_to_fresh_seconds_count",] == 4
    assert found["appliance_message_to_fresh_seconds_sum",] == 77.5


def test_a_defect_of_the_task_engine_is_named_once() -> None:
    """Its health stands in place of the server's; it is one problem and not two."""
    defect = Health("warn", "internal error with message 7; see the log")
    snapshot = replace(WELL, qlik=replace(WELL.qlik, health=defect, engine=defect))
    assert [one.headline for one in problems(snapshot)] == ["task engine"]
    assert report(snapshot).status == "warn"


@pytest.mark.parametrize(
    ("away_s", "level", "found"),
    [
        (3, "warn", "ok"),  # a broker that is restarted
        (11, "warn", "warn"),
        (301, "warn", "bad"),
        (3, "bad", "bad"),  # a wrong password does not get well by itself
        (3600, "off", "off"),
    ],
)
def test_a_bridge_is_the_worse_the_longer_it_is_away(away_s, level, found) -> None:
    """A moment is no news, minutes are; the appliance as a whole stays usable."""
    away = bridge(connected=False, since_ns=NOW - away_s * 10**9, health=Health(level, "refused"))
    snapshot = replace(WELL, bridges=(away,))
    [part] = [one for one in report(snapshot).parts if one.name == "bridge plant"]
    assert part.level == found
    assert report(snapshot).status == ("warn" if found in ("warn", "bad") else "ok")
    assert metrics(snapshot)["appliance_bridge_connected", "plant"] == 0


def test_old_losses_of_a_bridge_are_no_problem_any_more() -> None:
    """A week later, or once an operator has acknowledged them; the numbers stay."""
    long_ago = NOW - 7 * 86_400 * 10**9
    for one in (
        bridge(gaps=1, gap_ns=long_ago, parked=3, parked_ns=long_ago, missed=7, missed_ns=long_ago),
        bridge(gaps=1, parked=3),
    ):
        snapshot = replace(WELL, bridges=(one,))
        assert not problems(snapshot)
        assert metrics(snapshot)["appliance_bridge_sessions_lost_total", "plant"] == 1
        assert metrics(snapshot)["appliance_bridge_parked_total", "plant"] == 3


def test_many_refused_subscriptions_are_counted() -> None:
    """Five are named, the others counted; a bridge that is away names only that."""
    refused = tuple(BridgeSubscriptionState(f"t/{n}", problem="refused") for n in range(40))
    found = problems(replace(WELL, bridges=(bridge(subscriptions=refused),)))
    assert len(found) == 6
    assert sum(one.count for one in found) == 40
    away = bridge(connected=False, health=Health("bad", "gone"), subscriptions=refused)
    assert [one.text for one in problems(replace(WELL, bridges=(away,)))] == ["bridge plant: gone"]


def test_what_can_be_acknowledged_is_named() -> None:
    """Losses of a start and of bridges; a bridge without one is left out."""
    lost = bridge(gaps=1, gap_ns=NOW)
    assert losses_in(replace(WELL, bridges=(bridge(),))) == []
    found = losses_in(replace(WELL, bridges=(bridge(), lost), data=Health("bad", "one is gone")))
    assert found[0] == "one is gone"
    assert found[1].startswith("bridge plant: messages may be missing")
    assert len(found) == 2


def test_each_metric_stands_once() -> None:
    """Prometheus refuses a page that has the metadata of one name twice."""
    text = exposition(replace(WELL, bridges=(bridge(),))).decode()
    named = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(named) == len(set(named))


@pytest.mark.parametrize(
    ("gaps", "text"),
    [(0, "before the last start"), (1, "once since the start"), (7, "7 times since the start")],
)
def test_a_session_that_was_lost_before_a_restart_is_said_too(gaps, text) -> None:
    """It is kept until an operator acknowledges it, and the count begins at each start."""
    (problem,) = problems(replace(WELL, bridges=(bridge(gaps=gaps, gap_ns=NOW),)))
    assert text in problem.text
