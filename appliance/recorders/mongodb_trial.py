"""A look at a recorder's MongoDB for ``check --connect``: whether it can be reached and read.

Not for: recording (mongodb.py).
"""

from __future__ import annotations

from appliance.config.tables import RecorderConfig
from appliance.recorders.mongodb_connection import MongoConnection


def try_collection(config: RecorderConfig) -> str:
    """Connect and read the collection; nothing is changed. Returns what was found, for people.

    Raises:
        ConfigError, NoPermissionError: the configuration is not right.
        DatabaseFaultError: the recorder could not read there.
    """
    assert config.database is not None
    name = config.database.table or config.used_name
    connection = MongoConnection(config, name)
    try:
        with connection.collection() as collection:
            found = collection.find_one({}, projection=["_id"])
            what = "has documents" if found is not None else "has no documents yet"
            return f"{connection.shown}: connected; the collection {name} {what}"
    finally:
        connection.close()
