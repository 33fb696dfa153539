"""What a CONNECT asks for, whether its client is admitted, and what it is answered.

A client is admitted before any session is looked at, so that a refused client can't disturb
another client with the same id. Not for: passwords and rules themselves (access.py), sessions
(session_binding.py), the connection's bytes (connection.py).
References are to MQTT 3.1.1 unless said otherwise.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from appliance.broker.access import Proof
from appliance.broker.certificate_name import named
from appliance.broker.client_ids import assign_client_id, looks_assigned
from appliance.broker.context import BrokerContext
from appliance.broker.topic_limits import TopicLimitError, check_topic
from appliance.config.tables import LimitsConfig
from appliance.counters import Counter
from appliance.mqtt import decode, packets
from appliance.mqtt import v5_encode as v5
from appliance.mqtt.packets import Connect, PacketError, Reason, Will
from appliance.mqtt.properties import PropertyLimit
from appliance.remote.topics import PREFIX

if TYPE_CHECKING:
    from appliance.broker.plugins import PluginClient

logger = logging.getLogger(__name__)

_LONGEST_CLIENT_ID = 1024
_LONGEST_USER_NAME = 1024
"""Bytes. Sessions, wills and messages hold the name, and it stands in log lines."""


class AnswerTooLargeError(PacketError):
    """The client's Maximum Packet Size forbids the answer that it must get. Counted here."""

    def __init__(self, context: BrokerContext, answer: str, size: int, largest: int) -> None:
        """``answer`` is the packet's name; ``size`` and ``largest`` are bytes."""
        context.count(Counter.CONNECTIONS_ENDED_ANSWER_TOO_LARGE)
        super().__init__(
            f"a {answer} of {size} bytes is larger than the client's Maximum Packet Size"
            f" ({largest}) [MQTT5-3.1.2-24]",
            Reason.PACKET_TOO_LARGE,
        )


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


class ConnectingConnection(Protocol):
    """A connection before its client is let in."""

    version: int
    asked: Connect | None
    """Its CONNECT, once it has come."""
    peer: tuple[str, int]
    listener_name: str

    @property
    def ssl_object(self) -> Any:
        """The TLS connection's, or ``None``."""

    @property
    def is_named_by_certificate(self) -> bool:
        """Whether the client's certificate says which user it is."""

    @property
    def is_gone(self) -> bool:
        """Whether the connection is closed or closing."""

    def wait(self) -> None:
        """Take no further packet until ``go_on``."""

    def go_on(self) -> None:
        """Take the packets behind the CONNECT."""

    def start(self, work: Coroutine[None, None, None], name: str) -> None:
        """Start what the next packet depends on."""

    def let_in(self, admission: Admission) -> None:
        """Give the client its session and answer it."""

    def note_error(self, error: Exception) -> None:
        """Log and count an error in the appliance."""

    def end(self, reason: Reason, text: str) -> None:
        """End the connection for a reason that the client is told."""

    def end_quietly(self, reason: Reason) -> None:
        """End the connection without a line in the log."""


def take_connect(context: BrokerContext, connection: ConnectingConnection, body: bytes) -> None:
    """Let a connection's client in, or end the connection; at once where nothing is to wait for.

    Raises:
        PacketError: the packet breaks the protocol.
    """
    if connection.asked is not None:
        raise PacketError("a second CONNECT [MQTT-3.1.0-2]", Reason.PROTOCOL_ERROR)
    connection.version = packets.protocol_version(
        body, allow_mqtt31=context.listener(connection.listener_name).allow_mqtt31
    )
    limits = context.limits()
    of_message = PropertyLimit(int(limits.max_properties_size), limits.max_properties)
    connection.asked = asked = decode.connect(body, connection.version, of_message)
    if context.is_revoked(connection):
        # The handshake was begun before the list was taken into use.
        connection.end(Reason.NOT_AUTHORIZED, "its certificate has been revoked")
        return
    proof = None
    try:
        if connection.is_named_by_certificate:
            connection.asked = asked = named(asked, connection.ssl_object)
            proof = Proof(by_certificate=True)
        admission = admit_at_once(context, asked, proof)
        if admission is not None:
            _check_hold(context, admission)
        if admission is not None and not context.binding.is_connected(admission.client_id):
            connection.let_in(admission)
            return
    except PacketError as error:
        connection.end(error.reason, str(error))
        return
    connection.wait()
    connection.start(_let_in(context, connection, asked, admission, proof), "admit")


async def _let_in(
    context: BrokerContext,
    connection: ConnectingConnection,
    asked: Connect,
    admission: Admission | None,
    proof: Proof | None,
) -> None:
    """Let the client in once its password is checked and its older connection is gone."""
    try:
        if admission is None:
            admission = await admit(context, asked, connection.peer, connection.ssl_object, proof)
        _check_hold(context, admission)
        await context.binding.make_way(admission.client_id, admission.asked.username)
        _check_hold(context, admission)  # it may be held since, with its older connection
        if not connection.is_gone:
            connection.let_in(admission)
            connection.go_on()
    except PacketError as error:
        connection.end(error.reason, str(error))
    except Exception as error:  # noqa: BLE001 - any error ends the connection
        connection.note_error(error)
        connection.end_quietly(Reason.UNSPECIFIED)


def shorter_keepalive(asked: Connect, limits: LimitsConfig) -> int | None:
    """What the client is told to use in place of its keepalive (MQTT 5, section 3.2.2.3.14)."""
    longest = int(limits.max_keepalive)
    is_within = not longest or 0 < asked.keepalive_s <= longest
    return None if asked.version < 5 or is_within else longest


def longest_expiry_s(limits: LimitsConfig) -> int:
    """How long an absent client's session is kept at most, in seconds."""
    return math.ceil(limits.max_session_expiry) or packets.FOR_EVER


def connack(admission: Admission, limits: LimitsConfig, *, session_present: bool) -> bytes:
    """The answer to a client that is let in."""
    asked = admission.asked
    if asked.version < 5:
        # MQTT 3.1 has no flag for the session.
        return bytes((0x20, 2, session_present and asked.version == 4, 0))
    return v5.encode_connack(
        asked,
        session_present=session_present,
        assigned_client_id=admission.client_id if admission.assigned else None,
        keepalive_s=shorter_keepalive(asked, limits),
        receive_maximum=limits.max_qos2_ids,
        maximum_packet_size=int(limits.max_packet_size),
        session_expiry_s=min(asked.session_expiry_s, longest_expiry_s(limits)),
    )


def admit_at_once(
    context: BrokerContext, asked: Connect, proof: Proof | None = None
) -> Admission | None:
    """``admit`` for a CONNECT whose answer needs no waiting; ``None``: call ``admit``.

    Raises:
        PacketError: the client may not come in; its reason is the answer.
    """
    if context.plugins is not None:
        return None
    client_id = _client_id(context, asked)
    if proof is None:
        proof = context.access.admit_at_once(asked.username, asked.password)
    if proof is None:
        return None
    _check_choice(context, asked)
    asked = _with_allowed_will(context, asked, client_id)
    return _admission(asked, client_id, proof)


async def admit(
    context: BrokerContext,
    asked: Connect,
    peer: tuple[str, int],
    ssl_object: Any = None,
    proof: Proof | None = None,
) -> Admission:
    """Check client id, credentials and will of a CONNECT that came from ``peer``.

    ``ssl_object`` is the connection's, for plugins that look at the client's certificate. With a
    ``proof``, the client is known already.

    Raises:
        PacketError: the client may not come in; its reason is the answer.
    """
    client_id = _client_id(context, asked)
    plugins, client = context.plugins, None
    if plugins is not None:
        client = plugins.client(asked, client_id, peer, ssl_object)
    if proof is None:
        proof = await context.access.admit(asked.username, asked.password, peer[0], client)
    if proof is None:
        raise PacketError("not authorised", Reason.BAD_USER_NAME_OR_PASSWORD)
    _check_choice(context, asked)
    gate = None
    if plugins is not None and client is not None:
        plugins.came_in(client)
        gate = plugins.gate(client)
    asked = _with_allowed_will(context, asked, client_id)
    if gate is not None and asked.will is not None:
        await gate.ask_publish(asked.will.topic)
        if not gate.may_publish(asked.will.topic):
            raise _forbidden_will(context, asked.will)
    return _admission(asked, client_id, proof, client)


def _client_id(context: BrokerContext, asked: Connect) -> str:
    if asked.authentication_method is not None:
        raise PacketError(
            "extended authentication is not supported: use a user name and password",
            Reason.BAD_AUTHENTICATION_METHOD,
        )
    if len((asked.username or "").encode()) > _LONGEST_USER_NAME:
        context.count(Counter.CONNECTIONS_REFUSED_USER_NAME_TOO_LONG)
        raise PacketError(
            f"a user name has at most {_LONGEST_USER_NAME} bytes", Reason.BAD_USER_NAME_OR_PASSWORD
        )
    client_id = asked.client_id
    if not client_id:
        if asked.version == 3:
            raise PacketError("MQTT 3.1 needs a client id", Reason.CLIENT_ID_NOT_VALID)
        if asked.version == 4 and not asked.clean_start:
            raise PacketError(
                "an empty client id needs a clean session [MQTT-3.1.3-8]",
                Reason.CLIENT_ID_NOT_VALID,
            )
        return assign_client_id()
    if client_id.startswith("$") or len(client_id) > _LONGEST_CLIENT_ID:
        raise PacketError(
            "a client id has at most 1024 characters and does not begin with $",
            Reason.CLIENT_ID_NOT_VALID,
        )
    return client_id


def _check_choice(context: BrokerContext, asked: Connect) -> None:
    """Let a user have a client id that ``client_ids`` allows, or one that was assigned to it.

    Raises:
        PacketError: it may not have this one.
    """
    client_id, username = asked.client_id, asked.username
    if not client_id or context.access.may_choose(username, client_id):
        return
    if looks_assigned(client_id):
        session = context.sessions.get(client_id)
        if session is not None and session.username == username:
            return
    context.count(Counter.CONNECTIONS_REFUSED_CLIENT_ID_NOT_ALLOWED)
    user = "a client without a name" if username is None else f"user {username}"
    raise PacketError(
        f"refused {user}: no pattern of access.client_ids allows this client id",
        Reason.CLIENT_ID_NOT_VALID,
    )


def _check_hold(context: BrokerContext, admission: Admission) -> None:
    """Keep a client out that an operator holds. It has shown who it is, and is told.

    Raises:
        PacketError: it is held.
    """
    if (problem := context.held_client(admission.client_id)) is not None:
        context.count(Counter.CONNECTIONS_REFUSED_CLIENT_HELD)
        raise PacketError(problem, Reason.BANNED)


def _with_allowed_will(context: BrokerContext, asked: Connect, client_id: str) -> Connect:
    """What was asked for, without a will on a ``$`` topic, which would never be published.

    The client comes in all the same: a mosquitto bridge has its state below ``$SYS`` as its will,
    and would try again for ever.

    Raises:
        PacketError: rules forbid the will's topic.
    """
    will = asked.will
    if will is not None and will.topic[0] == "$" and not will.topic.startswith(PREFIX):
        context.count(Counter.PUBLISHES_REFUSED_DOLLAR_TOPIC)
        logger.info("client %s: its will on %r is not kept", client_id, will.topic[:80])
        return msgspec.structs.replace(asked, will=None)
    if will is not None:
        try:
            check_topic(will.topic.encode(), context.limits(), context.count)
        except TopicLimitError as error:
            # 3.1 and 3.1.1 have no code for it; "server unavailable" would ask the client to come
            # back.
            reason = Reason.NOT_AUTHORIZED if asked.version < 5 else error.reason
            raise PacketError(f"the will: {error}", reason) from None
    if will is not None and not context.access.may_publish(asked.username, client_id, will.topic):
        raise _forbidden_will(context, will)
    return asked


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
