"""Holds by themselves: what they hold, until when, and what of them outlives a restart."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.engine_api import HOLD_KINDS
from appliance.model import Cause
from appliance.remote.protocol import LARGEST_ANSWER
from appliance.tasks import holds
from appliance.tasks.holds import MAX_HOLDS, Hold, Holds, TooManyHoldsError, asker_of
from appliance.tasks.jobs import Limits
from appliance.tasks.planner import Planner
from appliance.tasks.records import MAX_ASKERS, Record
from appliance.tasks.selector import TaskSelector
from appliance.tasks.triggers import Options

NOW = 1_795_000_000_000_000_000
NAMES = ("a", "b")
KEYS = [(kind, "" if kind == "everything" else name) for kind in HOLD_KINDS for name in NAMES]


def a_hold(
    kind: str,
    name: str = "",
    until_ns: int | None = None,
    *,
    since_ns: int = NOW,
    drop: bool = False,
) -> Hold:
    return Hold(kind, name, until_ns, "disks", "ann", since_ns, drop)


@given(
    st.lists(
        st.tuples(st.sampled_from(KEYS), st.one_of(st.none(), st.integers(0, 50)), st.booleans()),
        max_size=12,
    ),
    st.lists(st.sampled_from(KEYS), max_size=4),
    st.integers(0, 60),
    st.sampled_from(["", *NAMES]),
    st.lists(
        st.sampled_from([("", ""), ("trigger", "a"), ("trigger", "b"), ("timer", "a")]),
        min_size=1,
        max_size=3,
    ),
)
def test_holds_hold_what_a_plain_reading_of_them_says(made, released, at, task, askers) -> None:
    """At any time; also after the rows that were kept are read again."""
    found, model = Holds(), {}
    for key, until, drop in made:
        found.put(a_hold(*key, until, since_ns=0, drop=drop))
        model[key] = (until, drop)
    for key in released:
        assert (found.remove(*key) is None) == (model.pop(key, None) is None)
    rows = {holds.row_name(*one.key): holds.encode(one) for one in found.all()}
    kept, left_out = holds.decode(rows)
    assert sorted(kept, key=repr) == sorted(found.all(), key=repr)
    assert not left_out

    def is_held(key: tuple[str, str]) -> bool:
        return key in model and (model[key][0] is None or at < model[key][0])

    by_rules = all(is_held(one) for one in askers)
    expected = is_held(("everything", "")) or is_held(("task", task)) or by_rules
    hold = found.of_request(task, askers, at)
    assert (hold is not None) == expected
    if hold is not None and hold.until_ns is not None:
        # It names the time at which the request goes: then nothing of this holds it.
        then = hold.until_ns
        assert found.of_request(task, askers, then) is None
        assert found.of_request(task, askers, then - 1) is not None
    drops = [("everything", ""), ("task", task), askers[0]]
    assert (found.dropping(task, askers[0], at, at) is not None) == any(
        is_held(one) and model[one][1] for one in drops
    )
    ends = [until for until, _ in model.values() if until is not None]
    assert found.next_end() == min(ends, default=None)
    gone = {one.key for one in found.take_ended(at)}
    assert gone == {key for key in model if not is_held(key)}
    assert {one.key for one in found.all()} == model.keys() - gone


def test_what_was_asked_for_before_is_not_dropped() -> None:
    """A message that waited in the journal came before the hold."""
    found = Holds()
    found.put(a_hold("everything", drop=True))
    assert found.dropping("", ("", ""), NOW - 1, NOW) is None
    assert found.dropping("", ("", ""), NOW, NOW) is not None


def test_to_hold_again_changes_the_hold_and_keeps_its_beginning() -> None:
    found = Holds()
    found.put(a_hold("task", "a"))
    again = found.put(a_hold("task", "a", NOW + 9, since_ns=NOW + 5, drop=True))
    assert (again.since_ns, again.until_ns, again.drop) == (NOW, NOW + 9, True)
    assert found.all() == [again]


def test_there_are_a_thousand_at_most() -> None:
    """One that is there can be changed all the same."""
    found = Holds()
    for number in range(MAX_HOLDS):
        found.put(a_hold("client", f"press-{number}"))
    with pytest.raises(TooManyHoldsError):
        found.put(a_hold("client", "one-more"))
    assert found.put(a_hold("client", "press-7", NOW + 9)).until_ns == NOW + 9
    assert len(found) == MAX_HOLDS


def test_their_texts_are_bounded_together() -> None:
    """A snapshot has all of them, and an attached terminal takes 2 MiB at a time."""
    found = Holds()
    long = "é" * 500
    made = 0
    with pytest.raises(TooManyHoldsError):
        for number in range(MAX_HOLDS):
            found.put(a_hold("client", f"{number}{long}"))
            made += 1
    assert made > 400
    states = [one.state(0) for one in found.all()]
    assert len(msgspec.msgpack.encode(states)) < LARGEST_ANSWER // 2
    found.remove("client", f"0{long}")
    found.put(a_hold("client", f"again{long[5:]}"))


@pytest.mark.parametrize(
    "row",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode({"kind": "task"}),
        holds.encode(a_hold("moon", "a")),
        holds.encode(a_hold("task", "b")),
    ],
)
def test_a_row_that_can_t_be_read_costs_itself_alone(row: bytes) -> None:
    good = a_hold("client", "a")
    found, left_out = holds.decode({"task:a": row, "client:a": holds.encode(good)})
    assert found == [good]
    assert left_out == ["task:a"]


def test_a_row_of_an_earlier_release_is_read() -> None:
    """New fields have a default."""
    fields = {"kind": "task", "name": "a", "until_ns": None, "reason": "", "by": "ann"}
    row = msgspec.msgpack.encode(fields | {"since_ns": NOW})
    assert holds.decode({"task:a": row})[0] == [Hold("task", "a", None, "", "ann", NOW)]


def a_request(cause: Cause) -> Record:
    planner = Planner(Limits(), known={}.get, chance=random.Random(1))
    number = planner.ask(TaskSelector("id", "a"), Options(), cause, NOW)
    return planner.open[number]


def test_who_asked_for_a_request_is_known_and_bounded() -> None:
    """Beyond the bound no hold of a rule concerns it: it goes rather than waits for too long."""
    record = a_request(Cause("message", 1, rule="a"))
    record.add_askers([("trigger", "a"), ("timer", "b")])
    assert record.askers == (("trigger", "a"), ("timer", "b"))
    for number in range(MAX_ASKERS + 5):
        record.add_askers([("trigger", f"rule {number}")])
    assert len(record.further_askers) <= MAX_ASKERS
    assert ("", "") in record.askers
    assert asker_of(Cause("operator", rule="ann")) == ("", "")
