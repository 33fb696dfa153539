"""Promises of the journal's small parts: chunks, the tail in memory, the reservation of numbers."""

import sqlite3

import msgspec
import pytest

from hypothesis import example, given, settings
from hypothesis import strategies as st

from appliance.journal import chunks
from appliance.journal.batch import Batch
from appliance.journal.sequence_reservation import BLOCK, SequenceReservation
from appliance.journal.inbox import Inbox, Statements
from appliance.journal.tail import MAX_BYTES, MAX_MESSAGES, Tail
from appliance.journal.message_cost import content_of, cost_of
from appliance.model import Message, MessageProperties


def message(seq, payload=b"x", topic="t"):
    return Message(seq, 1_000 + seq, topic, payload)


properties = st.none() | st.builds(
    MessageProperties,
    payload_format=st.integers(0, 1),
    message_expiry_s=st.none() | st.integers(0, 2**32 - 1),
    content_type=st.none() | st.text(max_size=20),
    correlation_data=st.none() | st.binary(max_size=20),
    user_properties=st.lists(st.tuples(st.text(max_size=9), st.text(max_size=9)), max_size=3).map(
        tuple
    ),
).map(MessageProperties.encoded)


@given(
    st.lists(
        st.tuples(st.text(max_size=30), st.binary(max_size=50), st.text(max_size=9), properties),
        min_size=1,
        max_size=30,
    )
)
@settings(deadline=None, max_examples=40)
def test_chunks_give_back_exactly_what_was_put_in(parts):
    """Payload bytes, any Unicode topic and MQTT 5 properties come back as they were."""
    messages = [
        Message(seq, seq * 7, topic, payload, 1, True, client_id=client, properties=more)
        for seq, (topic, payload, client, more) in enumerate(parts, 1)
    ]
    decoded = [m for row in chunks.encode(messages, 10**6) for m in chunks.decode(row[4])]
    assert decoded == messages


def test_chunks_stay_below_their_bounds():
    """Reading one message never means unpacking more than a thousand others or a megabyte."""
    messages = [message(seq) for seq in range(1, 2501)]
    messages += [message(seq, b"y" * 400_000) for seq in range(2501, 2511)]
    messages += [message(2511, b"z" * 3_000_000)]
    rows = chunks.encode(messages, 10**7)
    for first, last, first_ns, last_ns, body in rows:
        decoded = chunks.decode(body)
        assert (decoded[0].seq, decoded[-1].seq) == (first, last)
        assert (decoded[0].received_ns, decoded[-1].received_ns) == (first_ns, last_ns)
        assert len(decoded) <= chunks.MAX_MESSAGES
        assert len(body) <= chunks.MAX_BYTES or len(decoded) == 1
    assert [m for row in rows for m in chunks.decode(row[4])] == messages


@given(
    st.lists(st.integers(1, 8000), min_size=1, max_size=8),
    st.integers(0, 40_000),
    st.integers(1, 9000),
)
@settings(deadline=None, max_examples=30)
def test_tail_never_skips_a_message(batches, after, limit):
    """What the tail returns follows without a gap; what it has dropped it says it doesn't have."""
    tail = Tail(0)
    last = 0
    for size in batches:
        tail.extend([message(seq) for seq in range(last + 1, last + size + 1)], size)
        last += size
    found = tail.read(after, limit, 10**9)
    if found is None:
        assert last > MAX_MESSAGES
        assert after < last - MAX_MESSAGES
    else:
        assert [m.seq for m in found] == list(range(after + 1, min(after + limit, last) + 1))


def test_tail_is_bounded_in_bytes():
    """A burst of large messages does not stay in memory."""
    tail = Tail(0)
    for seq in range(1, 40):
        tail.extend([message(seq, b"x" * 1_000_000)], 1_000_000)
        kept = tail.read(max(0, seq - 8), 100, 10**9)
        assert kept is None or sum(len(m.payload) for m in kept) <= MAX_BYTES
    assert tail.read(30, 100, 10**9) is None
    assert [m.seq for m in tail.read(37, 100, 10**9)] == [38, 39]
    assert [m.seq for m in tail.read(37, 100, 10)] == [38], "a bound in bytes lets one through"


@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.integers(0, 30)),
        max_size=12,
    )
)
@example([([1, 2, 3], 2), ([4], 3)])
def test_tail_forgets_what_was_deleted_and_counts_the_rest(steps):
    """What retention deleted is not there any more; the bytes that bound memory stay right."""
    tail = Tail(0)
    held = []
    last = 0
    for sizes, deleted_to in steps:
        new = [message(last + place, b"x" * size) for place, size in enumerate(sizes, 1)]
        tail.extend(new, sum(map(content_of, new)))
        last += len(new)
        tail.forget(deleted_to)
        held = [one for one in held + new if one.seq > deleted_to]
        assert tail._bytes == sum(map(content_of, held))
        assert tail.read(held[0].seq - 1 if held else last, 100, 10**9) == held
        assert not held or held[0].seq == 1 or tail.read(held[0].seq - 2, 1, 10) is None


def test_reservation_is_written_before_a_number_is_used(tmp_path):
    """The file is never behind the numbers in use, and is written once a block, not a message."""
    path = tmp_path / "journal.db.high"
    reservation = SequenceReservation(path)
    assert reservation.limit == 0
    reservation.reserve(1)
    assert SequenceReservation(path).limit == 1 + BLOCK
    before = path.stat().st_mtime_ns
    for seq in range(2, 1000):
        reservation.reserve(seq)
    assert path.stat().st_mtime_ns == before
    reservation.reserve(BLOCK + 2)
    assert SequenceReservation(path).limit == 2 * BLOCK + 2


def test_damaged_reservation_is_no_reason_not_to_start(tmp_path):
    """A file with other content counts as none."""
    path = tmp_path / "journal.db.high"
    path.write_bytes(b"\xff\x00 what")
    reservation = SequenceReservation(path)
    assert reservation.limit == 0
    reservation.reserve(5)
    assert SequenceReservation(path).limit == 5 + BLOCK


def test_pending_counts_what_is_not_committed():
    """Back-pressure sees everything that was accepted, also what a commit is working on."""
    inbox = Inbox()
    cost = cost_of(message(1, b"x" * 100))
    for seq in range(1, 11):
        inbox.append(message(seq, b"x" * 100), None)
    assert inbox.count == 10
    taken = inbox.take(3 * cost)
    assert (len(taken), inbox.count) == (4, 10)
    assert inbox.bytes == 10 * cost
    inbox.done(4, 4 * cost)
    assert inbox.count == 6
    assert inbox.bytes == 6 * cost


def test_who_only_waits_for_a_commit_makes_it_no_longer() -> None:
    """Publications of the appliance itself wait so; their commit stays one statement."""
    asked: list[str] = []
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE chunk (a, b, c, d, e)")
    connection.set_trace_callback(lambda sql: asked.append(sql.split()[0]))
    entered, waits = object(), object()
    batch = Batch([((message(1),), entered, 200), (Statements(()), waits, 100)])
    batch.write(connection)
    assert asked == ["INSERT"]
    assert [token for _, token in batch.entries] == [entered, waits]
    assert batch.count == 2
    connection.close()


def test_properties_on_disk_are_an_array_in_the_message():
    """The form on disk is that of the first release: an array in the array of the message."""
    values = [1, 60, "text/plain", "answers", b"\x00\x01", [["a", "b"]], False]
    whole = [1, 5, "t", b"x", 1, False, False, "c", None, "", values, 7]
    kept = MessageProperties(1, 60, "text/plain", "answers", b"\x00\x01", (("a", "b"),))
    put = Message(1, 5, "t", b"x", 1, client_id="c", properties=kept.encoded(), packet_id=7)
    [row] = chunks.encode([put], 100)
    assert msgspec.msgpack.decode(row[4]) == [whole]
    [found] = chunks.decode(msgspec.msgpack.encode([whole]))
    assert found == put
    assert found.properties.decoded() == kept


def test_properties_of_another_shape_are_damage():
    """A chunk whose properties are not what a message has is damaged, as it was before."""
    for values in ([0, None, 7], "text", [0, "soon"], {"content_type": "c"}):
        with pytest.raises(msgspec.ValidationError):
            chunks.decode(
                msgspec.msgpack.encode([[1, 5, "t", b"x", 1, False, False, "c", None, "", values]])
            )


@given(properties)
def test_an_expiry_is_known_without_decoding(kept):
    """What is asked for each delivery is answered as the decoded properties would."""
    assert kept is None or kept.may_expire == (kept.decoded().message_expiry_s is not None)
