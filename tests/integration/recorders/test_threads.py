"""Each database has a thread of its own: what hangs or fails there holds up nothing else."""

import json
import threading

import pytest

from appliance.config.tables import DatabaseConfig, RecorderConfig
from appliance.counters import Counter
from appliance.errors import UnavailableError
from appliance.journal.journal import Journal
from appliance.model import Message
from appliance.recorders import recorder, worker
from appliance.recorders.progress import Progress, highest_cursor
from appliance.recorders.recorders import Recorders
from appliance.recorders.target import Figures, Target, Unsaved


@pytest.fixture(autouse=True)
def _without_long_waits(monkeypatch):
    monkeypatch.setattr(recorder, "RETRY_S", 0.05)
    monkeypatch.setattr(worker, "RETRY_S", 0.05)
    monkeypatch.setattr(worker, "SAVE_EVERY_S", 0.05)


class Server:
    """A database server's tables, by name, and what hinders their use."""

    def __init__(self):
        self.tables = {}
        self.answers = threading.Event()
        self.answers.set()
        self.asked = threading.Event()
        self.error = None

    def take(self, table, messages):
        self.asked.set()
        assert self.answers.wait(60)
        if self.error:
            raise self.error
        rows = self.tables.setdefault(table, {})
        for message in messages:
            rows.setdefault(message.seq, message.payload)


class StandIn(Target):
    """A table of ``Server``."""

    note = ""

    def __init__(self, server, context, stored):
        self.server, self.context, self.stored, self.progress = server, context, stored, stored

    cursor = property(lambda self: self.progress.seq)
    durable_cursor = property(lambda self: self.stored.seq)

    def open(self, later):
        self.server.take(self.context.name, [])
        self.progress = Progress("table", self.progress.seq, count=self.progress.count)

    def append(self, messages, seq):
        self.server.take(self.context.name, messages)
        self.progress = Progress("table", seq, count=self.progress.count + len(messages))

    def skip(self, seq):
        self.progress = Progress("table", seq, count=self.progress.count)

    def tick(self, now_ns):
        self.context.count(Counter.RECORDER_ROWS_UNREADABLE) if self.server.error else None

    def finish(self):
        pass

    def unsaved(self):
        rows = [(self.context.key, self.progress)] if self.progress != self.stored else []
        return Unsaved(rows, is_urgent=self.progress.count != self.stored.count)

    def saved(self, rows):
        self.stored = dict(rows)[self.context.key]

    def figures(self):
        return Figures(recorded=self.progress.count)


def file(folder, name="a"):
    return RecorderConfig(topic="#", path=str(folder / f"{name}.jsonl"), format="jsonl")


def table(name, topic="#", **more):
    return RecorderConfig(
        topic=topic, name=name, database=DatabaseConfig(url="sqlite:///x", **more)
    )


class Site:
    def __init__(self, folder, *configs):
        self.folder = folder
        self.journal = Journal(folder / "journal.db", sync="os", keep_s=1e6, max_bytes=10**9)
        self.recorders = Recorders(configs, folder / "recorders.db")
        self.followers = {}

    def __enter__(self):
        self.journal.start(
            lambda *_: None, minimum_seq=highest_cursor(self.folder / "recorders.db")
        )
        self.recorders.open(self.journal.last_seq, self.journal)
        self.recorders.start(self.follow)
        return self

    def __exit__(self, *_):
        self.journal.flush(30)
        self.complete = self.recorders.stop(30)
        self.journal.close(30)

    def follow(self, name, after_seq):
        self.followers[name] = self.journal.follower(name, after_seq)
        return self.followers[name]

    def publish(self, *payloads):
        for payload in payloads:
            seq = self.journal.next_seq()
            self.journal.append(Message(seq, seq, "t", json.dumps(payload).encode()), None)
        assert self.journal.flush(30)

    def take(self, *configs, timeout_s=30):
        return self.recorders.take(self.recorders.plan(configs), self.follow, timeout_s)

    def until(self, condition):
        pause = threading.Event()
        for _ in range(3000):
            if condition():
                return
            pause.wait(0.01)
        raise AssertionError(self.recorders.states())

    def recorded(self, *expected):
        self.until(lambda: tuple(s.recorded for s in self.recorders.states()) == expected)


@pytest.fixture
def server(monkeypatch):
    made = Server()
    real = worker.make_target

    def make(context, stored):
        if context.config.database is None:
            return real(context, stored)
        return StandIn(made, context, stored)

    monkeypatch.setattr(worker, "make_target", make)
    yield made
    made.answers.set()


def values(server, name):
    return [json.loads(payload) for _, payload in sorted(server.tables[name].items())]


def test_a_server_that_hangs_holds_up_no_file_and_no_other_server(tmp_path, server):
    """Its messages wait in the journal, and it gets them once it answers."""
    with Site(tmp_path, table("slow"), file(tmp_path), table("other")) as site:
        site.publish(1, 2)
        site.recorded(2, 2, 2)
        server.answers.clear()
        real, server.take = server.take, server.take
        server.take = lambda name, rows: real(name, rows) if name == "slow" else quick(name, rows)

        def quick(name, messages):
            server.tables[name].update((m.seq, m.payload) for m in messages)

        site.publish(3)
        site.recorded(2, 3, 3)
        site.until(lambda: site.recorders.states()[1].lag == 0)
        site.until(lambda: site.followers["recorders"].advanced == 3)
        assert site.followers["recorder-slow"].advanced <= 2, "the journal keeps it"
        assert site.recorders.states()[0].lag == 1
        server.answers.set()
        site.recorded(3, 3, 3)
    assert site.complete
    assert values(server, "slow") == values(server, "other") == [1, 2, 3]


def test_a_stop_and_a_reload_do_not_wait_for_a_server_for_ever(tmp_path, server):
    """The change is done for all others; the thread that hangs ends when its server answers."""
    with Site(tmp_path, table("slow"), file(tmp_path)) as site:
        site.publish(1)
        site.recorded(1, 1)
        server.asked.clear()
        server.answers.clear()
        site.publish(2)
        assert server.asked.wait(30)
        assert not site.take(file(tmp_path), file(tmp_path, "b"), timeout_s=0.1)
        site.publish(3)
        site.recorded(3, 1)
        # It comes back with another setting while the old thread still hangs.
        assert site.take(file(tmp_path), table("slow", table="x"))
        site.publish(4)
        site.recorded(4, 1)
        assert not site.recorders.stop(0.1)
        server.answers.set()
        assert not site.recorders.stop(30), "the rest is for the next start"
    with Site(tmp_path, table("slow", table="x")) as site:
        pass
    assert site.complete
    assert values(server, "slow") == [1, 2, 3, 4]


def test_a_changed_recorder_goes_on_where_it_ended(tmp_path, server):
    """A wrong password is put right by a reload: the backlog of the outage is kept and recorded."""
    with Site(tmp_path, table("t1"), file(tmp_path)) as site:
        site.publish(1)
        site.recorded(1, 1)
        server.error = UnavailableError("the server refuses the password")
        site.publish(2, 3)
        site.until(lambda: site.recorders.states()[0].health.level == "bad")
        assert "refuses" in site.recorders.states()[0].health.text
        server.error = None
        assert site.take(table("t1", table="x"), file(tmp_path))
        site.recorded(3, 3)
        assert site.recorders.states()[0].health.level == "ok"
        assert site.followers["recorder-t1"].missed == 0
    assert values(server, "t1") == [1, 2, 3]


def test_recorders_can_be_added_when_there_were_none(tmp_path, server):
    """Files and tables, each with its thread, from then on; and taken out again."""
    with Site(tmp_path) as site:
        site.publish(1)
        assert site.take(file(tmp_path), table("t1"))
        site.publish(2)
        site.recorded(1, 1)
        assert site.take()
        site.publish(3)
        assert site.recorders.states() == ()
        assert site.take(table("t1"))
        site.recorded(2)
    assert values(server, "t1") == [2, 3]
    assert (tmp_path / "a.jsonl").read_text() == "2\n"


def test_events_of_targets_are_counted(tmp_path, server):
    """Whatever thread they happen in."""
    with Site(tmp_path, table("t1")) as site:
        site.publish(1)
        site.recorded(1)
        server.error = UnavailableError("no")
        site.publish(2)
        site.until(lambda: site.recorders.counters()[Counter.RECORDER_RETRIES] > 0)
        server.error = None
