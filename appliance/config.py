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


class Duration(float):
    """Seconds. Written as ``"250ms"``, ``"10s"``, ``"15m"``, ``"2h"``, ``"30d"`` or ``"1h30m"``."""


class Size(int):
    """Bytes. Written as a number or ``"64KB"``, ``"1MiB"``, ``"10GB"`` (KB = 1000, KiB = 1024)."""


class TopicFilter(str):
    """A valid MQTT topic filter (MQTT 3.1.1, section 4.7)."""


class ReadPath(str):
    """A file that is read; relative to the config file's folder, absolute after loading."""


class WritePath(str):
    """A file that is written; relative to ``service.data_dir``, absolute after loading."""


class ServiceConfig(Base):
    name: str = "appliance"
    data_dir: str = "data"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    run_for: Duration | None = None


class TlsConfig(Base):
    certfile: ReadPath
    keyfile: ReadPath
    client_ca: ReadPath | None = None


class ListenerConfig(Base):
    name: str = ""
    bind: str = "127.0.0.1:1883"
    transport: Literal["tcp", "websocket"] = "tcp"
    tls: TlsConfig | None = None
    max_connections: int = 1000


class AccessRule(Base):
    user: str = "*"
    client_id: str = "*"
    publish: tuple[TopicFilter, ...] = ()
    subscribe: tuple[TopicFilter, ...] = ()


class AccessConfig(Base):
    anonymous: bool | None = None
    """``None``: allowed exactly while every listener is on loopback and there is no users file."""
    users_file: ReadPath | None = None
    rule: tuple[AccessRule, ...] = ()


class LimitsConfig(Base):
    max_packet_size: Size = Size(1024 * 1024)
    connect_timeout: Duration = Duration(10)
    max_connections: int = 2000
    max_connections_per_address: int = 500
    max_unauthenticated: int = 100
    max_subscriptions_per_client: int = 1000
    max_queued_per_client: int = 1000
    max_inflight_per_client: int = 100
    max_client_backlog: Size = Size(4 * 1024 * 1024)
    max_retained: int = 10000
    max_pending: Size = Size(64 * 1024 * 1024)
    """Bytes accepted and not yet committed; beyond it, publishers are slowed."""


class JournalConfig(Base):
    sync: Literal["always", "os"] = "always"
    keep: Duration = Duration(30 * 86400)
    max_size: Size = Size(10 * 1000**3)


class CertificateConfig(Base):
    certfile: ReadPath
    keyfile: ReadPath


class HeaderConfig(Base):
    name: str
    value: Secret | None = None


class QlikConfig(Base):
    edition: Literal["client-managed", "cloud", "simulated"]
    url: str = ""
    user: str = ""
    certificate: CertificateConfig | None = None
    header: HeaderConfig | None = None
    jwt: Secret | None = None
    jwt_file: ReadPath | None = None
    ntlm: bool = False
    password: Secret | None = None
    password_file: ReadPath | None = None
    api_key: Secret | None = None
    api_key_file: ReadPath | None = None
    client_id: str = ""
    client_secret: Secret | None = None
    client_secret_file: ReadPath | None = None
    ca_file: ReadPath | None = None
    timeout: Duration = Duration(30)
    max_concurrent: int = 4
    health_check: Duration = Duration(30)


class ByName(Base):
    name: str


class ByTag(Base):
    tag: str


class ByProperty(Base):
    property: str
    value: str


class ByApp(Base):
    app: str


Selector = ByName | ByTag | ByProperty | ByApp
"""Which task a trigger starts, when it is neither ``"payload"``, ``"topic"`` nor a GUID."""


class TriggerConfig(Base):
    topic: TopicFilter
    task: str | dict[str, str]
    """As written; ``selector`` is what it means."""
    name: str = ""
    when: dict[str, object] | None = None
    debounce: Duration | None = None
    debounce_max: Duration | None = None
    cooldown: Duration | None = None
    if_running: Literal["queue_one", "skip", "start"] = "queue_one"
    expire: Duration = Duration(86400)
    retry_for: Duration = Duration(86400)


class AllowConfig(Base):
    tasks: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    properties: tuple[ByProperty, ...] = ()


class RecorderConfig(Base):
    topic: TopicFilter
    path: WritePath
    format: Literal["json", "jsonl", "csv"] = "json"
    metadata: bool = False


class Config(Base):
    service: ServiceConfig = ServiceConfig()
    listener: tuple[ListenerConfig, ...] = (ListenerConfig(),)
    access: AccessConfig = AccessConfig()
    limits: LimitsConfig = LimitsConfig()
    journal: JournalConfig = JournalConfig()
    qlik: QlikConfig | None = None
    trigger: tuple[TriggerConfig, ...] = ()
    allow: AllowConfig = AllowConfig()
    recorder: tuple[RecorderConfig, ...] = ()
