"""No database changes its tables or its blobs without a new number and a step that leads there.

``tests/data/formats`` says what each number stands for. See CONTRIBUTING.md, "Change the tables of
a database".
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import time
from typing import Any

import formats
import msgspec
import pytest

from appliance.engine.databases import LAYOUTS
from appliance.model import Message
from appliance.storage.database import Database
from appliance.storage.layout import Migration, Tables, shape
from appliance.storage.sqlite import connect_read_only
from appliance.tasks.records import Record

WHAT_TO_DO = (
    "The format of {name} differs from that of its number {number}. Give it the next number with a"
    " migration, then run: python tests/formats.py (CONTRIBUTING.md)"
)
NUMBERS = [(name, number) for name in LAYOUTS for number in range(1, LAYOUTS[name].version + 1)]


def stored(name: str, number: int) -> dict[str, Any]:
    return json.loads(formats.file_of(name, number).read_text("utf-8"))


def extends(new: Any, old: Any) -> bool:
    """Whether a reader of the JSON schema ``new`` reads what a writer of ``old`` wrote."""
    if isinstance(new, dict) and isinstance(old, dict):
        new, old = dict(new), dict(old)
        if "prefixItems" in old:  # a struct as an array: further fields at its end
            fields = new.pop("prefixItems", [])[: len(old["prefixItems"])]
            if not extends(fields, old.pop("prefixItems")):
                return False
            for schema in (new, old):
                schema.pop("maxItems", None)
        for key in ("properties", "$defs"):
            further = set(new.get(key, {})) - set(old.get(key, {}))
            if key in old:
                new[key] = {name: each for name, each in new[key].items() if name not in further}
            else:
                new.pop(key, None)
        return new.keys() == old.keys() and all(
            set(old[key]) <= set(new[key]) if key == "enum" else extends(new[key], old[key])
            for key in old
        )
    if isinstance(new, list) and isinstance(old, list):
        return len(new) == len(old) and all(map(extends, new, old))
    return bool(new == old)


@pytest.mark.parametrize("name", LAYOUTS)
def test_tables_do_not_change_without_a_number(name):
    """The statements of a new database are those that are on record for its number."""
    number = LAYOUTS[name].version
    assert formats.file_of(name, number).exists(), "run: python tests/formats.py"
    assert formats.tables(LAYOUTS[name]) == stored(name, number)["tables"], WHAT_TO_DO.format(
        name=name, number=number
    )


@pytest.mark.parametrize("name", LAYOUTS)
def test_blobs_do_not_change_without_a_number(name):
    """Further fields with a default are no change: both versions read each other's blobs."""
    number = LAYOUTS[name].version
    old, new = stored(name, number)["bodies"], formats.bodies(name)
    assert new.keys() == old.keys()
    for where in old:
        assert extends(new[where], old[where]), where + WHAT_TO_DO.format(name=name, number=number)


def test_a_changed_blob_is_found():
    """A field at the end is none, one that is gone, renamed, retyped or in between is one."""

    class More(Message, frozen=True, array_like=True):
        further: int = 0

    class Other(msgspec.Struct, array_like=True):
        seq: int
        received_ns: str

    def schema(kind: Any) -> Any:
        text = json.dumps(formats.schema_of(kind))
        return json.loads(re.sub(rf"\b{kind.__name__}\b", "X", text))

    assert extends(schema(More), schema(Message))
    assert not extends(schema(Other), schema(Message))
    assert not extends(schema(Message), schema(More))
    old = formats.schema_of(Record)
    for field in ("tries", "want"):  # the name on the disk
        new = formats.schema_of(Record)
        new["$defs"]["Record"]["properties"][f"new_{field}"] = {"type": "string", "default": ""}
        assert extends(new, old)
        del new["$defs"]["Record"]["properties"][field]
        assert not extends(new, old)


@pytest.mark.parametrize(("name", "number"), NUMBERS)
def test_each_number_leads_to_the_tables_of_a_new_database(tmp_path, name, number):
    """What a number was once is upgraded to what a new database is: columns and indexes."""
    layout = LAYOUTS[name]
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    with contextlib.closing(sqlite3.connect(old)) as connection:
        connection.executescript(";".join(stored(name, number)["tables"]))
        connection.execute(f"PRAGMA application_id = {layout.application_id}")
        connection.execute(f"PRAGMA user_version = {number}")
    for path in (old, new):
        Database(path, layout, busy_s=1.0).open(time.time_ns()).close()
    with (
        contextlib.closing(connect_read_only(old)) as upgraded,
        contextlib.closing(connect_read_only(new)) as fresh,
    ):
        assert shape(upgraded) == shape(fresh)
        for each in (upgraded, fresh):
            assert each.execute("PRAGMA user_version").fetchone() == (layout.version,)
        indexes = "SELECT name, sql FROM sqlite_master WHERE type = 'index' ORDER BY name"
        assert upgraded.execute(indexes).fetchall() == fresh.execute(indexes).fetchall()


def test_the_steps_of_all_modules_make_one_row_of_numbers():
    """Two modules that take the same number, or a gap, end the first start of a developer."""
    layout = msgspec.structs.replace(LAYOUTS["journal.db"], parts=())
    for numbers in ((2, 2), (3,), (1,), (2, 4)):
        parts = [Tables("", migrations=(Migration(number, ""),)) for number in numbers]
        with pytest.raises(ValueError, match="the steps lead to"):
            layout.with_tables(*parts).steps_after(1)
    parts = [Tables("", migrations=(Migration(number, ""),)) for number in (3, 2)]
    assert layout.with_tables(*parts).version == 3
