"""Which target writes to a database, and a look at a database before it is used.

The packages are imported only where a recorder has a database. Not for: the targets themselves
(sql.py, mongodb.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.config.database_url import is_mongodb
from appliance.config.tables import RecorderConfig
from appliance.errors import ConfigError

if TYPE_CHECKING:
    from appliance.recorders.progress import Progress
    from appliance.recorders.target import Context, Target


def make_database_target(context: Context, stored: Progress) -> Target:
    """The target of a recorder with ``database``. It connects later, in the recorder's thread.

    Raises:
        ConfigError: the address is not right, or a package is missing.
        NoPermissionError: the password's file may not be read.
    """
    database = context.config.database
    assert database is not None
    is_state = context.config.mode != "append"
    try:
        if is_mongodb(database.url):
            from appliance.recorders.mongodb import (  # noqa: PLC0415
                MongoCollection,
                MongoState,
            )

            return MongoState(context, stored) if is_state else MongoCollection(context, stored)
        from appliance.recorders.sql import SqlTable  # noqa: PLC0415
        from appliance.recorders.sql_state import SqlState  # noqa: PLC0415
    except ImportError as error:
        raise _missing(error, context.config) from None
    return SqlState(context, stored) if is_state else SqlTable(context, stored)


def try_database(config: RecorderConfig) -> str:
    """Connect as the recorder does, and look at its table. Nothing is changed. Waits.

    Returns what was found, for people.

    Raises:
        ConfigError, NoPermissionError: the configuration is not right, or a package is missing.
        UnavailableError: why the recorder could not write there, without secrets.
    """
    assert config.database is not None
    try:
        if is_mongodb(config.database.url):
            from appliance.recorders.mongodb_trial import try_collection  # noqa: PLC0415

            return try_collection(config)
        from appliance.recorders.sql_trial import try_table  # noqa: PLC0415
    except ImportError as error:
        raise _missing(error, config) from None
    return try_table(config)


def _missing(error: ImportError, config: RecorderConfig) -> ConfigError:
    assert config.database is not None
    extra = "mongodb" if is_mongodb(config.database.url) else "sql"
    return ConfigError(
        f"[[recorder]] `database`: {error.name or error} is not installed; run: pip install"
        f" 'qlik-mqtt-appliance[{extra}]'"
    )
