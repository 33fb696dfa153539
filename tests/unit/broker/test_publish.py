"""What a client sends in one go means what its packets mean one by one."""

from types import SimpleNamespace

from hypothesis import example, given
from hypothesis import strategies as st

from appliance.mqtt import v5_encode as v5
from appliance.mqtt import packets
from appliance.config.tables import LimitsConfig
from appliance.broker.publish import PublishReader
from appliance.mqtt.packets import PacketError
from appliance.model import Message, MessageProperties

LIMIT = 2**20


class Desk:
    """Numbers messages and keeps what enters, as the door does."""

    def __init__(self):
        self.seq = 0
        self.entered = []
        self.retained = []
        self.size = 0
        self.acks = b""

    def clock_ns(self):
        return 1

    def next_seq(self):
        self.seq += 1
        return self.seq

    def newest_seq(self):
        return self.seq

    def number_to(self, seq):
        self.seq = seq

    def enter(self, messages, payload_size, _publisher, acks, retained, *, beside):
        self.entered += messages
        self.retained += retained
        self.size += payload_size
        self.acks += acks


def fed(reads, version):
    """What comes of PUBLISH packets that arrive in these reads; the door, and whether it ended."""
    door = Desk()
    access = SimpleNamespace(may_publish=lambda *_: True)
    sessions = SimpleNamespace(note_exchanges=lambda *_: None)
    context = SimpleNamespace(
        door=door,
        access=access,
        sessions=sessions,
        limits=LimitsConfig,
        count=lambda _: None,
        is_looping=lambda _: False,
    )
    intake = PublishReader(context, None)
    intake.open(SimpleNamespace(client_id="c", unreleased=set()), version, "u", "127.0.0.1:1")
    try:
        for read in reads:
            assert intake.publishes(read, 0, len(read), LIMIT) == len(read)
    except PacketError:
        ended = True
    else:
        ended = False
    intake.enter()
    assert intake.taken == len(door.entered)
    return door, ended


PROPERTIES = [
    None,
    MessageProperties(content_type="text/plain"),
    MessageProperties(content_type="text/other"),
    MessageProperties(response_topic="r", correlation_data=b"1"),
]


@st.composite
def publishes(draw, version):
    """One PUBLISH; few topics and sizes, so that many in a row are alike."""
    topic = draw(st.sampled_from(["a", "b", "a/longer/topic" * 12]))
    size = draw(st.sampled_from([0, 1, 1, 1, 200]))
    payload = bytes([draw(st.integers(48, 57))]) * size
    qos = draw(st.sampled_from([0, 1, 1, 1, 1, 2]))
    packet_id = draw(st.integers(0, 400)) if qos else 0
    retain = draw(st.sampled_from([False, False, False, True]))
    duplicate = bool(qos) and draw(st.sampled_from([False, False, False, True]))
    if version == 4:
        return packets.encode_publish(
            topic.encode(), payload, qos, retain=retain, duplicate=duplicate, packet_id=packet_id
        )
    message = Message(0, 0, topic, payload)
    return v5.encode_publish(
        message,
        draw(st.sampled_from(PROPERTIES)),
        qos,
        retain=retain,
        duplicate=duplicate,
        packet_id=packet_id,
        expiry_s=None,
        identifiers=(),
    )


def with_type(content_type):
    properties = MessageProperties(content_type=content_type)
    return v5.encode_publish(
        Message(0, 0, "a", b"0"),
        properties,
        1,
        retain=False,
        duplicate=False,
        packet_id=7,
        expiry_s=None,
        identifiers=(),
    )


def several(version):
    """Packets, the same one often repeated."""
    some = st.tuples(publishes(version), st.integers(1, 4)).map(lambda drawn: [drawn[0]] * drawn[1])
    return st.lists(some, max_size=8).map(lambda runs: [one for run in runs for one in run])


def alike(first, last):
    return [b"\x32\x06\x00\x01a" + bytes((0, number, 48)) for number in range(first, last)]


@given(st.sampled_from([4, 5]).flatmap(lambda v: st.tuples(st.just(v), several(v))))
@example((4, [*alike(1, 4), *alike(0, 2)]))
@example((5, [with_type("text/plain"), with_type("text/other")]))
@example((4, alike(1, 300 % 256)))
def test_one_read_means_what_its_packets_mean(sent):
    """Messages, their numbers, acknowledgements and protocol errors do not depend on how many
    packets come at once."""
    version, stream = sent
    together, ended_together = fed([b"".join(stream)], version)
    alone, ended_alone = fed(stream, version)
    assert together.entered == alone.entered
    assert together.acks == alone.acks
    assert together.retained == alone.retained == [m for m in alone.entered if m.retain]
    assert together.seq == alone.seq == len(alone.entered)
    assert together.size == alone.size == sum(len(m.payload) for m in alone.entered)
    assert ended_together == ended_alone


def test_many_alike_are_taken_together():
    """A burst of one device is taken as it is: every packet id acknowledged, every payload kept."""
    stream = [
        packets.encode_publish(
            b"plant/1", b"%05d" % number, 1, retain=False, duplicate=False, packet_id=number
        )
        for number in range(1, 1001)
    ]
    door, ended = fed([b"".join(stream)], 4)
    assert not ended
    assert [m.payload for m in door.entered] == [b"%05d" % n for n in range(1, 1001)]
    assert [m.packet_id for m in door.entered] == list(range(1, 1001))
    assert door.acks == b"".join(b"\x40\x02" + n.to_bytes(2, "big") for n in range(1, 1001))
