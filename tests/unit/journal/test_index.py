"""The index of the journal: rebuilt when it is missing, damaged or foreign; cut; bounded."""

import contextlib
import sqlite3
import threading
import time

import pytest
from journal_rig import JournalRig

from appliance.counters import Counter
from appliance.journal import index
from appliance.journal.indexer import Indexer
from appliance.journal.search import History, opened
from appliance.message_filter import MessageFilter, Name
from appliance.model import Message


S = 10**10
"""Ten seconds: times are not looked at one by one within a second or two."""


class Site:
    """A journal with its index, filled by hand."""

    def __init__(self, folder, **settings):
        self.folder = folder
        self.path = folder / "index.db"
        self.rig = JournalRig(folder / "journal.db", **settings).start()
        self.indexer = self.another()

    def another(self):
        return Indexer(self.rig.journal, self.path, segment_messages=10, write_every_s=0)

    def put(self, topic, count=1, client="c"):
        for _ in range(count):
            seq = self.rig.journal.next_seq()
            self.rig.journal.append(Message(seq, seq * S, topic, b"x", client_id=client), None)
            self.rig.settle()

    def segments(self):
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            return connection.execute("SELECT first_seq, last_seq FROM segment").fetchall()

    def looked_at(self, **asked):
        """The stretches that a search looks into, and what it finds."""
        history = History(self.rig.journal.reading, self.indexer.reader, self.indexer.doubt)
        looked = []
        original = history._look

        def look(wanted, raw, low, high, *, back):
            looked.append((low, high))
            return original(wanted, raw, low, high, back=back)

        history._look = look
        pieces = history.forward(MessageFilter(**asked))
        return [one.seq for piece in pieces for one in piece.messages], looked


@pytest.fixture
def site(tmp_path):
    with contextlib.closing(Site(tmp_path)) as made:
        yield made


Site.close = lambda self: (self.indexer._close(), self.rig.journal.close(5))


def test_a_search_looks_only_where_the_index_says(site):
    """One segment of ten is read for a rare topic, client or time; then what is not in it yet."""
    site.put("hay", 42)
    site.put("needle", client="rare")
    site.put("hay", 60)
    site.indexer.look()
    assert site.segments() == [(number, number + 9) for number in range(1, 101, 10)]
    for asked in (
        {"topics": ("needle",)},
        {"topics": ("nee+", "needle/#")},
        {"clients": (Name("RAR"),)},
        {"clients": (Name("rare", exact=True), Name("r*e"))},
        {"since_ns": 43 * S, "until_ns": 44 * S},
    ):
        numbers, looked = site.looked_at(**asked)
        if "nee+" not in asked.get("topics", ()):
            assert numbers == [43], asked
            assert looked[0] == (41, 50)
        assert looked[-1][1] == 103
        assert sum(high - low + 1 for low, high in looked) <= 13


@pytest.mark.parametrize(
    "harm", ["missing", "garbage", "cut", "row", "blob", "newer", "other tables"]
)
def test_an_index_that_cannot_be_used_is_made_anew(site, harm):
    """Search works meanwhile and finds everything; the next look rebuilds the index."""
    site.put("hay", 30)
    site.put("needle")
    site.put("hay", 30)
    site.indexer.look()
    before = site.segments()
    site.indexer._close()
    if harm == "missing":
        site.path.unlink()
    elif harm == "garbage":
        site.path.write_bytes(b"not a database" * 1000)
    elif harm == "cut":
        site.path.write_bytes(site.path.read_bytes()[:5000])
    else:
        statement = {
            "row": "DELETE FROM segment WHERE first_seq = 31",
            "blob": "UPDATE segment SET topics = zeroblob(8) WHERE first_seq = 31",
            "newer": "PRAGMA user_version = 99",
            "other tables": "ALTER TABLE segment ADD COLUMN more",
        }[harm]
        with contextlib.closing(sqlite3.connect(site.path, isolation_level=None)) as connection:
            connection.execute(statement)
    site.indexer = site.another()
    assert site.looked_at(topics=("needle",))[0] == [31]
    for _ in range(2):
        site.indexer.look()
        assert site.looked_at(topics=("needle",))[0] == [31]
    site.indexer.look()
    if harm != "row":
        assert site.segments() == before
    assert site.indexer.counters()[Counter.JOURNAL_INDEX_REBUILDS] == (
        harm not in ("missing", "row")
    )


@pytest.mark.posix("Windows does not let an open file be removed")
def test_an_index_that_is_removed_while_the_appliance_runs_is_made_anew(site):
    """Nothing goes on in a file without a name."""
    site.put("hay", 30)
    site.indexer.look()
    for path in site.folder.glob("index.db*"):
        path.unlink()
    site.put("hay", 5)
    site.indexer.look()
    assert len(site.segments()) == 3


def test_a_database_of_another_program_stays(site):
    """It is neither used nor removed, and searches work."""
    with contextlib.closing(sqlite3.connect(site.path)) as connection:
        connection.execute("PRAGMA application_id = 7")
        connection.execute("CREATE TABLE mine (x)")
    content = site.path.read_bytes()
    site.put("needle", 30)
    site.indexer.look()
    assert len(site.looked_at(topics=("needle",))[0]) == 30
    assert site.path.read_bytes() == content


def test_an_index_of_another_journal_is_not_used(tmp_path):
    """A journal from a backup gives numbers again that the index knows for other messages."""
    site = Site(tmp_path)
    site.put("hay", 40)
    site.indexer.look()
    site.close()
    for path in tmp_path.glob("journal.db*"):
        path.unlink()
    site = Site(tmp_path)
    for _ in range(40):
        seq = site.rig.journal.next_seq()
        site.rig.journal.append(Message(seq, seq + 5, "needle", b"x"), None)
    site.rig.settle()
    with opened(tmp_path) as history:
        found = [
            one
            for piece in history.forward(MessageFilter(topics=("needle",)))
            for one in piece.messages
        ]
        assert len(found) == 40
    site.indexer.look()
    numbers, looked = site.looked_at(topics=("hay",))
    assert (numbers, looked) == ([], [])
    site.close()


def test_retention_cuts_the_index_and_is_not_held_back(tmp_path):
    """Segments without messages go, and names that only they had; a lagging index skips."""
    site = Site(tmp_path, housekeeping_s=0.02)
    site.put("old", 50)
    site.indexer.look()
    site.put("new", 50)
    site.rig.journal.bound(0, 10**10)
    journal = site.rig.journal
    deadline = time.monotonic() + 30
    while journal.first_seq < 100 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert journal.first_seq == 100
    site.indexer.look()
    assert all(last >= journal.first_seq for _, last in site.segments())
    assert site.looked_at(topics=("new",))[0] == [100]
    assert site.indexer.wait_for(100, 0)
    site.close()


def test_names_are_bounded_and_every_message_is_found(site, monkeypatch):
    """Topics beyond the bound share numbers, which a counter tells; none is missed."""
    monkeypatch.setattr(index, "MOST_NAMES", 20)
    for number in range(100):
        site.put(f"never/again/{number}", client=f"client-{number}")
    site.indexer.look()
    with contextlib.closing(sqlite3.connect(site.path)) as connection:
        assert connection.execute("SELECT count(*) FROM topic").fetchone() == (20,)
    for number in (3, 77):
        numbers, looked = site.looked_at(topics=(f"never/again/{number}",))
        assert numbers == [number + 1]
        assert sum(high - low + 1 for low, high in looked) == 10
        assert site.looked_at(topics=(f"+/again/{number}",))[0] == [number + 1]
        assert site.looked_at(clients=(Name(f"CLIENT-{number}"),), topics=("#",))[0]
    assert site.indexer.counters()[Counter.JOURNAL_INDEX_NAMES_SHARED] == 160


def test_a_thread_fills_the_index(site):
    """It follows by itself, reads what came before its start, and ends in time."""
    site.put("hay", 35)
    site.indexer.start()
    site.put("needle", client="rare")
    for number in range(3):
        entry = [
            Message(site.rig.journal.next_seq(), at, "hay", b"x", client_id=f"c{number}")
            for at in range(20)
        ]
        site.rig.journal.extend(entry, 20, None)
        site.rig.settle()
    site.put("needle", 4)
    assert site.indexer.wait_for(100, 30)
    site.put("hay", 30)
    assert site.indexer.wait_for(130, 30)
    for asked in (
        {"topics": ("needle",)},
        {"clients": (Name("rare"),)},
        {"clients": (Name("c1"),)},
    ):
        numbers, looked = site.looked_at(**asked)
        history = History(site.rig.journal.reading)
        assert numbers == [
            one.seq for piece in history.forward(MessageFilter(**asked)) for one in piece.messages
        ]
        assert sum(high - low + 1 for low, high in looked) < 80
    site.indexer.stop(30)
    rows = site.segments()
    assert rows[0][0] == 1
    assert all(before[1] + 1 == after[0] for before, after in zip(rows, rows[1:], strict=False))
    assert rows[-1][1] > 115


def test_much_that_is_noted_is_read_instead(site, monkeypatch):
    """The notes of commits are bounded, and what is not in them is in the index all the same."""
    monkeypatch.setattr("appliance.journal.indexer._MOST_FED", 3)
    monkeypatch.setattr(site.indexer, "_thread", threading.Thread(target=int))
    site.indexer.start()
    for number in range(50):
        site.put(f"t/{number}")
    assert len(site.indexer._fed) == 3
    site.indexer.look()
    assert len(site.segments()) == 5
    for number in range(50):
        assert site.looked_at(topics=(f"t/{number}",))[0] == [number + 1]


def test_a_disk_that_refuses_costs_time_and_no_message(site, monkeypatch):
    """What could not be written is read again; searches find it meanwhile."""
    site.put("hay", 15)
    site.indexer.look()

    def full(_connection):
        raise sqlite3.OperationalError("database or disk is full")

    site.put("needle", 15)
    with monkeypatch.context() as patch:
        patch.setattr(index, "newest", full)
        patch.setattr("appliance.journal.indexer.transaction", full)
        assert site.indexer.look() > 1
    assert len(site.segments()) == 1
    assert len(site.looked_at(topics=("needle",))[0]) == 15
    site.indexer.look()
    assert len(site.segments()) == 3
    assert len(site.looked_at(topics=("needle",))[0]) == 15
