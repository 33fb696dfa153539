"""Every table and key of the configuration, with its type, default and meaning.

The text below a key is its documentation: scripts/document-config makes docs/configuration.md of
it. Not for: converting TOML (decoder.py) or rules about several keys at once (checks.py).
"""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Annotated, Literal

import msgspec

from appliance.config.named_levels import read_named
from appliance.config.values import (
    Bounds,
    DatabaseUrl,
    Duration,
    Example,
    FolderPath,
    ReadPath,
    Settings,
    Size,
    TopicFilter,
    WritePath,
    is_loopback,
    parse_bind,
)
from appliance.secret import Secret


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The base of every table of the configuration."""


class ServiceConfig(Table, frozen=True):
    """The process as a whole."""

    name: Annotated[str, Example('"plant-7"')] = "appliance"
    """The name of this appliance. It is the first level of the topics that it publishes itself:
    `<name>/status`, `<name>/tasks/...`."""
    data_dir: Annotated[FolderPath, Example('"/var/lib/appliance"')] = FolderPath("data")
    """The folder for the journal, recordings and logs; created if it does not exist. Only one
    appliance at a time can use it."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe kind of log line that is written."""
    log_format: Literal["text", "json"] = "text"
    """The form of a log line: text for people, or one JSON object for a log collector. Under
    systemd, text lines have their severity for the system's journal."""
    event_log: bool = False
    """Whether start, stop and errors go to the Windows event log too (log `Application`, source
    `appliance`). Start and stop are of level `info`, so a higher `log_level` leaves them out. It
    has no effect on other systems."""
    will_grace: Annotated[Duration, Bounds(0, 86400), Example('"2m"')] = Duration(30)
    """How long clients may take to come back after a stop, a crash or a restart of the appliance.
    Then the wills of those that were connected and did not come back are published; the delay of
    an MQTT 5 will counts where it is longer."""
    umask: Literal["077", "027", "022"] = "077"
    """Which other users of this machine may read the files that the appliance writes: `077` none,
    `027` those of its group, `022` all. Files in `data_dir` that more users may read are put right
    at the start, so set it where other accounts read recordings. Windows has no umask: there,
    files inherit the rights of their folder."""
    run_for: Annotated[Duration | None, Bounds(0.001), Example('"8h"')] = None
    """Stop in order after this time. Without it the appliance runs until it is stopped.
    `--run-for` on the command line overrides it."""


class TlsConfig(Table, frozen=True):
    """TLS for a listener."""

    certfile: Annotated[ReadPath, Example('"server.pem"')]
    """The listener's certificate, PEM, followed by the intermediate certificates."""
    keyfile: Annotated[ReadPath, Example('"server_key.pem"')]
    """The private key of the certificate, PEM, without a passphrase."""
    client_ca: Annotated[ReadPath | None, Example('"clients.pem"')] = None
    """If set, a client must show a certificate that one of these authorities (PEM) signed."""
    crl_file: Annotated[ReadPath | None, Example('"revoked.pem"')] = None
    """Certificate revocation lists (PEM), one from each authority of `client_ca`: a client whose
    certificate is in one of them can't connect, and one that is connected is disconnected. If a
    list is out of date, none of the authority's clients can connect. A changed file is taken into
    use within a second."""
    identity_as_username: bool = False
    """Whether the common name (CN) of the client's certificate is its user name. Then it needs no
    password, and the name and password of its CONNECT packet are ignored."""


class ListenerConfig(Table, frozen=True):
    """An address at which publishers and subscribers connect. May come more than once.

    Without this table there is one, with the defaults below. `listener = []` at the beginning of
    the file, before the first table, means none: an appliance that only has bridges.
    """

    name: Annotated[str, Example('"machines"')] = ""
    """Its name in the UI and the log; by default `mqtt`, `mqtts`, `ws` or `wss`."""
    bind: Annotated[str, Example('"0.0.0.0:8883"')] = "127.0.0.1:1883"
    """Address and port. `0.0.0.0` means every IPv4 address of the machine, `[::]` every IPv6
    address, port 0 a free port."""
    transport: Literal["tcp", "websocket"] = "tcp"
    """`websocket` is for clients in a browser (path `/` or `/mqtt`, subprotocol `mqtt`)."""
    tls: TlsConfig | None = None
    """If set, the listener accepts only TLS, 1.2 or newer."""
    allow_mqtt31: bool = False
    """Whether clients may speak MQTT 3.1 (`MQIsdp`), as old libraries of controllers do. A client
    of MQTT 3.1 that may not subscribe to a filter is disconnected."""
    max_connections: Annotated[int, Bounds(1, 1_000_000)] = 1000
    """Connections to this listener at one time; a further one is refused (counter `connections
    refused: limit on the listener`)."""


class AccessRule(Table, frozen=True):
    """The topics that some users may publish and subscribe to.

    A client may do what any matching rule allows and none denies. Without any rule, every client
    that may connect may publish and subscribe everywhere.
    """

    user: Annotated[str, Example('"plc-*"')] = "*"
    """User names that the rule matches; `*` stands for any characters. `""` is a client without a
    name."""
    client_id: Annotated[str, Example('"press-*"')] = "*"
    """Client ids that the rule matches; `*` stands for any characters. That of what comes over HTTP
    is `$http`."""
    publish: Annotated[tuple[TopicFilter, ...], Example('["plant/%u/#"]')] = ()
    """Topic filters that the client may publish to; `%u` is the user's name, `%c` the client id."""
    subscribe: Annotated[tuple[TopicFilter, ...], Example('["plant/#"]')] = ()
    """Topic filters that the client may subscribe to, in the same form."""
    deny: Annotated[tuple[TopicFilter, ...], Example('["plant/secret/#"]')] = ()
    """Topic filters that the client may neither publish to nor get messages of, whatever any rule
    allows. A wider subscription is granted and spares these topics."""
    start: Annotated[tuple[str, ...], Example('["Reload Sales", "Load *"]')] = ()
    """Names and ids of tasks that the user may start, and whose executions it may see, over HTTP
    (`[http]`); `*` stands for any characters. Operators may start all tasks; so may every user
    while there is no rule at all."""


class AccessPlugin(Table, frozen=True, rename={"plugin_class": "class"}):
    """An amqtt plugin that is asked about clients and topics, or hears what happens.

    docs/access.md says how plugins, the users file and rules go together, and has examples.
    """

    plugin_class: Annotated[str, Example('"amqtt.contrib.http.UserAuthHttpPlugin"')]
    """The plugin's class with the module that it is in: of amqtt itself, of `amqtt.contrib`, or of
    a package that is installed beside the appliance."""
    settings: Annotated[Settings, Example('{host = "127.0.0.1", port = 8080}')] = Settings()
    """The plugin's own settings. `${NAME}` stands for an environment variable; `KEY_file` names a
    file that holds the value of `KEY`."""
    keep_password: bool = False
    """Whether the plugin sees the client's password after CONNECT too, in questions about topics.
    amqtt's JWT topic plugin needs that: the password is the token."""


class AccessConfig(Table, frozen=True):
    """Which clients may connect, and what they may do."""

    anonymous: bool | None = None
    """Whether clients may connect without a name and password. By default they may if every
    listener is on loopback and there is no users file."""
    users_file: Annotated[ReadPath | None, Example('"users.txt"')] = None
    """Names and hashed passwords, written by `appliance user add NAME`. The appliance notices a
    change without a restart."""
    operators: Annotated[tuple[str, ...], Example('["admin"]')] = ()
    """Users who may view and act from another terminal (`appliance attach`,
    `appliance start`); `*` stands for any
    characters. Without a users file, every user of this machine may."""
    viewers: Annotated[tuple[str, ...], Example('["anna", "screen-*"]')] = ()
    """Users who may only view from another terminal."""
    client_ids: Annotated[tuple[str, ...], Example('["%u", "%u:*"]')] = ()
    """Client ids that clients may use; `*` stands for any characters, `%u` for the user's name. By
    default they may use any. A client with another id is refused (counter `connections refused:
    client id not allowed`); an id that the broker assigns is always allowed."""
    rule: tuple[AccessRule, ...] = ()
    """See `[[access.rule]]`."""
    plugins: tuple[AccessPlugin, ...] = ()
    """See `[[access.plugins]]`."""
    plugin_timeout: Annotated[Duration, Bounds(0.05, 60)] = Duration(5)
    """How long a plugin may take to answer; then the answer is no (counter `plugin questions
    failed`)."""
    plugin_cache: Annotated[Duration, Bounds(0, 86400)] = Duration(10)
    """How long the answer about a topic counts for the same connection, topic and action. `0s`:
    the plugin is asked for each message."""


class LimitsConfig(Table, frozen=True):
    """Limits that keep one client from harming the others.

    Each has a counter: on the UI's screen 4, in `<name>/status` and in `/metrics`.
    """

    max_packet_size: Annotated[Size, Bounds(128, 256 * 1024 * 1024), Example('"256KiB"')] = Size(
        1024 * 1024
    )
    """The largest MQTT packet; a larger one ends the connection before it is read (counter
    `connections ended: packet too large`)."""
    connect_timeout: Annotated[Duration, Bounds(0.1, 3600)] = Duration(10)
    """How long a new connection may take until its CONNECT packet is complete (counter
    `connections ended: no CONNECT in time`)."""
    max_keepalive: Annotated[Duration, Bounds(0, 65535)] = Duration(0)
    """The longest keepalive of an MQTT 5 client. A client that asks for a longer one or for none
    gets this one (counter `connections ended: silent`). `0s`: no limit. The operating system
    detects within two minutes in any case that a machine has vanished."""
    max_connections: Annotated[int, Bounds(1, 1_000_000)] = 2000
    """Connections to all listeners together (counter `connections refused: limit in all`)."""
    max_connections_per_address: Annotated[int, Bounds(1, 1_000_000)] = 500
    """Connections from one IP address (counter `connections refused: limit per address`)."""
    max_unauthenticated: Annotated[int, Bounds(1, 1_000_000)] = 100
    """Connections that have not yet sent their CONNECT. Beyond it, the oldest of the address that
    has most of them ends, one that has sent nothing first (counter `connections ended: most of
    those not yet authenticated`). For a moment there may be four times as many; then a new one is
    refused (counter `connections refused: limit not yet authenticated`)."""
    max_sessions: Annotated[int, Bounds(1, 10_000_000)] = 10000
    """Sessions, including those of absent clients. Beyond it, only clients that ask for no
    lasting session can connect (counter `connections refused: limit of sessions`)."""
    max_sessions_per_user: Annotated[int, Bounds(1, 10_000_000)] = 2000
    """Lasting sessions of one user, including those of absent clients; clients without a name are
    one user. Beyond it, a client of that user can connect only if it asks for no lasting session
    or has one already (counter `connections refused: limit of sessions of a user`). Sessions that
    are there when the limit is lowered stay."""
    max_session_expiry: Annotated[Duration, Bounds(0, 100 * 365 * 86400), Example('"7d"')] = (
        Duration(90 * 86400)
    )
    """How long an absent client's session is kept at most, whatever the client asked for; MQTT
    3.1.1 clients ask for ever. MQTT 5 clients are told it as Session Expiry Interval. A lower one
    counts for the sessions that are there too. Then the session ends (counter `sessions ended:
    client away too long`), and messages that wait in it are dropped (counter `deliveries dropped:
    session ended`). `0s`: no limit."""
    max_subscriptions_per_client: Annotated[int, Bounds(1, 1_000_000)] = 1000
    """Topic filters that one client may subscribe to (counter `subscriptions refused: limit
    reached`)."""
    max_filter_nodes: Annotated[int, Bounds(1, 100_000_000)] = 10000
    """Levels of all topic filters of one client together; `plant/+/state` has three. Each may be a
    node of the tree in which a message's subscribers are found, so they cost memory, and time for
    each new topic. A filter beyond it is refused: reason 0x97 (counter `subscriptions refused: too
    many filter nodes`)."""
    max_queued_per_client: Annotated[int, Bounds(1, 10_000_000)] = 1000
    """Messages that wait for an absent or slow client; beyond it, the oldest is dropped (counter
    `deliveries dropped: queue full`)."""
    max_inflight_per_client: Annotated[int, Bounds(1, 65535)] = 100
    """Messages that were sent to a client and are not yet acknowledged; beyond it, further
    messages wait (counter `deliveries held: too many unacknowledged`)."""
    max_client_backlog: Annotated[Size, Bounds(65536)] = Size(4 * 1024 * 1024)
    """Bytes that wait to be sent to one slow client; beyond it, messages at QoS 0 are dropped
    (counter `deliveries dropped: slow subscriber`), and other messages count towards
    `max_queued_per_client`. It bounds the bytes of these, too (counter `deliveries dropped: queue
    full`), and those of messages that were sent and are not acknowledged: beyond it, further
    messages wait (counter `deliveries held: too many unacknowledged`)."""
    max_qos2_ids: Annotated[int, Bounds(1, 65535)] = 10000
    """QoS 2 messages of a client that were taken and that it has not released yet (PUBREL). MQTT 5
    clients are told it as Receive Maximum. One more ends the connection (counter `connections
    ended: too many QoS 2 messages at a time`)."""
    max_topic_length: Annotated[Size, Bounds(16, 65535)] = Size(1024)
    """Bytes of a topic or topic filter (counter `topics refused: too long`). A message is refused;
    at QoS 0, and in MQTT 3.1.1, where a refusal can't be said, the connection ends. So it is with
    `max_topic_levels`."""
    max_topic_levels: Annotated[int, Bounds(1, 200)] = 30
    """Levels of a topic or topic filter; `plant/line/press` has three (counter `topics refused: too
    many levels`)."""
    max_properties_size: Annotated[Size, Bounds(0, 256 * 1024 * 1024), Example('"16KiB"')] = Size(
        64 * 1024
    )
    """Bytes of the MQTT 5 properties of a message (counter `publishes refused: too many
    properties`; at QoS 0 the connection ends, counter `connections ended: too many properties`).
    All other packets of a client may have 64 KiB of them, its CONNECT 8 KiB, the will in it
    another 8 KiB or this limit if it is lower."""
    max_properties: Annotated[int, Bounds(0, 1_000_000)] = 1000
    """User properties of a message (counter `publishes refused: too many properties`; at QoS 0 the
    connection ends). All other packets may have 1000, a CONNECT 100, the will in it another 100 or
    this limit if it is lower."""
    max_memory: Annotated[Size, Bounds(128 * 1024 * 1024), Example('"512MiB"')] = Size(
        2 * 1024 * 1024 * 1024
    )
    """Memory of the whole process. Above it are given up, one each quarter of a second: the newest
    messages that the UI shows (counter `memory: the live view was emptied`), caches (counter
    `memory: caches were emptied`), and then publishers of more than 16 KiB a second wait (counter
    `memory: publishers began to wait`). From then on a client with some hundred subscriptions gets
    no further ones, and a user with 100 lasting sessions neither (counter `memory: a subscription
    or session refused`). Below nine tenths of it all is as before. Set it lower than what the
    service or container may have (docs/operating.md)."""
    min_free_disk: Annotated[Size | None, Bounds(0), Example('"2GB"')] = None
    """The least free space of a disk; by default 200 MB, and a twentieth of a disk of less than
    4 GB. Below it, recorders pause whose files are on it (counter
    `disk: recorders paused`), and the journal keeps what they have not recorded, even beyond
    `max_size`. Below half of it, on the disk of `data_dir`, publishers of more than 16 KiB a second
    are read slowly (counter `disk: publishers slowed`), below a quarter of it all publishers wait
    (counter `disk: publishers stopped`). All goes on by itself when there is more. `0`: no
    floor."""
    max_retained: Annotated[int, Bounds(0, 10_000_000)] = 10000
    """Topics that have a retained message (counter `retained messages refused: limit reached`)."""
    max_retained_size: Annotated[Size, Bounds(65536)] = Size(64 * 1024 * 1024)
    """Bytes of all retained messages together (payload, topic, properties, names of client and
    user, and 128 for each). A message that does not fit is delivered and not retained, and the
    topic's earlier retained message is removed (counter `retained messages refused: limit
    reached`)."""
    max_wills_size: Annotated[Size, Bounds(65536)] = Size(16 * 1024 * 1024)
    """Bytes of the wills of all clients together, connected or absent (payload, topic, properties,
    names of client and user, and 128 for each). A client whose will does not fit is refused
    (counter `connections refused: limit of wills`)."""
    max_pending: Annotated[Size, Bounds(65536)] = Size(64 * 1024 * 1024)
    """Bytes accepted and not yet committed; beyond it, reading from publishers pauses (counter
    `publishers slowed: journal behind`)."""


class JournalConfig(Table, frozen=True):
    """The durable record of every accepted message."""

    sync: Literal["always", "os"] = "always"
    """When a message is acknowledged. `always`: when it is on disk. `os`: when the operating
    system has it; then it survives a killed process and may not survive a power failure."""
    keep: Annotated[Duration, Bounds(60), Example('"7d"')] = Duration(30 * 86400)
    """How long messages stay in the journal."""
    max_size: Annotated[Size, Bounds(1000**2), Example('"2GB"')] = Size(10 * 1000**3)
    """The largest size of the journal's content; beyond it, the oldest messages are removed."""


class CertificateConfig(Table, frozen=True):
    """A client certificate that the appliance shows to Qlik."""

    certfile: Annotated[ReadPath, Example('"client.pem"')]
    """The certificate that the QMC exports, PEM (`client.pem`)."""
    keyfile: Annotated[ReadPath, Example('"client_key.pem"')]
    """Its private key (`client_key.pem`)."""


class HeaderConfig(Table, frozen=True):
    """A header that tells a virtual proxy the user."""

    name: Annotated[str, Example('"hdr-usr"')]
    """The header's name, as configured in the virtual proxy."""
    value: Annotated[Secret | None, Example('"${QLIK_HEADER}"')] = None
    """Its value; by default `user`."""


class QlikConfig(Table, frozen=True):
    """The Qlik server on which tasks are started. Choose one way to sign in.

    Write a secret as `password_file = "..."` (a file that holds only the secret), as `password =
    "${NAME}"` (an environment variable) or as text.
    """

    edition: Literal["client-managed", "cloud", "simulated"]
    """`client-managed` is Qlik Sense Enterprise on Windows. `simulated` is a simulated server
    within the appliance, for a try."""
    url: Annotated[str, Example('"https://sense.example.com:4242"')] = ""
    """The server's address. With a certificate: port 4242; otherwise the virtual proxy with its
    prefix; in Qlik Cloud the tenant. `http://` is accepted only for a loopback address."""
    user: Annotated[str, Example(r"'INTERNAL\sa_repository'")] = ""
    """The user who starts tasks: directory, backslash, name, in single quotes."""
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
    """Qlik Cloud: the secret of the OAuth client."""
    client_secret_file: Annotated[ReadPath | None, Example('"client_secret.txt"')] = None
    """The same, from a file."""
    ca_file: Annotated[ReadPath | None, Example('"root.pem"')] = None
    """The authority that signed the server's certificate (`root.pem` of the QMC's export); by
    default those of the system and of Mozilla."""
    timeout: Annotated[Duration, Bounds(0.1, 3600)] = Duration(30)
    """How long the server may take to answer one call."""
    max_concurrent: Annotated[int, Bounds(1, 64)] = 4
    """Calls to the server at one time."""
    max_running: Annotated[int | None, Bounds(1, 10_000), Example("5")] = None
    """Runs of the appliance at one time; by default the server's scheduler
    decides."""
    health_check: Annotated[Duration, Bounds(1, 86400)] = Duration(30)
    """The interval of health checks of the server."""
    keep_script_logs: Annotated[Duration | None, Bounds(60), Example('"30d"')] = None
    """How long the script logs of failed reloads are kept as files in `data_dir`, folder
    `script-logs`; without it, none are."""
    other_appliances: bool | None = None
    """Whether other appliances start tasks on the same server. Before each start the server is
    asked then what runs, and a run that began after the message answers it (docs/scaling.md). By
    default `true` if a `[[bridge.subscribe]]` has `share`."""


class ByProperty(Table, frozen=True):
    """Tasks whose custom property has this value."""

    property: str
    value: str


class TriggerConfig(Table, frozen=True):
    """A rule that turns a message into task starts. May come more than once."""

    topic: Annotated[TopicFilter, Example('"qliksense/start_task"')]
    """The topic filter of the messages that the rule applies to."""
    task: Annotated[str | dict[str, str], Example('{name = "Reload Sales"}')]
    """The task to start. `"payload"`: the payload names it. `"topic"`: the level of the topic at
    the filter's `+` names it. Or a task id, or `{name = "..."}`, `{tag = "..."}`, `{property =
    "...", value = "..."}`, `{app = "..."}`."""
    name: Annotated[str, Example('"press reports a finished order"')] = ""
    """The rule's name in the UI and the log; by default its topic filter."""
    when: Annotated[dict[str, object] | None, Example('{state = "done"}')] = None
    """Conditions on the fields of a JSON payload, or on a plain payload (`payload = "Online"`); the
    rule applies when all hold."""
    debounce: Annotated[Duration | None, Bounds(0.001, 86400), Example('"30s"')] = None
    """Start when no further message has come for this long; all messages make one start."""
    debounce_max: Annotated[Duration | None, Bounds(0.001), Example('"10m"')] = None
    """Start at the latest this long after the first message, even while further messages come."""
    cooldown: Annotated[Duration | None, Bounds(0.001), Example('"15m"')] = None
    """At most one start in this time; a request within it starts the task at its end."""
    fresh_within: Annotated[Duration | None, Bounds(1), Example('"15m"')] = None
    """How long after a message a successful run that began after it has to be over. If none is, the
    task's data is late: a warning, and a `stale` notice. docs/freshness.md says what counts."""
    if_running: Literal["queue_one", "skip", "start"] = "queue_one"
    """What a message does while the task runs. `queue_one`: all such messages make one further
    run. `skip`: nothing. `start`: a start call at once."""
    expire: Annotated[Duration, Bounds(1)] = Duration(86400)
    """A request older than this is dropped."""
    retry_for: Annotated[Duration, Bounds(0)] = Duration(86400)
    """How long a start is repeated while the server is out of reach."""
    all_or_nothing: bool = False
    """Whether nothing is started if one of the tasks that a message means is unknown or not
    allowed. A payload can ask for it, too: `{"tasks": [...], "allOrNothing": true}`."""
    partial: bool = False
    """Whether the reload is a partial one. In client-managed Qlik Sense only tasks with "Partial
    reload" set are; another task is not started."""
    variables: Annotated[dict[str, str] | None, Example('{vDay = "2026-11-29"}')] = None
    """Script variables of the reload, in Qlik Cloud: at most 20, names and values of at most 256
    characters. With `task = "payload"`, those of the payload are added, and replace these."""


class AllowConfig(Table, frozen=True):
    """The tasks that messages, timers and operators may start.

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
    apps: Annotated[tuple[str, ...], Example('["Sales"]')] = ()
    """Apps, by id or name: their reload tasks, and their reload if they have none."""


class RotateConfig(Table, frozen=True):
    """When a recording is closed and the next file begins: at the first bound that is reached."""

    size: Annotated[Size | None, Bounds(1000), Example('"64MB"')] = None
    """Size of a file, before compression."""
    every: Annotated[Duration | None, Bounds(1), Example('"1h"')] = None
    """Time since the first message of a file was received."""
    messages: Annotated[int | None, Bounds(1), Example("100000")] = None
    """Messages in a file."""


class KeepConfig(Table, frozen=True):
    """Which closed files of a recorder stay: the oldest go first, at any bound that is passed.

    The file that is being written always stays, and so does one that waits for its upload.
    """

    age: Annotated[Duration | None, Bounds(1), Example('"30d"')] = None
    """Time since the newest message of a file was received."""
    size: Annotated[Size | None, Bounds(1000), Example('"10GB"')] = None
    """Size of all closed files together."""
    files: Annotated[int | None, Bounds(1), Example("100")] = None
    """Number of closed files."""


class DatabaseConfig(Table, frozen=True):
    """A table or collection of a database server, instead of a file."""

    url: Annotated[DatabaseUrl, Example('"postgresql+psycopg://appliance@db.example.com/messages"')]
    """The database: an SQLAlchemy URL (PostgreSQL, MariaDB and MySQL, SQLite, SQL Server, Oracle),
    or one that begins with `mongodb://` or `mongodb+srv://`. `${NAME}` stands for an environment
    variable. The file of `sqlite:///recordings/messages.db` is in `data_dir`."""
    password: Annotated[Secret | None, Example('"${DB_PASSWORD}"')] = None
    """The password of the user in `url`."""
    password_file: Annotated[ReadPath | None, Example('"db-password.txt"')] = None
    """Instead of `password`: a file that holds only the password."""
    table: Annotated[str, Example('"messages"')] = ""
    """The table or collection; the recorder's name by default. It is made if it is missing."""


class UploadConfig(Table, frozen=True):
    """Where closed files go: the data files of the Qlik Cloud tenant of `[qlik]`."""

    space: Annotated[str, Example('"Production data"')] = ""
    """Name or id of the space; without it the personal space of the user of `[qlik]`."""
    folder: Annotated[str, Example('"plant"')] = ""
    """The folder there; it is made if it is missing."""
    replace: bool = False
    """Whether each file takes the place of the one before it, under the name of `path`; else each
    is added under its own name."""


class RecorderConfig(Table, frozen=True):
    """A file, a series of files or a table that records messages. May come more than once.

    It has one of `path` and `database`.
    """

    topic: Annotated[TopicFilter, Example('"plant/{line}/{sensor}"')]
    """The topic filter of the messages to record. A level `{name}` stands for `+` and becomes a
    column of that name. Braces that belong to the topic are doubled: `{{` and `}}`."""
    path: Annotated[WritePath, Example('"recordings/integers.json"')] = WritePath("")
    """The file; its folders are created if they do not exist. A folder is refused, and so is a
    file that the appliance itself writes or reads. `{date}`, `{hour}` (UTC, of the message),
    `{topic}` and the named levels of `topic` can stand in it: then there is a file for each."""
    name: Annotated[str, Example('"sensors"')] = ""
    """Its name in the UI, metrics and topics: letters, digits, blanks, `-`, `_` and `.`. By default
    that of the file without its ending, or of the table."""
    database: Annotated[
        DatabaseConfig | None, Example('{url = "sqlite:///recordings/messages.db"}')
    ] = None
    """Instead of `path`: a database table."""
    format: Literal["json", "jsonl", "csv", "parquet", "qvd"] = "json"
    """`json`: one array, valid at any moment; `jsonl`: one JSON value a line; `csv`: one row a
    message; `parquet` and `qvd`: a series of complete files with typed columns."""
    mode: Literal["append", "latest", "update"] = "append"
    """`append`: every message; `latest`: the last one of each topic or `key`; `update`: one object
    of each topic or `key`, whose fields are replaced by those that come."""
    key: Annotated[str, Example('"device.id"')] = ""
    """With `latest` and `update`: the path of the value in the payload that tells the rows apart,
    instead of the topic."""
    metadata: bool = False
    """Whether number, time, topic, client, QoS and retain are recorded with the payload."""
    fields: Annotated[dict[str, str] | None, Example('{temperature = "data.temp"}')] = None
    """Columns (or keys) and the paths of their values in the payload (`data.list[0]."a.b"`; `$` is
    the payload itself); without it all keys of the payload."""
    types: Annotated[dict[str, str] | None, Example('{temperature = "number"}')] = None
    """Types of columns: `integer`, `number`, `boolean`, `text` or `time`. By default the values
    decide."""
    time_field: Annotated[str, Example('"received"')] = ""
    """A key of each object, the last one, with the time when the appliance received the message."""
    flatten: bool = False
    """Whether each element of a payload that is a list is a row of its own."""
    compression: Literal["none", "gzip", "zstd"] = "none"
    """How closed files of `json`, `jsonl` and `csv` are compressed. It needs `rotate`."""
    rotate: Annotated[RotateConfig | None, Example('{size = "64MB", every = "1h"}')] = None
    """When a file is closed and the next one begins. For `parquet` and `qvd`, each bound that is
    not given is 64 MB, 5 minutes or 1,000,000 messages (`qvd`: 100,000)."""
    keep: Annotated[KeepConfig | None, Example('{age = "30d", size = "10GB"}')] = None
    """Which closed files stay; without it all."""
    upload: Annotated[UploadConfig | None, Example('{space = "Production data"}')] = None
    """Where closed files go in Qlik Cloud."""

    @property
    def topic_filter(self) -> TopicFilter:
        """The filter that ``topic`` means: ``plant/+/+`` for ``plant/{line}/{sensor}``."""
        return TopicFilter(read_named(self.topic).topic_filter)

    @property
    def levels(self) -> tuple[tuple[str, int], ...]:
        """The named levels of ``topic``: each name with the number of its level, from 0."""
        return read_named(self.topic).levels

    @property
    def used_name(self) -> str:
        """``name``, or by default that of the file or table.

        The loaded configuration has it, unique, in ``name`` itself.
        """
        return self.name or default_name(self)


_NOT_IN_NAMES = re.compile(r"[^\w .-]+")
_PLACEHOLDER = re.compile(r"\{[^{}]*\}")


def default_name(recorder: RecorderConfig) -> str:
    """The name of a recorder without ``name``: of its file without ending and placeholders."""
    if recorder.database is not None:
        found = recorder.database.table or recorder.topic_filter
    else:
        path = PurePath(_PLACEHOLDER.sub("", recorder.path))
        stem = path.name.rpartition(".")[0] if "." in path.name else path.name
        names = (stem, *path.parts[-2::-1])
        found = next((each for each in names if each.strip(" .-_/\\")), "")
    return _NOT_IN_NAMES.sub("-", found).strip(" .-_")[:60].strip() or "recorder"


class PublishConfig(Table, frozen=True):
    """A message that a timer publishes."""

    topic: Annotated[str, Example('"plant/tick"')]
    """The topic."""
    payload: Annotated[str, Example('"now"')] = ""
    """The payload."""
    retain: bool = False
    """Whether the broker keeps it for later subscribers."""


class TimerConfig(Table, frozen=True):
    """A task start, a message or an alarm at a time. May come more than once.

    It has one of `cron`, `every` and `silence`, and a `task`, a `publish` or both; a silence
    watch needs neither.
    """

    name: Annotated[str, Example('"nightly"')]
    """Its name in the UI, the log and topics: letters, digits, blanks, `-`, `_` and `.`."""
    id: Annotated[str, Example('"task-1"')] = ""
    """Its id in Butler's calls (`/v4/schedules`); by default one that is made of its name."""
    cron: Annotated[str | None, Example('"30 6 * * MON-FRI"')] = None
    """When: minute, hour, day of month, month, day of week."""
    timezone: Annotated[str, Example('"Europe/Berlin"')] = "UTC"
    """The time zone of `cron`, by its IANA name."""
    every: Annotated[Duration | None, Bounds(1), Example('"15m"')] = None
    """Instead of `cron`: an interval, counted from the moment when the timer was first
    configured."""
    silence: Annotated[Duration | None, Bounds(1), Example('"10m"')] = None
    """Instead of `cron`: an alarm when no message came on `topic` for this long."""
    topic: Annotated[str | None, Example('"plant/7/#"')] = None
    """With `silence`: the topic filter of the expected messages."""
    task: Annotated[str | dict[str, str] | None, Example('{name = "Reload Sales"}')] = None
    """The task to start: a task id or `{name = ...}`, `{tag = ...}`, `{property = ..., value =
    ...}`, `{app = ...}`."""
    partial: bool = False
    """Whether the reload is a partial one, as in `[[trigger]]`."""
    variables: Annotated[dict[str, str] | None, Example('{vDay = "2026-11-29"}')] = None
    """Script variables of the reload, as in `[[trigger]]`."""
    publish: Annotated[PublishConfig | None, Example('{topic = "plant/tick"}')] = None
    """The message to publish."""
    catch_up: bool = False
    """Whether the timer fires once at the appliance's start if a time passed while the appliance
    was down."""


class UiConfig(Table, frozen=True):
    """The terminal UI."""

    theme: Annotated[str, Example('"appliance-light"')] = ""
    """The name of a theme in the command palette (Ctrl+P); by default the last chosen theme."""
    keys: Annotated[dict[str, str] | None, Example('{pause = "f5", quit = "q,f10"}')] = None
    """Other keys for actions: the action's name, and its keys separated by commas."""
    on_hangup: Literal["stop", "continue"] = "stop"
    """What the appliance does when its terminal is closed (the end of an SSH session): stop in
    order, or continue without a terminal until SIGTERM."""


class MetricsConfig(Table, frozen=True):
    """A small HTTP port for monitoring: `/healthz` and, for Prometheus, `/metrics`."""

    bind: Annotated[str | None, Example('"127.0.0.1:9464"')] = None
    """Address and port; without it, the port is closed. The port needs no password and shows
    states and numbers only: no payloads, no topics of clients, no secrets."""
    remote: bool = False
    """Whether `bind` may be an address that other machines can reach."""
    hosts: Annotated[tuple[str, ...], Example('["plant-7.example.com"]')] = ()
    """Names by which clients may ask, beside addresses, `localhost` and the machine's own host
    name; `*` stands for any characters. A request for another `Host` is answered with 421, because
    a web page may have been given the name to read the answer (counter `monitoring requests
    refused: name of another host`)."""


NoticeKind = Literal["failed", "aborted", "succeeded", "recovered", "lost", "slow", "stale"]


OutcomeKind = Literal[
    "succeeded", "failed", "aborted", "skipped", "refused", "rejected", "expired", "lost"
]
OutcomeForm = Literal[
    "json",
    "name",
    "text",
    "task_failure",
    "task_failure_full",
    "task_aborted",
    "task_aborted_full",
]


class NotifyConfig(Table, frozen=True):
    """A receiver of notices about outcomes. May come more than once. Needs the extra `notify`."""

    url: Annotated[Secret | None, Example('"mailto://user:password@example.com"')] = None
    """The receiver's Apprise URL."""
    url_file: Annotated[ReadPath | None, Example('"notify_url.txt"')] = None
    """Instead of `url`: the file that holds it."""
    on: tuple[NoticeKind, ...] = ("failed", "recovered", "lost")
    """Kinds of notices. `failed`: a request that failed, was refused or rejected, or expired; also
    one that was aborted, unless a table for its task lists `aborted`. `aborted`: a run that was
    aborted, or a request that was taken back. `succeeded`: each success. `recovered`: the first
    success after a request that ended badly. `lost`: a run whose outcome can't be read. `slow`: a
    run that takes three times as long as usual and at least a minute more. `stale`: a task whose
    data is later than a trigger's `fresh_within`."""
    tasks: Annotated[tuple[str, ...], Example('["Reload *"]')] = ()
    """Task names or ids, `*` for any text; empty: all tasks."""
    tags: Annotated[tuple[str, ...], Example('["critical"]')] = ()
    """Only tasks with one of these tags."""
    properties: Annotated[
        tuple[ByProperty, ...], Example('[{property = "Alert", value = "Yes"}]')
    ] = ()
    """Only tasks with one of these values of custom properties. With `tags` and this, one of all
    these is enough."""
    to_property: Annotated[str, Example('"AlertSendTo"')] = ""
    """A custom property of tasks whose values are e-mail addresses: they are the receivers of the
    task's notices, in addition to those of the URL (a `mailto` one)."""
    to_owner: bool = False
    """Whether the e-mail address of the app's owner is a receiver too (a `mailto` URL)."""
    owners: Annotated[tuple[str, ...], Example("['SALES\\*']")] = ()
    """With `to_owner`: only these owners, `DIRECTORY\\user`, `*` for any text; empty: all. In Qlik
    Cloud the user's name."""
    not_owners: Annotated[tuple[str, ...], Example("['INTERNAL\\*']")] = ()
    """With `to_owner`: not these owners."""
    to_url: bool = True
    """Whether the receivers of the URL are told. `false`: only those of `to_property` and
    `to_owner`."""
    at_most: Annotated[int, Bounds(1)] = 20
    """Notices in an hour; one notice sums up the others."""
    every: Annotated[Duration | None, Bounds(1), Example('"10m"')] = None
    """At most one notice of a kind for each task in this time; the others are left out."""
    title: Annotated[str, Example('"{task} {state}"')] = ""
    """The title, with placeholders in braces; docs/triggers.md has them."""
    text: Annotated[str, Example('"{reason}\\n{log}"')] = ""
    """The text, likewise. `{log}` is where the last lines of the script log stand in it."""
    log: Literal["tail", "attach", "none"] = "tail"
    """The script log of a failed reload: its last lines in the text, all of it as an attached file
    where the service takes one, or nothing. The notice waits up to 30 s for it."""
    log_lines: Annotated[int, Bounds(1, 20)] = 10
    """So many of its last lines."""


class OutcomeConfig(Table, frozen=True):
    """A further message when an execution ends, in a form of its own. May come more than once.

    `<name>/tasks/<id>/last` and its companions are published in any case.
    """

    form: OutcomeForm = "json"
    """What is published. `json`: an object with `fields`; `name`: the task's name alone; `text`:
    the text of `text`. `task_failure`, `task_failure_full`, `task_aborted` and `task_aborted_full`
    are Butler's messages, on Butler's topics if `topic` is not given."""
    topic: Annotated[str | None, Example('"qliksense/{state}/{task}"')] = None
    """The topic, with placeholders in braces; Butler's forms have one: `qliksense/task_failure` and
    so on."""
    on: Annotated[tuple[OutcomeKind, ...], Example('["failed", "aborted"]')] = ()
    """The outcomes that it is published for; by default `aborted` for Butler's `task_aborted`
    forms, `failed` for all others."""
    fields: Annotated[
        dict[str, str] | None, Example('{Task = "{task}", Seconds = "{duration}"}')
    ] = None
    """With `json`: the members and their values, with placeholders; by default the object of
    `<name>/tasks/<id>/last`."""
    text: Annotated[str, Example('"{task} {state}: {reason}"')] = ""
    """With `text`: the payload, with placeholders."""
    tasks: Annotated[tuple[str, ...], Example('["Reload *"]')] = ()
    """Task names or ids, `*` for any text; empty: all tasks."""
    qos: Annotated[int, Bounds(0, 1)] = 1
    """The quality of service at which subscribers get it at most."""
    retain: bool = False
    """Whether the broker keeps it for later subscribers."""


class HttpTlsConfig(Table, frozen=True):
    """TLS for the HTTP port."""

    certfile: Annotated[ReadPath, Example('"server.pem"')]
    """The certificate, PEM, followed by the intermediate certificates. A changed file is taken into
    use within a second."""
    keyfile: Annotated[ReadPath, Example('"server_key.pem"')]
    """The private key of the certificate, PEM, without a passphrase."""


class HttpConfig(Table, frozen=True):
    """HTTP for load scripts, schedulers and tools: messages, task starts and their outcomes.

    docs/http.md has the calls. The users, `[[access.rule]]` and `[allow]` count here too.
    """

    bind: Annotated[str | None, Example('"127.0.0.1:8080"')] = None
    """Address and port; without it, the port is closed. Beyond `127.0.0.1`, users must sign in."""
    tls: HttpTlsConfig | None = None
    """If set, the port accepts only HTTPS, TLS 1.2 or newer."""
    hosts: Annotated[tuple[str, ...], Example('["plant-7.example.com"]')] = ()
    """Names by which clients may ask, as in `[metrics]`."""
    butler: bool = True
    """Whether Butler's calls (`/v4/...`) are answered too: docs/butler-calls.md."""
    max_keys: Annotated[int, Bounds(1, 1_000_000)] = 1000
    """Keys in one namespace of Butler's key-value store; further ones are refused (counter
    `key values refused: full`)."""
    max_body: Annotated[Size, Bounds(1024, 256 * 1024 * 1024), Example('"4MiB"')] = Size(
        1024 * 1024
    )
    """The largest body of a request (counter `http requests refused: body too large`)."""
    max_connections: Annotated[int, Bounds(1, 100_000)] = 200
    """Connections at one time, three quarters of them from one address. Beyond it, the one that has
    been without a request for longest ends, or else the new one is refused (counters `http
    connections ended: room for newer ones`, `http connections refused: limit`)."""
    max_requests: Annotated[int, Bounds(1, 100_000_000)] = 100_000
    """Requests in a minute from one address; beyond it they are answered with 429 (counter `http
    requests refused: too many in a minute`)."""
    max_waiting: Annotated[int, Bounds(1, 10_000)] = 100
    """Requests that wait for an execution's end at one time (`wait=`); further ones are answered at
    once (counter `http requests not waited for: limit`)."""


_QOS_2 = (
    "QoS 2 gives no more than 1 here: what comes twice at QoS 1 is recognised, and QoS 2 would need"
    " both brokers to remember packet ids through every outage; write 1"
)


class BridgeTlsConfig(Table, frozen=True):
    """TLS for a connection to another broker. `tls = {}` is enough with a public certificate.

    The broker's certificate is always verified.
    """

    ca_file: Annotated[ReadPath | None, Example('"plant_ca.pem"')] = None
    """The authorities (PEM) that may have signed the broker's certificate; by default those of the
    system and of Mozilla."""
    certfile: Annotated[ReadPath | None, Example('"bridge.pem"')] = None
    """The certificate that the appliance shows, PEM, followed by the intermediate certificates."""
    keyfile: Annotated[ReadPath | None, Example('"bridge_key.pem"')] = None
    """The private key of `certfile`, PEM, without a passphrase."""
    server_name: Annotated[str, Example('"broker.example.com"')] = ""
    """The name that the broker's certificate must have, and that it is told (SNI); by default
    `host`."""
    alpn: Annotated[tuple[str, ...], Example('["x-amzn-mqtt-ca"]')] = ()
    """The application protocols that are offered (ALPN), as AWS IoT Core wants on port 443."""


class BridgeSubscribeConfig(Table, frozen=True):
    """Messages of the other broker that come in. May come more than once.

    Each belongs to the `[[bridge]]` above it, whose own keys stand before it. Filters of one bridge
    must not overlap, because some brokers send a message that fits two of them twice.
    """

    topic: Annotated[TopicFilter, Example('"plant/+/state"')]
    """The topic filter at the other broker. Messages on topics that begin with `$` come in only if
    the filter begins so too, and none below the appliance's own name does."""
    qos: Annotated[int, Bounds(0, 1, _QOS_2)] = 1
    """The highest quality of service. 1: no message is lost, a message may come twice, and a
    repeat is recognised. QoS 2 would give no more here (docs/bridges.md)."""
    remove_prefix: Annotated[str, Example('"plant/"')] = ""
    """Text that is removed from the beginning of the topic."""
    local_prefix: Annotated[str, Example('"factory7/"')] = ""
    """Text that is put before the topic then."""
    share: Annotated[str, Example('"appliances"')] = ""
    """The name of a group: each message comes to one of the appliances with the same group (a
    shared subscription, `$share/GROUP/FILTER`)."""
    retained: bool = False
    """Whether the messages that the other broker holds for new subscribers come in as well. One
    that came before starts nothing again. If not, MQTT 5 brokers are asked not to send them, and
    those that come are left out (counter `bridge messages left out: held for new subscribers`)."""


class BridgePublishConfig(Table, frozen=True):
    """Messages of the appliance that go out to the other broker. May come more than once.

    Each belongs to the `[[bridge]]` above it. What this bridge brought in is never sent back. With
    MQTT 3.1.1 the topics there must not overlap those that a bridge to the same broker subscribes
    to; with MQTT 5 on both sides they may, because messages name the appliances that they passed.
    """

    topic: Annotated[TopicFilter, Example('"appliance/tasks/#"')]
    """The topic filter of the appliance's messages: those of its clients, its outcomes and status,
    what other bridges brought in. Of two filters that fit, the first one counts."""
    qos: Annotated[int, Bounds(0, 1, _QOS_2)] = 1
    """The highest quality of service."""
    remove_prefix: Annotated[str, Example('"appliance/"')] = ""
    """Text that is removed from the beginning of the topic."""
    remote_prefix: Annotated[str, Example('"site4/"')] = ""
    """Text that is put before the topic then."""
    retained: bool = True
    """Whether retained messages go out as retained ones. Some brokers of clouds refuse those."""


class BridgeConfig(Table, frozen=True):
    """Another broker that messages come from and go to. May come more than once.

    docs/bridges.md says how, with configurations for several brokers and clouds. `appliance check
    --connect` tries each broker with a client id and a session of its own. After a reload, only
    bridges that changed connect anew.
    """

    name: Annotated[str, Example('"plant"')]
    """Its name in the UI, the log and topics: letters, digits, `-`, `_` and `.`."""
    host: Annotated[str, Example('"broker.example.com"')]
    """The other broker's host name or address."""
    port: Annotated[int | None, Bounds(1, 65535), Example("8883")] = None
    """Its port; by default 1883, with TLS 8883, by WebSocket 80 or 443."""
    transport: Literal["tcp", "websocket"] = "tcp"
    """`websocket`: MQTT over WebSocket, for a broker behind a web server."""
    path: Annotated[str, Example('"/ws"')] = "/mqtt"
    """The path of the WebSocket."""
    tls: Annotated[BridgeTlsConfig | None, Example("{}")] = None
    """If set, the connection is encrypted; see `[bridge.tls]`."""
    version: Literal["3.1.1", "5"] = "3.1.1"
    """The version of MQTT. 5 says more about refusals; choose it where the broker speaks it."""
    username: Annotated[str | None, Example('"appliance"')] = None
    """The user name at the other broker."""
    password: Annotated[Secret | None, Example('"${BRIDGE_PASSWORD}"')] = None
    """The password."""
    password_file: Annotated[ReadPath | None, Example('"bridge_password.txt"')] = None
    """The same, from a file that holds only the password. It is read at each attempt to connect;
    `appliance reload` makes a bridge that waits connect now."""
    client_id: Annotated[str, Example('"appliance-plant7"')] = ""
    """The client id at the other broker. It has to be the same at each start, and no other
    client's. By default it is made of the names of appliance and bridge and of a random text that
    the data directory keeps."""
    keepalive: Annotated[Duration, Bounds(5, 65535)] = Duration(60)
    """How long the connection may be silent; then it is asked whether it still works."""
    session_expiry: Annotated[Duration, Bounds(0, 100 * 365 * 86400), Example('"7d"')] = Duration(
        7 * 86400
    )
    """How long the other broker keeps messages while the appliance is away. `0s`: not at all. It
    counts with MQTT 5; with 3.1.1 the broker decides."""
    connect_timeout: Annotated[Duration, Bounds(0.5, 300)] = Duration(10)
    """How long the other broker may take to accept the connection."""
    max_rate: Annotated[int | None, Bounds(1, 1_000_000), Example("100")] = None
    """Messages a second that go out at most; by default there is no limit. Clouds discard messages
    beyond theirs."""
    max_packet_size: Annotated[Size, Bounds(128, 256 * 1024 * 1024), Example('"256KiB"')] = Size(
        1024 * 1024
    )
    """The largest packet in each direction; a larger message is left out (counters `bridge messages
    left out: too large`, `bridged messages too large`)."""
    follow_redirects: bool = False
    """Whether the bridge goes to the server that the broker names when it has moved (MQTT 5)."""
    subscribe: Annotated[
        tuple[BridgeSubscribeConfig, ...], Example('[{topic = "plant/#", local_prefix = "f7/"}]')
    ] = ()
    """What comes in; see `[[bridge.subscribe]]`."""
    publish: Annotated[
        tuple[BridgePublishConfig, ...], Example('[{topic = "appliance/tasks/#"}]')
    ] = ()
    """What goes out; see `[[bridge.publish]]`."""

    @property
    def used_port(self) -> int:
        """The port that the bridge connects to."""
        if self.port is not None:
            return self.port
        if self.transport == "websocket":
            return 443 if self.tls else 80
        return 8883 if self.tls else 1883

    @property
    def address(self) -> str:
        """``"host:port"`` of the other broker, an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.used_port}"


class Config(Table, frozen=True):
    """The whole configuration."""

    service: ServiceConfig = ServiceConfig()
    listener: tuple[ListenerConfig, ...] = (ListenerConfig(),)
    bridge: tuple[BridgeConfig, ...] = ()
    access: AccessConfig = AccessConfig()
    limits: LimitsConfig = LimitsConfig()
    journal: JournalConfig = JournalConfig()
    qlik: QlikConfig | None = None
    trigger: tuple[TriggerConfig, ...] = ()
    allow: AllowConfig = AllowConfig()
    recorder: tuple[RecorderConfig, ...] = ()
    timer: tuple[TimerConfig, ...] = ()
    outcome: tuple[OutcomeConfig, ...] = ()
    notify: tuple[NotifyConfig, ...] = ()
    http: HttpConfig = HttpConfig()
    ui: UiConfig = UiConfig()
    metrics: MetricsConfig = MetricsConfig()
    file: str = ""
    """Not a key: the absolute path of the file that this was read from, or an empty string."""

    @property
    def has_other_appliances(self) -> bool:
        """Whether other appliances start tasks on the same Qlik server."""
        if self.qlik is not None and self.qlik.other_appliances is not None:
            return self.qlik.other_appliances
        return any(one.share for bridge in self.bridge for one in bridge.subscribe)

    @property
    def is_loopback_only(self) -> bool:
        """Whether only this machine can reach the listeners and the HTTP port."""
        binds = [each.bind for each in self.listener]
        if self.http.bind is not None:
            binds.append(self.http.bind)
        return all(is_loopback(parse_bind(each)[0]) for each in binds)
