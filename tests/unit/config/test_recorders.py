"""``[[recorder]]``: named levels, names, which keys go together, what two recorders may share."""

from __future__ import annotations

import pytest

from appliance.config.reading import loads
from appliance.config.tables import RecorderConfig
from appliance.errors import ConfigError


def recorder(text: str) -> RecorderConfig:
    return loads("[[recorder]]\n" + text).recorder[0]


def problem(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loads(text if "[[" in text else "[[recorder]]\n" + text)
    return str(caught.value)


def test_a_named_level_is_a_plus_of_the_filter() -> None:
    """The filter is what the broker knows; each name has the number of its level."""
    named = recorder('topic = "plant/{line}/+/{sensor}/#"\npath = "a.json"')
    assert named.topic_filter == "plant/+/+/+/#"
    assert named.levels == (("line", 1), ("sensor", 3))


def test_doubled_braces_are_braces_of_the_topic() -> None:
    """A topic that has braces in it can still be recorded."""
    named = recorder('topic = "plant/{{x}}/a{{b}}c"\npath = "a.json"')
    assert (named.topic_filter, named.levels) == ("plant/{x}/a{b}c", ())


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        ("plant/{}/a", "the name of a level begins with a letter"),
        ("plant/{9}/a", "the name of a level begins with a letter"),
        ("plant/{a b}/a", "the name of a level begins with a letter"),
        ("plant/x{a}/a", "a whole level"),
        ("plant/{a/b}", "a whole level"),
        ("plant/{a}{b}", "a whole level"),
        ("plant/}a{", "a whole level"),
        ("plant/{a}/{a}", "two levels have the name a"),
        ("plant/{date}", "means something else"),
    ],
)
def test_a_wrong_named_level_is_said_with_the_fix(topic: str, said: str) -> None:
    """No name is guessed, and no brace is taken for a part of a topic by mistake."""
    assert said in problem(f'topic = "{topic}"\npath = "a.json"')


def test_every_recorder_has_a_name_of_its_own() -> None:
    """Names are in topics and metrics; those of files are made different where they are not."""
    config = loads(
        """
        [[recorder]]
        topic = "a"
        path = "one/x.json"
        [[recorder]]
        topic = "b"
        path = "two/x.json"
        [[recorder]]
        topic = "c"
        path = "three/{date}.json"
        [[recorder]]
        topic = "d"
        path = "four/y.json"
        name = "x-2"
        """
    )
    assert [each.name for each in config.recorder] == ["x", "x-3", "three", "x-2"]
