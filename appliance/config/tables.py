"""Every table and key of the configuration, with its type, default and meaning.

The text below a key is its documentation: scripts/document-config makes docs/configuration.md of
it. Not for: converting TOML (decoder.py) or rules about several keys at once (checks.py).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from appliance.config.values import (
    Bounds,
    Duration,
    Example,
    FolderPath,
    ReadPath,
    Size,
    TopicFilter,
    WritePath,
    is_loopback,
    parse_bind,
)
from appliance.secret import Secret


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What every table of the configuration has in common."""


class ServiceConfig(Table, frozen=True):
    """The process as a whole."""

    name: Annotated[str, Example('"plant-7"')] = "appliance"
    """The name of this appliance. It is the first level of the topics that it publishes itself:
    `<name>/status`, `<name>/tasks/...`."""
    data_dir: Annotated[FolderPath, Example('"/var/lib/appliance"')] = FolderPath("data")
    """The folder for the journal, recordings and logs; made when it does not exist. One appliance
    at a time may use it."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe kind of log line that is written."""
    log_format: Literal["text", "json"] = "text"
    """How a log line is written: for people, or as one JSON object for a log collector. Under
    systemd, text lines carry their severity for the system's journal."""
    run_for: Annotated[Duration | None, Bounds(0.001), Example('"8h"')] = None
    """Stop in good order after this time. Without it the appliance runs until it is stopped.
    `--run-for` on the command line goes first."""


class TlsConfig(Table, frozen=True):
    """TLS for a listener."""

    certfile: Annotated[ReadPath, Example('"server.pem"')]
    """The listener's certificate, PEM, followed by the certificates between it and the root."""
    keyfile: Annotated[ReadPath, Example('"server_key.pem"')]
    """The private key that belongs to it, PEM, without a passphrase."""
    client_ca: Annotated[ReadPath | None, Example('"clients.pem"')] = None
    """If it is given, a client must show a certificate that one of these authorities (PEM)
    signed."""


class ListenerConfig(Table, frozen=True):
    """An address at which publishers and subscribers connect. May come more than once."""

    name: Annotated[str, Example('"machines"')] = ""
    """What the UI and the log call it; by default `mqtt`, `mqtts`, `ws` or `wss`."""
    bind: Annotated[str, Example('"0.0.0.0:8883"')] = "127.0.0.1:1883"
    """Address and port. `0.0.0.0` is every IPv4 address of the machine, `[::]` every IPv6
    address; port 0 takes a free one."""
    transport: Literal["tcp", "websocket"] = "tcp"
    """`websocket` is for clients in a browser (path `/` or `/mqtt`, subprotocol `mqtt`)."""
    tls: TlsConfig | None = None
    """With it, the listener speaks TLS (1.2 or newer) only."""
    max_connections: Annotated[int, Bounds(1, 1_000_000)] = 1000
    """Connections to this listener at one time; one more is refused (counter `connections
    refused: limit on the listener`)."""


class AccessRule(Table, frozen=True):
    """What some users may do.

    A client may do what any rule that fits it allows; without any rule, whoever may connect may
    publish and subscribe everywhere.
    """

    user: Annotated[str, Example('"plc-*"')] = "*"
    """User names that the rule is about; `*` stands for any characters."""
    client_id: Annotated[str, Example('"press-*"')] = "*"
    """Client ids that the rule is about; `*` stands for any characters."""
    publish: Annotated[tuple[TopicFilter, ...], Example('["plant/%u/#"]')] = ()
    """Topic filters that may be published to; `%u` is the user's name, `%c` the client id."""
    subscribe: Annotated[tuple[TopicFilter, ...], Example('["plant/#"]')] = ()
    """Topic filters that may be subscribed to, in the same form."""


class AccessConfig(Table, frozen=True):
    """Who may connect and what they may do."""

    anonymous: bool | None = None
    """Whether clients may connect without a name and password. By default they may exactly while
    every listener is on loopback and there is no users file."""
    users_file: Annotated[ReadPath | None, Example('"users.txt"')] = None
    """Names and hashed passwords, written by `appliance user add NAME`. A change is noticed
    without a restart."""
    operators: Annotated[tuple[str, ...], Example('["admin"]')] = ()
    """Users who may look and act from another terminal (`appliance attach`); `*` stands for any
    characters. While there is no users file, whoever is on this machine may."""
    viewers: Annotated[tuple[str, ...], Example('["anna", "screen-*"]')] = ()
    """Users who may look from another terminal and not act."""
    rule: tuple[AccessRule, ...] = ()
    """See `[[access.rule]]`."""


class LimitsConfig(Table, frozen=True):
    """Bounds that keep one client from harming the others.

    Each has a counter of how often it bit: on the UI's screen 4, in `<name>/status` and in
    `/metrics`.
    """

    max_packet_size: Annotated[Size, Bounds(1024, 256 * 1024 * 1024), Example('"256KiB"')] = Size(
        1024 * 1024
    )
    """The largest MQTT packet; a larger one ends the connection before it is read (counter
    `connections ended: packet too large`)."""
    connect_timeout: Annotated[Duration, Bounds(0.1, 3600)] = Duration(10)
    """How long a new connection may take until its CONNECT packet is complete (counter
    `connections ended: no CONNECT in time`)."""
    max_keepalive: Annotated[Duration, Bounds(0, 65535)] = Duration(0)
    """The longest keepalive of an MQTT 5 client: one that asks for a longer one or for none is told
    to use this (counter `connections ended: silent`). `0s`: as the client asks. The operating
    system finds out about a machine that vanished within two minutes in any case."""
    max_connections: Annotated[int, Bounds(1, 1_000_000)] = 2000
    """Connections to all listeners together (counter `connections refused: limit in all`)."""
    max_connections_per_address: Annotated[int, Bounds(1, 1_000_000)] = 500
    """Connections from one IP address (counter `connections refused: limit per address`)."""
    max_unauthenticated: Annotated[int, Bounds(1, 1_000_000)] = 100
    """Connections that have not yet shown who they are (counter `connections refused: limit not
    yet authenticated`)."""
    max_sessions: Annotated[int, Bounds(1, 10_000_000)] = 10000
    """Sessions, those of clients that are away among them. Beyond it, only clients that ask for no
    lasting session come in (counter `connections refused: limit of sessions`)."""
    max_subscriptions_per_client: Annotated[int, Bounds(1, 1_000_000)] = 1000
    """Topic filters that one client may subscribe to (counter `subscriptions refused: limit
    reached`)."""
    max_queued_per_client: Annotated[int, Bounds(1, 10_000_000)] = 1000
    """Messages that wait for a client that is away or slow; beyond it, the oldest is dropped
    (counter `deliveries dropped: queue full`)."""
    max_inflight_per_client: Annotated[int, Bounds(1, 65535)] = 100
    """Messages that were sent to a client and that it has not yet acknowledged; beyond it, the
    next ones wait (counter `deliveries held: too many unacknowledged`)."""
    max_client_backlog: Annotated[Size, Bounds(65536)] = Size(4 * 1024 * 1024)
    """Bytes that wait to be sent to one slow client; beyond it, messages at QoS 0 are dropped
    (counter `deliveries dropped: slow subscriber`), the others count as those of
    `max_queued_per_client`."""
    max_retained: Annotated[int, Bounds(0, 10_000_000)] = 10000
    """Topics that have a retained message (counter `retained messages refused: limit reached`)."""
    max_retained_size: Annotated[Size, Bounds(65536)] = Size(64 * 1024 * 1024)
    """Bytes of all retained messages together (payload, topic, properties, and 128 for each); one
    that does not fit is delivered, but not retained, nor is the one before it any longer (counter
    `retained messages refused: limit reached`)."""
    max_pending: Annotated[Size, Bounds(65536)] = Size(64 * 1024 * 1024)
    """Bytes accepted and not yet committed; beyond it, publishers are slowed (counter
    `publishers slowed: journal behind`)."""


class JournalConfig(Table, frozen=True):
    """The durable record of every accepted message."""

    sync: Literal["always", "os"] = "always"
    """When a message counts as kept, so that it is acknowledged: `always`: it is on disk; `os`:
    the operating system has it, so it survives a killed process but not a power failure."""
    keep: Annotated[Duration, Bounds(60), Example('"7d"')] = Duration(30 * 86400)
    """How long messages stay in the journal."""
    max_size: Annotated[Size, Bounds(1000**2), Example('"2GB"')] = Size(10 * 1000**3)
    """The journal's largest size on disk; beyond it, the oldest messages are removed."""


class CertificateConfig(Table, frozen=True):
    """A client certificate that the appliance shows to Qlik."""

    certfile: Annotated[ReadPath, Example('"client.pem"')]
    """The certificate that the QMC exports, PEM (`client.pem`)."""
    keyfile: Annotated[ReadPath, Example('"client_key.pem"')]
    """Its private key (`client_key.pem`)."""


class HeaderConfig(Table, frozen=True):
    """A header by which a virtual proxy knows the user."""

    name: Annotated[str, Example('"hdr-usr"')]
    """The header's name, as the virtual proxy has it."""
    value: Annotated[Secret | None, Example('"${QLIK_HEADER}"')] = None
    """Its value; by default `user`."""


class QlikConfig(Table, frozen=True):
    """The Qlik server on which tasks are started. Choose one way to sign in.

    A secret is written as `password_file = "..."` (a file that holds nothing else), as
    `password = "${NAME}"` (an environment variable) or plainly.
    """

    edition: Literal["client-managed", "cloud", "simulated"]
    """`client-managed` is Qlik Sense Enterprise on Windows; `simulated` is a stand-in within the
    appliance, for trying things out."""
    url: Annotated[str, Example('"https://sense.example.com:4242"')] = ""
    """The server's address: port 4242 with a certificate; otherwise that of the virtual proxy
    with its prefix; in Qlik Cloud that of the tenant. `http://` is accepted for a loopback
    address only."""
    user: Annotated[str, Example(r"'INTERNAL\sa_repository'")] = ""
    """For whom tasks are started: directory, backslash, name; in single quotes."""
    certificate: CertificateConfig | None = None
    """Sign in with a certificate that the QMC exported."""
    header: Annotated[HeaderConfig | None, Example('{name = "hdr-usr"}')] = None
    """Sign in through a virtual proxy with header authentication."""
    jwt: Annotated[Secret | None, Example('"${QLIK_JWT}"')] = None
    """Sign in through a virtual proxy with this JSON Web Token."""
    jwt_file: Annotated[ReadPath | None, Example('"jwt.txt"')] = None
    """The same, from a file."""
    ntlm: bool = False
    """Sign in with a Windows account, `user` and `password`."""
    password: Annotated[Secret | None, Example('"${QLIK_PASSWORD}"')] = None
    """The password of `user`, for NTLM."""
    password_file: Annotated[ReadPath | None, Example('"password.txt"')] = None
    """The same, from a file."""
    api_key: Annotated[Secret | None, Example('"${QLIK_API_KEY}"')] = None
    """Qlik Cloud: an API key."""
    api_key_file: Annotated[ReadPath | None, Example('"api_key.txt"')] = None
    """The same, from a file."""
    client_id: Annotated[str, Example('"0a1b2c"')] = ""
    """Qlik Cloud: the id of an OAuth client."""
    client_secret: Annotated[Secret | None, Example('"${QLIK_CLIENT_SECRET}"')] = None
    """Qlik Cloud: its secret."""
    client_secret_file: Annotated[ReadPath | None, Example('"client_secret.txt"')] = None
    """The same, from a file."""
    ca_file: Annotated[ReadPath | None, Example('"root.pem"')] = None
    """The authority that signed the server's certificate (`root.pem` of the QMC's export); by
    default those that browsers trust."""
    timeout: Annotated[Duration, Bounds(0.1, 3600)] = Duration(30)
    """How long the server may take to answer one call."""
    max_concurrent: Annotated[int, Bounds(1, 64)] = 4
    """Calls to the server at one time."""
    max_running: Annotated[int | None, Bounds(1, 10_000), Example("5")] = None
    """Runs that the appliance has going on at one time; by default the server's scheduler
    decides."""
    health_check: Annotated[Duration, Bounds(1, 86400)] = Duration(30)
    """How often the server is asked whether it is there."""


class ByName(Table, frozen=True):
    """Tasks that have this name."""

    name: str


class ByTag(Table, frozen=True):
    """Tasks that have this tag."""

    tag: str


class ByProperty(Table, frozen=True):
    """Tasks whose custom property has this value."""

    property: str
    value: str


class ByApp(Table, frozen=True):
    """The app that is reloaded (Qlik Cloud)."""

    app: str


Selector = ByName | ByTag | ByProperty | ByApp
"""Which task a trigger starts, when it is neither ``"payload"``, ``"topic"`` nor a GUID."""


class TriggerConfig(Table, frozen=True):
    """A rule that turns a message into task starts. May come more than once."""

    topic: Annotated[TopicFilter, Example('"qliksense/start_task"')]
    """Messages that the rule is about."""
    task: Annotated[str | dict[str, str], Example('{name = "Reload Sales"}')]
    """What is started: `"payload"`: what the payload names; `"topic"`: what the level of the topic
    at the filter's `+` names; a task id; or `{name = "..."}`, `{tag = "..."}`,
    `{property = "...", value = "..."}` and, in Qlik Cloud, `{app = "..."}`."""
    name: Annotated[str, Example('"press reports a finished order"')] = ""
    """What the UI and the log call the rule; by default its topic filter."""
    when: Annotated[dict[str, object] | None, Example('{state = "done"}')] = None
    """Conditions on the fields of a JSON payload; the rule applies when all hold."""
    debounce: Annotated[Duration | None, Bounds(0.001, 86400), Example('"30s"')] = None
    """Start only after no further message came for this long; all of them make one start."""
    debounce_max: Annotated[Duration | None, Bounds(0.001), Example('"10m"')] = None
    """Start at the latest this long after the first message, even if more keep coming."""
    cooldown: Annotated[Duration | None, Bounds(0.001), Example('"15m"')] = None
    """At most one start in this time; a request in between is carried out at its end."""
    if_running: Literal["queue_one", "skip", "start"] = "queue_one"
    """What happens when the task runs already: `queue_one`: one more run after this one, however
    many messages came; `skip`: nothing; `start`: Qlik is asked anyway."""
    expire: Annotated[Duration, Bounds(1)] = Duration(86400)
    """A request older than this is not carried out any more."""
    retry_for: Annotated[Duration, Bounds(0)] = Duration(86400)
    """How long a start is tried again while the server is out of reach."""

    @property
    def selector(self) -> Selector | str:
        """What ``task`` means: a selector, ``"payload"``, ``"topic"`` or a task id (lower case)."""
        if isinstance(self.task, str):
            return self.task if self.task in ("payload", "topic") else self.task.strip("{}").lower()
        for kind in (ByName, ByTag, ByProperty, ByApp):
            if set(self.task) == set(kind.__struct_fields__):
                return kind(**self.task)
        raise ValueError(f"task = {self.task!r} names no way to find a task")


class AllowConfig(Table, frozen=True):
    """What may be started at all, by messages, timers and operators alike.

    A task may be started if one of these lists has it; with all lists empty, every task may.
    """

    tasks: Annotated[tuple[str, ...], Example('["2ce4dc25-9d8c-4d0c-8e57-7d0bd4a7ea34"]')] = ()
    """Task ids."""
    names: Annotated[tuple[str, ...], Example('["Reload Sales"]')] = ()
    """Task names."""
    tags: Annotated[tuple[str, ...], Example('["mqtt"]')] = ()
    """Tags."""
    properties: Annotated[
        tuple[ByProperty, ...], Example('[{property = "StartBy", value = "mqtt"}]')
    ] = ()
    """Custom properties with their value."""


class RecorderConfig(Table, frozen=True):
    """A file that messages are written to. May come more than once."""

    topic: Annotated[TopicFilter, Example('"/demo/integers"')]
    """Messages that are recorded."""
    path: Annotated[WritePath, Example('"recordings/integers.json"')]
    """The file; its folders are made when they do not exist. A folder is refused, and so is a file
    that the appliance keeps or reads itself."""
    format: Literal["json", "jsonl", "csv"] = "json"
    """`json`: one array, valid at any moment; `jsonl`: one JSON value a line; `csv`: one row a
    message."""
    metadata: bool = False
    """Whether time, topic, client and the like are recorded beside the payload."""


class PublishConfig(Table, frozen=True):
    """A message that a timer publishes."""

    topic: Annotated[str, Example('"plant/tick"')]
    """Where it is published."""
    payload: Annotated[str, Example('"now"')] = ""
    """What it says."""
    retain: bool = False
    """Whether the broker keeps it for later subscribers."""


class TimerConfig(Table, frozen=True):
    """Something that happens by itself at a time. May come more than once.

    It has one of `cron`, `every` and `silence`, and a `task`, a `publish` or both; a silence watch
    needs neither.
    """

    name: Annotated[str, Example('"nightly"')]
    """What the UI, the log and topics call it: letters, digits, blanks, `-`, `_` and `.`."""
    cron: Annotated[str | None, Example('"30 6 * * MON-FRI"')] = None
    """When: minute, hour, day of month, month, day of week."""
    timezone: Annotated[str, Example('"Europe/Berlin"')] = "UTC"
    """The time zone that `cron` is meant in, by its IANA name."""
    every: Annotated[Duration | None, Bounds(1), Example('"15m"')] = None
    """Instead of `cron`: once in this time, counted from when the timer was first configured."""
    silence: Annotated[Duration | None, Bounds(1), Example('"10m"')] = None
    """Instead of `cron`: an alarm when no message came on `topic` for this long."""
    topic: Annotated[str | None, Example('"plant/7/#"')] = None
    """With `silence`: the topic filter of the messages that are awaited."""
    task: Annotated[str | dict[str, str] | None, Example('{name = "Reload Sales"}')] = None
    """What is started: a task id or `{name = ...}`, `{tag = ...}`, `{property = ..., value = ...}`,
    `{app = ...}`."""
    publish: Annotated[PublishConfig | None, Example('{topic = "plant/tick"}')] = None
    """What is published."""
    catch_up: bool = False
    """Whether a time that passed while the appliance was down is made up for, once, at its
    start."""


class UiConfig(Table, frozen=True):
    """The terminal UI."""

    theme: Annotated[str, Example('"appliance-light"')] = ""
    """The colours, by the name that the command palette (Ctrl+P) has for them; by default those
    that were chosen last."""
    keys: Annotated[dict[str, str] | None, Example('{pause = "f5", quit = "q,f10"}')] = None
    """Other keys for what the UI can do: the action's name, and the keys with commas between them.
    """
    on_hangup: Literal["stop", "continue"] = "stop"
    """What the appliance does when its terminal is closed (the end of an SSH session): stop in
    order, or go on without a terminal until it is told to stop (SIGTERM)."""


class MetricsConfig(Table, frozen=True):
    """A small HTTP port for monitoring: `/healthz` and, for Prometheus, `/metrics`."""

    bind: Annotated[str | None, Example('"127.0.0.1:9464"')] = None
    """Address and port; without it, there is none. Nobody signs in here, and what stands there are
    states and numbers: no payloads, no topics of clients, no secrets."""
    remote: bool = False
    """Whether `bind` may be an address that other machines reach."""


NoticeKind = Literal["failed", "recovered", "lost", "slow"]


class NotifyConfig(Table, frozen=True):
    """Whom to tell about outcomes. May come more than once. Needs the extra `notify`."""

    url: Annotated[Secret | None, Example('"mailto://user:password@example.com"')] = None
    """Where to, as an Apprise URL."""
    url_file: Annotated[ReadPath | None, Example('"notify_url.txt"')] = None
    """The file that holds the URL, instead of `url`."""
    on: tuple[NoticeKind, ...] = ("failed", "recovered", "lost")
    """What is told: a request that ended badly (failed, aborted, refused, rejected, expired), the
    first success after that, a run whose outcome can't be had, a run that takes three times as long
    as usual and at least a minute more."""
    tasks: Annotated[tuple[str, ...], Example('["Reload *"]')] = ()
    """Task names or ids, `*` for any text; empty: all tasks."""
    at_most: Annotated[int, Bounds(1)] = 20
    """Notices in an hour; what is beyond that is summed up in one."""


class Config(Table, frozen=True):
    """The whole configuration."""

    service: ServiceConfig = ServiceConfig()
    listener: tuple[ListenerConfig, ...] = (ListenerConfig(),)
    access: AccessConfig = AccessConfig()
    limits: LimitsConfig = LimitsConfig()
    journal: JournalConfig = JournalConfig()
    qlik: QlikConfig | None = None
    trigger: tuple[TriggerConfig, ...] = ()
    allow: AllowConfig = AllowConfig()
    recorder: tuple[RecorderConfig, ...] = ()
    timer: tuple[TimerConfig, ...] = ()
    notify: tuple[NotifyConfig, ...] = ()
    ui: UiConfig = UiConfig()
    metrics: MetricsConfig = MetricsConfig()
    file: str = ""
    """Not a key: the absolute path of the file that this was read from, or an empty string."""

    @property
    def is_loopback_only(self) -> bool:
        """Whether only this machine can reach the listeners."""
        return all(is_loopback(parse_bind(each.bind)[0]) for each in self.listener)
