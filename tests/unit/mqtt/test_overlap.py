"""Whether two topic filters can match one topic, also where prefixes are replaced."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.mqtt.overlap import literal_head, moved, overlap
from appliance.mqtt.topics import filter_problem, matches

_LEVELS = st.sampled_from(["a", "b", "ab", "", "+", "$s"])
_FILTERS = st.tuples(st.lists(_LEVELS, min_size=1, max_size=3), st.booleans()).map(
    lambda found: "/".join([*found[0], *(["#"] if found[1] else [])])
)
_FILTERS = _FILTERS.filter(lambda each: each not in ("", "/#"))  # "/#" would match the empty topic
_TOPICS = [
    "/".join(levels)
    for size in range(1, 6)
    for levels in itertools.product(["a", "b", "ab", "", "$s"], repeat=size)
    if "/".join(levels)
]
_FEW = [each for each in _TOPICS if each.count("/") < 4]


@settings(max_examples=60)
@given(_FILTERS, _FILTERS)
def test_two_filters_overlap_if_one_topic_matches_both(one: str, other: str) -> None:
    """The answer is that of a search among all topics of a small alphabet."""
    assert filter_problem(one) is None
    found = any(matches(one, topic) and matches(other, topic) for topic in _FEW)
    assert overlap(one, other) == overlap(other, one) == found


@settings(max_examples=60)
@given(_FILTERS, _FILTERS, st.sampled_from(["", "a", "a/", "x-", "ab/a"]))
def test_moved_topics_overlap_a_filter_if_one_of_them_matches_it(
    topic_filter: str, other: str, put: str
) -> None:
    """A prefix may end within a level, before a wildcard."""
    for end in range(len(literal_head(topic_filter)) + 1):
        remove = topic_filter[:end]
        new = [
            put + each[end:]
            for each in _FEW
            if matches(topic_filter, each) and each[:end] == remove
        ]
        if any(matches(other, each) for each in new if each and each[0] != "$"):
            assert overlap(moved(topic_filter, remove, put), other)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("plant/#", "plant", True), ("plant/#", "plants", False), ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False), ("site4-+/state", "site4-7/state", True),
        ("site4-+/state", "site5/state", False), ("site4-+/state", "+/state", True),
        ("site4-#", "site4-7/a/b", True), ("site4-#", "site5/a", False), ("x-+", "x-y-+", True),
        ("a/b", "a/b", True), ("a/b", "a", False), ("a//b", "a/+/b", True), ("$SYS/#", "$SYS/+", True),
    ],
)  # fmt: skip
def test_examples(one: str, other: str, expected: bool) -> None:
    """Those that a configuration is likely to have."""
    assert overlap(one, other) is expected
    assert overlap(other, one) is expected
