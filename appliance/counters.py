"""Everything that the appliance counts: one enum, from which UI, metrics and documentation read.

A member's name is the name of its Prometheus metric. A name, once released, stays: dashboards and
alerts refer to it.
Not for: holding the numbers (each part counts its own), serving them (ops/metrics.py).
"""

from __future__ import annotations

import enum
from collections.abc import Callable


class Counter(enum.Enum):
    """A number that only grows while the appliance runs, from 0 at its start.

    ``metric``: the name of its Prometheus metric without the prefix ``appliance_``; it follows from
    the member's name. ``label``: a few words, for the terminal UI. ``text``: what happened and,
    where something can be done, what to do; the metric's HELP. It may be given in several pieces,
    joined by spaces.
    """

    def __init__(self, label: str, *text: str) -> None:
        self.metric = f"{self.name.lower()}_total"
        self.label = label
        self.text = " ".join(text)

    # --- connections ----------------------------------------------------------------------------

    CONNECTIONS_REFUSED_LIMIT_OVERALL = (
        "connections refused: limit in all",
        "A connection was refused because all listeners together had limits.max_connections;",
        "raise it, or find the clients that connect too often.",
    )
    CONNECTIONS_REFUSED_LIMIT_LISTENER = (
        "connections refused: limit on the listener",
        "A connection was refused because its listener had max_connections; raise it, or find",
        "the clients that connect too often.",
    )
    CONNECTIONS_REFUSED_LIMIT_ADDRESS = (
        "connections refused: limit per address",
        "A connection was refused because its IP address had",
        "limits.max_connections_per_address; raise it if many clients are behind one gateway.",
    )
    CONNECTIONS_REFUSED_LIMIT_UNAUTHENTICATED = (
        "connections refused: limit not yet authenticated",
        "A connection was refused because four times limits.max_unauthenticated others had not",
        "sent their CONNECT yet; look for a port scan or for clients that send nothing.",
    )
    CONNECTIONS_REFUSED_LIMIT_SESSIONS = (
        "connections refused: limit of sessions",
        "A client that wanted a lasting session was refused because there were",
        "limits.max_sessions; let clients keep their client id, or connect with a clean",
        "session, or raise it.",
    )
    CONNECTIONS_REFUSED_LIMIT_WILLS = (
        "connections refused: limit of wills",
        "A client was refused because the wills of all clients would have more bytes than",
        "limits.max_wills_size; use smaller wills, or raise it.",
    )
    CONNECTIONS_REFUSED_USER_NAME_TOO_LONG = (
        "connections refused: user name too long",
        "A client was refused because its user name had more than 1024 bytes.",
    )
    CONNECTIONS_REFUSED_LIMIT_SESSIONS_OF_USER = (
        "connections refused: limit of sessions of a user",
        "A client that wanted a lasting session was refused because its user had",
        "limits.max_sessions_per_user; let clients keep their client id, or connect with a clean",
        "session, or raise it.",
    )
    CONNECTIONS_REFUSED_CLIENT_ID_OF_ANOTHER_USER = (
        "connections refused: client id of another user",
        "A client was refused because its client id has a session of another user; give each",
        "client an id of its own, or end that session with `appliance session end CLIENT_ID`.",
    )
    CONNECTIONS_REFUSED_CLIENT_ID_NOT_ALLOWED = (
        "connections refused: client id not allowed",
        "A client was refused because no pattern of access.client_ids fits its client id; change",
        "the id, or add a pattern.",
    )
    CONNECTIONS_REFUSED_CLIENT_HELD = (
        "connections refused: client held",
        "A client was refused because an operator holds its client id; `appliance hold --list`",
        "says who and why, `appliance release client CLIENT_ID` lets it in.",
    )
    CONNECTIONS_REFUSED_FOREIGN_ORIGIN = (
        "connections refused: page of another machine",
        "A web page that another machine served tried to connect by WebSocket while no",
        "password is needed; add users.",
    )
    CONNECTIONS_REFUSED_WEBSOCKET_HANDSHAKE = (
        "connections refused: no WebSocket handshake",
        "A connection to a WebSocket listener did not begin as one (path / or /mqtt, subprotocol",
        "mqtt, version 13); the log says what it was answered.",
    )
    CONNECTIONS_ENDED_NO_TLS_HANDSHAKE = (
        "connections ended: no TLS handshake",
        "A connection to a TLS listener ended before TLS was agreed; let the client use TLS",
        "and trust the certificate. The log has the reason.",
    )
    CONNECTIONS_ENDED_NO_CONNECT_IN_TIME = (
        "connections ended: no CONNECT in time",
        "A connection was ended because no complete CONNECT packet came within",
        "limits.connect_timeout.",
    )
    CONNECTIONS_ENDED_SILENT = (
        "connections ended: silent",
        "A client was disconnected because it was silent for longer than its keepalive",
        "allows; look at its network, or at a program that hangs.",
    )
    CONNECTIONS_ENDED_PROTOCOL_ERROR = (
        "connections ended: protocol error",
        "A connection was ended because the client sent what MQTT or the broker does not",
        "permit; the log has the reason.",
    )
    CONNECTIONS_ENDED_PACKET_TOO_LARGE = (
        "connections ended: packet too large",
        "A connection was ended because of a packet larger than limits.max_packet_size; raise",
        "it, or send less at a time.",
    )
    CONNECTIONS_ENDED_ANSWER_TOO_LARGE = (
        "connections ended: answer larger than the client takes",
        "An MQTT 5 client was disconnected because it takes only packets that are smaller than",
        "the broker's answer; raise its Maximum Packet Size.",
    )
    CONNECTIONS_ENDED_TOO_MANY_PROPERTIES = (
        "connections ended: too many properties",
        "A connection was ended because a packet had more MQTT 5 properties than the broker takes",
        "(limits.max_properties_size, limits.max_properties).",
    )
    CONNECTIONS_ENDED_TOO_MANY_QOS2 = (
        "connections ended: too many QoS 2 messages at a time",
        "A connection was ended because the client had limits.max_qos2_ids QoS 2 messages that",
        "it had not released; let it send fewer at a time, or raise it.",
    )
    CONNECTIONS_ENDED_LAG = (
        "connections ended: kept others waiting",
        "A connection was ended because the work on what its client sent kept other clients",
        "waiting again and again; the log names the client.",
    )
    CLIENTS_SLOWED = (
        "clients slowed: kept others waiting",
        "Nothing was read from a client for a moment because the work on what it sent kept other",
        "clients waiting; the log names the client.",
    )
    CONNECTIONS_ENDED_ACCESS_WITHDRAWN = (
        "connections ended: access withdrawn",
        "A client was disconnected because its user is gone, has another password, may not use its",
        "client id any more, its certificate has been revoked, or clients without a name may not",
        "connect any more.",
    )
    CONNECTIONS_ENDED_TO_MAKE_ROOM = (
        "connections ended: most of those not yet authenticated",
        "The oldest connection that had sent no CONNECT was ended to let a new one in; look for",
        "clients that connect and send nothing.",
    )
    CONNECTIONS_ENDED_INTERNAL_ERROR = (
        "connections ended: internal error",
        "A connection was ended because of an error in the appliance; please report what the",
        "log says.",
    )
    LOGINS_REFUSED = (
        "logins refused",
        "A client had no valid user name and password; see `appliance user list`.",
    )
    LOGINS_REFUSED_TOO_MANY_FAILURES = (
        "logins refused: too many failures",
        "A login was refused unseen because too many others wait for the check of their",
        "password, or it waited too long; find the client that has a wrong password.",
    )
    LOGINS_REFUSED_PLUGIN_FAILED = (
        "logins refused: a plugin failed",
        "A client was refused because a plugin of [[access.plugins]] did not answer; the log",
        "says which one.",
    )

    # --- publishing and subscribing -------------------------------------------------------------

    PUBLISHES_REFUSED_NOT_ALLOWED = (
        "publishes refused: not allowed",
        "A client may not publish to a topic, or not leave a will on it; add an",
        "[[access.rule]] if it should.",
    )
    PUBLISHES_REFUSED_DOLLAR_TOPIC = (
        "publishes refused: topic with $",
        "A message to a topic that begins with $ was dropped, or a will on one was not kept:",
        "these topics are the broker's own. A bridge's notifications are among them.",
    )
    PUBLISHES_REFUSED_PLUGIN_FAILED = (
        "publishes refused: a plugin failed",
        "A publisher was disconnected because a plugin of [[access.plugins]] did not answer",
        "whether it may publish; the log says which one.",
    )
    PUBLISHES_REFUSED_TOO_MANY_PROPERTIES = (
        "publishes refused: too many properties",
        "A message at QoS 1 or 2 was refused because it had more MQTT 5 properties than",
        "limits.max_properties_size or limits.max_properties allow.",
    )
    TOPICS_REFUSED_TOO_LONG = (
        "topics refused: too long",
        "A message, a will or a subscription was refused because its topic had more bytes than",
        "limits.max_topic_length; shorten the topic, or raise it.",
    )
    TOPICS_REFUSED_TOO_MANY_LEVELS = (
        "topics refused: too many levels",
        "A message, a will or a subscription was refused because its topic had more levels than",
        "limits.max_topic_levels; use fewer, or raise it.",
    )
    PUBLISHERS_SLOWED = (
        "publishers slowed: journal behind",
        "A publisher had to wait because limits.max_pending bytes were not committed yet, or much",
        "was not yet handed to all subscribers; a faster disk helps, or fewer messages.",
    )
    RETAINED_MESSAGES_REFUSED = (
        "retained messages refused: limit reached",
        "A message was delivered and not retained because of limits.max_retained or",
        "limits.max_retained_size; clear topics that are not used, or raise the limit.",
    )
    SUBSCRIPTIONS_REFUSED_NOT_ALLOWED = (
        "subscriptions refused: not allowed",
        "A client may not subscribe to a topic filter; add an [[access.rule]] if it should.",
    )
    SUBSCRIPTIONS_REFUSED_PLUGIN_FAILED = (
        "subscriptions refused: a plugin failed",
        "A subscription was refused because a plugin of [[access.plugins]] did not answer;",
        "the log says which one.",
    )
    SUBSCRIPTIONS_REFUSED_LIMIT = (
        "subscriptions refused: limit reached",
        "A client wanted more than limits.max_subscriptions_per_client; let it use wildcards,",
        "or raise the limit.",
    )
    SUBSCRIPTIONS_REFUSED_TOO_MANY_NODES = (
        "subscriptions refused: too many filter nodes",
        "The topic filters of a client would have had more levels together than",
        "limits.max_filter_nodes; let it use wildcards, or raise the limit.",
    )
    SUBSCRIPTIONS_ENDED_NOT_ALLOWED = (
        "subscriptions ended: not allowed any more",
        "A subscription ended because changed rules or users do not allow it any more.",
    )
    DELIVERIES_DROPPED_EXPIRED = (
        "deliveries dropped: expired",
        "A message was not delivered because its MQTT 5 message expiry interval had passed.",
    )
    DELIVERIES_REFUSED_NOT_ALLOWED = (
        "deliveries refused: not allowed",
        "A message was not delivered to a subscriber because a plugin does not let it receive",
        "the topic.",
    )
    DELIVERIES_REFUSED_PLUGIN_FAILED = (
        "deliveries refused: a plugin failed",
        "A message was not delivered to a subscriber because a plugin of [[access.plugins]]",
        "did not answer; the log says which one.",
    )
    DELIVERIES_DROPPED_TOO_LARGE = (
        "deliveries dropped: larger than the client takes",
        "A message was not delivered because it is larger than the maximum packet size that",
        "the MQTT 5 client announced.",
    )
    DELIVERIES_DROPPED_SLOW_SUBSCRIBER = (
        "deliveries dropped: slow subscriber",
        "A message at QoS 0 was dropped because the client reads too slowly",
        "(limits.max_client_backlog).",
    )
    DELIVERIES_DROPPED_QUEUE_FULL = (
        "deliveries dropped: queue full",
        "The oldest waiting message was dropped because the queue of an absent or slow client",
        "was full (limits.max_queued_per_client, limits.max_client_backlog).",
    )
    DELIVERIES_DROPPED_SESSION_ENDED = (
        "deliveries dropped: session ended",
        "A message that waited for an absent client was dropped because its session expired or",
        "an operator ended it; the log names the client.",
    )
    SESSIONS_ENDED_AWAY_TOO_LONG = (
        "sessions ended: client away too long",
        "A session ended before the time that its client had asked for, because the client was",
        "away for limits.max_session_expiry; raise it if clients come back later than that.",
    )
    DELIVERIES_DROPPED_INTERNAL_ERROR = (
        "deliveries dropped: internal error",
        "A message could not be encoded for a client because of an error in the appliance;",
        "please report what the log says.",
    )
    DELIVERIES_HELD = (
        "deliveries held: too many unacknowledged",
        "Messages began to wait because the client had not acknowledged",
        "limits.max_inflight_per_client, as many as it takes at a time, or",
        "limits.max_client_backlog bytes.",
    )
    PLUGIN_QUESTIONS_FAILED = (
        "plugin questions failed",
        "A plugin of [[access.plugins]] raised an error or took longer than",
        "access.plugin_timeout; the log says which one.",
    )
    PLUGIN_QUESTIONS_REFUSED = (
        "plugin questions refused: too many wait",
        "A plugin was not asked because it had not answered 256 questions yet; look at what",
        "it asks.",
    )
    PLUGIN_EVENTS_DROPPED = (
        "plugin events dropped: queue full",
        "A plugin did not hear of an event because it was slower than the events; make it",
        "faster.",
    )
    PLUGIN_EVENTS_FAILED = (
        "plugin events failed",
        "A plugin raised an error when it heard of an event; the log says which one.",
    )
    MEMORY_LIVE_VIEW_SHED = (
        "memory: the live view was emptied",
        "The process had more memory in use than limits.max_memory, so the terminal UI's newest",
        "messages were dropped (they are in the journal); see which client sends so much.",
    )
    MEMORY_CACHES_SHED = (
        "memory: caches were emptied",
        "The process still had more memory in use than limits.max_memory, so caches of topics",
        "and the terminal UI's statistics of topics were dropped.",
    )
    MEMORY_PUBLISHERS_PAUSED = (
        "memory: publishers began to wait",
        "The process still had more memory in use than limits.max_memory, so publishers of more",
        "than 16 KiB a second are read slowly until it has less; raise it, or lower other limits.",
    )
    MEMORY_GROWTH_REFUSED = (
        "memory: a subscription or session refused",
        "The process had more memory in use than limits.max_memory, so a further subscription of",
        "a client that has many, or lasting session of a user who has many, was refused; raise it,",
        "or end sessions that are not needed.",
    )
    DISK_RECORDERS_PAUSED = (
        "disk: recorders paused",
        "A recorder paused because its disk had less free space than limits.min_free_disk; the",
        "journal keeps its messages, and it goes on by itself. Free some space.",
    )
    DISK_PUBLISHERS_SLOWED = (
        "disk: publishers slowed",
        "The disk of the data directory had less free space than half of limits.min_free_disk, so",
        "publishers of more than 16 KiB a second are read slowly until it has more.",
    )
    DISK_PUBLISHERS_STOPPED = (
        "disk: publishers stopped",
        "The disk of the data directory had less free space than a quarter of",
        "limits.min_free_disk, or recorders paused and the journal was too big, so publishers wait",
        "until there is room.",
    )
    KEY_VALUES_REFUSED = (
        "key values refused: full",
        "A pair of Butler's key-value store was refused, because its namespace has http.max_keys",
        "keys, or the store is full; delete keys, or give them a ttl.",
    )
    TOPICS_FORGOTTEN = (
        "topics forgotten: limit reached",
        "The terminal UI's topic view forgot the topic that was silent longest, to stay",
        "bounded; messages are not affected.",
    )
    TOPIC_VALUES_FORGOTTEN = (
        "last values of topics forgotten: limit reached",
        "The last values of all topics took 16 MiB, or memory was short: the terminal UI's topic",
        "view forgot the value of the topic that was silent longest; the journal has it.",
    )

    # --- bridges --------------------------------------------------------------------------------

    BRIDGE_CONNECTIONS_FAILED = (
        "bridge connections: failed",
        "A bridge could not connect to its broker; the log, screen 4 and health name the cause.",
    )
    BRIDGE_CONNECTIONS_LOST = (
        "bridge connections: lost",
        "The connection of a bridge to its broker ended; the bridge connects again. The log names",
        "the cause.",
    )
    BRIDGE_CLIENT_IDS_TAKEN_OVER = (
        "bridge connections: client id of another client",
        "Another client uses the client id of a bridge, so the two throw each other out; give the",
        "bridge a client_id of its own.",
    )
    BRIDGE_GAPS = (
        "bridges: sessions lost",
        "A broker had lost the session of a bridge, so messages may be missing; the log says of",
        "which time. Let the broker keep sessions longer, and on its disk.",
    )
    BRIDGE_UNSETTLED_FORGOTTEN = (
        "bridges: messages that may come again, forgotten",
        "More than 65,535 messages of a broker were not known to be acknowledged; if it sends the",
        "oldest again, they count as new.",
    )
    BRIDGE_LAST_PAYLOADS_FORGOTTEN = (
        "bridges: last payloads of topics, forgotten",
        "More topics than limits.max_retained came in by a bridge that takes retained messages; if",
        "that of the topic that was silent longest is replayed, it counts as new.",
    )
    BRIDGE_SUBSCRIPTIONS_REFUSED = (
        "bridge subscriptions: refused",
        "A broker refused a topic filter of a bridge; check subscribe.topic and what the broker",
        "permits. The log names the filter.",
    )
    BRIDGE_MESSAGES_LEFT_OUT_RETAINED = (
        "bridge messages left out: held for new subscribers",
        "A broker sent a message that it holds for new subscribers, and the subscription does not",
        "want those; set retained = true if it should.",
    )
    BRIDGE_MESSAGES_LEFT_OUT_DOLLAR_TOPIC = (
        "bridge messages left out: $ topic",
        "A broker sent a message on a topic of its own ($SYS/...) that no filter asks for by name;",
        "it was acknowledged and dropped.",
    )
    BRIDGE_MESSAGES_LEFT_OUT_NOT_ASKED = (
        "bridge messages left out: no subscription",
        "A broker sent a message that no filter of the bridge asks for, such as one that waited in",
        "the session of an earlier configuration; it was acknowledged and dropped.",
    )
    BRIDGE_MESSAGES_LEFT_OUT_RESERVED_TOPIC = (
        "bridge messages left out: topic of the appliance",
        "A message of another broker would have had a topic that only the appliance publishes to;",
        "it was acknowledged and dropped. Set local_prefix.",
    )
    BRIDGE_MESSAGES_LEFT_OUT_TOPIC = (
        "bridge messages left out: not a topic",
        "The topic of a message of another broker is not a valid one, or would not be one here; it",
        "was acknowledged and dropped. The log names it.",
    )
    BRIDGE_MESSAGES_LEFT_OUT_PROPERTIES = (
        "bridge messages left out: properties",
        "The MQTT 5 properties of a message of another broker are malformed or too many",
        "(limits.max_properties, limits.max_properties_size); it was acknowledged and dropped.",
    )
    BRIDGE_MESSAGES_LEFT_OUT_TOO_LARGE = (
        "bridge messages left out: too large",
        "A message of another broker is larger than max_packet_size of the bridge; it was",
        "acknowledged and dropped. Raise that, or send less at a time.",
    )
    BRIDGE_MESSAGES_LEFT_OUT_LOOP = (
        "bridge messages left out: going round",
        "A message of another broker had passed this appliance before, or too many others; it was",
        "acknowledged and dropped. Look at the topics of the bridges on its way.",
    )
    BRIDGE_INTERNAL_ERRORS = (
        "bridges: internal errors",
        "A connection of a bridge ended because of a defect; please report what the log has.",
    )

    # --- the journal and the recorders ----------------------------------------------------------

    JOURNAL_ENTRIES_REFUSED = (
        "entries the journal refused",
        "An entry could not be stored although the disk worked, and was not acknowledged: an",
        "error in the appliance; please report what the log says.",
    )
    JOURNAL_COMMIT_RETRIES = (
        "journal commit retries",
        "A commit failed and was tried again: the disk is full, read-only or gone, or another",
        "program locks the database. The log has the reason.",
    )
    JOURNAL_FORCED_REMOVALS = (
        "journal forced removals",
        "Retention removed messages that a recorder or the task engine had not read yet,",
        "because of journal.max_size; raise it, or see why the reader is behind.",
    )
    JOURNAL_MESSAGES_UNREADABLE = (
        "journal messages unreadable",
        "A message in the journal was damaged and left out; see the disk, and docs/operating.md,",
        '"After a crash".',
    )
    JOURNAL_INDEX_REBUILDS = (
        "the journal's index made anew",
        "The journal's index (index.db) was damaged, or of another journal or version, and was",
        "made anew; searches took longer meanwhile. If it happens often, check the disk.",
    )
    JOURNAL_INDEX_NAMES_SHARED = (
        "names that share a number in the journal's index",
        "A topic or client was met, in a thousand messages, that has no number of its own in the",
        "journal's index because there are 50,000 already; searches for it look at more of the",
        "journal. Look for a client whose topics or client ids never repeat.",
    )
    JOURNAL_ROWS_UNREADABLE = (
        "journal rows unreadable",
        "A session, subscription, retained message or will in the journal was damaged and left",
        'out at the start; the log says which. See docs/operating.md, "After a crash".',
    )
    RECORDER_ROWS_UNREADABLE = (
        "recorder rows unreadable",
        "The position of a recording was damaged and left out at the start; it was looked for at",
        'the end of the file. See docs/operating.md, "After a crash".',
    )
    RECORDER_MESSAGES_MISSED = (
        "recorder messages missed",
        "A message left the journal before it was recorded; raise journal.keep and",
        "journal.max_size, or see why the recorder is behind.",
    )
    RECORDER_ROWS_LEFT_OUT = (
        "recorder rows left out",
        "A message was left out of a file or table of mode latest or update: it has no value at",
        "`key`, or there are too many rows or keys. See docs/recording.md for the limits.",
    )
    RECORDER_ROWS_SET_ASIDE = (
        "recorder rows set aside",
        "A database could not store a row, which was written to set-aside-NAME.jsonl in the data",
        "directory; the log says why. Correct the table or the column's type.",
    )
    RECORDER_RETRIES = (
        "recorder retries",
        "A recording could not be written and is tried again; see the file's disk and permissions.",
    )
    RECORDER_FILES_CLOSED_FOR_OTHERS = (
        "recorder files closed for others",
        "A recorder with placeholders in its path had as many files open as it may, so the least",
        "lately used one was closed for another and goes on later; use fewer placeholders if",
        "recording is slow.",
    )
    RECORDER_PATHS_BEYOND_LIMIT = (
        "recorder messages in the file of others",
        "A recorder with placeholders in its path had 10,000 files, so a message on a further",
        "topic went to the file ~others; use fewer placeholders, a narrower topic, or {date}.",
    )

    UPLOAD_RETRIES = (
        "upload retries",
        "A file could not be uploaded to Qlik Cloud and is tried again; the recorder's state and",
        "the log say why.",
    )
    UPLOADS_REFUSED = (
        "uploads refused",
        "A file is larger than Qlik Cloud takes and stays out of it; lower `rotate` of its",
        "recorder.",
    )
    UPLOADS_MISSING = (
        "uploads missing",
        "A file was removed by somebody before it was uploaded; it stays out of Qlik Cloud.",
    )

    INTERNAL_ERRORS_AFTER_COMMIT = (
        "internal errors: after a commit",
        "A step that waited for a commit failed because of an error in the appliance; please",
        "report what the log says.",
    )

    # --- requests and runs of Qlik tasks --------------------------------------------------------

    MESSAGES_REJECTED = (
        "messages rejected",
        "A message matched a trigger and started nothing; the log and the message's mark say why.",
    )
    REDELIVERIES = (
        "redeliveries",
        "A message came twice (MQTT's duplicate flag) and started nothing the second time.",
    )
    REPLAYED_MESSAGES = (
        "replayed messages that started nothing",
        "A message of appliance replay came that a trigger would have answered with a start.",
    )
    REQUESTS_MERGED = (
        "merged",
        "A request was merged with one for the same task that was waiting.",
    )
    STARTS_DROPPED_BY_HOLD = (
        "starts dropped by a hold",
        "A start was asked for while it was held with `appliance hold --drop`, so it was dropped.",
    )
    FRESHNESS_MESSAGES_LEFT_OUT = (
        "messages not followed for freshness",
        "A message asked for a task whose freshness is not followed, because 2000 tasks are stale;",
        "see why their runs fail.",
    )
    REQUESTS_REFUSED_QUEUE_FULL = (
        "queue full",
        "A request was not taken because too many wait; see why the Qlik server takes none.",
    )
    REPLIES_DROPPED = (
        "replies dropped",
        "A sender gets no answer because too many senders share one merged request.",
    )
    EXECUTIONS_STARTED = ("started", "The Qlik server took a start and began a run.")
    EXECUTIONS_STARTED_ELSEWHERE = (
        "started elsewhere",
        "A run of a watched task began that the appliance had not asked for.",
    )
    EXECUTIONS_SUCCEEDED = ("succeeded", "A run succeeded.")
    EXECUTIONS_FAILED = (
        "failed",
        "A run ended with an error; the Qlik server's script log says why.",
    )
    EXECUTIONS_ABORTED = ("aborted", "A run was stopped.")
    EXECUTIONS_SKIPPED = (
        "skipped",
        "A request started nothing because the task ran already, or the Qlik server skipped it.",
    )
    EXECUTIONS_REFUSED = (
        "refused",
        "The Qlik server answered that it did not start the task; see whether the task is enabled.",
    )
    EXECUTIONS_REJECTED = (
        "rejected",
        "A request can't be carried out: the task is not known or not allowed, or the server",
        "refuses the account. The execution's reason says which.",
    )
    EXECUTIONS_EXPIRED = ("expired", "A request was not started within the trigger's expire.")
    EXECUTIONS_LOST = (
        "lost",
        "The outcome of a start can't be had: it may have run; look in the Qlik server's own list.",
    )
    EXECUTIONS_SLOW = (
        "slow runs",
        "A run took three times as long as usual, and at least a minute more.",
    )
    EXECUTION_DETAILS_CUT = (
        "details cut",
        "The Qlik server had more notes on a run than are kept; its own list has all of them.",
    )
    SCRIPT_LOGS_MISSED = (
        "script logs missed",
        "The script log of a run that failed can't be had; the execution says why.",
    )
    SCRIPT_LOGS_NOT_KEPT = (
        "script logs not kept",
        "A script log could not be written to the folder script-logs, or too little disk is free.",
    )
    SCRIPT_LOGS_DELETED_EARLY = (
        "script logs deleted early",
        "The oldest script log was deleted before its time: there are more than 10,000, or 1 GB.",
    )
    SCRIPT_LOGS_OVER_LIMIT = (
        "script logs over the limit",
        "A script log was larger than 4 GiB or took longer than five minutes, so its end was not",
        "read; look at it on the Qlik server.",
    )
    EXECUTIONS_ELSEWHERE_LEFT_OUT = (
        "elsewhere left out",
        "More runs that others started ended between two looks than are taken up at a time (500).",
    )
    START_RETRIES = ("retries", "A start call did not reach the Qlik server and is made again.")
    START_ANSWERS_LOST = (
        "answers lost",
        "A start call had no answer; before it is made again, the appliance looks whether a",
        "run began.",
    )
    STARTS_FOUND_BY_LOOKING = (
        "found by looking",
        "The run of a start call without an answer was found, so it was not started twice.",
    )
    STARTS_CHECKED_AFTER_CRASH = (
        "looks after a crash",
        "After a crash the appliance looked whether a request had been started before, so",
        "that it is not started twice.",
    )
    STARTS_ANSWERED_BY_OTHERS = (
        "answered by others",
        "A request was answered by a run that another appliance, a person or a schedule started",
        "after its message, so nothing was started for it.",
    )
    STARTS_WITHOUT_LOOK = (
        "starts without a look",
        "The Qlik server refused to say what others started, so a task was started without that;",
        "see the rights of the user of [qlik].",
    )
    TASK_ROWS_UNREADABLE = (
        "task rows unreadable",
        "A row of the task database was damaged and left out; the log says which. See",
        'docs/operating.md, "After a crash".',
    )
    SIGHTINGS_FORGOTTEN = (
        "sightings forgotten",
        "The oldest of many remembered messages was forgotten; if it comes twice, it starts twice.",
    )
    START_KEYS_FORGOTTEN = (
        "start keys forgotten",
        "The oldest of many Idempotency-Keys of starts was forgotten before its day was over; if",
        "its request comes again, it starts again.",
    )
    POLLS_FAILED = (
        "polls failed",
        "Asking the Qlik server about running tasks failed; the log has the reason.",
    )
    TIMERS_FIRED = ("timers fired", "A timer was due.")
    OUTCOMES_WITHOUT_TASK_ROW = (
        "outcomes without the server's row",
        "A task_failure_full or task_aborted_full was published with an empty object in place of",
        "the task as the Qlik server has it, because the server did not answer in time.",
    )
    PUBLICATIONS_DROPPED = (
        "publications dropped",
        "An outcome on the topics of tasks was not published: the journal did not take it, or",
        "too many waited.",
    )
    TASK_DATABASE_WRITE_FAILURES = (
        "database write failed",
        "The task database could not be written, so no task is started until it can; make",
        "room on the disk or see to its permissions.",
    )
    LOG_LINES_LEFT_OUT = (
        "log lines left out",
        "A log line about a rejected message was left out, because there were too many a second.",
    )
    INTERNAL_ERRORS = (
        "internal errors",
        "An error in the task engine was contained; please report what the log says.",
    )

    # --- what goes out by bridges ----------------------------------------------------------------

    BRIDGE_PUBLISHES_REFUSED = (
        "bridged messages refused by the other broker",
        "Another broker refused a message of a bridge, or ended the connection three times right",
        "after it, so it was left out; the log has the reason.",
    )
    BRIDGE_PUBLISHES_TOO_LARGE = (
        "bridged messages too large",
        "A message did not go out by a bridge because its packet was larger than the bridge's",
        "max_packet_size or than the other broker takes.",
    )
    BRIDGE_PUBLISHES_EXPIRED = (
        "bridged messages expired",
        "A message did not go out by a bridge because its message expiry was over.",
    )
    BRIDGE_PUBLISHES_UNUSABLE = (
        "bridged messages without a usable topic",
        "A message did not go out by a bridge because no message can have the topic that the",
        "prefixes of the bridge give it; the log has the topic.",
    )
    BRIDGE_REPLAYS_LEFT_OUT = (
        "replayed messages not bridged",
        "A message of appliance replay did not go out by a bridge that speaks MQTT 3.1.1, which",
        "has no mark that keeps it from starting tasks elsewhere; set the bridge's version to 5.",
    )
    BRIDGE_PUBLISHES_MISSED = (
        "bridged messages missed: journal too short",
        "Retention deleted messages before they went out by a bridge, because the other broker was",
        "away for too long; raise journal.max_size. The log says how many.",
    )

    # --- notices --------------------------------------------------------------------------------

    NOTICES_SENT = ("notices sent", "A notice was sent.")
    NOTICES_FAILED = (
        "notices failed",
        "A notice could not be sent; see the [[notify]] address and the network.",
    )
    NOTICES_LEFT_OUT = (
        "notices left out",
        "A notice was left out because of at_most an hour or every; a later one says how many.",
    )
    NOTICE_RECEIVERS_LEFT_OUT = (
        "notice receivers left out",
        "A receiver of a notice was left out: the owner or task could not be asked for, or the",
        "address is none, or there are more than twenty.",
    )
    NOTICES_DROPPED = (
        "notices dropped",
        "A notice was dropped because too many waited, or its [[notify]] table is gone.",
    )

    # --- the monitoring port --------------------------------------------------------------------

    MONITORING_CONNECTIONS_ENDED = (
        "monitoring connections ended: too many",
        "The oldest of twenty connections to the monitoring port made room for a new one; look",
        "for a client that connects and asks nothing.",
    )
    MONITORING_REQUESTS_REFUSED_HOST = (
        "monitoring requests refused: name of another host",
        "A request named a host that is not this machine; if it is, add the name to",
        "metrics.hosts.",
    )

    # --- the HTTP port --------------------------------------------------------------------------

    HTTP_REQUESTS_ANSWERED = (
        "http requests answered",
        "A request to an HTTP port was answered, whatever the answer.",
    )
    HTTP_CONNECTIONS_ENDED_ROOM = (
        "http connections ended: room for newer ones",
        "The HTTP port had http.max_connections, or three quarters of them from one address, and",
        "the one that had been without a request for longest made room; raise it, or find the",
        "client that connects too often.",
    )
    HTTP_CONNECTIONS_REFUSED = (
        "http connections refused: limit",
        "The HTTP port had http.max_connections, or three quarters of them from one address, and",
        "all of them had requests; raise it, or find the client that asks too much.",
    )
    HTTP_CONNECTIONS_ENDED_SLOW = (
        "http connections ended: too slow",
        "A client sent its request too slowly, or did not take its answer; look at its network.",
    )
    HTTP_REQUESTS_REFUSED_MALFORMED = (
        "http requests refused: malformed",
        "What came is not HTTP as it should be; look for the client in the log of its machine.",
    )
    HTTP_REQUESTS_REFUSED_HEAD = (
        "http requests refused: head too large",
        "The head of a request had more than 16 KiB or a hundred fields.",
    )
    HTTP_REQUESTS_REFUSED_BODY = (
        "http requests refused: body too large",
        "The body of a request was larger than http.max_body; raise it, or send less at a time.",
    )
    HTTP_REQUESTS_REFUSED_HOST = (
        "http requests refused: name of another host",
        "A request named a host that is not this machine; if it is, add the name to http.hosts.",
    )
    HTTP_REQUESTS_REFUSED_ORIGIN = (
        "http requests refused: page of another site",
        "A browser sent a request for a page of another site; such a page may not act here.",
    )
    HTTP_REQUESTS_REFUSED_RATE = (
        "http requests refused: too many in a minute",
        "An address sent more than http.max_requests in a minute; raise it, or let the client ask",
        "less often.",
    )
    HTTP_REQUESTS_ABANDONED = (
        "http requests abandoned",
        "A client went away before its answer; its time-out may be too short.",
    )
    HTTP_REQUESTS_FAILED = (
        "http requests failed: internal error",
        "A request was answered with 500 because of a defect; please report it with the log.",
    )

    # --- attached terminals ---------------------------------------------------------------------

    TERMINAL_REQUESTS_REFUSED_NOT_READY = (
        "terminal requests refused: not ready",
        "A terminal asked for something before the appliance was ready; it asks again by itself.",
    )
    TERMINAL_REQUESTS_REFUSED_NOT_UNDERSTOOD = (
        "terminal requests refused: not understood",
        "A request of an attached terminal could not be read; install the same version on",
        "both sides.",
    )
    TERMINAL_REQUESTS_REFUSED_NOT_ALLOWED = (
        "terminal requests refused: not allowed",
        "A terminal's user is neither among access.operators nor among access.viewers.",
    )
    TERMINAL_REQUESTS_REFUSED_TOO_MANY = (
        "terminal requests refused: too many at a time",
        "A terminal asked for more at a time than it may; it asks again when it needs to.",
    )
    TERMINALS_REFUSED = (
        "terminals refused: limit reached",
        "A terminal was refused because too many are attached; close one of them.",
    )
    ACTS_REFUSED = (
        "acts refused: viewers may only look",
        "A viewer tried to change something; access.operators lists who may.",
    )
    # --- http: messages -------------------------------------------------------------------------

    HTTP_PUBLISHES_REFUSED_BEHIND = (
        "http messages refused: journal behind",
        "A message that came over HTTP was answered with 503 or 507 because the journal is behind,",
        "the disk nearly full (limits.min_free_disk) or the memory short (limits.max_memory).",
    )
    HTTP_KEYS_FORGOTTEN = (
        "http idempotency keys forgotten early",
        "Idempotency keys of messages were forgotten before a day was over, because there were",
        "100,000 newer ones; send several messages with one key (POST /messages).",
    )

    HTTP_REQUESTS_NOT_WAITED_FOR = (
        "http requests not waited for: limit",
        "A request with wait= was answered at once because http.max_waiting others waited; raise",
        "it, or find who waits so often.",
    )
    HTTP_READINGS_REFUSED = (
        "http readings refused: too many at a time",
        "GET /messages was answered with 503, because as many answers as allowed were being sent.",
    )
    HTTP_READINGS_ENDED_DELETED = (
        "http readings ended: messages deleted meanwhile",
        "An answer of GET /messages was cut off, because the journal's retention overtook it.",
    )


Count = Callable[[Counter], None]
"""What a part is given to count one event with; safe to call where the part runs."""

ACTIVITY = frozenset(
    {
        Counter.HTTP_REQUESTS_ANSWERED,
        Counter.REDELIVERIES,
        Counter.REPLAYED_MESSAGES,
        Counter.REQUESTS_MERGED,
        Counter.EXECUTIONS_STARTED,
        Counter.EXECUTIONS_STARTED_ELSEWHERE,
        Counter.EXECUTIONS_SUCCEEDED,
        Counter.EXECUTIONS_FAILED,
        Counter.EXECUTIONS_ABORTED,
        Counter.EXECUTIONS_SKIPPED,
        Counter.EXECUTIONS_REFUSED,
        Counter.EXECUTIONS_REJECTED,
        Counter.EXECUTIONS_EXPIRED,
        Counter.EXECUTIONS_LOST,
        Counter.START_RETRIES,
        Counter.STARTS_FOUND_BY_LOOKING,
        Counter.TIMERS_FIRED,
    }
)
"""Counts of ordinary work: neither a refusal nor a bound that was reached."""


LOSSES = frozenset(
    {
        Counter.RETAINED_MESSAGES_REFUSED,
        Counter.DELIVERIES_DROPPED_INTERNAL_ERROR,
        Counter.DELIVERIES_DROPPED_SLOW_SUBSCRIBER,
        Counter.DELIVERIES_DROPPED_QUEUE_FULL,
        Counter.PLUGIN_EVENTS_DROPPED,
        Counter.BRIDGE_UNSETTLED_FORGOTTEN,
        Counter.BRIDGE_LAST_PAYLOADS_FORGOTTEN,
        Counter.BRIDGE_MESSAGES_LEFT_OUT_RESERVED_TOPIC,
        Counter.BRIDGE_MESSAGES_LEFT_OUT_TOPIC,
        Counter.BRIDGE_MESSAGES_LEFT_OUT_PROPERTIES,
        Counter.BRIDGE_MESSAGES_LEFT_OUT_TOO_LARGE,
        Counter.BRIDGE_PUBLISHES_TOO_LARGE,
        Counter.BRIDGE_PUBLISHES_UNUSABLE,
        Counter.JOURNAL_ENTRIES_REFUSED,
        Counter.JOURNAL_FORCED_REMOVALS,
        Counter.JOURNAL_MESSAGES_UNREADABLE,
        Counter.RECORDER_MESSAGES_MISSED,
        Counter.RECORDER_ROWS_LEFT_OUT,
        Counter.RECORDER_ROWS_SET_ASIDE,
        Counter.RECORDER_PATHS_BEYOND_LIMIT,
        Counter.UPLOADS_REFUSED,
        Counter.UPLOADS_MISSING,
        Counter.INTERNAL_ERRORS_AFTER_COMMIT,
        Counter.REQUESTS_REFUSED_QUEUE_FULL,
        Counter.REPLIES_DROPPED,
        Counter.EXECUTIONS_ELSEWHERE_LEFT_OUT,
        Counter.SIGHTINGS_FORGOTTEN,
        Counter.START_KEYS_FORGOTTEN,
        Counter.PUBLICATIONS_DROPPED,
        Counter.NOTICES_FAILED,
        Counter.NOTICES_DROPPED,
        Counter.HTTP_KEYS_FORGOTTEN,
    }
)
"""Counts that an operator has to know of: something was lost or left out, and nobody else is told.

Refusals are not among them: who is refused is told. Nor is what a part's own health tells, such as
``limits.max_memory``, or what any stranger on the network can make grow.
"""


_BY_NAME = {each.metric: each for each in Counter}


def label_of(name: str) -> str:
    """The label of a counter by its name, also of one that only another version knows."""
    known = _BY_NAME.get(name)
    return known.label if known else name.removesuffix("_total").replace("_", " ")


_PUBLISHED_LABELS = {
    "terminal_requests_refused_not_ready_total": "desk requests refused: no desk",
    "terminal_requests_refused_not_understood_total": "desk requests refused: not understood",
    "terminal_requests_refused_not_allowed_total": "desk requests refused: not allowed",
    "terminal_requests_refused_too_many_total": "desk requests refused: too many at a time",
}


def published_label_of(name: str) -> str:
    """The label in ``<name>/status`` and ``appliance_events``, which stays when a label changes."""
    return _PUBLISHED_LABELS.get(name) or label_of(name)


def text_of(name: str) -> str:
    """The text of a counter by its name; empty for one that only another version knows."""
    known = _BY_NAME.get(name)
    return known.text if known else ""
