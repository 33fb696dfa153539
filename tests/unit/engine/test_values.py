"""The numbers of a topic, read from a real journal: exact in any steps, bounded in each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from journal_rig import JournalRig
from sparkplug_payloads import BIRTH, DATA

from appliance.engine import values
from appliance.engine_api import MOST_PATHS, MOST_STRETCHES, AskedValues, Values
from appliance.errors import UsageError
from appliance.journal.search import History

SECOND = 10**9
LAST = 2**62


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[JournalRig]:
    rig = JournalRig(tmp_path / "journal.db").start()
    yield rig
    rig.journal.close(5)


def read(rig: JournalRig, asked: AskedValues, budget_s: float = 10.0) -> Values:
    rig.settle()
    values.check(asked)
    return values.step(History(rig.journal.reading), asked, LAST, 0, budget_s)


def test_each_stretch_has_its_count_sum_lowest_and_highest(rig: JournalRig) -> None:
    for at, number in ((1.0, 5), (1.5, 7), (3.9, -1), (4.0, 2)):
        rig.put(1, json.dumps({"t": number}).encode(), "a", int(at * SECOND))
    rig.put(1, b'{"t": 100}', "b", 2 * SECOND)
    rig.put(1, b"none", "a", 4 * SECOND)
    found = read(rig, AskedValues("a", SECOND, 0, ("t", "other")))
    one, other = found.buckets
    assert one.stretches == (1, 3, 4)
    assert one.counts == (2, 1, 1)
    assert one.sums == (12, -1, 2)
    assert (one.lows, one.highs) == ((5, -1, 2), (7, -1, 2))
    assert (other.path, other.stretches) == ("other", ())
    assert (found.messages, found.without_number, found.before_seq) == (5, 1, 0)


def test_what_is_before_or_already_read_is_left_out(rig: JournalRig) -> None:
    for second in range(10):
        rig.put(1, b"%d" % second, "a", second * SECOND)
    found = read(rig, AskedValues("a", SECOND, 3 * SECOND, ("$",), after_seq=8))
    assert found.buckets[0].stretches == (8, 9)
    assert read(rig, AskedValues("a", SECOND, 3 * SECOND, ("$",))).buckets[0].stretches[0] == 3


def test_without_paths_it_says_what_can_be_plotted(rig: JournalRig) -> None:
    rig.put(1, b'{"a": 1, "b": {"c": 2}}', "t")
    rig.put(1, b'{"a": 3, "new": 4}', "t")
    found = read(rig, AskedValues("t", SECOND, 0)).found
    assert {one.path: one.value for one in found} == {"a": 3, "b.c": 2, "new": 4}


def test_an_answer_is_bounded(rig: JournalRig) -> None:
    """Whatever the time of a message is, and however narrow the stretches are."""
    paths = tuple(f"k{number}" for number in range(MOST_PATHS))
    payload = json.dumps(dict.fromkeys((*paths, *(f"x{n}" for n in range(250))), 1)).encode()
    for second in range(MOST_STRETCHES + 50):
        rig.put(1, payload, "t", second * SECOND)
    found = read(rig, AskedValues("t", SECOND, 0, paths))
    assert max(len(one.stretches) for one in found.buckets) <= MOST_STRETCHES + 1
    assert len(found.found) <= 200
    with pytest.raises(UsageError, match="At most 8"):
        values.check(AskedValues("t", SECOND, 0, ("x",) * 9))
    with pytest.raises(UsageError, match="Topic"):
        values.check(AskedValues("t/#", SECOND, 0))
    with pytest.raises(UsageError, match="longer"):
        values.check(AskedValues("t", 0, 0))
    with pytest.raises(UsageError, match="time"):
        values.check(AskedValues("t", 1, 2**70))


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(SECOND // 4, 5 * SECOND))
def test_steps_add_up_to_the_whole(rig: JournalRig, sizes: list[int], width: int) -> None:
    """Steps of any length: each begins where the one before ended, and nothing counts twice."""
    topic = f"t/{rig.journal.next_seq()}"
    for size in sizes:
        for number in range(size):
            rig.put(1, b"%d" % number, topic, (rig.journal.next_seq() % 97 + 1) * SECOND)
        rig.settle()  # a chunk of its own
    asked = AskedValues(topic, width, 0, ("$",))
    whole = read(rig, asked)
    history = History(rig.journal.reading)
    before, count, total = LAST, 0, 0.0
    while before:
        step = values.step(history, asked, before, 0, budget_s=0)
        count += sum(step.buckets[0].counts)
        total += sum(step.buckets[0].sums)
        before = step.before_seq
    assert (count, total) == (sum(whole.buckets[0].counts), sum(whole.buckets[0].sums))
    assert total == sum(sum(range(size)) for size in sizes)


def test_sparkplugs_aliases_have_the_names_of_their_birth(rig: JournalRig) -> None:
    topic, birth = "spBv1.0/plant/NDATA/edge", "spBv1.0/plant/NBIRTH/edge"
    rig.put(1, BIRTH, birth, 1 * SECOND)
    rig.settle()
    rig.put(2, DATA, topic, 2 * SECOND)
    rig.put(1, BIRTH.replace(b"Temperature", b"Temperatura"), birth, 3 * SECOND)
    rig.put(1, DATA, topic, 4 * SECOND)
    rig.put(1, b"no sparkplug", topic, 5 * SECOND)
    found = read(rig, AskedValues(topic, SECOND, 0, ("Temperature", "Temperatura")))
    assert [(one.stretches, one.counts) for one in found.buckets] == [((2,), (2,)), ((4,), (1,))]
    assert (found.messages, found.without_number) == (4, 1)
