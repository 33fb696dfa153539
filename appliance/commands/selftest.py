"""``appliance selftest``: checks that this installation is complete, for packages and support.

It does what the appliance does, in a temporary folder and on loopback: modules, data files and
codecs that are found by name only are asked for by name, a broker accepts a message, a recorder
writes it, a task of the simulated Qlik server is started, every screen is shown without a terminal.
Not for: a configuration (``appliance check``).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import importlib.metadata
import importlib.util
import json
import pkgutil
import platform
import socket
import sqlite3
import ssl
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import appliance
from appliance.broker.users import Users
from appliance.errors import EXIT_OK, EXIT_SOFTWARE, ConfigError

if TYPE_CHECKING:
    from appliance.engine.service import Appliance

# SQLite before 3.35 lacks what the journal uses (RETURNING); Python 3.11 may be built with it.
_LEAST_SQLITE = (3, 35)
_PATIENCE_S = 30.0
_PLUGINS = (
    "amqtt.contrib.auth_db.TopicAuthDBPlugin",
    "amqtt.contrib.auth_db.UserAuthDBPlugin",
    "amqtt.contrib.cert.UserAuthCertPlugin",
    "amqtt.contrib.http.TopicAuthHttpPlugin",
    "amqtt.contrib.http.UserAuthHttpPlugin",
    "amqtt.contrib.jwt.TopicAuthJwtPlugin",
    "amqtt.contrib.jwt.UserAuthJwtPlugin",
    "amqtt.plugins.logging_amqtt.EventLoggerPlugin",
    "amqtt.plugins.topic_checking.TopicAccessControlListPlugin",
)
_TASK = "5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b10"
_CONFIG = f"""
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:PORT"
[[listener]]
bind = "127.0.0.1:0"
transport = "websocket"
[http]
bind = "127.0.0.1:0"
[qlik]
edition = "simulated"
[[trigger]]
topic = "selftest/json"
task = "{_TASK}"
""" + "".join(
    f'[[recorder]]\ntopic = "selftest/#"\npath = "a.{each}"\nformat = "{each}"\n'
    for each in ("json", "jsonl", "csv")
)


def execute(options: argparse.Namespace) -> int:  # noqa: ARG001  every command has options
    """Do every check, also after a failure; the exit code tells whether all went well."""
    checks: tuple[tuple[str, Callable[[], str]], ...] = (
        ("program", _program),
        ("modules", _modules),
        ("files", _files),
        ("codecs", _codecs),
        ("journal", _journal),
        ("passwords", _passwords),
        ("TLS", _tls),
        ("timers", _timers),
        ("sign-ins", _sign_ins),
        ("notices", _notices),
        ("recorders", _recorders),
        ("plugins", _plugins),
        ("broker", _broker),
    )
    failures = 0
    for name, check in checks:
        try:
            text = check()
        except Exception as error:  # noqa: BLE001  any error is the result of the check
            failures += 1
            text = f"FAILED: {type(error).__name__}: {error}"
        sys.stdout.write(f"{name:<10} {text}\n")
        sys.stdout.flush()
    return EXIT_SOFTWARE if failures else EXIT_OK


def _program() -> str:
    python = f"Python {platform.python_version()}"
    return f"appliance {appliance.__version__}, {python}, {platform.platform()}"


_EXTRAS = {
    "appliance.demo.certificates": "cryptography",
    "appliance.recorders.bson_": "bson",
    "appliance.recorders.mongodb": "pymongo",
    "appliance.recorders.sql": "sqlalchemy",
    "appliance.web": "textual_serve",
}
"""Modules that need the package of an extra, by the beginnings of their names."""


def _modules() -> str:
    names = [
        each.name
        for each in pkgutil.walk_packages(appliance.__path__, "appliance.")
        if not each.name.endswith("__main__") and not _lacks_extra(each.name)
    ]
    # Modules that libraries import by name at run time.
    plugins = ("authentication", "persistence", "topic_checking")
    names += [f"amqtt.plugins.{each}" for each in plugins]
    for name in names:
        importlib.import_module(name)
    widgets = importlib.import_module("textual.widgets")
    for name in widgets.__all__:
        getattr(widgets, name)
    importlib.metadata.version("amqtt")
    return f"{len(names)} load, {len(widgets.__all__)} widgets"


def _lacks_extra(module: str) -> bool:
    """Whether the module is for an extra that is not installed.

    A packaged program has the extras of all modules that are in it.
    """
    if getattr(sys, "frozen", False):
        return False
    needed = (package for head, package in _EXTRAS.items() if module.startswith(head))
    return any(importlib.util.find_spec(package) is None for package in needed)


def _files() -> str:
    wanted = ("config/example.toml", "demo/demo.toml", "ui/appliance.tcss")
    sizes = [len(resources.files("appliance").joinpath(each).read_bytes()) for each in wanted]
    if not all(sizes):
        raise RuntimeError("a file is empty")
    return ", ".join(wanted)


def _plugins() -> str:
    """Those of amqtt that a packaged program carries; elsewhere, those that are installed."""
    from appliance.broker.plugin_classes import find_class  # noqa: PLC0415  it imports amqtt

    found = []
    for name in _PLUGINS:
        try:
            found.append(find_class(name).__name__)
        except ConfigError:
            if getattr(sys, "frozen", False):
                raise
    return f"{len(found)} of {len(_PLUGINS)} load"


def _codecs() -> str:
    names = ("utf-8", "utf-16", "latin-1", "cp1252", "cp850", "cp437", "ascii")
    for name in names:
        if "MQTT".encode(name).decode(name) != "MQTT":
            raise RuntimeError(f"{name} does not decode what it encoded")
    if "büro.example".encode("idna") != b"xn--bro-hoa.example":
        raise RuntimeError("idna")
    return ", ".join((*names, "idna"))


def _journal() -> str:
    if sqlite3.sqlite_version_info < _LEAST_SQLITE:
        raise RuntimeError(f"SQLite {sqlite3.sqlite_version} is too old; 3.35 is needed")
    with tempfile.TemporaryDirectory() as folder:
        connection = sqlite3.connect(Path(folder) / "journal.db")
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            connection.execute("CREATE TABLE message (seq INTEGER PRIMARY KEY, body BLOB)")
            row = connection.execute("INSERT INTO message (body) VALUES (x'00') RETURNING seq")
            (seq,) = row.fetchone()
            connection.commit()
        finally:
            connection.close()
    if (mode, seq) != ("wal", 1):
        raise RuntimeError(f"SQLite answered {mode!r}, {seq!r}")
    return f"SQLite {sqlite3.sqlite_version}, writes in {tempfile.gettempdir()}"


def _passwords() -> str:
    with tempfile.TemporaryDirectory() as folder:
        users = Users(Path(folder) / "users.txt")
        users.add("somebody", b"secret")
        if not users.verify("somebody", b"secret") or users.verify("somebody", b"other"):
            raise RuntimeError("a password is not told from another")
    return "argon2id"


def _tls() -> str:
    import certifi  # noqa: PLC0415  as the other libraries here: the check says if it is missing

    if not (ssl.HAS_TLSv1_2 and ssl.HAS_TLSv1_3):
        raise RuntimeError("TLS 1.2 or 1.3 is missing")
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    system = len(ssl.create_default_context().get_ca_certs())
    bundle = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bundle.load_verify_locations(certifi.where())
    carried = len(bundle.get_ca_certs())
    if not carried:
        raise RuntimeError("the bundle of authorities is empty")
    return f"{ssl.OPENSSL_VERSION}, {carried} authorities carried, {system} in the system's store"


def _timers() -> str:
    from zoneinfo import ZoneInfo  # noqa: PLC0415

    from cronsim import CronSim  # noqa: PLC0415

    begin = datetime(2026, 1, 1, tzinfo=UTC).astimezone(ZoneInfo("Europe/Berlin"))
    due = next(CronSim("30 6 * * MON-FRI", begin))
    if due.isoformat() != "2026-01-01T06:30:00+01:00":
        raise RuntimeError(f"a schedule says {due.isoformat()}")
    return "schedules and time zones"


def _sign_ins() -> str:
    requests = importlib.import_module("requests")
    kinds = ["certificate", "header", "JWT", "API key", "OAuth"]
    if importlib.util.find_spec("requests_ntlm") is not None:
        importlib.import_module("requests_ntlm").HttpNtlmAuth("D\\u", "p")
        kinds.append("NTLM")
    elif getattr(sys, "frozen", False):
        raise RuntimeError("NTLM is missing in this program")
    return f"requests {requests.__version__}: {', '.join(kinds)}"


def _notices() -> str:
    if importlib.util.find_spec("apprise") is None:
        if getattr(sys, "frozen", False):
            raise RuntimeError("the library for [[notify]] is missing in this program")
        return "none; [[notify]] needs: pip install 'qlik-mqtt-appliance[notify]'"
    found = importlib.import_module("apprise").Apprise()
    # No message is sent: the services only have to know their addresses.
    for url in ("mailto://u:p@example.com", "json://127.0.0.1", "ntfy://topic"):
        if not found.add(url):
            raise RuntimeError(f"the scheme {url.partition(':')[0]} is not known")
    return f"{len(found.details()['schemas'])} services"


def _recorders() -> str:
    """What recorders can write besides text and QVD.

    A packaged program has all but Parquet; PostgreSQL needs the library libpq of the machine.
    """
    kinds: dict[str, Callable[[], object]] = {
        "zstd": _zstd,
        "PostgreSQL": lambda: importlib.import_module("psycopg").pq.__impl__,
        "MariaDB": lambda: importlib.import_module("pymysql").connect,
        "SQLite": _sqlite,
        "MongoDB": lambda: importlib.import_module("bson").encode({"seq": 1}),
        "Parquet": lambda: importlib.import_module("pyarrow.parquet"),
    }
    found = []
    for name, check in kinds.items():
        try:
            check()
        except ImportError:
            if getattr(sys, "frozen", False) and name not in ("Parquet", "PostgreSQL"):
                raise
        else:
            found.append(name)
    return f"QVD, {', '.join(found)}" if found else "QVD"


def _zstd() -> None:
    zstandard = importlib.import_module("zstandard")
    if zstandard.decompress(zstandard.compress(b"selftest")) != b"selftest":
        raise RuntimeError("zstd gives other bytes")


def _sqlite() -> None:
    sqlalchemy = importlib.import_module("sqlalchemy")
    for dialect in ("mysql", "postgresql", "sqlite"):
        importlib.import_module(f"sqlalchemy.dialects.{dialect}")
    with sqlalchemy.create_engine("sqlite://").connect() as connection:
        connection.execute(sqlalchemy.text("SELECT 1"))


def _broker() -> str:
    """The whole way of a message, then the UI over the appliance that carried it."""
    from appliance.config.reading import load  # noqa: PLC0415
    from appliance.engine.service import Appliance  # noqa: PLC0415
    from appliance.http_api.server import attach  # noqa: PLC0415

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "config.toml"
        port = _free_port()
        path.write_text(_CONFIG.replace("PORT", str(port)), "utf-8")
        running = Appliance(load(path))
        http = attach(running)
        running.start()
        try:
            _carry(running, port)
            _ask("" if http is None else http.address)
            screens = asyncio.run(_show(running))
        finally:
            running.stop()
            running.wait(_PATIENCE_S)
        for name, lines in (("a.json", None), ("a.jsonl", 2), ("a.csv", 3)):
            text = (Path(folder) / "data" / name).read_text("utf-8")
            if lines is None:
                if json.loads(text) != [{"n": 1}, {"n": 1}]:
                    raise RuntimeError(f"{name} has {text!r}")
            elif text.count("\n") != lines:
                raise RuntimeError(f"{name} has {text!r}")
    return f"messages recorded as json, jsonl and csv, a task started, {screens} screens shown"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _carry(running: Appliance, port: int) -> None:
    from appliance.engine.view import View  # noqa: PLC0415
    from appliance.mqtt.client import Client, Target  # noqa: PLC0415
    from appliance.ops.metrics import exposition  # noqa: PLC0415

    for qos in (1, 2):
        with Client(Target("127.0.0.1", port, f"selftest-{qos}")) as client:
            client.publish("selftest/json", b'{"n": 1}', qos=qos, retain=qos == 2)
    view = View(running)
    _until(lambda: all(each.recorded == 2 for each in running.recorders.states()), "a recording")
    _until(lambda: any(each.started_ns for each in view.snapshot().executions), "a task's start")
    if b"appliance_messages_received_total" not in exposition(view.snapshot()):
        raise RuntimeError("the metrics are empty")


def _ask(address: str) -> None:
    """The HTTP port, whose server is loaded only with it."""
    import http.client  # noqa: PLC0415

    asked = http.client.HTTPConnection(address, timeout=_PATIENCE_S)
    for path in ("/metrics", "/openapi.json"):
        asked.request("GET", path)
        with asked.getresponse() as answer:
            if answer.status != 200 or not answer.read():
                raise RuntimeError(f"the HTTP port answered {path} with {answer.status}")
    asked.close()


def _until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + _PATIENCE_S
    while not holds():
        if time.monotonic() > end:
            raise RuntimeError(f"{what} did not come in {_PATIENCE_S:.0f} s")
        time.sleep(0.02)


async def _show(running: Appliance) -> int:
    from appliance.engine.view import View  # noqa: PLC0415
    from appliance.ui.app import ApplianceApp  # noqa: PLC0415

    app = ApplianceApp(View(running))
    shown = set()
    async with app.run_test(size=(100, 30)) as pilot:
        for key in (
            "1",
            "2",
            "3",
            "4",
            "5",
            "6",
            "question_mark",
            "escape",
            "1",
            "n",
            "escape",
            "t",
        ):
            await pilot.press(key)
            await pilot.pause()
            shown.add(type(app.screen).__name__)
        with contextlib.suppress(Exception):
            await pilot.press("escape")
    if len(shown) < 6:
        raise RuntimeError(f"only these screens came: {', '.join(sorted(shown))}")
    return len(shown)
