"""Recording leaves the engine its time, and catches up."""

from types import SimpleNamespace

from appliance.recorders.recorders import PACE_S, POLITE_LAG, POLITE_SHARE, pace


def source(*, lag=0, is_crowded=False):
    return SimpleNamespace(last_seq=lag, position=0, is_crowded=is_crowded)


def test_messages_gather_for_a_moment_and_a_backlog_does_not_wait():
    """One batch takes what twentieth of a second brings; what is more is taken at once."""
    assert pace(source(), full=False, worked_s=0.001) == PACE_S
    assert pace(source(lag=10_000), full=True, worked_s=0.01) == 0


def test_acknowledgements_come_first_in_a_burst():
    """While publishers wait for the engine, recording works for an eighth of the time at most."""
    assert pace(source(lag=10_000, is_crowded=True), full=True, worked_s=0.01) == 0.08
    assert POLITE_SHARE == 1 / 8


def test_a_burst_that_does_not_end_is_recorded_at_full_speed():
    """A recording is never more than a bounded number of messages behind out of politeness."""
    assert pace(source(lag=POLITE_LAG, is_crowded=True), full=True, worked_s=0.01) == 0
