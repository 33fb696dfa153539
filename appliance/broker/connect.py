"""From CONNECT to a place in the broker: who it is, and whether they may come in.

Everything here is decided before any session is looked at, so that a refused client can't disturb
the one whose client id it used. Not for: passwords and rules themselves (access.py), sessions
(sessions.py), the connection's bytes (connection.py).
References are to MQTT 3.1.1 unless said otherwise.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import msgspec

from appliance.broker.access import Proof
from appliance.counters import Counter
from appliance.mqtt import packets, v5_decode
from appliance.mqtt.packets import Connect, PacketError, Reason

if TYPE_CHECKING:
    from appliance.broker.plugins import PluginClient
    from appliance.broker.server import MqttBroker

_LONGEST_CLIENT_ID = 1024


class Admitted(msgspec.Struct, frozen=True):
    """A client that may come in."""

    asked: Connect
    """What its CONNECT asked for, without the password, which has done its work: nothing that
    lives as long as a connection may hold it."""
    client_id: str
    assigned: bool
    """The client id is the broker's choice, because the client gave none."""
    proof: Proof
    plugin_client: PluginClient | None = None
    """How plugins know it, where there are any."""


def decode_connect(packet: bytes, offset: int, version: int) -> Connect:
    """Decode a CONNECT whose body begins at ``offset``, in the version it is in.

    Raises:
        PacketError: it breaks the protocol.
    """
    body = packet[offset:]
    return packets.decode_connect(body) if version == 4 else v5_decode.connect(body)


async def admit(
    broker: MqttBroker, asked: Connect, peer: tuple[str, int], ssl_object: Any = None
) -> Admitted:
    """Check client id, credentials and will of a CONNECT that came from ``peer``.

    ``ssl_object`` is the connection's, for plugins that look at the client's certificate.

    Raises:
        PacketError: the client may not come in; its reason is the answer.
    """
    if asked.authentication_method is not None:
        raise PacketError(
            "extended authentication is not supported: use a user name and password",
            Reason.BAD_AUTHENTICATION_METHOD,
        )
    client_id = asked.client_id
    if not client_id:
        if asked.version == 4 and not asked.clean_start:
            raise PacketError(
                "an empty client id needs a clean session [MQTT-3.1.3-8]",
                Reason.CLIENT_ID_NOT_VALID,
            )
        client_id = f"auto-{secrets.token_hex(8)}"
    if client_id.startswith("$") or len(client_id) > _LONGEST_CLIENT_ID:
        raise PacketError(
            "a client id has at most 1024 characters and does not begin with $",
            Reason.CLIENT_ID_NOT_VALID,
        )
    client = None
    if broker.plugins is not None:
        client = broker.plugins.client(asked, client_id, peer, ssl_object)
    proof = await broker.access.admit(asked.username, asked.password, peer[0], client)
    if proof is None:
        raise PacketError("not authorised", Reason.BAD_USER_NAME_OR_PASSWORD)
    if client is not None and broker.plugins is not None:
        broker.plugins.came_in(client)
    will = asked.will
    if will is not None:
        may = broker.access.may_publish(asked.username, client_id, will.topic)
        gate = None if client is None or broker.plugins is None else broker.plugins.gate(client)
        if may and gate is not None:
            await gate.ask_publish(will.topic)
            may = gate.may_publish(will.topic) is True
        if not may:
            broker.count(Counter.PUBLISHES_REFUSED_NOT_ALLOWED)
            raise PacketError(
                f"the will may not be published to {will.topic[:80]!r}", Reason.NOT_AUTHORIZED
            )
    return Admitted(
        _without_password(asked), client_id, client_id != asked.client_id, proof, client
    )


def _without_password(asked: Connect) -> Connect:
    return msgspec.structs.replace(asked, password=None)
