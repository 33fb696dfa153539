"""When a task's data is fresh: the definition of docs/freshness.md, against a naive model.

The model keeps every message and every successful run for ever, and asks of each message whether
any run covers it. The state machine keeps neither.
"""

from __future__ import annotations

import math

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from appliance.model import ReloadOptions
from appliance.tasks.freshness import (
    KEPT_NS,
    KIND,
    KIND_DAY,
    MANY_ASKS,
    JOINED_AT_ONCE,
    MAX_ASKS,
    MAX_TASKS,
    TELL_EVERY_NS,
    Freshness,
    selector_key,
)
from appliance.tasks.freshness_state import (
    DAY_NS,
    DAYS,
    SECOND_NS,
    SLOT_NS,
    STEPS_A_DOUBLING,
    bucket_of,
    figures,
    upper_s,
)
from appliance.tasks.selector import TaskSelector

PLAIN, PARTIAL = ReloadOptions(), ReloadOptions(partial=True)
MONDAY = ReloadOptions(variables=(("vDay", "monday"),))
START = 20_000 * DAY_NS
TASKS = ("sales", "stock")
LIMITS = {"orders": 60.0, "returns": 10.0}


def ask(freshness: Freshness, at_s: float, seq: int, *, task: str = "sales", rule: str = "orders",
        reload: ReloadOptions = PLAIN) -> None:  # fmt: skip
    at = START + int(at_s * SECOND_NS)
    freshness.asked(task, task.title(), at, seq=seq, rule=rule, now=at, reload=reload)


def succeed(freshness: Freshness, began_s: float, fresh_s: float, *, task: str = "sales",
            reload: ReloadOptions = PLAIN) -> None:  # fmt: skip
    began, fresh = (START + int(one * SECOND_NS) for one in (began_s, fresh_s))
    freshness.succeeded(task, began, fresh, fresh, reload=reload)


def stale_s(freshness: Freshness, task: str = "sales") -> float | None:
    found = freshness.stale.get(task)
    return None if found is None else (found.since_ns - START) / SECOND_NS


def reopened(freshness: Freshness, now_s: float = 0.0) -> Freshness:
    """What the next process knows, if this one is killed now."""
    rows = {
        name: body
        for (_, name), body in {
            (KIND, key): msgspec.msgpack.encode(state) for key, state in freshness.tasks.items()
        }.items()
    }
    other = Freshness()
    other.take_limits(LIMITS, 0)
    assert not other.load(rows, START + int(now_s * SECOND_NS))
    return other


class FreshnessMachine(RuleBasedStateMachine):
    """Messages and runs in any order, with restarts; few enough that none are held together."""

    @initialize()
    def begin(self) -> None:
        self.freshness = Freshness()
        self.freshness.take_limits(LIMITS, START)
        self.now = START
        self.seq = 0
        self.asks: list[tuple[str, int, ReloadOptions, str]] = []
        self.runs: list[tuple[str, int, int, ReloadOptions]] = []
        self.told: list[str] = []

    @rule(seconds=st.integers(0, 40))
    def wait(self, seconds: int) -> None:
        self.now += seconds * SECOND_NS

    @rule(
        task=st.sampled_from(TASKS),
        reload=st.sampled_from((PLAIN, PARTIAL, MONDAY)),
        name=st.sampled_from((*LIMITS, "no limit")),
        ago=st.integers(0, 5),
    )
    def message(self, task: str, reload: ReloadOptions, name: str, ago: int) -> None:
        self.seq += 1
        at = self.now - ago * SECOND_NS
        self.asks.append((task, at, reload, name))
        self.freshness.asked(task, task, at, seq=self.seq, rule=name, now=self.now, reload=reload)

    @rule(
        task=st.sampled_from(TASKS),
        reload=st.sampled_from((PLAIN, PARTIAL, MONDAY)),
        took=st.integers(0, 60),
    )
    def success(self, task: str, reload: ReloadOptions, took: int) -> None:
        self.runs.append((task, self.now - took * SECOND_NS, self.now, reload))
        self.freshness.succeeded(*self.runs[-1][:3], self.now, reload=reload)

    @rule()
    def killed(self) -> None:
        self.freshness = reopened(self.freshness, (self.now - START) / SECOND_NS)
        # Runs of a task that no message has asked for are in memory only.
        asked = {task for task, *_ in self.asks}
        self.runs = [one for one in self.runs if one[0] in asked]

    @rule(seconds=st.integers(-500, 500))
    def clock_set(self, seconds: int) -> None:
        step = seconds * SECOND_NS
        self.now += step
        self.asks = [(task, at + step, *rest) for task, at, *rest in self.asks]
        self.runs = [(task, a + step, b + step, how) for task, a, b, how in self.runs]
        self.freshness.shift(step, self.now)

    @rule()
    def look(self) -> None:
        """``take_late`` gives each task once for each time in which it is late."""
        late = set(self.freshness.take_late(self.now))
        assert late <= {task for task in TASKS if (self.late_ns(task) or math.inf) <= self.now}
        for task in TASKS:
            if (self.late_ns(task) or math.inf) <= self.now:
                assert self.freshness.tasks[task].is_late
        assert not self.freshness.take_late(self.now)

    def open_asks(self, task: str) -> list[tuple[int, str]]:
        """The messages that no run has covered, by the definition itself."""
        return [
            (at, name)
            for of, at, how, name in self.asks
            if of == task
            and not any(
                of_run == task
                and began >= at
                and ran.variables == how.variables
                and (how.partial or not ran.partial)
                for of_run, began, _, ran in self.runs
            )
        ]

    def late_ns(self, task: str) -> int | None:
        waits = [at + int(LIMITS[n] * SECOND_NS) for at, n in self.open_asks(task) if n in LIMITS]
        return min(waits, default=None)

    @invariant()
    def stale_as_defined(self) -> None:
        for task in TASKS:
            if sum(one[0] == task for one in self.runs) > 8 or len(self.asks) > MANY_ASKS:
                return  # Late messages, and many at once, have tests of their own.
            waiting = self.open_asks(task)
            stale = self.freshness.stale.get(task)
            assert (stale is None) == (not waiting)
            if stale is not None:
                assert stale.since_ns == min(at for at, _ in waiting)
                assert stale.late_ns == self.late_ns(task)
                assert self.freshness.tasks[task].waiting == len(waiting)


FreshnessMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=25)
TestFreshness = FreshnessMachine.TestCase


def test_a_run_that_began_before_the_message_does_not_cover_it():
    """The data that such a run loaded may be older than what the message tells of."""
    freshness = Freshness()
    ask(freshness, 10, 1)
    succeed(freshness, 9, 20)
    assert stale_s(freshness) == 10
    succeed(freshness, 10, 30)
    assert stale_s(freshness) is None


def test_stale_since_the_oldest_message_that_is_left():
    """A run covers what came before it and leaves what came while it ran."""
    freshness = Freshness()
    for seq, at in enumerate((10, 12, 20, 22), 1):
        ask(freshness, at, seq)
    succeed(freshness, 15, 40)
    state = freshness.tasks["sales"]
    assert (stale_s(freshness), state.waiting) == (20, 2)
    assert state.oldest is not None and state.oldest.seq == 3


def test_one_message_that_two_rules_take_counts_once_with_the_shorter_limit():
    """How many rules say the same is no matter for the data; the strictest wish counts."""
    freshness = Freshness()
    freshness.take_limits(LIMITS, START)
    ask(freshness, 0, 1, rule="orders")
    ask(freshness, 0, 1, rule="returns")
    state = freshness.tasks["sales"]
    assert (state.waiting, freshness.limit_s(state)) == (1, 10.0)
    assert freshness.next_due() == START  # it is published
    freshness.take_told(START)
    assert freshness.next_due() == START + 10 * SECOND_NS


def test_a_full_reload_covers_a_partial_one_and_not_the_other_way_round():
    """A partial reload loads a part; other variables may load other data."""
    freshness = Freshness()
    ask(freshness, 0, 1, reload=PARTIAL)
    succeed(freshness, 1, 2)
    assert stale_s(freshness) is None
    ask(freshness, 3, 2)
    succeed(freshness, 4, 5, reload=PARTIAL)
    succeed(freshness, 4, 5, reload=MONDAY)
    assert stale_s(freshness) == 3


def test_a_message_that_is_read_after_the_run_that_covers_it():
    """The journal is read a little later than messages come: a run may be over by then."""
    freshness = Freshness()
    succeed(freshness, 5, 8)
    ask(freshness, 4, 1)
    assert stale_s(freshness) is None
    assert figures(freshness.tasks["sales"], START).worst_s == 4.0


def test_late_is_told_once_until_it_was_fresh_again():
    """People hear of it once, also over a restart."""
    freshness = Freshness()
    freshness.take_limits(LIMITS, START)
    ask(freshness, 0, 1)
    at = START + 60 * SECOND_NS
    assert freshness.take_late(at - 1) == []
    assert freshness.take_late(at) == ["sales"]
    ask(freshness, 70, 2)
    freshness = reopened(freshness, 80)
    assert freshness.take_late(at + 100 * SECOND_NS) == []
    succeed(freshness, 100, 110)
    ask(freshness, 200, 3)
    assert freshness.take_late(START + 260 * SECOND_NS) == ["sales"]


def test_another_limit_counts_at_once():
    """A reload of the configuration that asks for fresher data finds what is late by it."""
    freshness = Freshness()
    freshness.take_limits({"orders": 3600.0}, START)
    ask(freshness, 0, 1)
    now = START + 100 * SECOND_NS
    assert freshness.take_late(now) == []
    freshness.take_limits({"orders": 90.0}, now)
    assert freshness.take_late(now) == ["sales"]
    freshness.take_limits({}, now)
    assert freshness.stale["sales"].late_ns is None and not freshness.tasks["sales"].is_late


def test_news_are_published_seldom_and_the_last_always():
    """A topic that changes with each message would be as busy as the messages."""
    freshness = Freshness()
    freshness.take_limits(LIMITS, START)
    ask(freshness, 0, 1)
    assert freshness.take_told(START) == ["sales"]
    succeed(freshness, 1, 2)
    assert freshness.take_told(START + 2 * SECOND_NS) == []
    assert freshness.next_due() == START + TELL_EVERY_NS
    assert freshness.take_told(START + TELL_EVERY_NS) == ["sales"]
    assert freshness.take_told(START + DAY_NS) == []


def test_without_a_limit_nothing_is_published_and_what_was_is_removed():
    """The topic is for rules that have a ``fresh_within``."""
    freshness = Freshness()
    ask(freshness, 0, 1)
    assert freshness.next_due() is None
    freshness.take_limits(LIMITS, START)
    assert freshness.take_told(START) == ["sales"] and freshness.tasks["sales"].is_told
    freshness.take_limits({}, START)
    later = START + TELL_EVERY_NS
    assert freshness.take_told(later) == ["sales"] and not freshness.tasks["sales"].is_told


def test_the_curve_follows_a_clock_that_is_set_back():
    """Else what was in the future would push out each new quarter of an hour."""
    freshness = Freshness()
    ask(freshness, 0, 1)
    succeed(freshness, 1, 60)
    freshness.take_changed()
    freshness.shift(-DAY_NS, START - DAY_NS)
    assert freshness.tasks["sales"].slots == {
        (START - DAY_NS) // SLOT_NS: (START - DAY_NS + 60 * SECOND_NS, 60.0)
    }
    assert (KIND_DAY, "sales") in freshness.take_changed()


def test_news_that_are_put_off_outlive_a_kill():
    """Else the retained message says for ever that the data is stale."""
    freshness = Freshness()
    freshness.take_limits(LIMITS, START)
    ask(freshness, 0, 1)
    assert freshness.take_told(START) == ["sales"]
    assert reopened(freshness).take_told(START + TELL_EVERY_NS) == [], "its topic has it"
    succeed(freshness, 1, 2)
    assert freshness.take_told(START + 2 * SECOND_NS) == []
    after = reopened(freshness, 3)
    assert after.take_told(START + 3 * SECOND_NS) == ["sales"]
    assert reopened(after, 4).take_told(START + 60 * SECOND_NS) == []


def test_what_is_asked_for_by_name_is_a_task_once_it_is_found():
    """Before the server was asked, the name is stale; then each task that it means."""
    freshness = Freshness()
    key = selector_key(TaskSelector("tag", "nightly"))
    ask(freshness, 0, 1, task=key)
    ask(freshness, 5, 2, task=key)
    found = [("sales", "Sales", PLAIN), ("stock", "Stock", PARTIAL)]
    freshness.resolved(key, START, found, START + 6 * SECOND_NS)
    assert (stale_s(freshness), stale_s(freshness, "stock"), stale_s(freshness, key)) == (0, 0, 5)
    freshness.resolved(key, START + 5 * SECOND_NS, found, START + 6 * SECOND_NS)
    assert key not in freshness.tasks and freshness.tasks["stock"].waiting == 2
    succeed(freshness, 6, 7, task="stock")
    assert stale_s(freshness, "stock") is None and stale_s(freshness) == 0


def test_what_is_found_still_wants_the_variables_that_it_asked_for():
    """Two requests by one name, each with its own variables: the first one found finds both."""
    freshness = Freshness()
    key = selector_key(TaskSelector("name", "Sales"))
    ask(freshness, 0, 1, task=key, reload=MONDAY)
    ask(freshness, 1, 2, task=key)
    found = [("sales", "Sales", PLAIN)]
    freshness.resolved(key, START + SECOND_NS, found, START + 2 * SECOND_NS, reload=PLAIN)
    succeed(freshness, 3, 4)
    assert stale_s(freshness) == 0, "no run has loaded it with these variables"
    succeed(freshness, 3, 5, reload=MONDAY)
    assert stale_s(freshness) is None


def test_late_is_not_told_again_when_the_task_is_found():
    """Nor is what becomes late by another message later left out."""
    freshness = Freshness()
    freshness.take_limits(LIMITS, START)
    key = selector_key(TaskSelector("name", "Sales"))
    ask(freshness, 0, 1, task=key)
    at = START + 70 * SECOND_NS
    assert freshness.take_late(at) == [key]
    freshness.resolved(key, at, [("sales", "Sales", PLAIN)], at)
    assert freshness.take_late(at) == [] and freshness.stale["sales"].late_ns < at
    succeed(freshness, 70, 71)
    ask(freshness, 80, 2)
    assert freshness.take_late(START + 141 * SECOND_NS) == ["sales"]


def test_messages_of_several_rules_and_variables_are_held_as_one_within_a_second():
    """Many rules for one task must not cost each message a search."""
    freshness = Freshness()
    freshness.take_limits(LIMITS, START)
    for number in range(MANY_ASKS):
        ask(freshness, number, number + 1)
    for number in range(1000):
        seq, at = MANY_ASKS + 1 + number, MANY_ASKS + 1 + number / 2000
        reload = MONDAY if number % 2 else PLAIN
        ask(freshness, at, seq, reload=reload)
        ask(freshness, at, seq, rule="returns", reload=reload)
    state = freshness.tasks["sales"]
    assert len(state.asks) == MANY_ASKS + 2 and state.waiting == MANY_ASKS + 1000
    assert all(set(one.rules) == {"orders", "returns"} for one in state.asks[-2:])
    assert freshness.limit_s(state) == 10.0


def test_a_message_does_not_write_the_curve_over_the_day():
    """The row of a stream of messages stays short; after a kill the curve is there all the same."""
    freshness = Freshness()
    for quarter in range(96):
        ask(freshness, quarter * 900, quarter + 1)
        succeed(freshness, quarter * 900 + 1, quarter * 900 + 60)
    kept = freshness.take_changed()
    ask(freshness, 96 * 900, 97)
    changed = freshness.take_changed()
    assert set(changed) == {(KIND, "sales")} and len(changed[KIND, "sales"] or b"") < 1000
    kept.update(changed)
    rows, days = (
        {name: body for (kind, name), body in kept.items() if kind == wanted and body}
        for wanted in (KIND, KIND_DAY)
    )
    other = Freshness()
    assert not other.load(rows, START, days)
    assert other.tasks["sales"] == freshness.tasks["sales"]
    assert not Freshness().load(rows, START, {"sales": b"damaged"})


def test_what_does_not_exist_is_forgotten():
    """A client can name any task: that must not be stale for ever."""
    freshness = Freshness()
    ask(freshness, 0, 1)
    ask(freshness, 5, 2)
    freshness.forget("sales", START, START)
    assert stale_s(freshness) == 5
    freshness.forget("sales", START + 5 * SECOND_NS, START)
    assert not freshness.tasks and not freshness.stale
    assert freshness.take_changed() == {(KIND, "sales"): None, (KIND_DAY, "sales"): None}


def test_an_app_whose_task_is_made_by_its_first_reload():
    """What the app waited for, the new task waits for."""
    freshness = Freshness()
    ask(freshness, 0, 1, task="app:1")
    freshness.merged("app:1", START)
    freshness.renamed("app:1", "sales", START)
    assert stale_s(freshness) == 0 and "app:1" not in freshness.tasks
    assert figures(freshness.tasks["sales"], START).merged == 1


def test_many_messages_are_held_in_a_bounded_place():
    """A month of failing runs under a stream of messages: the oldest is known, the rest is near."""
    freshness = Freshness()
    times = [number * 0.01 for number in range(500)] + [float(10 * n) for n in range(1, 2000)]
    for seq, at in enumerate(times, 1):
        ask(freshness, at, seq)
        assert len(freshness.tasks["sales"].asks) <= MAX_ASKS
    state = freshness.tasks["sales"]
    assert (stale_s(freshness), state.waiting) == (0, len(times))
    succeed(freshness, 10_000, 10_100)
    left = sum(at > 10_000 for at in times)
    # What is held together may be on both sides of the beginning: then all of it waits on.
    assert left <= state.waiting <= left + len(times) // MAX_ASKS * 4
    assert 10_000 - 20_000 / MAX_ASKS * 4 <= (stale_s(freshness) or 0) <= 10_010
    succeed(freshness, 20_000, 20_100)
    assert stale_s(freshness) is None
    assert figures(state, START + 20_100 * SECOND_NS).messages == len(times)


def test_too_many_tasks_leave_out_the_fresh_ones_first():
    """Memory is bounded, and what is stale is not forgotten for it."""
    freshness = Freshness()
    for number in range(MAX_TASKS):
        ask(freshness, number, number + 1, task=f"task {number}")
    succeed(freshness, 5000, 5001, task="task 3")
    ask(freshness, 6000, 9001, task="one more")
    assert "task 3" not in freshness.tasks and "one more" in freshness.tasks
    ask(freshness, 6000, 9002, task="one too many")
    assert freshness.left_out == 1 and len(freshness.tasks) == MAX_TASKS


def test_a_task_that_is_not_asked_for_is_forgotten_after_a_month():
    """Tasks that were deleted do not stay for ever."""
    freshness = Freshness()
    ask(freshness, 0, 1)
    freshness.prune(START + KEPT_NS)
    assert stale_s(freshness) == 0
    freshness.prune(START + KEPT_NS + 1)
    assert not freshness.tasks and not freshness.stale


def test_rows_that_cannot_be_read_are_named_and_removed():
    """One damaged row costs one task."""
    freshness = Freshness()
    assert freshness.load({"sales": b"\xc1"}, START) == ["sales"]
    assert freshness.take_changed() == {(KIND, "sales"): None, (KIND_DAY, "sales"): None}


@given(st.lists(st.floats(0.0, 10**6), min_size=1, max_size=50))
def test_percentiles_are_at_most_a_bucket_too_high(latencies):
    """p50 and p95 by nearest rank over every message; the longest is exact."""
    freshness = Freshness()
    end = START + 10**6 * SECOND_NS
    for seq, latency in enumerate(latencies):
        at = end - int(latency * SECOND_NS)
        freshness.asked("sales", "", at, seq=seq + 1, rule="r", now=end)
        freshness.succeeded("sales", at, end, end)
    # A message that comes before one that was covered is covered by that run, and as late.
    found = figures(freshness.tasks["sales"], end)
    exact = sorted(int(one * SECOND_NS) / SECOND_NS for one in latencies)
    assert found.messages == len(exact)
    assert found.worst_s is not None and math.isclose(found.worst_s, exact[-1], abs_tol=1e-6)
    for share, value in ((0.5, found.p50_s), (0.95, found.p95_s)):
        wanted = exact[math.ceil(share * len(exact)) - 1]
        assert value is not None
        assert wanted <= value + 1e-6
        assert value <= max(1.0, wanted * 2 ** (1 / STEPS_A_DOUBLING)) + 1e-6


@given(st.floats(0.0, 4e6))
def test_buckets(latency):
    """Each latency is in the smallest bucket that holds it."""
    bucket = bucket_of(latency)
    assert latency <= upper_s(bucket) * (1 + 1e-9)
    assert bucket == 0 or latency > upper_s(bucket - 1) * (1 - 1e-9)


def test_figures_are_of_seven_days():
    """What is older than that is left out."""
    freshness = Freshness()
    for day in range(10):
        ask(freshness, day * 86400, day + 1)
        succeed(freshness, day * 86400 + 1, day * 86400 + 10 + day)
    state = freshness.tasks["sales"]
    now = START + 9 * DAY_NS + SECOND_NS
    assert figures(state, now).messages == figures(state, now).runs == DAYS
    assert len(state.days) == DAYS
    assert figures(state, now + 6 * DAY_NS).messages == 1
    assert figures(state, now + 7 * DAY_NS).p50_s is None


def test_messages_that_come_slowly_take_a_search_only_now_and_then(monkeypatch):
    """Of different seconds they are held each by itself: a search for each would hold starts up."""
    searches = []
    join = Freshness._join
    monkeypatch.setattr(Freshness, "_join", lambda *given: (searches.append(1), join(*given)))
    freshness = Freshness()
    for seq in range(1, 1001):
        ask(freshness, seq * 2, seq)
    assert freshness.tasks["sales"].waiting == 1000
    assert 0 < len(searches) <= 1000 / JOINED_AT_ONCE
