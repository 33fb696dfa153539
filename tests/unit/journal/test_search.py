"""Searching the journal: what the filter means, with the index, without it, and while it lags."""

import pytest
from hypothesis import given, settings, strategies as st
from journal_rig import JournalRig

from appliance import matching
from appliance.journal import chunks
from appliance.journal.indexer import Indexer
from appliance.journal.search import History
from appliance.message_filter import MessageFilter, Name
from appliance.model import Message, MessageProperties

TEXTS = st.sampled_from(
    ["K", "k", "straße", "STRASSE", "ss", "ÖFFNET", "öffnet", "ﬁn", "fin", "ß", "ſ", "İ", "扉", "x",
     "a\nb", "\ufffd", "ΐ", "äk", "ÄK", "value", "VALUE", '"v', "\\u00e4"]
)  # fmt: skip
PAYLOADS = st.one_of(
    st.binary(max_size=12), TEXTS.map(str.encode), st.text(max_size=6).map(str.encode)
)
TOPICS = st.sampled_from(["a", "a/b", "a/b/c", "$own/x", "Öl/K", "plant/line1", "plant/ﬁ"])
CLIENTS = st.sampled_from(["", "plc-1", "PLC-2", "straße", "$own", "b"])
USERS = st.sampled_from([None, "anna", "STRÖSSER"])
MESSAGES = st.lists(st.tuples(TOPICS, CLIENTS, PAYLOADS, st.integers(0, 50), USERS), max_size=30)
FILTERS = st.builds(
    MessageFilter,
    topics=st.lists(st.sampled_from(["a", "a/#", "+/b", "#", "$own/#", "none", "plant/+", "+/+/#", "a/+/c", "+", "Öl/#"]), max_size=2)
    .map(tuple),
    texts=st.lists(TEXTS, max_size=2).map(tuple),
    not_texts=st.lists(TEXTS, max_size=1).map(tuple),
    clients=st.lists(st.builds(Name, st.sampled_from(["plc", "p*1", "STRASSE", "$own", ""]),
                               st.booleans()), max_size=1).map(tuple),
    users=st.lists(st.builds(Name, st.sampled_from(["", "ann", "A*a", "*", "Ströß"]), st.booleans()),
                   max_size=1).map(tuple),
    since_ns=st.none() | st.integers(0, 50),
    until_ns=st.none() | st.integers(0, 50),
)  # fmt: skip


def expected(messages, asked):
    return [
        one.seq
        for one in messages
        if matching.takes(asked, one)
        and (asked.since_ns is None or one.received_ns >= asked.since_ns)
        and (asked.until_ns is None or one.received_ns < asked.until_ns)
    ]


def found(pieces):
    pieces = list(pieces)
    return [one.seq for piece in pieces for one in piece.messages], pieces


@settings(max_examples=20, deadline=None)
@given(MESSAGES, st.lists(FILTERS, min_size=1, max_size=6), st.integers(1, 9), st.integers(1, 5))
def test_a_search_finds_what_the_filter_means_either_way(
    tmp_path_factory, contents, filters, together, segment
):
    """Raw bytes are looked at first, and no message is missed for it: letters have many forms.

    The index has all of the journal, a part of it, or nothing.
    """
    folder = tmp_path_factory.mktemp("journal")
    rig = JournalRig(folder / "journal.db").start()
    indexer = Indexer(rig.journal, folder / "index.db", segment_messages=segment, write_every_s=0)
    try:
        messages = []
        for number, (topic, client, payload, at, user) in enumerate(contents):
            seq = rig.journal.next_seq()
            messages.append(Message(seq, at, topic, payload, client_id=client, username=user))
            rig.journal.append(messages[-1], None)
            if number % together == 0:
                rig.settle()
            if number == len(contents) // 2:
                indexer.look()
        rig.settle()
        for history in (
            History(rig.journal.reading),
            History(rig.journal.reading, indexer.reader, pytest.fail),
        ):
            for asked in filters:
                numbers, pieces = found(history.forward(asked))
                assert numbers == expected(messages, asked)
                if messages:
                    assert pieces[0].first_seq == 1
                    assert pieces[-1].last_seq == len(messages)
                back, pieces = found(history.back(asked, len(messages) + 1))
                assert sorted(back) == numbers
                for before, after in zip(pieces, pieces[1:], strict=False):
                    assert after.last_seq == before.first_seq - 1
            indexer.look()
    finally:
        indexer.stop(5)
        rig.journal.close(5)


TOPIC_FILTERS = st.lists(
    st.sampled_from(["a", "a/#", "+/b", "#", "none", "plant/+", "+/+/#", "Öl/#", "$own/#"]),
    max_size=3,
)


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.tuples(TOPICS, PAYLOADS, st.integers(0, 50)), max_size=40),
    st.lists(TOPIC_FILTERS, min_size=1, max_size=5),
    st.tuples(st.none() | st.integers(0, 50), st.none() | st.integers(0, 50)),
    st.integers(1, 20),
)
def test_the_walk_over_topics_of_rules_gives_what_their_filters_mean(
    tmp_path_factory, contents, sets, times, together
):
    """Few messages of a chunk, many, or all; with the index of a part of the journal, and without."""
    folder = tmp_path_factory.mktemp("journal")
    rig = JournalRig(folder / "journal.db").start()
    indexer = Indexer(rig.journal, folder / "index.db", segment_messages=3, write_every_s=0)
    try:
        messages = []
        properties = MessageProperties(response_topic="answer").encoded()
        for number, (topic, payload, at) in enumerate(contents):
            message = Message(rig.journal.next_seq(), at, topic, payload, properties=properties)
            messages.append(message)
            rig.journal.append(message, None)
            if number % together == 0:
                rig.settle()
            if number == len(contents) // 2:
                indexer.look()
        rig.settle()
        for filters in sets:
            asked = MessageFilter(topics=tuple(filters), since_ns=times[0], until_ns=times[1])

            def concerns(topic, filters=tuple(filters)):
                return matching.matches_any(filters, topic)

            wanted = [one for one in messages if one.seq in expected(messages, asked)]
            wanted = [one for one in wanted if concerns(one.topic)]
            for history in (
                History(rig.journal.reading, indexer.reader),
                History(rig.journal.reading),
            ):
                pieces = list(history.concerning(concerns, asked))
                assert [one for piece in pieces for one in piece.messages] == wanted
                assert [one.first_seq for one in pieces[1:]] == [
                    one.last_seq + 1 for one in pieces[:-1]
                ]
    finally:
        indexer.stop(10)
        rig.journal.close(10)


@given(st.lists(st.lists(TOPICS, max_size=40), max_size=6))
def test_the_topics_of_many_chunks_are_read_as_those_of_one(groups):
    """Chunks of no message, of few, and of more than fit into the first byte of an array."""
    messages = [[Message(1, 1, topic, b"x") for topic in group] for group in groups]
    bodies = [row[4] for group in messages for row in chunks.encode(group, 0)] + [
        chunks.NO_MESSAGES
    ]
    assert chunks.topics(bodies) == {topic for group in groups for topic in group}


@pytest.mark.parametrize("damage", [b"", b"\xc1", b"\x92\x93", b"\xdc\x00", b"\x91\xa1x"])
def test_bytes_that_are_no_chunk_are_said(damage):
    (row,) = chunks.encode([Message(1, 1, "a", b"x")], 0)
    with pytest.raises(ValueError):
        chunks.topics([row[4], damage])
