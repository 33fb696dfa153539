"""The configuration: TOML in, frozen objects out.

An error names the file, the key, the value and the way to mend it; unknown keys are errors with
a suggestion. Defaults are safe as they stand. docs/configuration.md lists every key.
Not for: opening anything that a key names (certificates, users file, ports).
"""

from __future__ import annotations

from typing import Literal

import msgspec


class Base(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every table of the configuration has in common."""


class Secret:
    """A secret in memory. Its text form is ``***``; ``reveal()`` gives the value."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __bool__(self) -> bool:
        return bool(self._value)


class ServiceConfig(Base):
    name: str = "appliance"
    data_dir: str = "data"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    run_for: str | None = None


class TlsConfig(Base):
    certfile: str
    keyfile: str
    client_ca: str | None = None


class ListenerConfig(Base):
    name: str = ""
    bind: str = "127.0.0.1:1883"
    transport: Literal["tcp", "websocket"] = "tcp"
    tls: TlsConfig | None = None
    max_connections: int = 1000
