"""A server on loopback that speaks MongoDB's wire protocol, as far as a recorder needs it.

It keeps documents in memory, also over ``kill`` and ``start``, and does what a test asks: refuse,
lose an answer, hang. It is no MongoDB: it shows what a recorder sends and how it takes answers.
Protocol: the manual's "MongoDB Wire Protocol" (OP_MSG, and OP_QUERY for the first hello).
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

import bson

_OP_REPLY, _OP_QUERY, _OP_MSG = 1, 2004, 2013


class MongoWire:
    """The server; ``fault`` is asked before each command."""

    def __init__(self) -> None:
        self.collections: dict[str, dict[Any, dict[str, Any]]] = {}
        self.commands: list[dict[str, Any]] = []
        self.unique: str | None = None
        """A key that no two documents may have with one value."""
        self.fault: Callable[[str, dict[str, Any]], dict[str, Any] | None] = lambda *_: None
        """What the server answers instead, or ``None``. ``{"lose": True}``: it does the work and
        ends the connection. ``{"cut": N}``: it inserts N documents and ends the connection."""
        self.flows = threading.Event()
        self.flows.set()
        self._lock = threading.RLock()
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.port = 0

    def start(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def kill(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def documents(self, name: str = "messages") -> list[dict[str, Any]]:
        with self._lock:
            return [dict(each) for _, each in sorted(self.collections.get(name, {}).items())]

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as stream:
                while header := stream.read(16):
                    length, request, _, code = struct.unpack("<iiii", header)
                    body = stream.read(length - 16)
                    command = _read(code, body)
                    answer = self._answer(command)
                    self.flows.wait(60)
                    if answer is None:
                        return
                    connection.sendall(_written(code, request, answer))
        except (OSError, struct.error):
            pass
        finally:
            with self._lock:
                self._open.discard(connection)

    def _answer(self, command: dict[str, Any]) -> dict[str, Any] | None:
        name = next(iter(command))
        if name.lower() in ("hello", "ismaster"):
            return {
                "helloOk": True, "ismaster": True, "isWritablePrimary": True, "minWireVersion": 0,
                "maxWireVersion": 21, "maxBsonObjectSize": 16 * 1024 * 1024,
                "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000, "ok": 1,
                "connectionId": 1, "readOnly": False,
            }  # fmt: skip
        with self._lock:
            self.commands.append(command)
            instead = self.fault(name, command)
            if instead is not None and "cut" in instead:
                command["documents"] = command["documents"][: instead["cut"]]
                self._insert(command)
                return None
            if instead is not None and "lose" not in instead:
                return {"ok": 0, **instead}
            work = getattr(self, f"_{name}", None)
            answer = {"ok": 1} if work is None else work(command)
            return None if instead is not None else answer

    def _of(self, command: dict[str, Any]) -> dict[Any, dict[str, Any]]:
        return self.collections.setdefault(next(iter(command.values())), {})

    def _insert(self, command: dict[str, Any]) -> dict[str, Any]:
        present = self._of(command)
        refused = []
        for index, document in enumerate(command["documents"]):
            key = document["_id"]
            pattern = "_id" if key in present else self.unique
            same = key in present or (
                self.unique in document
                and any(each.get(self.unique) == document[self.unique] for each in present.values())
            )
            if same:
                refused.append(
                    {
                        "index": index,
                        "code": 11000,
                        "keyPattern": {pattern: 1},
                        "errmsg": f"E11000 duplicate key error index: {pattern}_1 dup key: {{ :x }}",
                    }
                )
            elif document.get("refused"):
                refused.append(
                    {"index": index, "code": 121, "errmsg": "Document failed validation"}
                )
            else:
                present[key] = document
        answer = {"ok": 1, "n": len(command["documents"]) - len(refused)}
        return {**answer, "writeErrors": refused} if refused else answer

    def _find(self, command: dict[str, Any]) -> dict[str, Any]:
        present = self._of(command)
        wanted = command.get("filter", {}).get("_id", {})
        found = [each for key, each in sorted(present.items()) if _fits(key, wanted)]
        if command.get("sort", {}).get("_id") == -1:
            found.reverse()
        found = found[: command.get("limit") or None]
        name = f"{command['$db']}.{command['find']}"
        return {"ok": 1, "cursor": {"id": bson.Int64(0), "ns": name, "firstBatch": found}}

    def _update(self, command: dict[str, Any]) -> dict[str, Any]:
        present = self._of(command)
        upserted = []
        for index, each in enumerate(command["updates"]):
            key = each["q"]["_id"]
            if key not in present:
                upserted.append({"index": index, "_id": key})
            present[key] = {"_id": key, **each["u"]}
        return {"ok": 1, "n": len(command["updates"]), "nModified": 0, "upserted": upserted}

    def _delete(self, command: dict[str, Any]) -> dict[str, Any]:
        present = self._of(command)
        gone = [
            name
            for each in command["deletes"]
            for name, document in present.items()
            if _fits(name, each["q"]["_id"])
            and ("key" not in each["q"] or each["q"]["key"] == document["key"])
        ]
        for key in gone:
            del present[key]
        return {"ok": 1, "n": len(gone)}


def _fits(key: Any, wanted: Any) -> bool:
    if not isinstance(wanted, dict):
        return key == wanted
    return (
        ("$in" not in wanted or key in wanted["$in"])
        and ("$gte" not in wanted or key >= wanted["$gte"])
        and ("$lt" not in wanted or key < wanted["$lt"])
    )


def _read(code: int, body: bytes) -> dict[str, Any]:
    if code == _OP_QUERY:
        return bson.decode(body[body.index(b"\0", 4) + 9 :])
    command: dict[str, Any] = {}
    more: dict[str, list[dict[str, Any]]] = {}
    at = 4
    while at < len(body):
        kind = body[at]
        (size,) = struct.unpack_from("<i", body, at + 1)
        section = body[at + 1 : at + 1 + size]
        at += 1 + size
        if kind == 0:
            command = bson.decode(section)
        else:
            end = section.index(b"\0", 4)
            more[section[4:end].decode()] = bson.decode_all(section[end + 1 :])
    return {**command, **more}


def _written(code: int, request: int, answer: dict[str, Any]) -> bytes:
    document = bson.encode(answer)
    if code == _OP_QUERY:
        body, code = struct.pack("<iqii", 8, 0, 0, 1) + document, _OP_REPLY
    else:
        body = struct.pack("<iB", 0, 0) + document
    return struct.pack("<iiii", 16 + len(body), 0, request, code) + body
