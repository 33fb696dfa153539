"""The filter language and the feed that it filters."""

import pytest
from fake_engine import T0, Clock, FakeEngine, S, story
from hypothesis import given, strategies as st

from appliance.message_filter import Name
from appliance.model import Cause, Execution, ExecutionState, Message
from appliance.mqtt import topics
from appliance.engine_api import Mark
from appliance.ui import filter_text, filters
from appliance.ui.live_feed import LiveFeed


def message(topic="plant/line1/state", payload=b'{"value": 1}', client="plc-01", at=T0):
    return Message(1, at, topic, payload, client_id=client)


def takes(source, **fields):
    return filter_text.parse(source, T0, utc=True).takes(message(**fields))


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
        filter_text.parse(source, T0)


@given(st.text(alphabet=st.sampled_from('ab:!"#+/ \x1b日0123456789m-T')), st.booleans())
def test_any_input_is_a_filter_or_a_clear_error(source, utc):
    """Typing anything into the filter line never ends the UI."""
    try:
        found = filter_text.parse(source, T0, utc=utc)
    except filters.FilterError as error:
        assert str(error)
    else:
        found.takes(message())


NAMES = st.builds(Name, st.text(min_size=1), st.booleans())
TOPIC_FILTERS = st.lists(st.text(min_size=1).filter(lambda one: topics.filter_problem(one) is None))
TIMES = st.sampled_from(["10m", "1d", "14:03", "2026-11-18", "2026-11-18T14:03:01Z"])


def moments(typed):
    wanted = filter_text.parse(f"since:{typed}", T0, utc=True).since
    assert wanted is not None
    return wanted


def several(values):
    return st.lists(values, max_size=3).map(tuple)


FILTERS = st.builds(
    filters.Filter,
    topics=TOPIC_FILTERS.map(tuple),
    not_topics=TOPIC_FILTERS.map(tuple),
    texts=several(st.text(min_size=1)),
    not_texts=several(st.text(min_size=1)),
    clients=several(NAMES),
    not_clients=several(NAMES),
    users=several(NAMES),
    not_users=several(NAMES),
    tasks=several(NAMES),
    rules=several(NAMES),
    states=st.frozensets(st.sampled_from(ExecutionState)),
    since=st.none() | TIMES.map(moments),
    until=st.none() | TIMES.map(moments),
)


@given(FILTERS)
def test_the_text_of_any_filter_is_read_as_the_same_filter(wanted):
    """What the filter line shows, confirmed, filters as before, whatever is asked for."""
    assert filter_text.parse(filter_text.text_of(wanted), T0, utc=True) == wanted


WORDS = (
    st.text()
    | st.text(alphabet=' ab:="!*#+/\n')
    | st.sampled_from(
        [
            "client:",
            "client=",
            "task=",
            "state:failed",
            "!",
            '""',
            "since:10m",
            "plant/#",
            "topic:",
            "x",
        ]
    )
)


@given(st.lists(WORDS).map("".join))
def test_a_text_shown_as_a_filter_keeps_its_meaning(text):
    """Every string is a filter whose text means the same, or a clear error."""
    try:
        wanted = filter_text.parse(text, T0, utc=True)
    except filters.FilterError as error:
        assert str(error)
    else:
        assert filter_text.parse(filter_text.text_of(wanted), T0, utc=True) == wanted


@given(st.text(min_size=1), st.text())
def test_any_text_can_be_asked_for(text, other):
    """Quotes make a text of every string; the whole name of a client is that client alone."""
    doubled = text.replace('"', '""')
    quoted = f'"{doubled}"'
    assert filter_text.parse(quoted, T0) == filters.Filter(texts=(text,))
    client = filter_text.parse(f"client={quoted}", T0)
    assert client == filters.for_client(text)
    assert client.takes_client(text)
    assert client.takes_client(other) is (other == text)


def test_the_whole_name_or_a_part_of_it():
    """``plc-1`` is in ``plc-10``; ``=`` asks for ``plc-1`` alone."""
    assert takes("client:plc-0")
    assert not takes("client=plc-0")
    assert takes("client=plc-01")
    assert not takes("client=PLC-01")
    assert takes("client=plc-*", client="plc-*")
    assert not takes("client=plc-*")


def test_user_asks_for_the_name_that_the_client_signed_in_with():
    """The same for the publisher's user name; a client without one has an empty name."""
    one = Message(1, T0, "t", b"", client_id="c", username="Press")
    assert filter_text.parse("user:press !user=press", T0).takes(one)
    assert not filter_text.parse("user=press", T0).takes(one)
    assert not takes("user:press")


def test_a_list_says_what_it_can_be_asked_for():
    """A word that means nothing on a page is no silent filter: the page names what it knows."""
    known = ("text", "since")
    with pytest.raises(filters.FilterError, match="client: can't be asked for of the log"):
        filter_text.parse("client:x", T0, words=known, where="of the log")
    with pytest.raises(filters.FilterError, match="put quotes around it"):
        filter_text.parse("plant/#", T0, words=known, where="of the log")
    assert filter_text.parse('"plant/#"', T0, words=known).texts == ("plant/#",)


def test_until_a_moment_long_ago_takes_nothing():
    """Times before 1970 are times too."""
    assert not takes("until:1960-01-01")
    assert takes("since:1960-01-01")


def test_state_task_and_rule_ask_what_a_message_led_to():
    """state:, task: and rule: look at the outcome beside the message."""
    sales, other = (
        Execution(7, "id", name, ExecutionState.FAILED, Cause("message", rule="start"), T0)
        for name in ("Reload Sales", "Reload HR")
    )
    failed = filter_text.parse("state:failed task:sales rule=start", T0)
    assert failed.needs_marks
    assert failed.takes_mark(Mark(ExecutionState.FAILED, ""), sales)
    assert not failed.takes_mark(Mark(ExecutionState.FAILED, ""), other)
    assert not failed.takes_mark(Mark(ExecutionState.SUCCEEDED, ""), sales)
    assert not failed.takes_mark(Mark(ExecutionState.FAILED, ""), None)
    assert not failed.takes_mark(None, None)
    bad = filter_text.parse("state:bad", T0)
    assert bad.takes_mark(Mark(ExecutionState.REFUSED, ""), None)


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
        feed.set_filter(filter_text.parse("hall/#", T0), engine)
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
        feed.set_filter(filter_text.parse("state:done task:stock", T0), engine)
        assert not feed.view
        run = next(one for one in engine.runs.values() if one.task_name == "Reload Stock")
        import msgspec

        engine.put(msgspec.structs.replace(run, state=ExecutionState.SUCCEEDED))
        assert any([feed.poll(engine) for _ in range(5)])
        assert [one.seq for one in feed.view] == [run.cause.seq]

    def test_the_appliances_own_messages_are_asked_for(self):
        """Status and outcomes name every task; a text filter does not find them in each of them."""
        engine = FakeEngine(Clock())
        engine.publish_from("plant/x", b"Reload Sales", client_id="plc")
        engine.publish_from("appliance/status", b"Reload Sales", client_id="$appliance")
        assert engine.snapshot().name == "appliance"
        feed = LiveFeed(show_own=False)
        feed.poll(engine)
        for source, expected in (
            ("", ["plant/x"]),
            ("sales", ["plant/x"]),
            ("#", ["plant/x"]),
            ("appliance/# sales", ["appliance/status"]),
            ("client:$appliance", ["appliance/status"]),
        ):
            feed.set_filter(filter_text.parse(source, T0), engine)
            assert [one.topic for one in feed.view] == expected
        feed.set_filter(filter_text.parse("sales", T0), engine)
        feed.show_own(True, engine)
        assert [one.topic for one in feed.view] == ["plant/x", "appliance/status"]
