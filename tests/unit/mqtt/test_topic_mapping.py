"""Topics over a bridge: the first rule counts, prefixes are replaced, and the rules' overlap holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.mqtt.overlap import literal_head, moved, overlap
from appliance.mqtt.topic_mapping import Mapped, Rule, TopicMapping
from appliance.mqtt.topics import matches, topic_problem

LEVEL = st.sampled_from(["a", "b", "ab", ""])
TOPIC = st.lists(LEVEL, min_size=1, max_size=4).map("/".join).filter(bool)
FILTER = st.tuples(
    st.lists(LEVEL | st.just("+"), min_size=1, max_size=3), st.sampled_from(["", "/#"])
).map(lambda parts: ("/".join(parts[0]) + parts[1]).removeprefix("/") or "#")


@pytest.mark.parametrize(
    ("topic", "mapped"),
    [
        ("plant/l1/state", Mapped(0, "f7/l1/state", "")),
        ("plant/x", Mapped(1, "all/plant/x", "")),
        ("plant", Mapped(1, "all/plant", "")),
        ("other", None),
        ("cut", Mapped(2, "", "a topic has at least one character")),
    ],
)
def test_rules(topic, mapped):
    """The first rule whose filter matches; a prefix is removed where it is there."""
    mapping = TopicMapping(
        [
            Rule("plant/+/state", "plant/", "f7/"),
            Rule("plant/#", "", "all/"),
            Rule("cut", "cut", ""),
        ]
    )
    assert mapping.find(topic) == mapped
    assert mapping.find(topic) == mapped  # from memory


def test_dollar():
    """A topic becomes a broker's own one only where the configuration says so."""
    mapping = TopicMapping([Rule("in/#", "in/", ""), Rule("aws/#", "aws/", "$aws/")])
    assert mapping.find("in/$SYS/x").problem
    assert mapping.find("aws/things/x") == Mapped(1, "$aws/things/x", "")


def test_memory_is_bounded():
    """Topics without end are not remembered without end."""
    mapping = TopicMapping([Rule("#", "", "p/")])
    for number in range(20_000):
        assert mapping.find(f"{number}").topic == f"p/{number}"
    assert len(mapping._known) <= 8192


@given(FILTER, st.text("ab/", max_size=4), st.sampled_from(["", "x/", "a/", "ab"]), TOPIC, FILTER)
def test_overlap_knows_every_mapped_topic(topic_filter, cut, put, topic, other):
    """If a mapped topic matches another filter, the rules are said to overlap."""
    remove = literal_head(topic_filter)[: len(cut)]
    found = TopicMapping([Rule(topic_filter, remove, put)]).find(topic)
    assert (found is not None) == matches(topic_filter, topic)
    if found is None or topic_problem(found.topic) or not topic.startswith(remove):
        return
    if matches(other, found.topic):
        assert overlap(moved(topic_filter, remove, put), other)
