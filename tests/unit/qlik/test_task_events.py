"""Rows of the server's own triggers, whole ones and any others."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.qlik import task_events
from appliance.qlik.server import ServerChain, ServerSchedule
from appliance.qlik.task_events import chain, of_cloud_task, of_repository, schedule

TASK = {"reloadTask": {"id": "5F8B1C2E-0d4a-4c55-9a1b-7e3d2f6a9b10", "name": "Sales"}}
ID = "5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b10"
EMPTY_DATE = "1753-01-01T00:00:00.000Z"


@pytest.mark.parametrize(
    ("option", "increment", "words"),
    [
        (0, "0 0 0 0", "once"),
        (1, "0 1 0 0", "every hour Europe/Berlin"),
        (2, "0 0 1 0", "every day Europe/Berlin"),
        (2, "0 0 3 0", "every 3 days Europe/Berlin"),
        (3, "0 0 0 1", "every week Europe/Berlin"),
        (4, "0 0 0 0", "every month Europe/Berlin"),
        (5, "15 0 0 0", "every 15 minutes Europe/Berlin"),
        (5, "30 1 0 0", "every hour 30 minutes Europe/Berlin"),
        (5, "", "by time Europe/Berlin"),
        (None, "nonsense", "by time Europe/Berlin"),
        (99, "-1 0 0 0", "by time Europe/Berlin"),
    ],
)
def test_a_schedule_in_words(option, increment, words):
    row = {"incrementOption": option, "incrementDescription": increment}
    assert schedule({**TASK, **row, "timeZone": "Europe/Berlin"}).text == words


def test_a_schedule_knows_its_task_and_its_next_time():
    row = {**TASK, "name": "x", "operational": {"nextExecution": "2026-11-30T06:00:00.000Z"}}
    found = schedule(row)
    assert (found.task_id, found.name, found.enabled) == (ID, "x", True)
    assert found.next_ns == 1_796_018_400 * 10**9
    assert schedule({**TASK, "operational": {"nextExecution": EMPTY_DATE}}).next_ns is None


def test_a_chain_knows_what_it_waits_for():
    rules = [
        {"ruleState": 1, "reloadTask": {"id": "A"}},
        {"ruleState": 2, "reloadTask": None, "userSyncTask": {"id": "B"}},
        {"ruleState": 0, "externalProgramTask": {"id": "C"}},
        {"ruleState": 1, "reloadTask": {"id": "a"}},
        {"ruleState": 1},
    ]
    bound = {"days": 1, "hours": 1, "minutes": 1, "seconds": 1}
    row = {**TASK, "name": "x", "enabled": False, "compositeRules": rules, "timeConstraint": bound}
    assert chain(row) == ServerChain(
        ID, "x", (("a", "succeeded"), ("b", "failed"), ("c", "")), False, 90_061
    )


@pytest.mark.parametrize(
    ("start", "text"),
    [
        ({"cron": "0 6 * * *", "timezone": "UTC"}, "0 6 * * * UTC"),
        ({"recurrence": ["RRULE:FREQ=DAILY", "X"], "timezone": ""}, "RRULE:FREQ=DAILY X"),
        ({"interval": 3600}, "3600"),
    ],
)
def test_the_schedule_of_a_cloud_task(start, text):
    found = of_cloud_task("t", {"start": {"schedule": start}})
    assert found == ServerSchedule("t", next(iter(start)), text=text)


def test_an_increment_that_no_calendar_has_is_left_out():
    assert schedule({"incrementDescription": f"{'9' * 5000} 0 0 0"}).text == "by time"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
FIELDS = ("reloadTask", "compositeRules", "timeConstraint", "operational", "incrementOption")
MORE = ("incrementDescription", "timeZone", "name", "enabled", "start", "schedule", "cron", "id")
ROWS = st.lists(st.dictionaries(st.sampled_from((*FIELDS, *MORE)), JSON), max_size=3)


@settings(max_examples=30)
@given(ROWS, ROWS)
def test_any_row_is_read_or_left_out(times, chains):
    """A server of another version costs its triggers at most, never the list of tasks."""
    found = of_repository(times, chains)
    assert all(one.task_id for one in (*found.schedules, *found.chains))
    for row in times:
        of_cloud_task("t", row)


def test_what_is_beyond_the_bound_is_counted(monkeypatch):
    monkeypatch.setattr(task_events, "MOST_EVENTS", 2)
    found = of_repository([TASK] * 5, [])
    assert (len(found.schedules), found.left_out) == (2, 3)


def test_the_triggers_of_one_task_are_bounded_and_their_names(monkeypatch):
    """A row has to fit into an answer to an attached terminal."""
    monkeypatch.setattr(task_events, "MOST_OF_A_TASK", 2)
    other = {"name": "n" * 10_000, "reloadTask": {"id": "b"}}
    waits = [{"reloadTask": {"id": str(number)}} for number in range(9)]
    found = of_repository([TASK] * 5 + [other], [{**other, "compositeRules": waits}])
    assert ([one.task_id for one in found.schedules].count("b"), found.left_out) == (1, 3)
    assert len(found.schedules[-1].name) < 300
    assert (len(found.chains[0].after), len(found.chains[0].name) < 300) == (2, True)
