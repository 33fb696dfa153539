"""What the live view's memory keeps when there is more than it can hold."""

from __future__ import annotations

from appliance.engine.live import FORGOTTEN_AT_ONCE, KEPT_TOPICS, LiveView
from appliance.model import Message


def heard(view: LiveView, seq: int, topic: str) -> None:
    view.add([Message(seq, seq * 10**9, topic, b"x")])


def test_a_new_topic_is_always_seen_and_the_most_silent_one_goes() -> None:
    """Beyond the limit, what an operator looks for is what came just now: a new topic takes the
    place of those that were silent longest, one that speaks stays, how many went is told."""
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
