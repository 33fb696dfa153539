"""The columns of a table, from the recorder's configuration.

Not for: the table in the database (sql_table.py).
"""

from __future__ import annotations

from appliance.config.tables import RecorderConfig
from appliance.recorders.sql_table import SEQ, Shape
from appliance.recorders.table import Column
from appliance.recorders.table_maker import TableMaker


def make_maker(config: RecorderConfig, shape: Shape) -> TableMaker:
    """What makes a table of messages, whose columns do not collide with the recorder's own.

    With ``metadata`` the first column is the message's number, which the key has as well.
    """
    reserved = [name for name in shape.names if name != SEQ or not config.metadata]
    return TableMaker(config, reserved=reserved)


def fixed_columns(maker: TableMaker, shape: Shape) -> tuple[Column, ...]:
    """The columns that a new ``maker`` has, whose kind no payload decides."""
    return tuple(each for each in maker.columns if each.name not in shape.names)
