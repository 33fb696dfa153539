"""Packages that only some recorders need, and the commands that install them.

Nothing is imported here, so asking costs little. Not for: other extras (whatever needs one says
so), how a package is used.
"""

from __future__ import annotations

import ctypes.util
import importlib.util
import sys
from collections.abc import Iterator

from appliance.config.database_url import dialect, is_mongodb
from appliance.config.tables import Config, RecorderConfig

_DRIVERS = {
    "postgresql": "psycopg",
    "mysql": "pymysql",
    "mariadb": "pymysql",
    "mssql": "pyodbc",
    "oracle": "oracledb",
}
"""The driver that each database is opened with if the address names none."""
_MODULES = {"mysqldb": "MySQLdb", "mariadbconnector": "mariadb", "pysqlite": "sqlite3"}
"""Modules of drivers with another name."""
_IN_EXTRA = frozenset({"psycopg", "pymysql", "sqlalchemy"})


def extra_problems(config: Config) -> Iterator[str]:
    """The packages that recorders need and that are not installed, one line each."""
    for number, recorder in enumerate(config.recorder, 1):
        for key, what, module, install in _needed(recorder):
            if module == "psycopg" and _lacks_libpq():
                yield (
                    f"[[recorder]] {number} `{key}`: {what} needs the library libpq on this "
                    "machine (Debian: apt install libpq5, RHEL: dnf install libpq; Windows: "
                    "libpq.dll of PostgreSQL in PATH)"
                )
            elif _is_missing(module):
                yield f"[[recorder]] {number} `{key}`: {what} needs {module}; {_install(install)}"


def _needed(recorder: RecorderConfig) -> Iterator[tuple[str, str, str, str]]:
    """Key, what needs the module, the module, and what installs it."""
    if recorder.format == "parquet" and recorder.database is None:
        yield "format", '"parquet"', "pyarrow", "qlik-mqtt-appliance[parquet]"
    if recorder.compression == "zstd":
        yield "compression", '"zstd"', "zstandard", "qlik-mqtt-appliance[zstd]"
    if recorder.database is None:
        return
    url = recorder.database.url
    name, driver = dialect(url)
    if is_mongodb(url):
        yield "database.url", "MongoDB", "pymongo", "qlik-mqtt-appliance[mongodb]"
        if name == "mongodb" and driver == "srv":
            yield "database.url", "mongodb+srv", "dns", "qlik-mqtt-appliance[mongodb]"
        return
    yield "database.url", "a database", "sqlalchemy", "qlik-mqtt-appliance[sql]"
    driver = driver or _DRIVERS.get(name, "")
    if driver:
        module = _MODULES.get(driver, driver)
        install = "qlik-mqtt-appliance[sql]" if module in _IN_EXTRA else module
        yield "database.url", f"{name}", module, install


def _lacks_libpq() -> bool:
    """Whether psycopg could not work: the packaged program has no libpq of its own."""
    if not getattr(sys, "frozen", False):
        return False
    return ctypes.util.find_library("libpq.dll" if sys.platform == "win32" else "pq") is None


def _is_missing(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is None
    except (ImportError, ValueError):  # a part of it is missing
        return True


def _install(what: str) -> str:
    if getattr(sys, "frozen", False):
        return (
            "the single-file program has it not: install the appliance with pip (docs/installing.md"
            f"), pip install '{what}'"
        )
    return f"run: pip install '{what}'"
