"""Which changes of a configuration take effect in a running appliance.

Every key takes effect at once, except the keys of ``RESTART``. Each of those has a reason, which
the answer to a reload shows. docs/configuration.md shows this table. Not for: reading the file
(reading.py) or applying a change (engine/reload.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import msgspec

from appliance.config.checks import brackets
from appliance.config.tables import (
    BridgeConfig,
    Config,
    ListenerConfig,
    MetricsConfig,
    QlikConfig,
    Table,
    UiConfig,
)

TableT = TypeVar("TableT", bound=Table)

_SOCKET = "clients are connected to the open socket"
_SERVER = "the appliance is signed in there, and follows runs"
_UI = "the terminal is set up with it"
_PORT = "the monitoring port is open"
_HTTP = "the HTTP port is open"
_PLUGINS = "plugins are loaded at the start, and hold connections of their own"

RESTART: Mapping[str, Mapping[str, str]] = {
    "service": {
        "name": "its topics, sessions and outcomes are under way by this name",
        "data_dir": "the databases in it are open",
        "log_format": "the log is open in its form",
        "event_log": "it is opened with the log",
        "umask": "files are open",
        "run_for": "it counts from the start",
        "will_grace": "it counts from the start",
    },
    "listener": {
        "name": _SOCKET,
        "bind": _SOCKET,
        "transport": _SOCKET,
        "tls": _SOCKET,
        "allow_mqtt31": _SOCKET,
    },
    "access": {"plugins": _PLUGINS},
    "journal": {"sync": "the database is open in this mode"},
    "qlik": {
        field.name: _SERVER
        for field in msgspec.structs.fields(QlikConfig)
        if field.name not in ("other_appliances", "keep_script_logs")
    },
    "ui": {field.name: _UI for field in msgspec.structs.fields(UiConfig)},
    "http": {"bind": _HTTP, "tls": _HTTP, "butler": "the port answers these calls, or not"},
    "metrics": {field.name: _PORT for field in msgspec.structs.fields(MetricsConfig)},
}
"""Table, key, and the reason why a change waits for the next start."""


class Change(msgspec.Struct, frozen=True):
    """One difference between two configurations."""

    where: str
    """As in the file: ``[limits] max_retained``, ``[[trigger]]``."""
    waits: str = ""
    """Why the change takes effect at the next start; empty: at once."""


def counts_at_once(table: str, key: str) -> bool:
    """Whether a change of a key (``"limits"``, ``"max_retained"``) needs no restart."""
    return key not in RESTART.get(table, {})


def changes(before: Config, after: Config) -> tuple[Change, ...]:
    """Every difference, in the order of the tables."""
    return tuple(_changes(before, after))


def _changes(before: Config, after: Config) -> Iterator[Change]:
    for field in msgspec.structs.fields(Config):
        table = field.name
        old, new = getattr(before, table), getattr(after, table)
        if old == new or table == "file":
            continue
        if table == "listener":
            yield from _changes_by_name("listener", old, new, "sockets are opened at the start")
        elif table == "bridge":
            yield from _changes_by_name("bridge", old, new)
        elif isinstance(old, Table) and isinstance(new, Table):
            for key in _differing(old, new):
                inner = table == "access" and key in ("rule", "plugins")
                where = f"[[access.{key}]]" if inner else f"{brackets(table)} {key}"
                yield _change(where, table, key)
        elif table == "recorder" and before.service.data_dir != after.service.data_dir:
            yield Change("[[recorder]]", "its paths count from data_dir, which waits")
        elif table in RESTART:  # one of them is None: the whole table came or went
            yield Change(brackets(table), next(iter(RESTART[table].values())))
        else:
            yield Change(brackets(table))


def _changes_by_name(
    table: str,
    before: Sequence[BridgeConfig | ListenerConfig],
    after: Sequence[BridgeConfig | ListenerConfig],
    waits: str = "",
) -> Iterator[Change]:
    """The differences of a table that comes more than once; ``waits``: of one that came or went."""
    old = {each.name: each for each in before}
    new = {each.name: each for each in after}
    for name in [*old, *(each for each in new if each not in old)]:
        where = f"{brackets(table)} {name}"
        if name in old and name in new:
            for key in _differing(old[name], new[name]):
                yield _change(f"{where} {key}", table, key)
        else:
            yield Change(f"{where} ({'is new' if name in new else 'is gone'})", waits)


def _differing(old: Table, new: Table) -> list[str]:
    return [key for key in old.__struct_fields__ if getattr(old, key) != getattr(new, key)]


def _change(where: str, table: str, key: str) -> Change:
    return Change(where, RESTART.get(table, {}).get(key, ""))


def with_changes_at_once(running: Config, new: Config) -> Config:
    """The running configuration, with the changes of the new one that take effect at once."""
    tables: dict[str, object] = {}
    for field in msgspec.structs.fields(Config):
        table = field.name
        old, wanted = getattr(running, table), getattr(new, table)
        if table == "recorder" and running.service.data_dir != new.service.data_dir:
            continue
        if table == "listener":
            tables[table] = tuple(_listener_with_changes(each, new.listener) for each in old)
        elif table == "file" or old is None or wanted is None:
            tables[table] = old
        elif isinstance(old, Table):
            tables[table] = _mixed(table, old, wanted)
        else:
            tables[table] = wanted
    return msgspec.structs.replace(running, **tables)


def _listener_with_changes(
    running: ListenerConfig, new: tuple[ListenerConfig, ...]
) -> ListenerConfig:
    same = [each for each in new if each.name == running.name]
    return _mixed("listener", running, same[0]) if same else running


def _mixed(table: str, running: TableT, new: TableT) -> TableT:
    at_once = [key for key in running.__struct_fields__ if counts_at_once(table, key)]
    return msgspec.structs.replace(running, **{key: getattr(new, key) for key in at_once})
