"""The journal finds the message of a moment."""

from appliance.journal.journal import Journal
from appliance.model import Message


def test_a_time_finds_the_first_message_from_then_on(tmp_path):
    """Jumping to a time lands on the first message at or after it, wherever it lies."""
    journal = Journal(tmp_path / "journal.db", sync="os", keep_s=1e9, max_bytes=10**9)
    journal.start(lambda _entries: None)
    times = [100 * number for number in range(1, 2001)]
    for time_ns in times:
        journal.append(Message(journal.next_seq(), time_ns, "a", b"x"), None)
    assert journal.flush(10)
    assert journal.seq_at(0) == 1
    assert journal.seq_at(100) == 1
    assert journal.seq_at(101) == 2
    assert journal.seq_at(150_000) == 1500
    assert journal.seq_at(200_000) == 2000
    assert journal.seq_at(200_001) == 2001
    assert journal.close(5)


def test_an_empty_journal_has_no_moment(tmp_path):
    """Without messages every time is beyond the end."""
    journal = Journal(tmp_path / "journal.db", sync="os", keep_s=1e9, max_bytes=10**9)
    journal.start(lambda _entries: None)
    assert journal.seq_at(5) == journal.last_seq + 1
    assert journal.close(5)
