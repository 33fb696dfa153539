"""A problem that an operator acknowledged is left out until it happens again, for all who show it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_snapshot import NOW, WELL, bridge, failing, metrics, replace

from appliance.counters import ACTIVITY, LOSSES, Counter
from appliance.engine_api import Acknowledgement, CounterBite, Health, Snapshot, TimerState
from appliance.ops.health import report
from appliance.problems import LOSS, acknowledged, problems
from appliance.ui.lines import text_of
from appliance.ui.views import page_frame


def alarm(name: str, since_ns: int) -> TimerState:
    return TimerState(name, "silence", None, detail="no message on a", silent_since_ns=since_ns)


def bite(counter: Counter, occurrence: str) -> CounterBite:
    return CounterBite(counter.metric, 3, NOW - 60, NOW, occurrence)


def known(*found) -> tuple[Acknowledgement, ...]:
    """Acknowledgements of these problems."""
    return tuple(
        Acknowledgement(one.kind, one.name, one.occurrence, "anna", NOW, "ticket 7", one.text)
        for one in found
    )


def snapshots(number: int) -> dict[str, Snapshot]:
    """One problem of each kind that can be acknowledged; ``number`` is its occurrence."""
    at_ns = NOW - number
    return {
        "alarm": replace(WELL, timers=(alarm("quiet", at_ns),)),
        "task": replace(
            WELL,
            failing=(replace(failing(number, "Reload HR"), task_id="hr"),),
            failing_count=1,
        ),
        "counter": replace(WELL, bites=(bite(Counter.NOTICES_FAILED, str(number)),)),
        "gap": replace(WELL, bridges=(bridge(gaps=1, gap_ns=at_ns),)),
        "parked": replace(WELL, bridges=(bridge(parked=1, parked_ns=at_ns),)),
        "missed": replace(WELL, bridges=(bridge(missed=1, missed_ns=at_ns),)),
    }


KINDS = tuple(snapshots(1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("now", [1, 2])
def test_a_problem_is_left_out_exactly_for_the_occurrence_that_is_known(kind, now) -> None:
    """First line, alert line, health and metrics agree on it."""
    (before,) = problems(snapshots(1)[kind])
    assert before.kind == kind
    snapshot = replace(snapshots(now)[kind], acknowledged=known(before))
    is_hidden = now == 1
    assert (problems(snapshot) == []) is is_hidden
    assert (page_frame.alert(snapshot, 80, "!") is None) is is_hidden
    assert ("✓ all well" in text_of(page_frame.status(snapshot, NOW, 80, utc=True))) is is_hidden
    assert (report(snapshot).status == "ok") is is_hidden
    found = metrics(snapshot)
    assert (found["appliance_health", "all"] == 0) is is_hidden
    assert found["appliance_problems_acknowledged",] == is_hidden
    assert [one.note for one in acknowledged(snapshot)] == ["ticket 7"] * is_hidden


@settings(max_examples=40)
@given(st.data())
def test_whatever_is_known_hides_its_own_occurrence_and_nothing_else(data) -> None:
    """Any mixture of problems, any of them acknowledged, some of these having happened again."""
    number = st.integers(1, 3)
    standing = data.draw(st.dictionaries(st.sampled_from(KINDS), number))
    seen = data.draw(st.dictionaries(st.sampled_from(KINDS), number))
    fields: dict[str, tuple] = {}
    for kind, occurrence in standing.items():
        for name in ("timers", "failing", "bites", "bridges"):
            more = getattr(snapshots(occurrence)[kind], name)
            if name == "bridges":  # the three losses of a bridge, each of a bridge of its own
                more = tuple(replace(one, name=kind) for one in more)
            fields[name] = fields.get(name, ()) + more
    snapshot = replace(WELL, **fields, failing_count=len(fields.get("failing", ())))
    made = []
    for kind, occurrence in seen.items():
        (one,) = problems(snapshots(occurrence)[kind])
        name = kind if one.name == "plant" else one.name
        made.append(Acknowledgement(kind, name, one.occurrence, "anna", NOW))
    snapshot = replace(snapshot, acknowledged=tuple(made))
    open_kinds = {kind for kind, at in standing.items() if seen.get(kind) != at}
    assert {one.kind for one in problems(snapshot)} == open_kinds
    assert {one.kind for one in acknowledged(snapshot)} == standing.keys() - open_kinds
    assert not acknowledged(replace(WELL, acknowledged=tuple(made)))


def test_a_task_beyond_the_named_ones_may_still_stand() -> None:
    """The lists of failing and late tasks are bounded, so what is not in them is not gone."""
    for kind, beyond, none in (
        ("task", {"failing_count": 2}, {"failing_count": 0}),
        ("stale", {"late_count": 2}, {"late_count": 0}),
    ):
        made = (Acknowledgement(kind, "id-7", "7", "anna", NOW),)
        assert acknowledged(replace(WELL, acknowledged=made, **beyond)) == list(made)
        assert acknowledged(replace(WELL, acknowledged=made, **none)) == []
    named = replace(WELL, failing=(failing(7, "Task"),), failing_count=2)
    again = (Acknowledgement("task", "id-7", "6", "anna", NOW),)
    assert acknowledged(replace(named, acknowledged=again)) == []


def test_a_loss_of_a_start_is_listed_for_a_week_once_it_is_known() -> None:
    """It is kept apart, and is gone from there: what remains is who knew it."""
    snapshot = replace(WELL, data=Health("bad", "one is gone"))
    (found,) = problems(snapshot)
    assert (found.kind, found.level) == (LOSS, "bad")
    (one,) = acknowledged(replace(WELL, acknowledged=known(found)))
    assert one.by == "anna"
    later = replace(WELL, taken_ns=NOW + 8 * 86_400 * 10**9, acknowledged=known(found))
    assert not acknowledged(later)


def test_one_of_several_is_left_out_alone() -> None:
    """The others of the part stay, with their text; a task beyond the named ones stays counted."""
    named = tuple(failing(number, f"Task {number}") for number in range(10))
    snapshot = replace(WELL, failing=named, failing_count=14)
    first = problems(snapshot)[0]
    snapshot = replace(snapshot, acknowledged=known(first), failing_acknowledged=1)
    found = problems(snapshot)
    assert first.headline not in [one.headline for one in found]
    assert sum(one.count for one in found) == 13
    lost = bridge(gaps=1, gap_ns=NOW, parked=2, parked_ns=NOW)
    snapshot = replace(WELL, bridges=(lost,))
    gap = next(one for one in problems(snapshot) if one.kind == "gap")
    (left,) = problems(replace(snapshot, acknowledged=known(gap)))
    assert left.kind == "parked"


@pytest.mark.parametrize(
    "snapshot",
    [
        replace(WELL, qlik=replace(WELL.qlik, health=Health("bad", "403"))),
        replace(WELL, timers=(TimerState("nightly", "schedule", None, paused=True),)),
        replace(WELL, bridges=(bridge(connected=False, health=Health("bad", "wrong password")),)),
        replace(WELL, disk=Health("warn", "nearly full")),
    ],
)
def test_what_stands_until_it_is_mended_has_no_occurrence(snapshot) -> None:
    """A server that is away, a full disk: nobody can acknowledge it away."""
    (found,) = problems(snapshot)
    assert not found.kind
    assert problems(replace(snapshot, acknowledged=known(found))) == [found]


def test_a_counter_of_losses_is_a_problem_with_its_text() -> None:
    """What was lost, how often, and what to do."""
    counter = Counter.DELIVERIES_DROPPED_QUEUE_FULL
    (found,) = problems(replace(WELL, bites=(bite(counter, "a"),)))
    assert (found.level, found.headline) == ("warn", counter.label)
    assert found.text == f"{counter.label}, 3 times. {counter.text}"
    (part,) = [one for one in report(replace(WELL, bites=(bite(counter, "a"),))).parts if one.text]
    assert (part.name, part.text) == ("losses", f"{counter.label}, 3 times")


def test_losses_are_no_ordinary_work() -> None:
    assert not LOSSES & ACTIVITY


@pytest.mark.parametrize("text", ["hr", "HR ", "reload hr"])
def test_a_person_may_call_a_problem_by_name_or_title(text) -> None:
    (found,) = problems(snapshots(1)["task"])
    assert found.is_called(text)
    assert not found.is_called("reload")


def test_a_problem_without_a_name_is_called_nothing() -> None:
    assert not problems(replace(WELL, disk=Health("warn", "full")))[0].is_called("")
