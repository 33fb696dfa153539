"""Since when a counter tells of a loss, and when that is another occurrence."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appliance.counters import LOSSES, Counter
from appliance.engine.bites import OVER_AFTER_NS, SHOWN_NS, Bites

S = 10**9
FULL = Counter.DELIVERIES_DROPPED_QUEUE_FULL


def test_growth_is_an_occurrence_until_it_has_been_quiet() -> None:
    """A burst is one; what comes after ten quiet minutes is another, with its own number."""
    bites = Bites()
    bites.look({}, 0)
    assert bites.states() == ()
    bites.look({FULL: 5}, 1 * S)
    bites.look({FULL: 9}, 2 * S)
    bites.look({FULL: 9}, 3 * S)
    (first,) = bites.states()
    assert (first.name, first.count, first.since_ns, first.last_ns) == (FULL.metric, 9, S, 2 * S)
    later_ns = 2 * S + OVER_AFTER_NS + 1
    bites.look({FULL: 10}, later_ns)
    (second,) = bites.states()
    assert (second.count, second.since_ns, second.last_ns) == (1, later_ns, later_ns)
    assert second.occurrence != first.occurrence


def test_a_loss_is_shown_for_a_day() -> None:
    bites = Bites()
    bites.look({FULL: 1}, 0)
    bites.look({FULL: 1}, SHOWN_NS)
    assert bites.states()
    bites.look({FULL: 1}, SHOWN_NS + 1)
    assert not bites.states()


def test_refusals_and_ordinary_work_are_none() -> None:
    """A port scan or a wrong password is no warning for an operator."""
    bites = Bites()
    bites.look({each: 7 for each in Counter if each not in LOSSES}, 0)
    assert not bites.states()


def test_another_run_has_other_occurrences() -> None:
    """What was acknowledged before a restart hides nothing of what comes after it."""
    found = set()
    for _ in range(2):
        bites = Bites()
        bites.look({FULL: 1}, 0)
        found.add(bites.states()[0].occurrence)
    assert len(found) == 2


@given(
    st.lists(st.tuples(st.integers(0, 2 * OVER_AFTER_NS), st.integers(0, 3)), max_size=30),
    st.integers(-(10**15), 10**15),
)
def test_what_is_told_is_what_was_counted(looks, step_ns) -> None:
    """The counts of all occurrences make the counter; a set clock makes no other occurrence."""
    bites, total, now = Bites(), 0, 0
    told: dict[str, int] = {}
    for after, grown in looks:
        now += after
        total += grown
        bites.look({FULL: total}, now)
        told.update({one.occurrence: one.count for one in bites.states()})
    assert sum(told.values()) == total
    before = bites.states()
    bites.follow_step(step_ns)
    bites.look({FULL: total}, now + step_ns)
    assert [one.occurrence for one in bites.states()] == [one.occurrence for one in before]
