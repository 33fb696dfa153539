"""What a CONNECT asks for, and whether its client is admitted.

Everything here is decided before any session is looked at, so that a refused client can't disturb
another client with the same id. Not for: passwords and rules themselves (access.py), sessions
(sessions.py), the connection's bytes (connection.py).
References are to MQTT 3.1.1 unless said otherwise.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import msgspec

from appliance.broker.access import Proof
from appliance.broker.context import BrokerContext
from appliance.counters import Counter
from appliance.mqtt import packets, v5_decode
from appliance.mqtt.packets import Connect, PacketError, Reason, Will

if TYPE_CHECKING:
    from appliance.broker.plugins import PluginClient

_LONGEST_CLIENT_ID = 1024


class Admission(msgspec.Struct, frozen=True):
    """A client that is admitted."""

    asked: Connect
    """What its CONNECT asked for, without the password: that has done its work, and nothing that
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


def admit_at_once(context: BrokerContext, asked: Connect) -> Admission | None:
    """``admit`` for a CONNECT whose answer needs no waiting; ``None``: call ``admit``.

    Raises:
        PacketError: the client may not come in; its reason is the answer.
    """
    if context.plugins is not None:
        return None
    client_id = _client_id(asked)
    proof = context.access.admit_at_once(asked.username, asked.password)
    if proof is None:
        return None
    _check_will(context, asked, client_id)
    return _admission(asked, client_id, proof)


async def admit(
    context: BrokerContext, asked: Connect, peer: tuple[str, int], ssl_object: Any = None
) -> Admission:
    """Check client id, credentials and will of a CONNECT that came from ``peer``.

    ``ssl_object`` is the connection's, for plugins that look at the client's certificate.

    Raises:
        PacketError: the client may not come in; its reason is the answer.
    """
    client_id = _client_id(asked)
    plugins, client = context.plugins, None
    if plugins is not None:
        client = plugins.client(asked, client_id, peer, ssl_object)
    proof = await context.access.admit(asked.username, asked.password, peer[0], client)
    if proof is None:
        raise PacketError("not authorised", Reason.BAD_USER_NAME_OR_PASSWORD)
    gate = None
    if plugins is not None and client is not None:
        plugins.came_in(client)
        gate = plugins.gate(client)
    _check_will(context, asked, client_id)
    if gate is not None and asked.will is not None:
        await gate.ask_publish(asked.will.topic)
        if not gate.may_publish(asked.will.topic):
            raise _forbidden_will(context, asked.will)
    return _admission(asked, client_id, proof, client)


def _client_id(asked: Connect) -> str:
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
        return f"auto-{secrets.token_hex(8)}"
    if client_id.startswith("$") or len(client_id) > _LONGEST_CLIENT_ID:
        raise PacketError(
            "a client id has at most 1024 characters and does not begin with $",
            Reason.CLIENT_ID_NOT_VALID,
        )
    return client_id


def _check_will(context: BrokerContext, asked: Connect, client_id: str) -> None:
    will = asked.will
    if will is not None and not context.access.may_publish(asked.username, client_id, will.topic):
        raise _forbidden_will(context, will)


def _forbidden_will(context: BrokerContext, will: Will) -> PacketError:
    context.count(Counter.PUBLISHES_REFUSED_NOT_ALLOWED)
    return PacketError(
        f"the will may not be published to {will.topic[:80]!r}", Reason.NOT_AUTHORIZED
    )


def _admission(
    asked: Connect, client_id: str, proof: Proof, plugin_client: PluginClient | None = None
) -> Admission:
    is_assigned = not asked.client_id
    if asked.password is not None:
        asked = msgspec.structs.replace(asked, password=None)
    return Admission(asked, client_id, is_assigned, proof, plugin_client)
