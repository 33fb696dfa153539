"""Marks: a message knows its way, so no loop goes round more than once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appliance.bridge import marks
from appliance.model import MessageProperties

PAIRS = st.lists(
    st.tuples(st.sampled_from(["a", marks.PATH, marks.CLIENT]), st.text(max_size=3)), max_size=4
)


@given(PAIRS, st.text(min_size=1, max_size=3))
def test_marked(pairs, installation):
    """A mark is added behind what is there, and the appliance knows it again."""
    before = MessageProperties(content_type="text/plain", user_properties=tuple(pairs))
    after = marks.marked(before, installation=installation, client_id="press7")
    assert after.user_properties[: len(pairs)] == tuple(pairs)
    assert after.content_type == "text/plain"
    assert marks.is_looping(after.encoded(), installation)
    assert marks.passed(after) == (*marks.passed(before), installation)
    named = [value for name, value in pairs if name == marks.CLIENT]
    assert marks.publisher_of(after) == (named[0] if named else "press7")


def test_first_publisher_stays():
    """What the first appliance said of the publisher is kept over the others."""
    first = marks.marked(None, installation="one", client_id="press7")
    second = marks.marked(first, installation="two", client_id="$bridge/plant")
    assert marks.publisher_of(second) == "press7"
    assert marks.passed(second) == ("one", "two")
    assert not marks.is_looping(second.encoded(), "three")


def test_unknown_publisher():
    """A bridge is no publisher; the appliance itself is."""
    by_bridge = marks.marked(None, installation="one", client_id="$bridge/plant")
    assert marks.publisher_of(by_bridge) == ""
    own = marks.marked(None, installation="one", client_id="$appliance")
    assert marks.publisher_of(own) == "$appliance"


def test_long_path():
    """A path that no real site has ends, also where nobody recognises the message."""
    message = MessageProperties()
    for number in range(marks.LONGEST_PATH):
        message = marks.marked(message, installation=f"i{number}", client_id="c")
        assert not marks.is_looping(message.encoded(), "mine")
    message = marks.marked(message, installation="more", client_id="c")
    assert marks.is_looping(message.encoded(), "mine")
