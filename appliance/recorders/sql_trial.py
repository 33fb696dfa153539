"""A look at a recorder's table for ``check --connect``: whether the recorder could write there.

Not for: recording (sql.py).
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from appliance.config.database_url import sqlite_file
from appliance.config.tables import RecorderConfig
from appliance.recorders.sql_columns import fixed_columns, make_maker, table_name
from appliance.recorders.sql_connection import SqlConnection
from appliance.recorders.sql_table import APPEND, STATE, TableLayout


def try_table(config: RecorderConfig) -> str:
    """Connect and look at the table; nothing is changed. Returns what was found, for people.

    Raises:
        ConfigError, NoPermissionError: the configuration is not right.
        DatabaseFaultError: the recorder could not write there.
    """
    assert config.database is not None
    connection = SqlConnection(config)
    shape = APPEND if config.mode == "append" else STATE
    layout = TableLayout(*table_name(config), shape, connection.dialect)
    path = sqlite_file(config.database.url)
    if path and not Path(path).exists():
        return f"{connection.shown}: the file and its table {layout.shown} will be made"
    try:
        with connection.transaction() as open_connection:
            if not layout.look(open_connection):
                return f"{connection.shown}: connected; the table {layout.shown} will be made"
            layout.check_fixed(fixed_columns(make_maker(config, shape), shape))
            table = layout.table
            assert table is not None
            # Writes nothing, and is refused where the user may not write.
            names = shape.names
            nothing = sa.select(*(table.c[name] for name in names)).where(sa.false())
            open_connection.execute(sa.insert(table).from_select(list(names), nothing))
            return f"{connection.shown}: connected; the table {layout.shown} can be written"
    finally:
        connection.close()
