"""``mqttConfig``: where messages come from, which one starts tasks, what is published.

Not for: Butler's own call to publish a message (http_port.py).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

from appliance.commands.check import pair_problem
from appliance.commands.from_butler.draft import Draft
from appliance.commands.from_butler.section import Section
from appliance.commands.from_butler.toml_table import TomlTable
from appliance.config.bridge_checks import host_problem
from appliance.config.tables import LimitsConfig
from appliance.config.values import is_loopback
from appliance.mqtt.overlap import overlap
from appliance.mqtt.topics import covers, filter_problem, reserved_problem, topic_problem

_ROOT = "qliksense/#"
_START = "qliksense/start_task"
_OUTCOMES = (
    ("taskFailureTopic", "", "task_failure"),
    ("taskFailureFullTopic", "taskFailureSendFull", "task_failure_full"),
    ("taskAbortedTopic", "", "task_aborted"),
    ("taskAbortedFullTopic", "taskAbortedSendFull", "task_aborted_full"),
)
"""Butler's key, the switch of it, and the form of the outcome."""
_NAMES = ("appliance", "qlik-appliance", "appliance-1", "appliance-2", "appliance-3", "appliance-4")
"""Names of the appliance: it has the topics below its name for itself."""
_PORTS = (1883, 1884, 1885)


class Broker:
    """The broker that Butler connects to."""

    def __init__(self, mqtt: Section) -> None:
        self.host = mqtt.text("brokerHost")
        self.port = mqtt.port("brokerPort") or 1883
        self.is_used = mqtt.is_on() and bool(mqtt)
        if not self.is_used:
            for key in ("brokerHost", "brokerPort"):
                mqtt.leave(
                    key, "MQTT is off in Butler, so the appliance is the broker: [[listener]]"
                )
        if self.is_used and host_problem(self.host):
            mqtt.leave("brokerHost", "it names no broker; the appliance is one: [[listener]]")
            self.is_used = False

    @property
    def is_here(self) -> bool:
        """Whether it runs on this machine, as far as its name tells."""
        return is_loopback(self.host) or self.host.lower() == socket.gethostname().lower()


def take(butler: Section, draft: Draft, taken_ports: frozenset[int]) -> None:
    """Add listener, bridge, trigger and outcomes. ``taken_ports`` are others of this machine."""
    mqtt = butler.section("mqttConfig")
    broker = Broker(mqtt)
    subscribe = _subscribe(mqtt)
    root = str(subscribe.keys["topic"])
    start = _topic(mqtt, "taskStartTopic") or _START
    outcomes = list(_outcomes(mqtt))
    topics = [topic for _, topic in outcomes]
    firsts = {topic.partition("/")[0] for topic in (root, start, *topics)}
    draft.service_name = next(each for each in _NAMES if each not in firsts)
    here = {broker.port} if broker.is_used and broker.is_here else set()
    port = next(each for each in _PORTS if each not in here | taken_ports)
    listener = draft.add(TomlTable("[[listener]]", {"bind": f"127.0.0.1:{port}"}))
    listener.remarks["bind"] = "this machine only; for others: its address, `tls` and users"
    if broker.is_used:
        listener.comment = (
            "Messages come in by the bridge below. This is for the appliance's own commands, and "
            "for clients that come over from the other broker."
        )
        _bridge(mqtt, broker, subscribe, sorted(set(topics)), draft)
        if not covers(root, start):
            mqtt.findings.differs(
                mqtt.key("taskStartTopic"),
                "it is not below subscriptionRootTopic, so Butler gets no message there, and nor "
                "does the bridge; correct `topic` of [[bridge.subscribe]]",
            )
    else:
        listener.comment = (
            "Butler uses no broker, so the appliance is one. Publishers connect to this."
        )
    draft.add(
        TomlTable(
            "[[trigger]]",
            {"topic": start, "task": "payload"},
            comment="A message whose payload is a task id starts that task.",
        )
    )
    comment = "What Butler publishes when a reload fails or is aborted, for its subscribers."
    for form, topic in outcomes:
        draft.add(TomlTable("[[outcome]]", {"form": form, "topic": topic}, comment=comment))
        comment = ""


def _subscribe(mqtt: Section) -> TomlTable:
    """What Butler subscribes to; a shared subscription has its group in a key of its own."""
    root, share = mqtt.text("subscriptionRootTopic"), ""
    if root.startswith("$share/") and root.count("/") > 1:
        _, share, root = root.split("/", 2)
    problem = filter_problem(root) or reserved_problem(root, "") if root else None
    if problem or set("+#") & set(share) or not share.isprintable():
        mqtt.leave("subscriptionRootTopic", f"not a filter that can be used; {_ROOT} is written")
        root, share = "", ""
    keys = {"topic": root or _ROOT} | ({"share": share} if share else {})
    return TomlTable("[[bridge.subscribe]]", {**keys})


def _topic(mqtt: Section, key: str) -> str:
    topic = mqtt.text(key)
    limits = LimitsConfig()
    is_long = (
        len(topic.encode()) > limits.max_topic_length or topic.count("/") >= limits.max_topic_levels
    )
    problem = topic_problem(topic) or reserved_problem(topic, "") if topic else None
    if problem or is_long or set("{}") & set(topic):
        mqtt.leave(key, "not a topic that the appliance can have; write [[trigger]] or [[outcome]]")
        return ""
    return topic


def _outcomes(mqtt: Section) -> Iterator[tuple[str, str]]:
    """Form and topic of each kind of outcome that Butler publishes."""
    for key, switch, form in _OUTCOMES:
        topic = _topic(mqtt, key)
        if switch and not mqtt.is_on(switch):
            continue
        if topic:
            yield form, topic


def _bridge(
    mqtt: Section, broker: Broker, subscribe: TomlTable, outcomes: list[str], draft: Draft
) -> None:
    bridge = TomlTable(
        "[[bridge]]",
        {"name": "broker", "host": broker.host, "port": broker.port},
        comment="The broker that Butler connects to.",
    )
    root = str(subscribe.keys["topic"])
    publish = [TomlTable("[[bridge.publish]]", {"topic": topic}) for topic in outcomes]
    azure = mqtt.section("azureEventGrid")
    if azure and azure.flag("enable", True):
        _azure(azure, bridge, draft)
    elif azure:
        draft.findings.turned_off(azure.path)
    if "version" not in bridge.keys and any(overlap(root, topic) for topic in outcomes):
        bridge.keys["version"] = "5"
        bridge.remarks["version"] = "a broker that has only 3.1.1: see docs/from-butler.md"
    if publish:
        publish[0].comment = "Subscribers there go on getting what Butler published."
    for table in (bridge, subscribe, *publish):
        table.is_comment = bool(bridge.missing)
        draft.add(table)


def _azure(azure: Section, bridge: TomlTable, draft: Draft) -> None:
    """Azure Event Grid, as docs/bridges.md has it: TLS and a certificate of the client."""
    client_id = azure.text("clientId")
    found = {
        key: draft.located(azure.text(name))
        for key, name in (("certfile", "clientCertFile"), ("keyfile", "clientKeyFile"))
    }
    usual = {"certfile": "azure_bridge.pem", "keyfile": "azure_bridge_key.pem"}
    files = {key: draft.written(path) if path else usual[key] for key, path in found.items()}
    bridge.keys |= {"version": "5", "username": client_id, "client_id": client_id, "tls": files}
    bridge.keys |= {"keepalive": "5m", "session_expiry": "8h", "max_packet_size": "512KiB"}
    draft.findings.differs(
        azure.key("clientId"),
        "the bridge signs in as the client that Butler is, and Event Grid gives a client one "
        "session by default, so the two would end each other's connection. Stop Butler first, or "
        "register a client for the appliance and write it into `username`, `client_id` and `tls`",
    )
    problems = [f"{azure.key('clientId')} is empty"] if not client_id.strip() else []
    if not client_id.isprintable():
        problems.append(f"{azure.key('clientId')} has characters that can't be sent")
    certfile, keyfile = found["certfile"], found["keyfile"]
    if certfile is None or keyfile is None:
        problems.append("the files of its certificate are not there")
    else:
        problems.extend(pair_problem(azure.path, str(certfile), str(keyfile)))
    if problems:
        bridge.missing = (
            f"Not in effect yet, because {'; '.join(problems)}. When that is put right, remove the "
            '"# " below.'
        )
        draft.findings.differs(
            azure.path, f"the bridge is not in effect yet: {'; '.join(problems)}"
        )
