"""Recording leaves the engine its time, and catches up."""

from types import SimpleNamespace

import pytest

from appliance.recorders.worker import pace


def source(*, may_lag=True, is_crowded=False):
    return SimpleNamespace(may_lag=may_lag, is_crowded=is_crowded)


def test_a_backlog_is_caught_up_with_beside_the_engine():
    """Recording what a burst left behind takes half of the time at most."""
    assert pace(source(), worked_s=0.1) == 0.2


def test_a_batch_that_took_long_is_followed_by_a_short_rest():
    """A minute of making files must not leave all recorders idle for another minute."""
    assert pace(source(), worked_s=60.0) == 61.0


def test_a_backlog_is_caught_up_with_at_full_speed_while_nothing_comes():
    assert pace(source(), worked_s=0.1, is_quiet=True) == 0


def test_acknowledgements_come_first_in_a_burst():
    """While publishers wait for the engine, recording works for a 24th of the time at most."""
    polite = pace(source(is_crowded=True), worked_s=0.01)
    assert polite == pytest.approx(0.24)


def test_a_burst_that_does_not_end_is_recorded_at_full_speed():
    """A recording never falls so far behind out of politeness that the journal gets too big."""
    assert pace(source(may_lag=False, is_crowded=True), worked_s=0.01) == 0
