"""The name and the columns of a table, from the recorder's configuration.

Not for: the table in the database (sql_table.py).
"""

from __future__ import annotations

import hashlib

from appliance.config.tables import RecorderConfig
from appliance.recorders.sql_table import SEQ, Shape
from appliance.recorders.table import Column
from appliance.recorders.table_maker import TableMaker

_LONGEST_NAME = 63
"""Bytes."""
_DIGITS = 8


def make_maker(config: RecorderConfig, shape: Shape) -> TableMaker:
    """What makes a table of messages, whose columns do not collide with the recorder's own.

    With ``metadata`` the first column is the message's number, which the key has as well.
    """
    reserved = [name for name in shape.names if name != SEQ or not config.metadata]
    return TableMaker(config, reserved=reserved)


def fixed_columns(maker: TableMaker, shape: Shape) -> tuple[Column, ...]:
    """The columns that a new ``maker`` has, whose kind no payload decides."""
    return tuple(each for each in maker.columns if each.name not in shape.names)


def table_name(config: RecorderConfig) -> tuple[str, str]:
    """Schema (``""``: the default one) and name of the table.

    A name that is too long for PostgreSQL, which would cut it off, is shortened.
    """
    assert config.database is not None
    schema, _, name = config.database.table.rpartition(".")
    name = name or config.used_name
    encoded = name.encode()
    if len(encoded) > _LONGEST_NAME:
        digest = hashlib.sha256(encoded).hexdigest()[:_DIGITS]
        name = encoded[: _LONGEST_NAME - _DIGITS - 1].decode("utf-8", "ignore") + "_" + digest
    return schema, name
