"""A session host without amqtt: what the broker needs of a host, in its simplest form.

With ``SESSION_HOST=stand-in`` in the environment the broker's tests run with it, so that a fault
of amqtt shows as one of amqtt.
"""

from __future__ import annotations

import asyncio
import os

from appliance.broker.session_host import SessionHandler, SessionHost
from appliance.mqtt import decode, packets


class StandInHost:
    """A ``session_host.SessionHost``."""

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    def host(self, handler: SessionHandler, client_id: str) -> StandInSession:
        return StandInSession(handler)


class StandInSession:
    """Answers in a step of its own, as amqtt does."""

    def __init__(self, handler: SessionHandler) -> None:
        self.handler = handler
        self.has_left = False

    def feed(self, packet: bytes) -> None:
        asyncio.get_running_loop().call_soon(self._answer, packet)

    def _answer(self, packet: bytes) -> None:
        if self.has_left:
            return
        kind = packets.check_flags(packet[0])
        body, _ = packets.frame(packet, 0, len(packet))
        if kind == packets.SUBSCRIBE:
            packet_id, wanted = decode.subscribe(packet[body:], 4)
            codes = tuple(self.handler.subscribe(each.topic_filter) for each in wanted)
            self.handler.host_sent(packets.encode_suback(packet_id, codes))
        elif kind == packets.UNSUBSCRIBE:
            packet_id, filters = decode.unsubscribe(packet[body:], 4)
            for topic_filter in filters:
                self.handler.unsubscribe(topic_filter)
            self.handler.host_sent(b"\xb0\x02" + packet_id.to_bytes(2, "big"))

    async def leave(self) -> None:
        self.has_left = True


def session_host() -> SessionHost:
    """The host that the environment asks for; amqtt without a word."""
    wanted = os.environ.get("SESSION_HOST", "amqtt")
    if wanted == "stand-in":
        return StandInHost()
    if wanted != "amqtt":
        raise ValueError(f"SESSION_HOST is {wanted!r}, neither amqtt nor stand-in")
    from appliance.broker.amqtt_host import AmqttHost

    return AmqttHost()
