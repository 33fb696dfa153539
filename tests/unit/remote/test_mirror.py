"""Frames and mirror together: a terminal's copy of the state is the engine's state."""

import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_engine import PlainEngine

from appliance.config.values import TopicFilter
from appliance.engine_api import BridgeState, BridgeSubscriptionState, Health
from appliance.remote import mirror
from appliance.remote.mirror import Mirror
from appliance.remote import protocol
from appliance.remote.frames import Cursor, Frames
from appliance.model import ExecutionState, Message, MessageProperties


class Terminal:
    """A terminal's cursor in the frames, and the mirror behind it."""

    def __init__(self, engine, frames):
        self.engine, self.frames = engine, frames
        self.cursor = Cursor(0, 0)
        self.mirror = Mirror(lambda: engine.now_ns)

    def frame(self, others=()):
        self.frames.refresh([self.cursor, *(one.cursor for one in others)])
        data = self.frames.frame(self.cursor)
        assert self.mirror.apply(data) == self.cursor.number
        return data


STATES = st.sampled_from(list(ExecutionState))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("receive"), st.sampled_from([0, 3, 2000])),
        st.tuples(st.just("run"), st.integers(1, 6), STATES),
        st.tuples(st.just("come"), st.sampled_from("abc"), st.integers(0, 3)),
        st.tuples(st.just("go"), st.sampled_from("abc")),
        st.tuples(st.just("log_line"), st.text(max_size=20)),
        st.tuples(st.just("frame"), st.integers(0, 1)),
    ),
    max_size=50,
)


@settings(max_examples=60)
@given(STEPS)
def test_a_terminal_shows_what_the_engine_is(steps):
    """However seldom a terminal gets a frame, it ends with the same view."""
    engine, clock = PlainEngine(), itertools.count(0, 100)
    frames = Frames(engine, lambda: float(next(clock)))
    terminals = [Terminal(engine, frames), Terminal(engine, frames)]
    for name, *arguments in steps:
        if name == "frame":
            chosen = terminals[arguments[0]]
            chosen.frame([one for one in terminals if one is not chosen])
        else:
            getattr(engine, name)(*arguments)
    for one in terminals:
        others = [other for other in terminals if other is not one]
        one.frame(others)
        one.frame(others)  # marks are those of messages that have been sent
        mirror = one.mirror
        assert mirror.snapshot() == engine.snapshot()
        assert {one.client_id: one for one in mirror.clients()} == engine.present
        assert [line.text for line in mirror.log(0, 1000)] == [line.text for line in engine.lines]
        assert {one.topic: one.count for one in mirror.topics(100)} == {
            one.topic: one.count for one in engine.topics(100)
        }
        seqs = [message.seq for message in engine.messages]
        assert [message.seq for message in mirror.live(0, 10_000)] == seqs
        assert mirror.marks(seqs) == engine.marks(seqs)
        for message in engine.messages:
            [shown] = mirror.live(message.seq - 1, 10_000)[:1]
            assert shown.payload == message.payload[: protocol.SHOWN_BYTES]
            cut = len(message.payload) > protocol.SHOWN_BYTES
            assert mirror.full_size(message.seq) == (len(message.payload) if cut else None)


def test_a_flood_costs_a_frame_its_bound_and_the_gap_is_seen():
    """Between two frames come 50,000 messages: the newest arrive, the numbers show the gap."""
    engine = PlainEngine()
    frames = Frames(engine, lambda: 0.0)
    terminal = Terminal(engine, frames)
    engine.receive()
    terminal.frame()
    for _ in range(50_000):
        engine.receive(size=600)
    data = terminal.frame()
    assert len(data) < 2 * protocol.FRAME_BYTES
    shown = terminal.mirror.live(0, 100_000)
    assert shown[0].seq == 1
    assert shown[-1].seq == 50_001
    assert 10 < len(shown) <= 1 + protocol.LIVE_PER_FRAME
    terminal.frame()
    assert terminal.mirror.live(50_001, 10) == []


def test_properties_count_in_a_frame_and_in_the_terminal(monkeypatch):
    """Messages with large properties come without them, and the terminal's memory is bounded in
    bytes; opening one fetches it whole."""
    monkeypatch.setattr(mirror, "KEPT_BYTES", 50_000)
    engine = PlainEngine()
    terminal = Terminal(engine, Frames(engine, lambda: 0.0))
    large = MessageProperties(user_properties=(("k", "v" * 60_000),)).encoded()
    small = MessageProperties(content_type="c" * 400).encoded()
    for seq in range(1, 601):
        properties = large if seq % 2 else small
        engine.messages.append(Message(seq, seq, "t", b"x", properties=properties))
        if seq % 20 == 0:
            assert len(terminal.frame()) < 2 * protocol.FRAME_BYTES
    shown = terminal.mirror.live(0, 10_000)
    assert shown[-1].seq == 600
    assert sum(protocol.size_of(message) for message in shown) <= 50_000
    assert len(shown) > 100
    for message in shown:
        assert message.properties == (None if message.seq % 2 else small)
        assert terminal.mirror.full_size(message.seq) == (1 if message.seq % 2 else None)


def test_much_state_comes_in_several_frames_of_bounded_size():
    """Two thousand clients with long names don't make one huge frame."""
    engine = PlainEngine()
    for number in range(2000):
        engine.come(f"client-{number:04}-" + "x" * 200, 1)
    terminal = Terminal(engine, Frames(engine, lambda: 0.0))
    sizes = []
    while len(terminal.mirror.clients()) < 2000:
        sizes.append(len(terminal.frame()))
    assert max(sizes) < 2 * protocol.FRAME_BYTES
    assert len(sizes) > 3


def test_a_quiet_engine_makes_small_frames():
    """When nothing happens, a frame is little more than the time."""
    engine = PlainEngine()
    terminal = Terminal(engine, Frames(engine, lambda: 0.0))
    engine.receive()
    terminal.frame()
    engine.now_ns += 1
    assert len(terminal.frame()) < 250


class Bridged(PlainEngine):
    """An engine with a bridge, and with what a later version knows of it."""

    bridge = BridgeState(
        "plant",
        "mqtt.example.com:1883",
        "5.0",
        Health("warn", "out of reach"),
        subscriptions=(BridgeSubscriptionState(TopicFilter("a/#"), problem="refused"),),
        publishes=(TopicFilter("b/#"),),
    )

    def snapshot(self):
        return msgspec.structs.replace(super().snapshot(), bridges=(self.bridge,))


def test_a_terminal_sees_bridges_and_one_of_an_older_appliance_has_none():
    """Filters arrive as plain text, fields of another version are left out."""
    engine = Bridged()
    terminal = Terminal(engine, Frames(engine, lambda: 0.0))
    data = terminal.frame()
    assert terminal.mirror.snapshot().bridges == (engine.bridge,)
    frame = msgspec.msgpack.decode(data)
    (told,) = frame["snapshot"]["bridges"]
    told["of a later version"] = 1
    del told["repeats"]
    newer = Terminal(engine, terminal.frames)
    newer.mirror.apply(msgspec.msgpack.encode(frame))
    assert newer.mirror.snapshot().bridges == (engine.bridge,)
    del frame["snapshot"]["bridges"]
    older = Terminal(engine, terminal.frames)
    older.mirror.apply(msgspec.msgpack.encode(frame))
    assert older.mirror.snapshot().bridges == ()


def test_the_time_shown_is_the_engines():
    """A terminal whose clock is years off shows times by the appliance's clock."""
    engine = PlainEngine()
    terminal = Terminal(engine, Frames(engine, lambda: 0.0))
    here = [5]
    mirror = terminal.mirror = Mirror(lambda: here[0])
    assert mirror.now_ns() == 0
    engine.now_ns = 10**18
    terminal.frame()
    assert mirror.now_ns() == 10**18
    here[0] += 50
    assert mirror.now_ns() == 10**18 + 50
    engine.now_ns += 60
    here[0] += 40  # a frame that travelled long: the quickest one tells the difference
    terminal.frame()
    assert mirror.now_ns() == 10**18 + 90
    for step_s in (-5 * 3600, 48 * 3600):  # the appliance's clock was set
        engine.now_ns += step_s * 10**9
        terminal.frame()
        assert mirror.now_ns() == engine.now_ns


def test_after_a_break_the_terminal_goes_on_and_keeps_what_it_had():
    """A new connection begins at frame 1: what is gone vanishes, messages and log go on."""
    engine = PlainEngine()
    frames = Frames(engine, lambda: 0.0)
    terminal = Terminal(engine, frames)
    engine.receive()
    engine.come("a", 1)
    engine.log_line("one")
    terminal.frame()
    engine.go("a")
    engine.receive()
    engine.log_line("two")
    mirror = terminal.mirror
    stale = frames.frame(terminal.cursor)
    mirror.begin()
    assert mirror.apply(stale) == 0  # of the connection that broke
    seq, run, log = mirror.resume
    assert (seq, run, log) == (1, 7, 1)
    terminal.cursor = Cursor(seq, log)
    terminal.frames = Frames(engine, lambda: 0.0)
    terminal.frame()
    assert [one.seq for one in mirror.live(0, 10)] == [1, 2]
    assert [one.text for one in mirror.log(0, 10)] == ["one", "two"]
    assert mirror.clients() == ()


@given(st.binary(max_size=200))
def test_foreign_bytes_are_no_frame(data):
    """What is no frame is refused, and the state stays as it was."""
    mirror = Mirror(lambda: 1)
    with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError)):
        mirror.apply(data)
    assert not mirror.is_complete


def test_an_act_in_the_journal_has_no_payload_but_its_length():
    """What was published stands in the journal once, as the message itself."""
    body = protocol.audit(protocol.Publish("a/b", b"secret", 1, retain=False))
    assert b"secret" not in body
    assert msgspec.json.decode(body) == {
        "ask": "publish", "topic": "a/b", "payload": "6 bytes", "qos": 1, "retain": False,
    }  # fmt: skip
