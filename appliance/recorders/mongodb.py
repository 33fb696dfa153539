"""A collection of MongoDB that records messages, each exactly once.

A document is what ``jsonl`` writes of a message, as BSON: payloads that are objects keep their
values and nesting. Its ``_id`` is this data directory and recorder, the message's number and the
row's place in the message. So a document that comes again is known by its ``_id``: the server's
error for that counts as done if the document is there, and no other error does.
Not for: the connection (mongodb_connection.py), BSON (bson_document.py).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import bson
import msgspec
from pymongo import DeleteMany, ReplaceOne, errors
from pymongo.collection import Collection

from appliance.config.tables import RecorderConfig
from appliance.model import Message
from appliance.recorders.bson_document import document_of
from appliance.recorders.database_fault import Cause, DatabaseFaultError
from appliance.recorders.database_target import DatabaseTarget
from appliance.recorders.database_texts import shown_address
from appliance.recorders.database_waits import TimeLimits, Waits
from appliance.recorders.latest_store import LatestStore
from appliance.recorders.mongodb_connection import Document, MongoConnection, cause_of_code
from appliance.recorders.progress import Progress
from appliance.recorders.row_shape import RowShape
from appliance.recorders.state_rows import StateRows, flattens
from appliance.recorders.target import Context, Later

ID = "_id"
KEY = "key"
_DUPLICATE = 11000
_SEQ_DIGITS = 19
_ITEM_DIGITS = 6
_LONGEST_KEY = 200
_MOST_GENERATIONS = 1000
_MOST_IN_DOUBT = 20_000
"""Messages, several batches."""
_NUMBERS = re.compile(r"/([0-9]+)/[0-9]+$")
_LARGE = 1024 * 1024
_LARGEST = 16 * 1024 * 1024
"""Bytes of a document, by the manual's "MongoDB Limits and Thresholds"."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Memory(msgspec.Struct):
    """What a start needs, in ``Progress.memory``."""

    place: str = ""
    generation: int = 0
    """As in sql.py."""


class Documents:
    """Makes documents of messages."""

    def __init__(self, config: RecorderConfig) -> None:
        self._shape = RowShape(config)
        self._metadata = config.metadata
        self._time_field = config.time_field
        self._times = [name for name, kind in (config.types or {}).items() if kind == "time"]

    def of(self, message: Message) -> list[Document]:
        """The documents of a message, without ``_id``."""
        return [self._made(message, text) for text in self._shape.elements(message)]

    def _made(self, message: Message, text: bytes) -> Document:
        value = document_of(text)
        if not isinstance(value, dict):
            value = {"payload": value}
        elif ID in value:
            name = ID
            while name in value:
                name += "_"
            value = {name if key == ID else key: each for key, each in value.items()}
        if self._metadata:
            value["time"] = _moment(message)
            value["time_us"] = message.received_ns // 1000
        if self._time_field:
            value[self._time_field] = _moment(message)
        for name in self._times:
            inner = value.get("payload") if self._metadata and name not in value else value
            if isinstance(inner, dict) and isinstance(inner.get(name), str):
                inner[name] = datetime.fromisoformat(inner[name])
        return value


def _moment(message: Message) -> datetime:
    """When the message was received; MongoDB keeps milliseconds."""
    return _EPOCH + timedelta(milliseconds=message.received_ns // 1_000_000)


class MongoCollection(DatabaseTarget):
    """The target with ``mode`` ``append``.

    Raises:
        ConfigError, NoPermissionError: the address or the password's file is not right.
    """

    def __init__(
        self,
        context: Context,
        stored: Progress,
        *,
        limits: TimeLimits | None = None,
        waits: Waits | None = None,
    ) -> None:
        config = context.config
        assert config.database is not None
        name = config.database.table or context.name
        self._connection = MongoConnection(config, name, limits=limits, waits=waits)
        super().__init__(context, stored, place=self._connection.shown, table=name)
        self._format = "mongodb"
        place = hashlib.sha256(f"{shown_address(config.database.url)} {name}".encode()).hexdigest()
        self._memory = _recall(stored.memory, place[:16])
        self._documents = Documents(config)
        self._is_looked_at = False

    def append(self, messages: Sequence[Message], seq: int) -> None:
        self._look()
        documents: list[Document] = []
        for message in messages:
            for item, document in enumerate(self._documents.of(message)):
                made = {ID: self._id(message.seq, item), **document}
                size = len(bson.encode(made)) if len(message.payload) > _LARGE else 0
                if size > _LARGEST:
                    self._put_document_aside(made, f"it has {size} bytes, and MongoDB takes 16 MiB")
                else:
                    documents.append(made)
        self._known_to = max(self._known_to, messages[-1].seq)
        if documents:
            self._insert(documents)
        self._move(seq, len(messages))

    def tick(self, now_ns: int) -> None:  # noqa: ARG002  # a collection is not closed by time
        self._look()

    def finish(self) -> None:
        self._connection.close()

    def _memory_text(self) -> str:
        return msgspec.json.encode(self._memory).decode()

    # --- position --------------------------------------------------------------------------------

    @property
    def _key(self) -> str:
        """What stands in an ``_id`` for this data directory and recorder."""
        generation = self._memory.generation
        return f"{self._own_key}.{generation}" if generation else self._own_key

    def _id(self, seq: int, item: int) -> str:
        return f"{self._key}/{seq:0{_SEQ_DIGITS}d}/{item:0{_ITEM_DIGITS}d}"

    def _look(self) -> None:
        """On a new connection: see that no other data directory writes with this one's key.

        Where the collection ends says nothing: with a batch that was broken off, any of its
        documents may be missing. All of them come again, and those that are there are left out.
        """
        if self._connection.is_open and self._is_looked_at:
            return
        self._is_looked_at = False
        with self._connection.collection() as collection:
            if self._is_lost:
                self._find_end(collection)
            for _ in range(_MOST_GENERATIONS):
                found = collection.find_one(
                    {ID: {"$gte": self._id(self._known_to + 1, 0), "$lt": f"{self._key}/:"}},
                    sort=[(ID, -1)],
                    projection=[ID],
                )
                if found is None:
                    break
                self._memory.generation += 1
                self._move(self.cursor, 0)
                self._save_now()  # before a document has the new key
                self._note_foreign_rows(_seq_of(found), self._key)
        self._is_looked_at = True

    def _find_end(self, collection: Collection[Document]) -> None:
        """Where to go on after ``recorders.db`` was lost."""
        found = collection.find_one(
            {ID: {"$gte": f"{self._key}/", "$lt": f"{self._key}/:"}},
            sort=[(ID, -1)],
            projection=[ID],
        )
        # Of the last batch, any document may be missing.
        if found is None:
            self._begin_anew()
        else:
            self._move(max(0, _seq_of(found) - _MOST_IN_DOUBT), 0)
        self._is_lost = False

    # --- documents -------------------------------------------------------------------------------

    def _insert(self, documents: list[Document]) -> None:
        try:
            with self._connection.collection() as collection:
                collection.insert_many(documents, ordered=False)
        except errors.BulkWriteError as error:
            self._sort_out(documents, error)
        except DatabaseFaultError as fault:
            if fault.cause is not Cause.ROW:
                raise
            # One of them can't be sent at all; what was sent before is known by its id.
            if len(documents) == 1:
                self._put_document_aside(documents[0], fault.reason)
                return
            middle = len(documents) // 2
            self._insert(documents[:middle])
            self._insert(documents[middle:])

    def _sort_out(self, documents: list[Document], error: errors.BulkWriteError) -> None:
        """See which documents were refused, and whether that means that they are there."""
        details = error.details or {}
        refused = details.get("writeErrors") or []
        repeated = [each for each in refused if each.get("code") == _DUPLICATE]
        present: set[str] = set()
        if repeated:
            wanted = [documents[each["index"]][ID] for each in repeated]
            with self._connection.collection() as collection:
                found = collection.find({ID: {"$in": wanted}}, projection=[ID])
                present = {str(document[ID]) for document in found}
        for each in refused:
            document = documents[each["index"]]
            code = each.get("code", 0)
            text = self._connection.masked(str(each.get("errmsg", "")))
            if code == _DUPLICATE and document[ID] in present:
                continue
            cause = cause_of_code(code)
            if cause is not None:
                raise self._connection.refused(
                    DatabaseFaultError(cause, f"{self._place}: {text} ({code})")
                )
            self._put_document_aside(document, _without_values(text, code))
        for each in details.get("writeConcernErrors") or []:
            text = self._connection.masked(str(each.get("errmsg", "")))
            raise self._connection.refused(
                DatabaseFaultError(Cause.TIMEOUT, f"{self._place}: {text} ({each.get('code')})")
            )

    def _put_document_aside(self, document: Document, why: str) -> None:
        seq, item = _place_of(str(document[ID]))
        self._put_aside(seq, item, why, document)


class MongoState(MongoCollection):
    """The target with ``mode`` ``latest`` or ``update``: a document a row of ``recorders.db``."""

    def __init__(
        self,
        context: Context,
        stored: Progress,
        *,
        limits: TimeLimits | None = None,
        waits: Waits | None = None,
    ) -> None:
        super().__init__(context, stored, limits=limits, waits=waits)
        config = context.config
        self._format = f"mongodb+{config.mode}+{config.key}"
        self._format += "+flatten" if config.flatten else ""
        self._has_lists = flattens(config)
        self._documents = Documents(msgspec.structs.replace(config, flatten=self._has_lists))
        self._present = StateRows(config, context.count)
        self._store = LatestStore(context.store, context.key)
        self._is_complete = False
        """Whether all rows are in the collection, as far as it was not changed by others."""

    def open(self, later: Later) -> None:
        is_new = self._progress.format != self._format
        super().open(later)
        if is_new:
            self._store.clear(self._progress)
            self._stored = self._progress
        elif damaged := self._present.load(self._store.rows()):
            self._notes["damaged"] = f"{damaged} of its rows were damaged and are left out"

    def _look(self) -> None:
        if not self._connection.is_open:
            with self._connection.collection() as collection:
                collection.find_one({}, projection=[ID])

    def append(self, messages: Sequence[Message], seq: int) -> None:
        self._look()
        changes = self._present.changes(messages)
        self._replace(changes if self._is_complete else {**self._present.by_key(), **changes})
        self._is_complete = True
        self._save_rows(self._store, changes, seq, len(messages))
        self._present.apply(changes)

    def _replace(self, rows: Mapping[str, Message]) -> None:
        writes: list[Any] = []
        made: dict[int, Document] = {}
        for key, message in sorted(rows.items(), key=lambda each: each[1].seq):
            base = f"{self._own_key}/{_short(key)}"
            documents = self._documents.of(message)
            if not self._has_lists:
                (document,) = documents
                made[len(writes)] = {"seq": message.seq, **document}
                writes.append(ReplaceOne({ID: base}, _with_key(key, document), upsert=True))
                continue
            for item, document in enumerate(documents):
                made[len(writes)] = {"seq": message.seq, **document}
                name = f"{base}/{item:0{_ITEM_DIGITS}d}"
                writes.append(ReplaceOne({ID: name}, _with_key(key, document), upsert=True))
            rest = {"$gte": f"{base}/{len(documents):0{_ITEM_DIGITS}d}", "$lt": f"{base}/:"}
            # The range may have ids of topics below this one.
            writes.append(DeleteMany({ID: rest, KEY: key}))
        if not writes:
            return
        try:
            with self._connection.collection() as collection:
                collection.bulk_write(writes, ordered=False)
        except errors.BulkWriteError as error:
            for each in (error.details or {}).get("writeErrors") or []:
                code = each.get("code", 0)
                text = self._connection.masked(str(each.get("errmsg", "")))
                cause = cause_of_code(code)
                if cause is not None or each["index"] not in made:
                    raise self._connection.refused(
                        DatabaseFaultError(cause or Cause.OTHER, f"{self._place}: {text} ({code})")
                    ) from None
                document = made[each["index"]]
                self._put_aside(document["seq"], 0, _without_values(text, code), document)
            if (error.details or {}).get("writeConcernErrors"):
                raise self._connection.refused(
                    DatabaseFaultError(Cause.TIMEOUT, f"{self._place}: not enough servers answered")
                ) from None


def _recall(memory: str, place: str) -> _Memory:
    try:
        found = msgspec.json.decode(memory, type=_Memory) if memory else _Memory()
    except msgspec.DecodeError:
        found = _Memory()
    return found if found.place == place else _Memory(place=place)


def _seq_of(document: Document) -> int:
    found = _NUMBERS.search(str(document[ID]))
    return int(found[1]) if found else 0


def _place_of(identifier: str) -> tuple[int, int]:
    _, seq, item = identifier.rsplit("/", 2)
    return int(seq), int(item)


def _with_key(key: str, document: Document) -> Document:
    if KEY in document:
        name = f"{KEY}_"
        while name in document:
            name += "_"
        document = {name if each == KEY else each: value for each, value in document.items()}
    return {KEY: key, **document}


def _short(key: str) -> str:
    plain = key.replace("\0", "\ufffd")
    if plain == key and len(key) <= _LONGEST_KEY:
        return key
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _without_values(text: str, code: int) -> str:
    """The server's text without the values of the document that it repeats."""
    return f"{text.partition(' dup key: ')[0]} ({code})"
