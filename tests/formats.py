"""What the databases hold in the present version: tables, and what stands in their blobs.

``tests/data/formats/NAME-NUMBER.json`` has this for each number that a database has had.
``python tests/formats.py`` writes the files of new numbers; a file that exists is a promise
and stays as it is.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import msgspec

from appliance.bridge.store import ArrivalRecord, SessionRecord
from appliance.broker.session_store import KeptWill, Queued
from appliance.engine.databases import LAYOUTS
from appliance.model import EncodedProperties, Message, MessageProperties
from appliance.mqtt.packets import SubscribeOptions
from appliance.storage.layout import Layout, run_script
from appliance.tasks import start_keys
from appliance.engine_api import Acknowledgement
from appliance.tasks.freshness_state import TaskFreshnessState
from appliance.tasks.holds import Hold
from appliance.tasks.records import Record
from appliance.tasks.store import Publication, TaskHistory

FOLDER = Path(__file__).parent / "data" / "formats"
BODIES: dict[str, dict[str, Any]] = {
    "journal.db": {
        "chunk.body": list[Message],
        "retained.body": Message,
        "subscription.body": SubscribeOptions,
        "outgoing.body": tuple[bool, tuple[int, ...]],
        "queue.body": tuple[Queued, ...],
        "will.body": KeptWill,
        "bridge_arrival.body": ArrivalRecord,
        "bridge_session.body": SessionRecord,
    },
    "tasks.db": {
        "executions.record": Record,
        "outbox.publication": Publication,
        "histories.history": TaskHistory,
        "start_keys.executions": start_keys.Numbers,
        "kept.body of a hold": Hold,
        "kept.body of an acknowledgement": Acknowledgement,
        "kept.body of freshness": TaskFreshnessState,
        "kept.body of freshness day": dict[int, tuple[int, float]],
    },
    "recorders.db": {},
    "key_values.db": {},
}


def file_of(name: str, number: int) -> Path:
    return FOLDER / f"{name.removesuffix('.db')}-{number}.json"


def tables(layout: Layout) -> list[str]:
    """The statements of a new database, in the order of their names."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        run_script(connection, layout.schema)
        return definitions(connection)


def definitions(connection: sqlite3.Connection) -> list[str]:
    """The statements that SQLite keeps of a database, in the order of their names."""
    rows = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name")
    return [row[0] for row in rows]


def bodies(name: str) -> dict[str, Any]:
    """The JSON schema of each blob, without texts for people."""
    return {where: schema_of(kind) for where, kind in BODIES[name].items()}


_PROPERTIES = "#/$defs/MessageProperties"


def schema_of(kind: Any) -> Any:
    """The JSON schema of what a type is encoded to, without texts for people."""
    _, components = msgspec.json.schema_components((MessageProperties,))
    schema = msgspec.json.schema(kind, schema_hook=_schema_of_encoded)
    if _PROPERTIES in json.dumps(schema):
        schema["$defs"] |= components
    return json.loads(json.dumps(_without_texts(schema)))


def _schema_of_encoded(kind: type) -> dict[str, Any]:
    """A message holds its properties encoded; on disk they are a part of it like any other."""
    if kind is not EncodedProperties:
        raise NotImplementedError
    return {"$ref": _PROPERTIES}


def _without_texts(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {
            key: _without_texts(value)
            for key, value in schema.items()
            if key not in ("title", "description") or not isinstance(value, str)
        }
    return [_without_texts(each) for each in schema] if isinstance(schema, list) else schema


def present(name: str) -> dict[str, Any]:
    return {"tables": tables(LAYOUTS[name]), "bodies": bodies(name)}


if __name__ == "__main__":
    for each, each_layout in LAYOUTS.items():
        path = file_of(each, each_layout.version)
        if not path.exists():
            path.write_text(json.dumps(present(each), indent=1, sort_keys=True) + "\n", "utf-8")
            print(f"wrote {path}")
