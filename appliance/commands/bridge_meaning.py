"""What a ``[[bridge]]`` means, in plain words, for ``appliance check``."""

from __future__ import annotations

from collections.abc import Iterator

from appliance.config.tables import BridgeConfig, BridgePublishConfig, BridgeSubscribeConfig
from appliance.config.values import format_duration
from appliance.mqtt.overlap import moved


def bridge_meaning(bridge: BridgeConfig) -> Iterator[tuple[str, str]]:
    """Each line: its head, and its text."""
    protocol = f"MQTT {bridge.version}"
    if bridge.transport == "websocket":
        protocol += " by WebSocket"
    path = bridge.path if bridge.transport == "websocket" else ""
    secure = "no TLS"
    if bridge.tls is not None:
        secure = "TLS with a client certificate" if bridge.tls.certfile else "TLS"
    parts = [f"{protocol} to {bridge.address}{path}", secure]
    if bridge.username is not None:
        parts.append(f"as {bridge.username}")
    if bridge.client_id:
        parts.append(f"client id {bridge.client_id}")
    if bridge.version == "5":
        parts.append(f"session kept for {format_duration(bridge.session_expiry)}")
    if bridge.max_rate is not None:
        parts.append(f"at most {bridge.max_rate} messages a second out")
    yield "bridge", f"{bridge.name}: {', '.join(parts)}"
    for subscribe in bridge.subscribe:
        yield "  in", _incoming(subscribe)
    for publish in bridge.publish:
        yield "  out", _outgoing(publish)


def _incoming(subscribe: BridgeSubscribeConfig) -> str:
    local = moved(subscribe.topic, subscribe.remove_prefix, subscribe.local_prefix)
    text = f"{subscribe.topic} at QoS {subscribe.qos}"
    if local != subscribe.topic:
        text += f", here {local}"
    if subscribe.share:
        text += f", shared by the group {subscribe.share}"
    if subscribe.retained:
        text += ", with retained messages"
    return text


def _outgoing(publish: BridgePublishConfig) -> str:
    remote = moved(publish.topic, publish.remove_prefix, publish.remote_prefix)
    text = f"{publish.topic} at QoS {publish.qos}"
    if remote != publish.topic:
        text += f", there {remote}"
    return text if publish.retained else f"{text}, never retained"
