"""The filter language and the feed that it filters."""

import pytest
from fake_engine import T0, Clock, FakeEngine, S, story
from hypothesis import given, strategies as st

from appliance.model import ExecutionState, Message
from appliance.engine_api import Mark
from appliance.ui import filters
from appliance.ui.live_feed import LiveFeed


def message(topic="plant/line1/state", payload=b'{"value": 1}', client="plc-01", at=T0):
    return Message(1, at, topic, payload, client_id=client)


def takes(source, **fields):
    return filters.parse(source, T0, utc=True).takes(message(**fields))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("", True),
        ("plant/#", True),
        ("plant/+/state", True),
        ("hall/#", False),
        ("hall/# plant/#", True),
        ("VALUE", True),
        ("line1", True),
        ("nothing", False),
        ("!heartbeat", True),
        ("!value", False),
        ("!plant/#", False),
        ("plant/# !hall/#", True),
        ("client:plc-01", True),
        ("client:plc-*", True),
        ("client:hmi", False),
        ("!client:plc*", False),
        ('"value\\": 1"', False),
        ('": 1}"', True),
        ('{"value":', True),
        ("since:10m", True),
    ],
)
def test_words_mean_what_the_help_says(source, expected):
    """Topic filters are alternatives; all else must hold together; ! turns a word around."""
    assert takes(source) is expected


def test_words_beyond_ascii_are_found_in_any_case():
    """ÖFFNET is found in geöffnet, and binary payloads are searched too."""
    assert takes("ÖFFNET", payload="geöffnet".encode())
    assert takes("jfif", payload=b"\xff\xd8\xff\xe0\x00\x10JFIF")
    assert not takes("ü", payload=b"\xff\xfe")


def test_since_leaves_out_what_is_older():
    """since: takes an age, a time of day or a date."""
    assert not takes("since:10s", at=T0 - 11 * S)
    assert takes("since:10s", at=T0 - 9 * S)
    assert takes("since:2026-11-18", at=T0)
    assert not takes("since:2026-11-19", at=T0)
    assert takes("since:11:00", at=T0)
    assert not takes("since:11:06", at=T0 - 60 * S)


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("plant/#/state", "#"),
        ("state:nonsense", "there are"),
        ("since:yesterday", "14:03"),
        ("!state:failed", "excluded"),
        ("!task:x", "excluded"),
    ],
)
def test_a_wrong_filter_says_what_is_possible(source, hint):
    """The text of the error names the way to fix it."""
    with pytest.raises(filters.FilterError, match=hint):
        filters.parse(source, T0)


@given(st.text(alphabet=st.sampled_from('ab:!"#+/ \x1b日0123456789m-T')), st.booleans())
def test_any_input_is_a_filter_or_a_clear_error(source, utc):
    """Typing anything into the filter line never ends the UI."""
    try:
        found = filters.parse(source, T0, utc=utc)
    except filters.FilterError as error:
        assert str(error)
    else:
        found.takes(message())


def test_state_and_task_ask_what_a_message_led_to():
    """state: and task: look at the outcome beside the message."""
    failed = filters.parse("state:failed task:sales", T0)
    assert failed.needs_marks
    assert failed.takes_mark(Mark(ExecutionState.FAILED, ""), "Reload Sales")
    assert not failed.takes_mark(Mark(ExecutionState.FAILED, ""), "Reload HR")
    assert not failed.takes_mark(Mark(ExecutionState.SUCCEEDED, ""), "Reload Sales")
    assert not failed.takes_mark(None, "")
    bad = filters.parse("state:bad", T0)
    assert bad.takes_mark(Mark(ExecutionState.REFUSED, ""), "")


class TestFeed:
    def test_it_holds_the_newest_and_no_more(self):
        """Memory is bounded; what went by unseen is counted, not hidden."""
        engine = FakeEngine(Clock())
        feed = LiveFeed(capacity=100)
        feed.poll(engine)
        for _ in range(350):
            engine.publish_from("a", b"x")
        feed.poll(engine)
        assert [one.seq for one in feed.view] == list(range(251, 351))
        engine.publish_from("a", b"x")
        feed.poll(engine)
        for _ in range(150):
            engine.publish_from("a", b"x")
        feed.poll(engine)
        assert feed.kept == 100
        assert feed.missed == 50

    def test_a_pause_freezes_the_view_and_counts(self):
        """Paused means that no row moves; +N says how many wait that pass the filter."""
        engine = story()
        feed = LiveFeed()
        feed.poll(engine)
        feed.pause()
        before = list(feed.view)
        engine.publish_from("a", b"x")
        assert not feed.poll(engine)
        assert list(feed.view) == before
        assert feed.waiting == 1
        feed.follow()
        assert feed.view[-1].topic == "a"

    def test_a_filter_looks_at_what_is_kept_and_at_what_comes(self):
        """Setting a filter searches the messages that are there already."""
        engine = story()
        feed = LiveFeed()
        feed.poll(engine)
        feed.set_filter(filters.parse("hall/#", T0), engine)
        assert [one.topic for one in feed.view] == ["hall/east/door"]
        engine.publish_from("hall/west/door", b"x")
        engine.publish_from("plant/x", b"x")
        feed.poll(engine)
        assert [one.topic for one in feed.view] == ["hall/east/door", "hall/west/door"]

    def test_an_outcome_that_comes_later_moves_a_message_into_the_view(self):
        """state:done shows a message once its run is done, although it came long before."""
        engine = story()
        feed = LiveFeed()
        feed.poll(engine)
        feed.set_filter(filters.parse("state:done task:stock", T0), engine)
        assert not feed.view
        run = next(one for one in engine.runs.values() if one.task_name == "Reload Stock")
        import msgspec

        engine.put(msgspec.structs.replace(run, state=ExecutionState.SUCCEEDED))
        assert any([feed.poll(engine) for _ in range(5)])
        assert [one.seq for one in feed.view] == [run.cause.seq]
