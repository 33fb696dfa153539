"""Settings of ``[[bridge]]`` that are allowed and may be a mistake.

Not for: what is wrong in itself (bridge_checks.py, bridge_topics.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from appliance.config.bridge_topics import crossing, incoming, is_same_host, same_broker
from appliance.config.tables import BridgeConfig, BridgeSubscribeConfig, Config
from appliance.config.values import format_duration, is_loopback
from appliance.mqtt.overlap import moved, overlap
from appliance.mqtt.topics import covers

_LONGEST_CLIENT_ID = 23
"""Bytes that each broker of MQTT 3.1.1 must take (section 3.1.3.1)."""
_DEFAULT_EXPIRY = BridgeConfig("", "").session_expiry


def bridge_advice(config: Config) -> Iterator[str]:
    """What may be a mistake, one line each."""
    for bridge in config.bridge:
        where = f"[[bridge]] {bridge.name}"
        yield from (f"{where}{text}" for text in _advice(bridge, config.service.name))
    for one, other in combinations(config.bridge, 2):
        if same_broker(one, other):
            yield from _twice(one, other)
        elif is_same_host(one, other):
            yield from _two_ports(one, other)


def _advice(bridge: BridgeConfig, service_name: str) -> Iterator[str]:
    if not bridge.subscribe and not bridge.publish:
        yield (
            ": nothing goes in or out; add [[bridge.subscribe]] or [[bridge.publish]] with a "
            "`topic`"
        )
    if bridge.tls is None and not is_loopback(bridge.host):
        secret = bridge.password is not None or bridge.password_file is not None
        what = "the password and all payloads cross" if secret else "payloads cross"
        yield f" ({bridge.address}) has no `tls`: {what} the network unencrypted"
    if bridge.transport == "tcp" and bridge.used_port == (1883 if bridge.tls else 8883):
        usual = "8883" if bridge.tls else "1883, 8883 being usual with `tls`"
        yield f" `port`: {bridge.used_port} is unusual here; the usual one is {usual}"
    if bridge.version == "3.1.1":
        yield from _advice_3_1_1(bridge)
    for (number, wide), (other, narrow) in combinations(enumerate(bridge.publish, 1), 2):
        if covers(wide.topic, narrow.topic):
            yield (f" `publish[{other}]` has no effect: `publish[{number}]` takes all its messages")
    for number, subscribe in enumerate(bridge.subscribe, 1):
        yield from (
            f" `subscribe[{number}]`: {text}"
            for text in _subscribe_advice(bridge, subscribe, service_name)
        )


def _advice_3_1_1(bridge: BridgeConfig) -> Iterator[str]:
    size = len(bridge.client_id.encode())
    if size > _LONGEST_CLIENT_ID:
        yield (
            f" `client_id` has {size} bytes, and a broker of MQTT 3.1.1 need not take more than "
            f"{_LONGEST_CLIENT_ID} (most do)"
        )
    if bridge.follow_redirects:
        yield ' `follow_redirects` has no effect: it needs version = "5"'
    if bridge.session_expiry != _DEFAULT_EXPIRY:
        yield (
            ' `session_expiry` has no effect: it needs version = "5"; with 3.1.1 the other broker '
            "decides"
        )


def _subscribe_advice(
    bridge: BridgeConfig, subscribe: BridgeSubscribeConfig, service_name: str
) -> Iterator[str]:
    local = moved(subscribe.topic, subscribe.remove_prefix, subscribe.local_prefix)
    if local[:1] in ("+", "#"):
        yield (
            f"messages whose topic here would begin with $ or {service_name}/ are left out: "
            "those topics are the appliance's own; a `local_prefix` keeps the second"
        )
    if subscribe.share:
        if subscribe.retained:
            yield (
                "`retained` has no effect with `share`: a broker sends a group no retained messages"
            )
        if bridge.session_expiry:
            kept = format_duration(bridge.session_expiry)
            kept = f"for {kept}" if bridge.version == "5" else "as long as the broker decides"
            yield (
                "while this appliance is away, its part of the group's messages may wait for it "
                f"({kept}) instead of going to the others; docs/scaling.md"
            )
    elif subscribe.qos and not bridge.session_expiry and bridge.version == "5":
        yield (
            '`session_expiry` is "0s", so what is published while the appliance is away is lost, '
            "in spite of qos = 1"
        )


def _twice(one: BridgeConfig, other: BridgeConfig) -> Iterator[str]:
    for mine in incoming(one):
        for theirs in incoming(other):
            if mine.is_shared or theirs.is_shared or not overlap(mine.remote, theirs.remote):
                continue
            yield (
                f"[[bridge]] {other.name} `{theirs.path}`: it overlaps `{mine.path}` of [[bridge]] "
                f"{one.name} at the same broker, so a message that fits both comes in twice and "
                "counts twice"
            )
            return


def _two_ports(one: BridgeConfig, other: BridgeConfig) -> Iterator[str]:
    """What would be wrong if two ports of a host were of the same broker."""
    if one.client_id and one.client_id == other.client_id:
        yield (
            f"[[bridge]] {other.name} `client_id`: [[bridge]] {one.name} has it too. If both "
            "ports are of one broker, they end each other's connection for ever"
        )
    if one.version == other.version == "5":
        return
    for out, into in ((one, other), (other, one)):
        for sent, taken in crossing(out, into):
            yield (
                f"[[bridge]] {out.name} `{sent.path}` sends what `{taken.path}` of [[bridge]] "
                f"{into.name} takes. If both ports are of one broker, messages would go in a circle"
            )
            break
