"""What every recorder promises: each format and database, in each mode.

A new format needs a reader here, by its name, that is not its own code.
"""

import contextlib
import csv
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from recorder_payloads import (
    FIELD_PAYLOADS,
    MANY_KEYS,
    TIME_NS,
    check_cells,
    check_value,
    is_json,
    loads,
)

from appliance.config.tables import DatabaseConfig, RecorderConfig
from appliance.config.values import TopicFilter
from appliance.journal.journal import Journal
from appliance.model import Message
from appliance.recorders import recorder, worker
from appliance.recorders.formats import format_names, is_of_parts, missing_package
from appliance.recorders.metadata import FIELDS
from appliance.recorders.progress import highest_cursor
from appliance.recorders.recorders import Recorders
from appliance.recorders.rows import elements_of

VICTIM = Path(__file__).with_name("victim_contract.py")
TEXTS = ("json", "jsonl")


# --- readers --------------------------------------------------------------------------------------


def exact(text):
    return json.loads(
        text,
        parse_float=Decimal,
        parse_int=Decimal,
        object_pairs_hook=lambda found: (
            dict(found) if len(dict(found)) == len(found) else ("pairs", found)
        ),
    )


def read_json(path):
    found = exact(path.read_text("utf-8"))
    return found if isinstance(found, list) else [found]


def read_lines(path):
    return [exact(line) for line in path.read_text("utf-8").split("\n") if line]


def read_csv(path):
    csv.field_size_limit(2**31 - 1)
    table = csv.DictReader(io.StringIO(path.read_bytes().decode(), newline=""), strict=True)
    rows = list(table)
    last = (table.fieldnames or ["payload"])[-1]
    if last != "payload":  # a key of the payload has this name: as in other formats
        for row in rows:
            row["payload"], row[last] = row[last], row["payload"]
    return rows


def read_parquet(path):
    table = pytest.importorskip("polars").read_parquet(path)
    return table.to_dicts()


def read_qvd(path):
    found = pytest.importorskip("pyqvd").QvdTable.from_qvd(str(path)).to_dict()
    return [dict(zip(found["columns"], row, strict=True)) for row in found["data"]]


_PACKAGES = {"parquet": "polars", "qvd": "pyqvd"}
READERS = {
    "json": read_json,
    "jsonl": read_lines,
    "csv": read_csv,
    "parquet": read_parquet,
    "qvd": read_qvd,
}


def read_sqlite(path, table="t"):
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute(f"SELECT * FROM {table} ORDER BY seq, item")]


def test_each_format_has_a_reader_here():
    assert set(READERS) == set(format_names())


# --- recorders ------------------------------------------------------------------------------------


class Site:
    """A journal and one recorder of a kind in a folder."""

    def __init__(self, folder, kind, place=None, **keys):
        self.folder = folder
        self.kind = kind
        self.place = place or folder / "rec"
        keys = {"topic": TopicFilter("#"), "metadata": True, **keys}
        if kind == "sqlite":
            self.path = self.place / "rec.db"
            self.place.mkdir(exist_ok=True)
            url = f"sqlite:///{self.path.as_posix()}"
            self.config = RecorderConfig(
                name="t", database=DatabaseConfig(url=url, table="t"), **keys
            )
        else:
            self.path = self.place / f"rec.{kind}"
            self.config = RecorderConfig(path=str(self.path), format=kind, **keys)
        self.journal = Journal(
            folder / "journal.db", sync="os", keep_s=1e6, max_bytes=10**10, housekeeping_s=60
        )
        self.recorders = Recorders(
            [self.config], folder / "recorders.db", installation=lambda: "site"
        )

    def __enter__(self):
        self.journal.start(
            lambda _messages, _entries: None,
            minimum_seq=highest_cursor(self.folder / "recorders.db"),
        )
        self.recorders.open(self.journal.last_seq, self.journal)
        self.recorders.start(self.journal.follower)
        return self

    def __exit__(self, *_):
        self.journal.flush(60)
        self.complete = self.recorders.stop(60)
        self.journal.close(60)

    def publish(self, *payloads, topic="t"):
        for payload in payloads:
            seq = self.journal.next_seq()
            message = Message(seq, TIME_NS + seq * 1000, topic, payload, client_id="c", qos=1)
            self.journal.append(message, None)

    def until(self, condition):
        pause = threading.Event()
        for _ in range(3000):
            if condition(self.recorders.states()[0]):
                return
            pause.wait(0.02)
        raise AssertionError(self.recorders.states())

    def settle(self):
        assert self.journal.flush(60)
        self.until(lambda state: state.lag == 0)

    def files(self):
        """The files that a reader loads, oldest first."""
        return sorted(path for path in self.place.glob(f"rec*.{self.kind}"))

    def rows(self):
        if self.kind == "sqlite":
            return read_sqlite(self.path)
        return [row for path in self.files() for row in READERS[self.kind](path)]


KINDS = [*format_names(), "sqlite"]


@pytest.fixture(params=KINDS)
def kind(request):
    if request.param == "sqlite":
        pytest.importorskip("sqlalchemy")
    elif missing_package(request.param):
        pytest.skip(missing_package(request.param))
    if request.param in _PACKAGES:
        pytest.importorskip(_PACKAGES[request.param])
    return request.param


def check_row(kind, row, payload, taken=FIELDS):
    if kind in TEXTS:
        check_value(row["payload"], payload)
    else:
        check_cells(row, payload, taken, is_csv=kind == "csv")


# --- promises -------------------------------------------------------------------------------------


def test_every_payload_is_there_once_and_in_order(tmp_path, kind):
    """Whatever clients send, each row has its whole payload; a restart changes nothing of that."""
    half = len(FIELD_PAYLOADS) // 2
    with Site(tmp_path, kind) as site:
        site.publish(*FIELD_PAYLOADS[:half])
    assert site.complete
    with Site(tmp_path, kind) as site:
        site.publish(*FIELD_PAYLOADS[half:])
    assert site.complete
    rows = site.rows()
    assert [int(row["seq"]) for row in rows] == list(range(1, len(FIELD_PAYLOADS) + 1))
    for row, payload in zip(rows, FIELD_PAYLOADS, strict=True):
        assert (row["topic"], row["client"], int(row["qos"])) == ("t", "c", 1)
        check_row(kind, row, payload)


def test_each_element_of_a_list_is_a_row(tmp_path, kind):
    """With `flatten`; an empty list gives none, and other payloads one."""
    elements = [payload for payload in FIELD_PAYLOADS if is_json(payload)]
    payloads = [b"[]", b"[%b]" % b", ".join(elements), b"text", b"[]"]
    with Site(tmp_path, kind, flatten=True) as site:
        site.publish(*payloads)
    rows = site.rows()
    expected = [(2, element.strip()) for element in elements] + [(3, b"text")]
    assert [int(row["seq"]) for row in rows] == [seq for seq, _ in expected]
    for row, (_, payload) in zip(rows, expected, strict=True):
        check_row(kind, row, payload)


def test_the_last_payload_of_each_topic_is_there(tmp_path, kind):
    """Mode `latest`, across a restart."""
    topics = {f"t{number:02}": payload for number, payload in enumerate(FIELD_PAYLOADS)}
    for round_of in range(2):
        with Site(tmp_path, kind, mode="latest") as site:
            for topic, payload in topics.items():
                if round_of == 0:
                    site.publish(b'{"old": 1}', topic=topic)
                elif topic > "t01":
                    site.publish(payload, topic=topic)
    rows = {row["topic"]: row for row in site.rows()}
    assert rows.keys() == topics.keys()
    for topic, payload in topics.items():
        check_row(kind, rows[topic], payload if topic > "t01" else b'{"old": 1}')


def test_keys_of_each_topic_are_merged(tmp_path, kind):
    """Mode `update`, across a restart."""
    with Site(tmp_path, kind, mode="update") as site:
        site.publish(b'{"x": 1, "y": 1}', b'{"y": 2.5}', topic="a")
        site.publish(b'{"x": 3}', topic="b")
        site.settle()
        site.publish(b"text", topic="b")
    with Site(tmp_path, kind, mode="update") as site:
        site.publish(b'{"z": "new"}', topic="a")
    rows = {row["topic"]: row for row in site.rows()}
    assert rows.keys() == {"a", "b"}
    check_row(kind, rows["a"], b'{"x": 1, "y": 2.5, "z": "new"}')
    check_row(kind, rows["b"], b"text")


def test_fields_levels_types_and_the_time_are_columns(tmp_path, kind):
    """In every format by the same keys."""
    keys = {
        "topic": TopicFilter("plant/{line}/+"),
        "fields": {"temp": "data.temp", "ok": "data.list[1]"},
        "types": {"temp": "number", "line": "integer"},
        "time_field": "received",
        "metadata": False,
    }
    with Site(tmp_path, kind, **keys) as site:
        site.publish(b'{"data": {"temp": "21.5", "list": [0, true]}}', topic="plant/7/t")
        site.publish(b'{"data": {"temp": "warm", "list": []}}', topic="plant/8/t")
    first, second = site.rows()
    assert (int(first["line"]), float(first["temp"])) == (7, 21.5)
    assert first["ok"] in (True, "true")
    assert "payload" not in first or first["payload"] in (None, "")
    assert int(second["line"]) == 8
    assert second.get("temp") in (None, "")
    whole = second["payload"]
    assert (whole if isinstance(whole, dict) else json.loads(whole)) == {
        "data": {"temp": "warm", "list": []}
    }
    assert "2023" in str(first["received"]) or first["received"] is not None


@pytest.mark.parametrize("mode", ["append", pytest.param("latest", marks=pytest.mark.campaign)])
def test_a_full_disk_loses_nothing(tmp_path, small_disk, kind, mode, monkeypatch):
    """The recorder's health says so; what was there stays readable, and the rest follows."""
    monkeypatch.setattr(recorder, "RETRY_S", 0.1)
    monkeypatch.setattr(worker, "SAVE_EVERY_S", 0.1)
    with Site(tmp_path, kind, place=small_disk, mode=mode) as site:
        site.publish(b'{"n": 1}', topic="t01")
        site.settle()
        ballast = small_disk / "ballast"
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"\0" * 4096)
        for number in range(2, 22):
            text = os.urandom(5000).hex().encode()
            site.publish(b'{"text": "%b"}' % text, topic=f"t{number:02}")
        site.publish(b'{"n": 22}', topic="t22")
        if mode == "latest" or not is_of_parts(kind):  # parts gather in memory first
            site.until(lambda state: state.health.level == "bad")
            site.rows()
        ballast.unlink()
        site.until(lambda state: state.health.level != "bad")
        site.settle()
    assert site.complete
    assert [int(row["seq"]) for row in site.rows()] == list(range(1, 23))


@pytest.mark.parametrize("mode", ["append", "latest"])
def test_a_reader_finds_complete_rows_at_any_moment(tmp_path, kind, mode):
    """While the recorder writes, each file is valid, and its rows are the first ones."""
    ended = threading.Event()
    problems = []
    has_read = threading.Event()

    def read():
        while not ended.is_set() or not has_read.is_set():
            try:
                seqs = _read_numbers(site)
            except Exception as error:  # noqa: BLE001 - it is the test's result
                problems.append(repr(error))
                return
            if mode == "append" and seqs != list(range(1, len(seqs) + 1)):
                problems.append(seqs)
                return
            has_read.set()

    with Site(tmp_path, kind, mode=mode) as site:
        site.publish(b'{"n": 0}')
        site.settle()
        reader = threading.Thread(target=read)
        reader.start()
        assert has_read.wait(60) or problems
        for number in range(12):
            site.publish(*[b'{"n": %d, "text": "%b"}' % (number, b"x" * 300)] * 25)
            assert site.journal.flush(60)
        site.settle()
        ended.set()
        reader.join()
    assert not problems


def _read_numbers(site):
    """The numbers of the rows, as a reader gets them that reads a JSON array again if need be."""
    for attempt in range(50):
        try:
            return [int(row["seq"]) for row in _complete(site)]
        except (json.JSONDecodeError, FileNotFoundError):
            # docs/recording.md: a reader that reads during a write should read again at once.
            if site.kind != "json" or attempt == 49:
                raise
    raise AssertionError


def _complete(site):
    if site.kind not in ("jsonl", "csv") or site.config.mode != "append":
        return site.rows()
    (path,) = site.files()
    end = b"\r\n" if site.kind == "csv" else b"\n"
    text = path.read_bytes()
    text = text[: text.rfind(end) + len(end)].decode()
    if site.kind == "csv":
        return list(csv.DictReader(io.StringIO(text, newline="")))
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.campaign
@pytest.mark.parametrize("mode", ["append", "latest", "update"])
def test_a_kill_at_any_moment_neither_loses_nor_repeats(tmp_path, kind, mode):
    """And what a reader finds after it is complete."""
    for lines in (1, 6, 20):
        process = subprocess.Popen(
            [sys.executable, str(VICTIM), str(tmp_path), kind, mode], stdout=subprocess.PIPE
        )
        for _ in range(lines):
            process.stdout.readline()
        process.send_signal(signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
        process.communicate()
    with Site(tmp_path, kind, mode=mode, flatten=mode == "append") as site:
        messages = site.journal.read(0, 10**9, 10**12)
    rows = site.rows()
    if mode == "append":
        each = [
            (message.seq, element)
            for message in messages
            for element in elements_of(message.payload) or [message.payload]
            if message.payload != b"[]"
        ]
        assert [int(row["seq"]) for row in rows] == [seq for seq, _ in each]
        for row, (_, element) in zip(rows, each, strict=True):
            check_row(kind, row, element)
    else:
        expected = {}
        for message in messages:
            value = loads(message.payload)
            before = expected.get(message.topic, {}) if mode == "update" else {}
            expected[message.topic] = {**before, **value}
        found = {row["topic"]: row for row in rows}
        assert found.keys() == expected.keys()
        for topic, value in expected.items():
            text = json.dumps(value, default=int).encode()
            check_row(kind, found[topic], text)
    assert not [path for path in site.place.iterdir() if path.name.startswith(".")]
    assert len(messages) > 100


@pytest.mark.campaign
def test_five_hundred_keys(tmp_path, kind):
    """At most 200 of them become columns."""
    with Site(tmp_path, kind) as site:
        site.publish(MANY_KEYS, b'{"k1": 5}', b'{"k499": 5}')
    for row, payload in zip(site.rows(), [MANY_KEYS, b'{"k1": 5}', b'{"k499": 5}'], strict=True):
        check_row(kind, row, payload)
        assert kind in TEXTS or len(row) < 220


@pytest.mark.campaign
def test_ten_megabytes_in_one_payload(tmp_path, kind):
    payloads = [b'{"a": "%b"}' % (b"x" * 10_000_000), b"y" * 10_000_000]
    with Site(tmp_path, kind) as site:
        site.publish(*payloads)
    for row, payload in zip(site.rows(), payloads, strict=True):
        check_row(kind, row, payload)


@pytest.mark.parametrize("kind", ["jsonl", "sqlite"])
def test_rows_of_a_lost_database_are_made_again_from_the_journal(tmp_path, kind):
    """Mode `update`; a file that was there is set aside."""
    with Site(tmp_path, kind, mode="update") as site:
        site.publish(b'{"x": 1, "y": 1}', topic="a")
        site.publish(b'{"x": 2}', topic="b")
    for path in tmp_path.glob("recorders.db*"):
        path.unlink()
    with Site(tmp_path, kind, mode="update") as site:
        site.publish(b'{"y": 3}', topic="a")
    rows = {row["topic"]: row for row in site.rows()}
    assert rows.keys() == {"a", "b"}
    check_row(kind, rows["a"], b'{"x": 1, "y": 3}')
    check_row(kind, rows["b"], b'{"x": 2}')


def test_a_change_of_the_keys_begins_a_new_file_or_other_columns(tmp_path, kind):
    """While the appliance runs, as a reload does it; no message is lost or comes twice."""
    keys = {"fields": {"a": "a"}, "metadata": True}
    with Site(tmp_path, kind, **keys) as site:
        site.publish(b'{"a": 1, "b": 1}', b'{"a": 2, "b": 2}')
        site.settle()
        changed = msgspec.structs.replace(site.config, fields={"a": "a", "b": "b"})
        plan = site.recorders.plan([changed])
        assert site.recorders.take(plan, site.journal.follower, 60)
        site.publish(b'{"a": 3, "b": 3}')
    assert site.complete
    rows = site.rows()
    kept = [row for path in site.place.glob("*.before-*") for row in READERS[kind](path)]
    assert [int(row["seq"]) for row in kept + rows] == [1, 2, 3]
    last = rows[-1]["payload"] if kind in TEXTS else rows[-1]
    assert (int(last["a"]), int(last["b"])) == (3, 3)
