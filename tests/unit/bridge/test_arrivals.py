"""Promises about what a start finds of a bridge in the journal, and about bounds of what it keeps."""

from __future__ import annotations

from collections import Counter as Multiset

import pytest

from appliance.bridge import arrivals, repeats
from appliance.bridge.arrivals import Arrivals, held, read_arrivals, read_last_digests
from appliance.bridge.repeats import Repeats
from appliance.bridge.replays import Replays, digest_of
from appliance.bridge.store import ArrivalRecord, BridgeRecord
from appliance.counters import Counter
from appliance.model import Message, bridge_client_id, numbered, seq_of


class Journal:
    """Messages from the first one on that retention has left."""

    def __init__(self, *messages: Message) -> None:
        self.messages = messages

    @property
    def last_seq(self) -> int:
        return self.messages[-1].seq

    def read(self, after_seq: int, limit: int) -> list[Message]:
        return [one for one in self.messages if one.seq > after_seq][:limit]


def came(seq: int, *, qos: int = 1, of: int | None = None, client: str = "plant") -> Message:
    """What the bridge brought in as message ``seq``; ``of``: as a repeat of that one."""
    first = seq if of is None else of
    number = numbered(first, first % 7 + 1) if qos else 0
    return Message(
        seq,
        0,
        f"t{first % 3}",
        b"%d" % first,
        qos,
        dup=of is not None,
        client_id=bridge_client_id(client),
        packet_id=number,
    )


def test_what_stands_behind_the_noted_place_is_unsettled():
    """And what the note names before it; a repeat stands for its original, and other bridges,
    clients and QoS 0 are left out. What is gone from the journal is not known."""
    journal = Journal(
        came(3),
        came(4),
        came(5),
        came(6, client="other"),
        Message(7, 0, "t", b"", 1, client_id="plc", packet_id=3),
        came(8, qos=0),
        came(9),
        came(10, of=4),
        came(11),
    )
    found = read_arrivals(journal, "plant", ArrivalRecord(5, (2, 3), True))
    assert [seq_of(number) for number, _, _ in found.unsettled] == [3, 4, 9, 11]
    assert [content for _, content, _ in found.unsettled][0] == held("t0", b"3")
    assert [seq_of(number) for number, _ in found.settled] == [5]
    assert (found.ids_go_on, found.forgotten) == (True, 0)


def test_without_a_note_nothing_is_unsettled():
    """A first start, or a damaged row."""
    assert read_arrivals(Journal(came(1)), "plant", None) == Arrivals()


def test_a_note_from_long_ago_costs_no_long_start(monkeypatch, caplog):
    """It is said which messages were not looked at."""
    monkeypatch.setattr(arrivals, "_MOST_READ", 10)
    journal = Journal(*(came(seq) for seq in range(1, 31)))
    found = read_arrivals(journal, "plant", ArrivalRecord(5))
    assert [seq_of(number) for number, _, _ in found.unsettled] == list(range(21, 31))
    assert "messages 6 to 20 are not looked through" in caplog.text


def test_last_payloads_are_completed_from_the_journal():
    """A kill loses the note of the last second; repeats, which may come late, change nothing."""
    journal = Journal(came(1), came(2), came(3, qos=0), came(4), came(5, of=2))
    record = BridgeRecord("plant", last_digests={"t1": digest_of(b"1")}, digests_seq=1)
    assert read_last_digests(journal, record, 10) == {
        "t2": digest_of(b"2"),
        "t0": digest_of(b"3"),
        "t1": digest_of(b"4"),
    }
    assert list(read_last_digests(journal, record, 2)) == ["t0", "t1"]


def test_the_memory_of_last_payloads_is_bounded():
    """The topic that was silent longest is forgotten, counted, and its row is deleted."""
    counts: Multiset[Counter] = Multiset()

    def count(counter: Counter) -> None:
        counts[counter] += 1

    replays = Replays(
        "plant", {"a": digest_of(b"1")}, most=lambda: 2, clock=lambda: 0.0, count=count
    )
    assert replays.is_replay("a", b"1")
    replays.note("b", b"2", 8)
    replays.note("c", b"3", 9)
    assert counts[Counter.BRIDGE_LAST_PAYLOADS_FORGOTTEN] == 1
    assert not replays.is_replay("a", b"1")
    statements = replays.due(9)
    assert [sql.split()[0] for sql, _ in statements] == ["DELETE", "INSERT", "INSERT", "INSERT"]
    assert replays.due(10) == []


@pytest.mark.parametrize("is_start", [True, False])
def test_the_memory_of_unsettled_messages_is_bounded(monkeypatch, is_start):
    """A broker that breaks off again and again and acknowledges nothing; and its journal."""
    counts: Multiset[Counter] = Multiset()

    def count(counter: Counter) -> None:
        counts[counter] += 1

    monkeypatch.setattr(arrivals, "_MOST_UNSETTLED", 5)
    monkeypatch.setattr(repeats, "MOST_UNSETTLED", 5)
    found = Arrivals()
    if is_start:
        journal = Journal(*(came(seq) for seq in range(1, 9)))
        found = read_arrivals(journal, "plant", ArrivalRecord(0))
    account = Repeats(found, lambda: 0.0, count=count)
    if not is_start:
        for seq in range(1, 9):
            account.connected(session_present=True, newest_seq=seq - 1)
            account.number("t", b"", False, 1 + seq * 10, seq)
            account.disconnected()
    record = account.record(8)
    assert record.unsettled == (4, 5, 6, 7, 8)
    assert counts[Counter.BRIDGE_UNSETTLED_FORGOTTEN] == 3
