"""What the live view's memory keeps when there is more than it can hold."""

from __future__ import annotations

import pytest

from appliance.engine import live
from appliance.engine.live import (
    FORGOTTEN_AT_ONCE,
    KEPT_BYTES,
    KEPT_MESSAGES,
    KEPT_VALUES_BYTES,
    SHOWN_BYTES,
    LiveView,
)
from appliance.journal.message_cost import costs_of
from appliance.model import Message, MessageProperties


KEPT_TOPICS = 2_000


def heard(view: LiveView, seq: int, topic: str) -> None:
    view.add([Message(seq, seq * 10**9, topic, b"x")])


def test_a_new_topic_is_always_seen_and_the_most_silent_one_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beyond the limit, what an operator looks for is what came just now: a new topic takes the
    place of those that were silent longest, one that speaks stays, how many went is told."""
    monkeypatch.setattr(live, "KEPT_TOPICS", KEPT_TOPICS)
    view = LiveView(lambda: 0.0)
    most = KEPT_TOPICS + FORGOTTEN_AT_ONCE
    for number in range(most):
        heard(view, number + 1, f"old/{number}")
    assert view.forgotten_topics == 0
    heard(view, 10_001, "old/0")  # the oldest speaks again
    heard(view, 10_002, "brand/new")
    found = {one.topic: one.count for one in view.topics(2 * most, lambda _topic: False)}
    assert found["brand/new"] == 1
    assert found["old/0"] == 2
    assert "old/1" not in found
    assert f"old/{FORGOTTEN_AT_ONCE + 1}" in found
    assert len(found) == KEPT_TOPICS + 1 == view.known_topics
    assert view.forgotten_topics == FORGOTTEN_AT_ONCE


def test_names_are_bounded_in_bytes() -> None:
    """Topics of a kilobyte each: fewer are kept, the latest of them."""
    view = LiveView(lambda: 0.0)
    view.add([Message(n, n, f"{n}/" + "x" * 65_000, b"") for n in range(1, 1001)])
    found = view.topics(10_000, lambda _topic: False)
    assert sum(len(one.topic) for one in found) <= live.KEPT_NAME_BYTES
    assert any(one.topic.startswith("1000/") for one in found)
    assert view.forgotten_topics == 1000 - len(found) > 0


def test_a_topic_tells_its_messages_bytes_size_and_rates() -> None:
    """Also of payloads that are cut here; rates fade whether anything is read or not."""
    now = 0.0
    view = LiveView(lambda: now)
    view.add(
        [Message(1, 1, "big", b"x" * 10_000), Message(2, 2, "a", b"y"), Message(3, 3, "a", b"")]
    )
    view.add([Message(4, 4, "a", b"zz")])
    now = 2.0
    view.tick(0)
    found = {one.topic: one for one in view.topics(10, lambda topic: topic == "a")}
    big, small = found["big"], found["a"]
    assert (big.count, big.bytes, big.size) == (1, 10_003, 10_000)
    assert (small.count, small.bytes, small.size, small.retained) == (3, 6, 2, True)
    assert (small.rate, small.byte_rate) == (pytest.approx(0.45), pytest.approx(0.9))
    now = 0.0
    read_often, read_once = LiveView(lambda: now), LiveView(lambda: now)
    for each in (read_often, read_once):
        now = 0.0
        each.add([Message(1, 1, "a", b"y")] * 100)
        for second in range(1, 9):
            now = float(second)
            each.tick(0)
            if each is read_often:
                each.topics(10, lambda _topic: False)
    (often,), (once,) = (each.topics(10, lambda _topic: False) for each in (read_often, read_once))
    assert once.rate == pytest.approx(often.rate)
    assert once.rate == pytest.approx(30 * 0.7**7)
    for second in range(9, 200):
        now = float(second)
        read_once.tick(0)
    assert read_once.topics(10, lambda _topic: False)[0].rate < 0.01


def test_the_busiest_topics_are_found_among_many() -> None:
    now = 0.0
    view = LiveView(lambda: now)
    view.add([Message(n, n, f"t/{n % 70}", b"") for n in range(1, 1000 + 40)])
    now = 1.0
    view.tick(0)
    found = view.topics(5, lambda _topic: False)
    every = view.topics(100, lambda _topic: False)
    assert [one.rate for one in found] == [one.rate for one in every[:5]]
    assert len(every) == 70


def test_the_newest_messages_are_kept_and_their_cost_is_known() -> None:
    """For any size of a commit and of its messages, both bounds hold and the sum is right."""
    view = LiveView(lambda: 0.0)
    large = MessageProperties(correlation_data=b"d" * 60_000).encoded()
    last = 0
    for count, size, properties in (
        (KEPT_MESSAGES - 1, 1, None),
        (3, 10, None),
        (2 * KEPT_MESSAGES, 20, None),
        (7, SHOWN_BYTES + 1, None),
        (1000, 30, large),
        (5, 40, None),
    ):
        commit = [
            Message(last + n, 1, "t", b"x" * size, properties=properties)
            for n in range(1, count + 1)
        ]
        last += count
        view.add(commit)
        kept = view.newest(0, 2 * KEPT_MESSAGES)
        assert kept[-1].seq == last
        is_full = view.kept_bytes > KEPT_BYTES - 70_000
        assert is_full or len(kept) == min(last, KEPT_MESSAGES)
        assert [one.seq for one in kept] == list(range(kept[0].seq, last + 1))
        assert view.kept_bytes == sum(costs_of(kept)) <= KEPT_BYTES
        assert max(len(one.payload) for one in kept) <= SHOWN_BYTES


def test_the_last_value_of_a_topic_outlives_newer_messages_on_others():
    """10,000 messages push it out of the ring; the topic still has it, cut as there."""
    view = LiveView(lambda: 0.0)
    view.add([Message(1, 1, "quiet", b"x" * (SHOWN_BYTES + 1))])
    view.add([Message(number, number, "busy", b"y") for number in range(2, KEPT_MESSAGES + 3)])
    assert view.newest(0, KEPT_MESSAGES)[0].topic == "busy"
    values = view.last_values(["quiet", "busy", "unknown"])
    assert {name: one.seq for name, one in values.items()} == {
        "quiet": 1,
        "busy": KEPT_MESSAGES + 2,
    }
    assert len(values["quiet"].payload) == SHOWN_BYTES


def test_the_last_values_are_bounded_in_bytes():
    """The values of the topics that were silent longest go, and are counted; the counts stay."""
    view = LiveView(lambda: 0.0)
    count = 2 * KEPT_VALUES_BYTES // SHOWN_BYTES
    for number in range(1, min(count, live.KEPT_TOPICS) + 1):
        view.add([Message(number, number, f"t/{number}", b"x" * SHOWN_BYTES)])
        assert view.value_bytes <= KEPT_VALUES_BYTES
    assert view.forgotten_values > 0
    assert not view.last_values(["t/1"])
    assert view.last_values([f"t/{number}"])
    assert view.known_topics == number
    view.shed(0)
    assert view.value_bytes == 0
    assert not view.last_values([f"t/{number}"])
    view.forget_topics()
    assert view.value_bytes == 0
