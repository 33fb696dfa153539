"""Recorders into MongoDB: what is sent, and that each message is there once, whatever happens.

The server is a stand-in (mongo_wire.py). With ``CONGODB_FOLDER`` the same messages go to CongoDB,
a wire-compatible server of the npm package @push.rocks/smartmongo.
"""

from __future__ import annotations

import datetime
import json
import os
import random
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pymongo = pytest.importorskip("pymongo")

import bson
from bson.decimal128 import Decimal128
from database_rig import OWN_KEY, TIME_NS, DatabaseRig, messages
from mongo_wire import MongoWire

from appliance.counters import Counter
from appliance.recorders import mongodb
from appliance.errors import ConfigError
from appliance.recorders.bson_document import document_of
from appliance.recorders.database_fault import Cause, DatabaseFaultError
from appliance.recorders.database_waits import TimeLimits
from appliance.recorders.mongodb import MongoCollection, MongoState
from appliance.secret import Secret

QUICK = TimeLimits(connect_s=1, statement_s=1, answer_s=1)


@pytest.fixture
def server() -> Iterator[MongoWire]:
    made = MongoWire()
    made.start()
    yield made
    made.flows.set()
    made.kill()


@pytest.fixture
def rig(server: MongoWire, tmp_path: Path) -> Iterator[Callable[..., DatabaseRig]]:
    made: list[DatabaseRig] = []

    def make(folder: str = "data", **keys: object) -> DatabaseRig:
        keys = {"make": MongoCollection, **keys}
        url = f"mongodb://127.0.0.1:{server.port}/plant"
        made.append(DatabaseRig(tmp_path / folder, url, **keys))
        return made[-1]

    yield make
    for each in made:
        each.close()


def _seqs(server: MongoWire) -> list[int]:
    return [int(each["_id"].split("/")[2]) for each in server.documents()]


def test_a_message_is_a_document(server: MongoWire, rig):
    appliance = rig(metadata=True, topic="plant/{line}/+")
    target = appliance.target()
    value = {"t": 20.5, "n": 2**62, "deep": {"list": [1, None, True]}, "unit": "°C"}
    appliance.append(target, messages(7, 7, value))
    (document,) = server.documents()
    assert document == {
        "_id": f"{OWN_KEY}/0000000000000000007/000000",
        "seq": 7,
        "time": datetime.datetime(2025, 11, 29, 20, 10, 0, 123000),
        "topic": "plant/1/press",
        "client": "press",
        "qos": 1,
        "retain": False,
        "line": "1",
        "payload": value,
        "time_us": (TIME_NS + 7000) // 1000,
    }
    (command,) = [each for each in server.commands if "insert" in each]
    assert command["writeConcern"]["w"] == "majority"
    assert command["ordered"] is False


def test_documents_are_payloads_as_wiredflow_stores_them(server: MongoWire, rig):
    """An object is the document, a list with ``flatten`` one for each element."""
    appliance = rig(flatten=True, time_field="received")
    appliance.append(
        appliance.target(), messages(1, 1, {"a": 1, "_id": "x"}) + messages(2, 2, [{"b": 2}, 5])
    )
    moment = datetime.datetime(2025, 11, 29, 20, 10, 0, 123000)
    assert [
        {key: value for key, value in each.items() if key != "_id"} for each in server.documents()
    ] == [
        {"a": 1, "_id_": "x", "received": moment},
        {"b": 2, "received": moment},
        {"payload": 5, "received": moment},
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'{"a": 1, "b": [1.5, null]}', {"a": 1, "b": [1.5, None]}),
        (b'{"a": 9223372036854775808}', {"a": Decimal128("9223372036854775808")}),
        (b'{"a": 0.12345678901234567891}', {"a": Decimal128("0.12345678901234567891")}),
        (b'{"a": 1e400}', {"a": Decimal128("1E+400")}),
        (b'{"a": 1e9999}', {"a": "1e9999"}),
        (b'{"a": %b}' % (b"7" * 50), {"a": "7" * 50}),
        (b'{"a": 1, "a": 2}', '{"a": 1, "a": 2}'),
        (b'{"x": {"a": ":", "a": 2}}', {"x": '{"a": ":", "a": 2}'}),
        (b'{"$where": 1, "a.b": {"$c": 2}}', {"\uff04where": 1, "a\uff0eb": {"\uff04c": 2}}),
        (b'{"a\\u0000b": "c\\u0000d"}', {"a\ufffdb": "c\0d"}),
        (b'{"payload": {"$base64": "/wA="}}', {"payload": b"\xff\0"}),
        (b'{"payload": {"$text": "plain"}}', {"payload": "plain"}),
        (b'{"$json": {"$text": 5}}', {"\uff04text": 5}),
        (b'{"x": {"$text": "y"}}', {"x": {"\uff04text": "y"}}),
        (b"[]", []),
        (b'"x"', "x"),
    ],
)
def test_every_value_is_kept(text: bytes, value: object):
    found = document_of(text)
    assert found == value
    bson.encode({"payload": found})


def test_every_payload_can_be_stored(server: MongoWire, rig):
    payloads = [
        b"plain", b"\xff\0", b'{"a": NaN}', b"{'a': 5}", b"", b"[" * 150, b'"\\ud800"', b"1e400",
        b'{"": 1}', b'{"%s": 1}' % (b"k" * 5000), b"null", b"[" * 90 + b"]" * 90,
    ]  # fmt: skip
    appliance = rig()
    appliance.append(
        appliance.target(), [messages(n, n, each)[0] for n, each in enumerate(payloads, 1)]
    )
    found = server.documents()
    assert len(found) == len(payloads)
    assert found[0]["payload"] == "plain"
    assert found[1]["payload"] == b"\xff\0"
    assert not appliance.counts


def test_a_document_that_comes_again_is_left_out(server: MongoWire, rig):
    appliance = rig()
    target = appliance.target()
    stored = appliance.stored
    appliance.append(target, messages(1, 20))
    again = appliance.target(stored)
    appliance.append(again, messages(1, 30))
    assert _seqs(server) == list(range(1, 31))
    assert not again.note


def test_a_document_that_another_unique_index_refuses_is_set_aside(server: MongoWire, rig):
    """wiredflow takes every duplicate for done, and writes with w = 0: all errors vanish."""
    server.unique = "device"
    appliance = rig()
    appliance.append(
        appliance.target(), messages(1, 2, {"device": 1}) + messages(3, 3, {"refused": 1})
    )
    assert _seqs(server) == [1]
    lines = (appliance.folder / "set-aside-sensors.jsonl").read_text().splitlines()
    assert [json.loads(line)["reason"] for line in lines] == [
        "E11000 duplicate key error index: device_1 (11000)",
        "Document failed validation (121)",
    ]
    assert appliance.counts[Counter.RECORDER_ROWS_SET_ASIDE] == 2


def test_a_document_that_is_too_large_is_set_aside(server: MongoWire, rig, monkeypatch):
    monkeypatch.setattr(mongodb, "_LARGE", 10_000)
    monkeypatch.setattr(mongodb, "_LARGEST", 100_000)
    appliance = rig()
    large = messages(2, 2, {"text": "x" * 100_000})
    appliance.append(appliance.target(), messages(1, 1) + large + messages(3, 3))
    assert _seqs(server) == [1, 3]
    assert appliance.counts[Counter.RECORDER_ROWS_SET_ASIDE] == 1


def test_a_copy_of_the_data_directory_loses_nothing(server: MongoWire, rig):
    one, other = rig("one"), rig("other")
    one.append(one.target(), messages(1, 10))
    other.append(other.target(), messages(1, 5))
    assert len(server.documents()) == 15
    assert "copy of the data directory" in other.made[0].note
    other.append(other.target(), messages(6, 7))
    assert len(server.documents()) == 17


@pytest.mark.parametrize(
    ("answer", "cause", "said"),
    [
        ({"code": 18, "errmsg": "Authentication failed."}, Cause.LOGIN, "Correct the user"),
        ({"code": 13, "errmsg": "not authorized on plant"}, Cause.RIGHT, "Give the user the right"),
        ({"code": 14031, "errmsg": "No space left"}, Cause.DISK_FULL, "Make room on the server"),
        ({"code": 10107, "errmsg": "not primary"}, Cause.CONNECTION, "See that the server runs"),
        ({"code": 50, "errmsg": "operation exceeded time limit"}, Cause.TIMEOUT, "overloaded"),
    ],
)
def test_what_the_server_refuses_is_said(server: MongoWire, rig, answer, cause, said):
    appliance = rig()
    target = appliance.target(limits=QUICK)
    server.fault = lambda name, _: answer if name == "insert" else None
    with pytest.raises(DatabaseFaultError) as error:
        appliance.append(target, messages(1, 3))
    assert error.value.cause is cause
    assert said in str(error.value)
    assert answer["errmsg"].rstrip(".") in str(error.value)
    assert target.cursor == 0
    server.fault = lambda *_: None
    appliance.record(target, messages(1, 3))
    assert _seqs(server) == [1, 2, 3]


def test_nothing_is_lost_or_twice_when_the_connection_breaks(server: MongoWire, rig):
    """Half a batch is inserted, or all of it and the answer is lost, or the server is away."""
    appliance = rig()
    target = appliance.target(limits=QUICK)
    chance = random.Random(5)
    done = 0

    def fault(name: str, command: dict) -> dict | None:
        if name != "insert" or chance.random() < 0.5:
            return None
        return chance.choice([{"lose": True}, {"cut": chance.randrange(20)}])

    server.fault = fault
    for batch in range(12):
        if batch == 4:
            server.kill()
            threading.Timer(0.2, server.start).start()
        appliance.record(target, messages(done + 1, done + 20))
        done += 20
        if batch % 5 == 3:
            target = appliance.target(limits=QUICK)
    assert _seqs(server) == list(range(1, done + 1))


def test_a_server_that_hangs_is_given_up(server: MongoWire, rig):
    appliance = rig()
    target = appliance.target(limits=QUICK)
    appliance.append(target, messages(1, 1))
    server.flows.clear()
    began = time.monotonic()
    with pytest.raises(DatabaseFaultError) as error:
        appliance.append(target, messages(2, 2))
    assert error.value.cause in {Cause.TIMEOUT, Cause.CONNECTION}
    assert time.monotonic() - began < 30
    server.flows.set()
    appliance.record(target, messages(2, 2))
    assert _seqs(server) == [1, 2]


def test_latest_and_update_replace_documents(server: MongoWire, rig):
    appliance = rig(mode="update", key="id", make=MongoState)
    target = appliance.target()
    for seq, value in enumerate(
        [{"id": 1, "t": 1, "unit": "C"}, {"id": 2}, {"id": 1, "t": None}], 1
    ):
        appliance.append(target, messages(seq, seq, value))
    assert [(each["key"], each.get("t"), each.get("unit")) for each in server.documents()] == [
        ("1", None, "C"),
        ("2", None, None),
    ]
    server.collections.clear()
    again = appliance.target()
    appliance.append(again, messages(4, 4, {"id": 2, "t": 5}))
    assert [(each["key"], each.get("t")) for each in server.documents()] == [("1", None), ("2", 5)]


def test_a_list_in_latest_is_replaced_as_a_whole(server: MongoWire, rig):
    appliance = rig(mode="latest", flatten=True, make=MongoState)
    target = appliance.target()
    appliance.append(target, messages(1, 1, [{"a": 1}, {"a": 2}, {"a": 3}]))
    below = messages(2, 2, [{"a": 7, "key": "own"}], topic="plant/1/press/5")
    appliance.append(target, below + messages(3, 3, [{"a": 4}]))
    assert [(each["key"], each["a"]) for each in server.documents()] == [
        ("plant/1/press", 4),
        ("plant/1/press/5", 7),
    ]
    assert server.documents()[1]["key_"] == "own"


def test_a_lost_position_goes_on_where_the_collection_ends(server: MongoWire, rig):
    from appliance.recorders.progress import Progress
    from appliance.recorders.target import LOST

    appliance = rig()
    appliance.append(appliance.target(), messages(1, 10))
    again = appliance.target(Progress(LOST, 0))
    again.tick(0)
    assert again.cursor <= 10
    appliance.append(again, messages(1, 12))
    assert _seqs(server) == list(range(1, 13))
    server.collections.clear()
    appliance.last_seq = 12
    third = appliance.target(Progress(LOST, 0))
    third.tick(0)
    assert third.cursor == 12


def test_secrets_are_not_shown(tmp_path: Path, server: MongoWire):
    url = f"mongodb://anna@127.0.0.1:{server.port}/plant"
    server.fault = lambda name, _: {"code": 18, "errmsg": "bad password se@cret-word of anna"}
    appliance = DatabaseRig(tmp_path, url, MongoCollection, password=Secret("se@cret-word"))
    try:
        with pytest.raises(DatabaseFaultError) as error:
            appliance.target(limits=QUICK).tick(0)
        assert "cret-word" not in f"{error.value!r}"
        assert error.value.cause is Cause.LOGIN
    finally:
        appliance.close()


def test_an_address_that_is_not_right_is_a_configuration_error(tmp_path: Path):
    appliance = DatabaseRig(tmp_path, "mongodb://127.0.0.1:1:2/x", MongoCollection)
    with pytest.raises(ConfigError, match="is not right"):
        appliance.target()
    appliance.close()


# --- another implementation of the server's side ----------------------------------------------------

_RUN = """
import { CongoServer } from '%s/package/dist_ts/congodb/index.js';
import { MemoryStorageAdapter } from '%s/package/dist_ts/congodb/storage/MemoryStorageAdapter.js';
// It takes ids that are ObjectIds only; MongoDB takes texts.
const insert = MemoryStorageAdapter.prototype.insertOne;
MemoryStorageAdapter.prototype.insertOne = async function (database, name, document) {
  const collection = this.ensureCollection(database, name);
  if (collection.has(document._id)) throw new Error(`E11000 duplicate key error collection: ${name}`);
  collection.set(document._id, document);
  return document;
};
const server = new CongoServer({ port: %d, host: '127.0.0.1' });
await server.start();
"""


@pytest.mark.campaign
def test_congodb_stores_each_message_once(tmp_path: Path):
    folder = os.environ.get("CONGODB_FOLDER")
    node = shutil.which("node")
    if not folder or node is None:
        pytest.skip("CONGODB_FOLDER, where npm has installed CongoDB, is not set")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (Path(folder) / f"run{port}.mjs").write_text(_RUN % (folder, folder, port))
    process = subprocess.Popen([node, Path(folder) / f"run{port}.mjs"])
    try:
        end = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.05)
        url = f"mongodb://127.0.0.1:{port}/plant"
        appliance = DatabaseRig(tmp_path, url, MongoCollection, metadata=True)
        target = appliance.target()
        for first in range(1, 5001, 500):
            appliance.record(target, messages(first, first + 499))
        again = appliance.target(type(appliance.stored)("mongodb", 4000))
        appliance.record(again, messages(4001, 5100))
        with pymongo.MongoClient(url) as client:
            found = list(client.plant.messages.find().sort("_id", 1))
        assert [each["seq"] for each in found] == list(range(1, 5101))
        assert found[0]["payload"] == {"t": 0.25, "n": 1}
        assert not appliance.counts
        appliance.close()
    finally:
        process.kill()
        process.wait(20)
