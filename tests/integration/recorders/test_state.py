"""Modes `latest` and `update`: the present rows, in any format, and never half of them."""

import csv
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter as Tally
from pathlib import Path

import msgspec
import pytest

from appliance.config.tables import RecorderConfig
from appliance.config.values import TopicFilter
from appliance.counters import Counter
from appliance.errors import UnavailableError
from appliance.model import Message
from appliance.recorders import rows, state_file, state_rows
from appliance.recorders.formats import make_format
from appliance.recorders.state_rows import StateRows, message_of, row_of
from appliance.recorders.table_maker import TableMaker
from appliance.recorders.latest_store import LatestRow, LatestStore
from appliance.recorders.part_store import PartStore
from appliance.recorders.progress import Progress, ProgressStore
from appliance.recorders.state_file import StateFile
from appliance.recorders.target import Context
from hypothesis import given, settings
from hypothesis import strategies as st
from recorder_payloads import TIME_NS, is_json, objects, payload_bytes

A = b'{"t":20.50,"unit":"C"}'
B = b'{"t":21.0,"unit":"C"}'
C = b'{"t":null,"flag":true}'


class Site:
    """A recorder in a folder, and the clock."""

    def __init__(self, folder, kind="json", topic="a", **keys):
        self.path = folder / f"st.{kind}"
        self.config = RecorderConfig(
            topic=TopicFilter(topic), path=str(self.path), format=kind, **keys
        )
        self.store = ProgressStore(folder / "recorders.db")
        stored = self.store.open(TIME_NS)
        self.counts = Tally()
        self.now_ns = TIME_NS
        self.seq = 0
        context = Context(
            config=self.config,
            key="st",
            name="st",
            data_dir=folder,
            store=self.store,
            parts=PartStore(self.store),
            clock_ns=lambda: self.now_ns,
            installation=lambda: "i",
            count=lambda counter: self.counts.update([counter]),
            last_seq=lambda: self.seq,
            is_stopping=lambda: False,
        )
        self.target = StateFile(context, self.path, "st", stored.get("st", Progress("", 0)))
        self.target.open(lambda _: iter(()))
        self.seq = self.target.cursor

    def take(self, *payloads, topic="a", **more):
        messages = []
        for payload in payloads:
            self.seq += 1
            messages.append(Message(self.seq, TIME_NS, topic, payload, client_id="c", **more))
        self.target.append(messages, self.seq)

    def pass_s(self, seconds):
        self.now_ns += int(seconds * 1e9)
        self.target.tick(self.now_ns)

    def text(self):
        return self.path.read_bytes().decode()

    def json(self):
        return json.loads(self.text())

    def close(self):
        self.target.finish()
        self.store.save(self.target.unsaved().rows, durable=False)
        self.store.close()


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("update", {"t": None, "unit": "C", "flag": True}), ("latest", {"t": None, "flag": True})],
)
def test_one_topic_is_one_object_as_wiredflow_writes_it(tmp_path, mode, expected):
    """`update` merges the keys, `latest` has the last message; the time is the last key."""
    site = Site(tmp_path, mode=mode, time_field="datetime_label")
    site.take(A, B)
    site.take(C)
    site.close()
    found = site.json()
    assert found == {**expected, "datetime_label": "2023-04-12T14:40:09.792123Z"}
    assert list(found)[-1] == "datetime_label"


def test_numbers_keep_their_text(tmp_path):
    site = Site(tmp_path, mode="update")
    site.take(A, b'{"n": 1.10, "big": 12345678901234567890123}')
    site.close()
    assert site.text() == (
        '{\n  "t": 20.50,\n  "unit": "C",\n  "n": 1.10,\n  "big": 12345678901234567890123\n}'
    )


def test_each_topic_has_a_row(tmp_path):
    site = Site(tmp_path, topic="plant/{line}", mode="update", metadata=True)
    site.take(A, topic="plant/2")
    site.take(A, b"text", b'{"x": 1}', topic="plant/1")
    site.take(b'{"x": 2}', topic="plant/2")
    site.close()
    assert [(row["line"], row["seq"], row["payload"]) for row in site.json()] == [
        ("1", 4, {"x": 1}),
        ("2", 5, {"t": 20.5, "unit": "C", "x": 2}),
    ]


@pytest.mark.parametrize("mode", ["latest", "update"])
def test_rows_may_be_told_apart_by_a_value(tmp_path, mode):
    """Each element of a list has its own; a message without the value is left out, and counted."""
    site = Site(tmp_path, "csv", "#", mode=mode, key="d.id", flatten=True)
    site.take(b'[{"d":{"id":"x"},"a":1},{"d":{"id":7},"a":2},{"d":{"id":"x"},"b":3}]', topic="q")
    site.take(b'{"d":{"id":"7"},"a":4}', b"text", b'{"d":{"id":null}}', b"[]", topic="r")
    site.close()
    rows = list(csv.DictReader(io.StringIO(site.text(), newline="")))
    first = "1" if mode == "update" else ""
    assert [(row["a"], row["b"], row["payload"]) for row in rows] == [
        ("4", "", ""),
        (first, "3", ""),
    ]
    assert site.counts == {Counter.RECORDER_ROWS_LEFT_OUT: 2}


def test_a_list_without_a_key(tmp_path):
    """`latest` shows the elements of the last list, `update` merges them all."""
    for mode, expected in (("latest", [{"a": 3}]), ("update", [{"a": 3, "b": 2}])):
        site = Site(tmp_path / mode, mode=mode, flatten=True, topic="+")
        site.take(b'[{"a": 1}, {"b": 2}]', b'[{"a": 3}]')
        site.close()
        assert site.json() == expected


def test_columns_of_csv_are_those_of_all_rows_and_stay_where_they_are(tmp_path):
    site = Site(tmp_path, "csv", "+", mode="latest")
    site.take(b'{"b": 1}', topic="m")
    site.pass_s(1000)
    site.take(b'{"a": 2, "b": 3}', topic="c")
    site.take(b"text", topic="z")
    site.close()
    assert site.text() == "b,a,payload\r\n3,2,\r\n1,,\r\n,,text\r\n"


@pytest.mark.parametrize("kind", ["parquet", "qvd"])
def test_files_of_typed_columns(tmp_path, kind):
    """The whole table, with the kinds that hold for all rows."""
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    site = Site(tmp_path, kind, "+", mode="update")
    site.take(b'{"n": 1}', topic="p")
    site.pass_s(1000)
    site.take(b'{"n": 1.5, "s": "x"}', topic="q")
    site.take(b"text", topic="r")
    site.close()
    if kind == "parquet":
        found = pytest.importorskip("pyarrow.parquet").read_table(site.path).to_pylist()
    else:
        table = pytest.importorskip("pyqvd").QvdTable.from_qvd(str(site.path)).to_dict()
        found = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [(row["n"], row["s"], row["payload"]) for row in found] == [
        (1.0, None, None),
        (1.5, "x", None),
        (None, None, "text"),
    ]


def test_the_file_is_replaced_at_most_once_a_second(tmp_path, monkeypatch):
    monkeypatch.setattr(state_file, "_SHARE", 0)  # however slow the machine is
    site = Site(tmp_path, mode="latest")
    site.pass_s(1000)
    site.take(A)
    site.pass_s(0)
    assert site.json() == json.loads(A)
    site.take(B)
    site.pass_s(0.9)
    assert site.json() == json.loads(A)
    site.pass_s(0.1)
    assert site.json() == json.loads(B)
    before = site.path.stat().st_mtime_ns
    site.pass_s(60)
    assert site.path.stat().st_mtime_ns == before
    site.close()
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_a_restart_goes_on_with_the_rows(tmp_path):
    site = Site(tmp_path, mode="update")
    site.take(A)
    site.close()
    site = Site(tmp_path, mode="update")
    assert (site.seq, site.target.note, site.json()) == (1, "", json.loads(A))
    site.take(b'{"x": 1}')
    site.store.close()  # as a crash does: the file is not written any more
    assert site.json() == json.loads(A)
    site = Site(tmp_path, mode="update")
    assert site.json() == {"t": 20.5, "unit": "C", "x": 1}
    assert (site.target.note, site.target.figures().recorded) == ("", 2)
    site.close()


def test_a_file_that_is_up_to_date_is_not_written_again(tmp_path):
    """A start leaves it alone; with other columns or newer rows it writes it."""
    site = Site(tmp_path, mode="latest")
    site.take(A)
    site.close()
    inode = site.path.stat().st_ino
    site = Site(tmp_path, mode="latest")
    site.take(A)
    site.close()
    second = site.path.stat().st_ino
    site = Site(tmp_path, mode="latest", time_field="received")
    assert list(site.json())[-1] == "received"
    site.close()
    os.utime(site.path, (10, 10))
    Site(tmp_path, mode="latest", time_field="received").close()
    assert site.path.stat().st_mtime == 10
    assert inode != second or os.name == "nt"


def test_a_foreign_file_is_set_aside(tmp_path):
    """At the first start, at a later one, and while the recorder runs."""
    (tmp_path / "st.json").write_text("one")
    site = Site(tmp_path, mode="latest")
    assert "st.json.before-" in site.target.note
    site.path.write_text("two")
    site.take(A)
    site.pass_s(1000)
    site.close()
    site.path.write_text("three")
    site = Site(tmp_path, mode="latest")
    assert site.json() == json.loads(A)
    site.close()
    kept = sorted(path.read_text() for path in tmp_path.glob("st.json.before-*"))
    assert kept == ["one", "three", "two"]


def test_another_mode_begins_anew(tmp_path):
    """Rows of one mode are not what the other one would have made."""
    site = Site(tmp_path, mode="update")
    site.take(A, C)
    site.close()
    site = Site(tmp_path, mode="latest")
    assert "begin anew" in site.target.note
    assert site.json() == []
    site.take(B)
    site.close()
    assert site.json() == json.loads(B)
    assert not list(tmp_path.glob("*.before-*"))


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv"])
def test_a_failed_write_is_tried_again(tmp_path, kind, monkeypatch):
    """The old file stays, nothing is left beside it, and no row is lost."""
    site = Site(tmp_path, kind, mode="update", topic="+")
    site.take(A)
    site.pass_s(1000)
    before = site.text()
    site.take(b'{"x": 1}')

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(state_file.files, "sync_file", fail)
        with pytest.raises(OSError, match="No space"):
            site.pass_s(1000)
    assert site.text() == before
    assert not list(tmp_path.glob(".st*"))
    with monkeypatch.context() as patch:
        patch.setattr(state_file.files, "rename", fail)
        with pytest.raises(OSError, match="No space"):
            site.pass_s(1000)
    site.store.close()
    site = Site(tmp_path, kind, mode="update", topic="+")
    assert site.target.note == ""
    assert '"x": 1' in site.text() or "t,unit,x,payload\r\n20.50,C,1," in site.text()
    site.close()


def test_rows_and_their_keys_are_bounded(tmp_path, monkeypatch):
    """What is there goes on to change; the rest is left out, and counted."""
    monkeypatch.setattr(state_rows, "MAX_ROWS", 2)
    monkeypatch.setattr(state_rows, "MAX_MEMBERS", 2)
    monkeypatch.setattr(state_rows, "MAX_BYTES", 2000)
    site = Site(tmp_path, mode="update", topic="+")
    for topic in "abc":
        site.take(b'{"x": 1}', topic=topic)
    site.take(b'{"x": 2, "y": 3, "z": 4}', topic="b")
    site.take(b'{"x": "%b"}' % (b"x" * 2000), topic="a")
    site.close()
    assert site.json() == [{"x": 1}, {"x": 2, "y": 3}]
    assert site.counts == {Counter.RECORDER_ROWS_LEFT_OUT: 3}


def test_a_damaged_row_is_left_out(tmp_path):
    site = Site(tmp_path, mode="latest", topic="+")
    site.take(A, topic="a")
    site.take(B, topic="b")
    site.close()
    with sqlite3.connect(tmp_path / "recorders.db") as database:
        database.execute("UPDATE latest SET value = x'00' WHERE key = 'a'")
    database.close()
    site = Site(tmp_path, mode="latest", topic="+")
    assert "damaged" in site.target.note
    assert site.json() == [json.loads(B)]
    site.close()


def test_rows_and_position_are_stored_together(tmp_path):
    """So a kill neither loses a message nor takes one twice."""
    site = Site(tmp_path, mode="update")
    site.take(A)
    (row,) = LatestStore(site.store, "st").rows()
    position = site.store.position("st")
    assert position is not None
    assert (row.seq, position.seq, position.count) == (1, 1, 1)
    site.close()


MERGED = st.lists(
    st.tuples(st.sampled_from("ab"), st.booleans(), objects | payload_bytes), max_size=12
)


@given(MERGED)
@settings(deadline=None, max_examples=30)
def test_rows_are_what_the_messages_give_one_by_one(steps):
    """However messages are divided into batches, and with a restart between any two."""
    config = RecorderConfig(topic=TopicFilter("+"), mode="update")
    whole, pieces = (StateRows(config, lambda _: None) for _ in range(2))
    messages = [
        Message(seq, TIME_NS, topic, payload) for seq, (topic, _, payload) in enumerate(steps, 1)
    ]
    whole.apply(whole.changes(messages))
    batch = []
    for message, (_, is_end, _) in zip(messages, steps, strict=True):
        batch.append(message)
        if is_end:
            pieces.apply(pieces.changes(batch))
            again = StateRows(config, lambda _: None)
            assert again.load([row_of(key, row) for key, row in pieces.by_key().items()]) == 0
            assert again.messages() == pieces.messages()
            pieces, batch = again, []
    pieces.apply(pieces.changes(batch))
    assert [row.seq for row in whole.messages()] == [row.seq for row in pieces.messages()]
    assert [row.payload for row in whole.messages()] == [row.payload for row in pieces.messages()]
    expected = {}
    for message in messages:
        value = json.loads(message.payload) if is_json(message.payload) else None
        before = expected.get(message.topic)
        is_object = isinstance(value, dict) and not value.keys() & {"$text", "$base64", "$json"}
        merges = is_object and isinstance(before, dict)
        expected[message.topic] = {**before, **value} if merges else value if is_object else None
    for row in whole.messages():
        if expected[row.topic] is not None:
            assert json.loads(row.payload) == expected[row.topic]


def test_a_list_of_too_many_elements_is_one_row(monkeypatch):
    """So a client can't fill the memory with rows of two bytes."""
    monkeypatch.setattr(rows, "MAX_ELEMENTS", 3)
    maker = TableMaker(RecorderConfig(topic=TopicFilter("#"), flatten=True))
    form = make_format(RecorderConfig(topic=TopicFilter("#"), format="jsonl", flatten=True))
    for payload, count in ((b"[1,2,3]", 3), (b"[1,2,3,4]", 1)):
        message = Message(1, TIME_NS, "t", payload)
        assert maker.take([message]).rows == count
        assert form.element(message).count(b"\n") == count


def test_many_rows_are_made_piece_by_piece():
    """In order, each message once, and the last piece up to the end of the batch."""
    messages = [Message(seq, TIME_NS, "t", b"[" + b"1," * 20_000 + b"1]") for seq in range(1, 8)]
    pieces = list(rows.in_pieces(messages, 99))
    assert [message for piece, _ in pieces for message in piece] == messages
    assert [seq for _, seq in pieces] == [2, 4, 6, 99]
    assert list(rows.in_pieces(messages[:1], 5)) == [(messages[:1], 5)]


def test_a_stored_row_can_be_read_by_every_later_version():
    """Its bytes are on the disks of users."""
    stored = bytes.fromhex("96cf175536e8e4d37240a7706c616e742f31c4087b2261223a20317d01c3a163")
    message = Message(5, TIME_NS, "plant/1", b'{"a": 1}', qos=1, retain=True, client_id="c")
    assert message_of(LatestRow("k", 5, stored)) == message
    assert row_of("k", message) == LatestRow("k", 5, stored)
