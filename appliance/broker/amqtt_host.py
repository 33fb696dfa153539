"""amqtt behind the door: it hosts the sessions of clients that subscribe.

amqtt gets a connection through its public ``Broker.external_connected`` when the client first
subscribes, and from then on the control packets SUBSCRIBE, UNSUBSCRIBE and DISCONNECT. CONNECT,
PUBLISH, its acknowledgements, PINGREQ, wills, keepalive and delivery stay in front
(docs/architecture.md has the reasons, each a measured defect). What amqtt's public API can't do is
overridden here, in this one module, against the pinned version;
tests/unit/broker/test_amqtt_host.py fails when upstream changes what is overridden.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import ssl
from collections import deque

from amqtt.adapters import ReaderAdapter, WriterAdapter
from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType
from amqtt.mqtt.protocol import broker_handler
from amqtt.plugins.base import BaseAuthPlugin
from amqtt.session import Session

from appliance.broker.light_session import LightSession
from appliance.broker.session_host import SessionHandler
from appliance.mqtt import packets

logger = logging.getLogger(__name__)

AMQTT_VERSION = "0.12.1"
OVERRIDDEN = (
    "add_subscription",
    "_del_subscription",
    "_del_all_subscriptions",
    "_publish_retained_messages_for_subscription",
    "_session_monitor",
)
LISTENER = "default"
_STEPS_BEFORE_END = 4
_LEAVE_S = 5.0
"""How long amqtt may take to let go of a session."""


class AdmitAll(BaseAuthPlugin):
    """Every connection that amqtt sees has been admitted by access.py already."""

    async def authenticate(self, *, session: Session) -> bool | None:  # noqa: ARG002 - amqtt's name
        return True


class _Reader(ReaderAdapter):
    """Bytes that the door passes on to amqtt."""

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None

    def feed(self, data: bytes) -> None:
        self._chunks.append(data)
        self._wake()

    def feed_eof(self) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def read(self, n: int = -1) -> bytes:
        taken = b""
        while n < 0 or len(taken) < n:
            if not self._chunks:
                if self._ended:
                    # amqtt starts to wait for the end of a connection a few steps after it starts
                    # to read, and never learns of an end that it reads before that.
                    for _ in range(_STEPS_BEFORE_END):
                        await asyncio.sleep(0)
                    break
                self._waiter = asyncio.get_running_loop().create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None
                continue
            chunk = self._chunks.popleft()
            if n < 0:
                taken += chunk
                continue
            missing = n - len(taken)
            taken += chunk[:missing]
            if len(chunk) > missing:
                self._chunks.appendleft(chunk[missing:])
        return taken


class _Writer(WriterAdapter):
    """What amqtt writes goes to the connection packet by packet.

    Its CONNACK does not: the client had one before amqtt heard of it.
    """

    def __init__(self, handler: SessionHandler) -> None:
        self._handler = handler

    def write(self, data: bytes) -> None:
        if data[0] >> 4 != packets.CONNACK:
            self._handler.host_sent(bytes(data))

    async def drain(self) -> None:
        """The connection bounds what it sends by itself."""

    def get_peer_info(self) -> tuple[str, int] | None:
        return self._handler.peer

    def get_ssl_info(self) -> ssl.SSLObject | None:
        return None

    async def close(self) -> None:
        """The end of ``external_connected`` tells the connection."""


class _HostedBroker(Broker):
    """amqtt's broker with the subscriptions kept in front of it."""

    def __init__(self, config: BrokerConfig) -> None:
        super().__init__(config)
        self.handlers: dict[str, SessionHandler] = {}

    async def add_subscription(self, subscription: tuple[str, int], session: Session) -> int:
        # A SUBSCRIBE may have a thousand filters, each with all retained messages to be found.
        await asyncio.sleep(0)
        handler = self.handlers.get(session.client_id or "")
        return packets.SUBSCRIBE_FAILED if handler is None else handler.subscribe(subscription[0])

    def _del_subscription(self, a_filter: str, session: Session) -> int:
        handler = self.handlers.get(session.client_id or "")
        return 0 if handler is None else int(handler.unsubscribe(a_filter))

    async def _del_all_subscriptions(self, session: Session) -> None:
        """Subscriptions end with our session, not with amqtt's."""

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        """Retained messages are sent behind the SUBACK of the client's own version."""

    async def _session_monitor(self) -> None:
        """Sessions are ended where they are known to have ended.

        Upstream looks once a second and awaits between finding a session disconnected and
        removing it, so that a client that came back meanwhile is thrown out.
        """


class _HostedSession:
    """One connection's session in amqtt (a ``session_host.HostedSession``)."""

    def __init__(self, broker: _HostedBroker, handler: SessionHandler, name: str) -> None:
        self._broker = broker
        self._handler = handler
        self._name = name
        self._is_leaving = False
        self._reader = _Reader()
        broker.handlers[name] = handler
        self._reader.feed(packets.encode_host_connect(name))
        self._task = asyncio.create_task(
            broker.external_connected(self._reader, _Writer(handler), LISTENER),
            name=f"host {name}",
        )
        self._task.add_done_callback(self._ended)

    def feed(self, packet: bytes) -> None:
        """Pass a control packet on."""
        self._reader.feed(packet)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("session host: %r", error)
        if not self._is_leaving:
            self._handler.host_closed()

    async def leave(self) -> None:
        """The connection has ended; returns when amqtt has let go of the session."""
        self._is_leaving = True
        self._reader.feed_eof()
        await asyncio.wait([self._task], timeout=_LEAVE_S)
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task], timeout=1)
        del self._broker.handlers[self._name]
        await self._broker._cleanup_session(self._name)  # noqa: SLF001 - pinned


class AmqttHost:
    """amqtt, started and stopped with the appliance (a ``session_host.SessionHost``)."""

    def __init__(self) -> None:
        self._broker: _HostedBroker | None = None
        self._numbers = itertools.count(1)

    async def start(self) -> None:
        """Start amqtt without any listener of its own."""
        for name in ("amqtt", "transitions"):
            logging.getLogger(name).setLevel(logging.ERROR)
        config = BrokerConfig(
            listeners={LISTENER: ListenerConfig(type=ListenerType.EXTERNAL, bind="door:0")},
            plugins={f"{AdmitAll.__module__}.{AdmitAll.__name__}": {}},
        )
        broker_handler.Session = LightSession
        self._broker = _HostedBroker(config)
        await self._broker.start()

    def host(self, handler: SessionHandler, client_id: str) -> _HostedSession:
        """Begin a session for one connection.

        amqtt knows each by a name of its own, so that a client that comes back does not meet the
        session that amqtt is still clearing away.
        """
        if self._broker is None:
            raise RuntimeError("the session host is not started")
        return _HostedSession(self._broker, handler, f"{next(self._numbers)} {client_id}")

    async def stop(self) -> None:
        """Stop amqtt; all connections have left before."""
        if self._broker is not None:
            await self._broker.shutdown()
            self._broker = None
