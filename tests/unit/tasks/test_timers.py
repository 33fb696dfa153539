"""When timers are due: time zones, clock changes, what was missed, silence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.config.values import TopicFilter
from appliance.errors import ConfigError
from appliance.config.tables import PublishConfig, TimerConfig
from appliance.tasks.timers import SECOND_NS, Timers

BERLIN = ZoneInfo("Europe/Berlin")
TICK = PublishConfig(topic="tick")


def ns(moment: datetime) -> int:
    return int(moment.timestamp()) * SECOND_NS


def fired(timers: Timers, begin: datetime, end: datetime, step_s: float = 30) -> list[datetime]:
    """When timers fire between two moments, in Berlin's time."""
    found = []
    now = ns(begin)
    while now < ns(end):
        now += int(step_s * SECOND_NS)
        firings, _ = timers.take_due(now)
        found += [datetime.fromtimestamp(one.due_ns / SECOND_NS, BERLIN) for one in firings]
    return found


def started(begin: datetime, **fields: object) -> Timers:
    timers = Timers([TimerConfig(name="t", **({"publish": TICK} | fields))], service_name="a")
    timers.load({}, ns(begin))
    return timers


def berlin(*fields: int, fold: int = 0) -> datetime:
    return datetime(*fields, tzinfo=BERLIN, fold=fold)


def test_cron_is_meant_in_its_time_zone() -> None:
    """06:30 on working days in Berlin, in summer and in winter."""
    begin = berlin(2026, 10, 23, 12)
    timers = started(begin, cron="30 6 * * MON-FRI", timezone="Europe/Berlin")
    times = fired(timers, begin, begin + timedelta(days=5))
    assert times == [
        berlin(2026, 10, 26, 6, 30),
        berlin(2026, 10, 27, 6, 30),
        berlin(2026, 10, 28, 6, 30),
    ]
    assert times[0].utcoffset() == timedelta(hours=1)


def test_a_time_that_the_clocks_skip_is_run_right_after_the_change() -> None:
    """29 March 2026: from 02:00 to 03:00. A timer for 02:30 runs once, at 03:00."""
    begin = berlin(2026, 3, 28, 12)
    timers = started(begin, cron="30 2 * * *", timezone="Europe/Berlin")
    times = fired(timers, begin, begin + timedelta(days=2))
    assert [(one.day, one.hour, one.minute) for one in times] == [(29, 3, 0), (30, 2, 30)]


def test_a_time_that_comes_twice_is_run_once() -> None:
    """25 October 2026: 02:30 comes twice in Berlin; a timer for it runs at the first."""
    begin = berlin(2026, 10, 24, 12)
    timers = started(begin, cron="30 2 * * *", timezone="Europe/Berlin")
    times = fired(timers, begin, begin + timedelta(days=1, hours=12))
    assert [ns(one) for one in times] == [ns(berlin(2026, 10, 25, 2, 30, fold=0))]


def test_every_quarter_of_an_hour_goes_on_through_the_changes() -> None:
    """A schedule with * follows the time that passes: 4 an hour, also in the doubled hour."""
    begin = berlin(2026, 10, 25, 0)
    timers = started(begin, cron="*/15 * * * *", timezone="Europe/Berlin")
    times = sorted(
        ns(one) for one in fired(timers, begin, begin.astimezone(UTC) + timedelta(hours=6))
    )
    assert {b - a for a, b in zip(times, times[1:], strict=False)} == {900 * SECOND_NS}
    assert len(times) == 24


@pytest.mark.parametrize(
    ("schedule", "back", "within"),
    [
        ({"every": 60}, timedelta(hours=2), timedelta(minutes=2)),
        ({"cron": "*/5 * * * *"}, timedelta(hours=2), timedelta(minutes=6)),
        ({"cron": "30 * * * *"}, timedelta(hours=2), timedelta(minutes=61)),
        ({"cron": "30 11 * * *"}, timedelta(days=400), timedelta(hours=24)),
        ({"silence": 600, "topic": TopicFilter("t")}, timedelta(days=400), timedelta(minutes=11)),
    ],
)
def test_a_clock_that_is_set_back_silences_no_timer(
    schedule: dict[str, object], back: timedelta, within: timedelta
) -> None:
    """An interval and a schedule with * go on at once, a silence watch after one interval at most;
    every other schedule goes on if the step was of three hours or more."""
    begin = datetime(2026, 5, 4, 12, tzinfo=UTC)
    timers = started(begin, **schedule)
    timers.take_due(ns(begin))
    firings, moved = timers.take_due(ns(begin - back))
    assert not firings
    assert [one.name for one in moved] == ["t"], "the new mark is kept"
    assert fired(timers, begin - back, begin - back + within)


def test_a_time_is_not_repeated_when_the_clock_is_set_back_an_hour() -> None:
    """A schedule without * that ran at 11:30 does not run again at 11:30 of the same day."""
    begin = datetime(2026, 5, 4, 11, tzinfo=UTC)
    timers = started(begin, cron="30 11 * * *")
    now = begin + timedelta(minutes=40)
    assert len(fired(timers, begin, now)) == 1
    back = now - timedelta(hours=1)
    assert not fired(timers, back, back + timedelta(hours=12))


@given(every=st.integers(1, 100), steps=st.lists(st.integers(1, 55), max_size=60))
@settings(max_examples=60, deadline=None)
def test_every_fires_once_for_each_interval_that_passes(every: int, steps: list[int]) -> None:
    """However unevenly it is looked at: never twice for one time, always on the beat."""
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    timers = started(begin, every=every)
    now, dues = ns(begin), []
    for step in steps:
        now += step * SECOND_NS
        dues += [one.due_ns for one in timers.take_due(now)[0]]
        assert timers.next_due() > now
    assert all((due - ns(begin)) % (every * SECOND_NS) == 0 for due in dues)
    assert dues == sorted(set(dues))
    if all(step < every for step in steps):
        assert len(dues) == (now - ns(begin)) // (every * SECOND_NS)


@pytest.mark.parametrize("catch_up", [True, False])
def test_what_was_missed_is_made_up_for_once_or_not_at_all(catch_up: bool) -> None:
    """The appliance was down for two days: ``catch_up`` runs a daily timer once at its start."""
    begin = datetime(2026, 5, 1, 12, tzinfo=UTC)
    config = TimerConfig(name="t", cron="0 6 * * *", publish=TICK, catch_up=catch_up)
    first = Timers([config])
    first.load({}, ns(begin))
    marks = first.marks(first.timers["t"])
    again = Timers([config])
    later = begin + timedelta(days=2)
    again.load(marks, ns(later))
    firings, moved = again.take_due(ns(later))
    assert len(firings) == int(catch_up)
    assert len(moved) == 1
    assert again.take_due(ns(later) + SECOND_NS) == ([], [])
    assert again.next_due() == ns(datetime(2026, 5, 4, 6, tzinfo=UTC))


def test_a_changed_schedule_is_a_new_timer() -> None:
    """What an earlier schedule of the same name missed is not made up for."""
    begin = datetime(2026, 5, 1, 12, tzinfo=UTC)
    first = started(begin, cron="0 6 * * *", catch_up=True)
    marks = first.marks(first.timers["t"])
    again = Timers([TimerConfig(name="t", cron="0 7 * * *", publish=TICK, catch_up=True)])
    again.load(marks, ns(begin + timedelta(days=9)))
    assert again.take_due(ns(begin + timedelta(days=9))) == ([], [])


def test_a_paused_timer_does_nothing_and_makes_up_for_nothing() -> None:
    """Times that pass while it is paused are gone; the pause outlives a restart."""
    begin = datetime(2026, 5, 1, tzinfo=UTC)
    timers = started(begin, every=60, catch_up=True)
    timer = timers.pause("t", ns(begin), paused=True)
    assert timers.states()[0].paused
    assert fired(timers, begin, begin + timedelta(minutes=10)) == []
    again = started(begin, every=60)
    again.load(timers.marks(timer), ns(begin))
    assert again.states()[0].paused
    timers.pause("t", ns(begin + timedelta(minutes=10)), paused=False)
    assert len(fired(timers, begin + timedelta(minutes=10), begin + timedelta(minutes=12))) == 2
    assert timers.pause("nobody", 0, paused=True) is None


def test_silence_is_noticed_once_and_its_end_too() -> None:
    """No message for ten minutes: one alarm, until the next message; the appliance's own status
    messages break no silence."""
    begin = datetime(2026, 5, 1, tzinfo=UTC)
    timers = started(begin, silence=600, topic=TopicFilter("#"), publish=None)
    assert timers.heard("plant/7", ns(begin + timedelta(minutes=5))) == []
    assert timers.concern("plant/7")
    assert not timers.concern("a/status")
    assert fired(timers, begin, begin + timedelta(minutes=14)) == []
    assert len(fired(timers, begin + timedelta(minutes=14), begin + timedelta(minutes=60))) == 1
    alarm = timers.states()[0]
    assert alarm.is_alarm
    assert alarm.silent_since_ns == ns(begin + timedelta(minutes=5))
    assert "no message on # since 2026-05-01 00:05:00 UTC" in alarm.detail
    timer = timers.timers["t"]
    again = started(begin, silence=600, topic=TopicFilter("#"), publish=None)
    again.load(timers.marks(timer), ns(begin + timedelta(hours=2)))
    (over,) = again.heard("plant/7", ns(begin + timedelta(hours=2)))
    assert over.timer is again.timers["t"]
    assert not again.states()[0].is_alarm
    assert again.heard("plant/7", ns(begin + timedelta(hours=2))) == []
