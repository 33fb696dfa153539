"""Topic filters: the rules of MQTT 3.1.1 section 4.7, and the tree agrees with them."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.mqtt.topics import (
    MAX_LEVELS,
    Matcher,
    Topics,
    covers,
    filter_problem,
    matches,
    topic_problem,
)

LEVEL = st.sampled_from(["", "a", "b", "$x", "sensor é"])
TOPIC = st.lists(LEVEL, min_size=1, max_size=5).map("/".join).filter(bool)


@st.composite
def filters(draw):
    levels = draw(st.lists(st.one_of(LEVEL, st.just("+")), min_size=1, max_size=5))
    if draw(st.booleans()):
        levels.append("#")
    return "/".join(levels) or "+"


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
        ("sport/#", "sport", True),
        ("#", "a/b", True),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("$SYS/#", "$SYS/x", True),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("/demo/integers", "/demo/integers", True),
        ("Accounts", "ACCOUNTS", False),
    ],
)
def test_the_specifications_own_examples(topic_filter, topic, expected):
    """A filter matches exactly what MQTT 3.1.1 section 4.7 says it matches."""
    matcher = Matcher()
    matcher.add(topic_filter, 1)
    assert matches(topic_filter, topic) is expected
    assert bool(matcher.match(topic)) is expected


@given(st.lists(TOPIC, max_size=12), st.sets(TOPIC, max_size=4), filters())
def test_the_other_tree_finds_what_the_rule_says(topics, gone, topic_filter):
    """Topics that are kept are found by filter as the plain rule says, each once."""
    kept = Topics()
    for number, topic in enumerate(topics):
        kept.put(topic, (number, topic))
    for topic in gone:
        kept.remove(topic)
    expected = {t: (n, t) for n, t in enumerate(topics) if t not in gone}
    assert len(kept) == len(expected)
    assert all(kept.get(topic) == value for topic, value in expected.items())
    assert sorted(kept.matching(topic_filter)) == sorted(
        value for topic, value in expected.items() if matches(topic_filter, topic)
    )
    for topic in expected:
        kept.remove(topic)
    assert not kept._root.below


def test_levels_are_bounded():
    """A topic of nothing but levels is refused; the deepest that is allowed is found."""
    deepest = "/" * (MAX_LEVELS - 1)
    assert topic_problem(deepest) is None
    matcher = Matcher()
    matcher.add(deepest, 1)
    assert matcher.match(deepest) == (1,)
    assert filter_problem("+/" * (MAX_LEVELS - 1) + "#") is None
    assert "levels" in topic_problem("/" * MAX_LEVELS)
    assert "levels" in filter_problem("a/" * MAX_LEVELS + "#")


@given(st.lists(filters(), max_size=12), TOPIC)
def test_the_tree_finds_what_the_rule_says(topic_filters, topic):
    """However many filters there are, the tree answers as the plain rule does."""
    matcher = Matcher()
    for number, topic_filter in enumerate(topic_filters):
        matcher.add(topic_filter, (number, topic_filter))
    expected = {(n, f) for n, f in enumerate(topic_filters) if matches(f, topic)}
    assert set(matcher.match(topic)) == expected
    for number, topic_filter in enumerate(topic_filters):
        assert matcher.remove(topic_filter, (number, topic_filter))
    assert matcher.match(topic) == ()
    assert len(matcher) == 0


def deep_filters(count):
    """Filters that share few nodes and all of whose nodes a topic of nothing but ``a`` reaches."""
    for number in range(count):
        levels = ["+" if number >> bit & 1 else "a" for bit in range(12)]
        yield "/".join([*levels, *["+"] * 15, str(number)])


def test_finding_what_matches_goes_in_short_steps_while_filters_come_and_go():
    """A step looks at a thousand nodes at most; an answer with a change meanwhile is not kept."""
    matcher = Matcher()
    for number, topic_filter in enumerate(deep_filters(1000)):
        matcher.add(topic_filter, number)
    topic = "/".join(["a"] * 27 + ["7"])
    steps = list(matcher.find(topic))
    assert len(steps) > 10 and set(steps[:-1]) == {None}
    assert steps[-1] == matcher.known(topic) == (7,)
    matcher.forget_matches()
    search = matcher.find(topic)
    assert next(search) is None
    for number, topic_filter in enumerate(deep_filters(1000)):
        if number != 7:
            matcher.remove(topic_filter, number)
    assert list(search)[-1] == (7,)
    assert matcher.known(topic) is None
    assert matcher.match(topic) == (7,)


def test_a_node_of_the_tree_is_small():
    """A client's ``max_filter_nodes`` (10,000) may not become tens of megabytes."""
    matcher = Matcher()
    deep = list(deep_filters(1000))
    tracemalloc.start()
    try:
        for number, topic_filter in enumerate(deep):
            matcher.add(topic_filter, number)
        size = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert size < 2_500_000, "of some 17,000 nodes"


@given(filters(), filters(), TOPIC)
def test_a_filter_within_another_never_reaches_further(wide, narrow, topic):
    """A subscription that an access rule covers receives nothing outside the rule."""
    if covers(wide, narrow) and matches(narrow, topic):
        assert matches(wide, topic)


@given(filters())
def test_every_generated_filter_is_valid_and_covers_itself(topic_filter):
    """Valid filters have no problem; a rule that names a filter permits that filter."""
    assert filter_problem(topic_filter) is None
    if topic_filter[0] not in "+#" or not topic_filter.startswith("$"):
        assert covers(topic_filter, topic_filter)


@pytest.mark.parametrize("bad", ["", "a/#/b", "a#", "a/b+", "+a", "a\0b", "a" * 65536, "\ud800"])
def test_a_wrong_filter_is_named_as_wrong(bad):
    """A filter that MQTT does not know is refused with a reason."""
    assert filter_problem(bad)


@pytest.mark.parametrize("bad", ["", "a/+/b", "#", "a\0b", "é" * 40000, "\ud800"])
def test_a_wrong_topic_is_named_as_wrong(bad):
    """A topic that MQTT does not allow in a PUBLISH is refused with a reason."""
    assert topic_problem(bad)


def test_a_search_goes_in_short_steps_while_topics_come_and_go():
    """Between two steps few places are looked at, and the tree may change."""
    topics: Topics[int] = Topics()
    for number in range(1, 1001):
        topics.put(f"{number}/a/b/c/d", number)
    search = topics.search("+/a/b/c/x")
    assert list(search) == [None] * (4001 // 20)
    found = []
    for step, value in enumerate(topics.search("+/a/b/c/d")):
        if step == 10:
            for number in range(1, 1001, 2):
                topics.remove(f"{number}/a/b/c/d")
            topics.put("new/a/b/c/d", 5000)
        if value is not None:
            found.append(value)
    assert set(range(2, 1001, 2)) <= set(found)
    assert len(found) == len(set(found))
