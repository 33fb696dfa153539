"""amqtt behind the door: it hosts sessions and answers SUBSCRIBE and UNSUBSCRIBE.

amqtt gets a connection through its public ``Broker.external_connected`` once its CONNECT has been
admitted, and from then on the control packets SUBSCRIBE, UNSUBSCRIBE and DISCONNECT. PUBLISH, its
acknowledgements, PINGREQ, wills, keepalive and delivery stay in front (docs/architecture.md has
the reasons, each a measured defect). What amqtt's public API can't do is overridden here, in this
one module, against the pinned version; tests/unit/broker/test_amqtt_host.py fails when upstream
changes what is overridden.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from typing import Protocol

from amqtt.adapters import ReaderAdapter, WriterAdapter
from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType
from amqtt.mqtt.protocol import broker_handler
from amqtt.plugins.base import BaseAuthPlugin
from amqtt.session import Session

from appliance.mqtt import packets

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


class Admitted(BaseAuthPlugin):
    """Every connection that amqtt sees has been admitted by access.py already."""

    async def authenticate(self, *, session: Session) -> bool | None:  # noqa: ARG002 - amqtt's name
        return True


class Guest(Protocol):
    """A connection, as the session host sees it."""

    def host_sent(self, packet: bytes) -> None:
        """Amqtt wrote a packet."""

    def host_closed(self) -> None:
        """Amqtt closed its side."""

    def subscribe(self, topic_filter: str) -> int:
        """Carry a subscription out; returns the SUBACK code."""

    def unsubscribe(self, topic_filter: str) -> bool:
        """Carry an unsubscription out; returns whether there was one."""

    def send_retained(self, topic_filter: str) -> None:
        """Deliver retained messages for a subscription that was just acknowledged."""

    @property
    def peer(self) -> tuple[str, int]:
        """Host and port of the client."""


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
    """What amqtt writes goes to the connection packet by packet."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    def write(self, data: bytes) -> None:
        self._guest.host_sent(bytes(data))

    async def drain(self) -> None:
        """The connection bounds what it sends by itself."""

    def get_peer_info(self) -> tuple[str, int] | None:
        return self._guest.peer

    def get_ssl_info(self) -> ssl.SSLObject | None:
        return None

    async def close(self) -> None:
        self._guest.host_closed()


class _States:
    """What amqtt asks of a session's state machine, without the machine.

    Upstream builds one from the ``transitions`` package for each session, which costs 24 KB of
    memory and more than a millisecond: half of what a connection costs in all.
    """

    __slots__ = ("_session", "state")

    def __init__(self, session: Session) -> None:
        self._session = session
        self.state = "new"

    def is_connected(self) -> bool:
        return self.state == "connected"

    def is_disconnected(self) -> bool:
        return self.state == "disconnected"

    def is_new(self) -> bool:
        return self.state == "new"

    def connect(self) -> None:
        if self.state == "connected":
            raise ValueError("the session is connected already")
        self.state = "connected"
        self._session._on_enter_connected()  # noqa: SLF001 - pinned

    def disconnect(self) -> None:
        self.state = "disconnected"
        self._session._on_enter_disconnected()  # noqa: SLF001 - pinned


class _LightSession(Session):
    """amqtt's session with ``_States``."""

    def _init_states(self) -> None:
        self.transitions = _States(self)


class _HostedBroker(Broker):
    """amqtt's broker with the subscriptions kept in front of it."""

    def __init__(self, config: BrokerConfig) -> None:
        super().__init__(config)
        self.guests: dict[str, Guest] = {}

    async def add_subscription(self, subscription: tuple[str, int], session: Session) -> int:
        # A SUBSCRIBE may have a thousand filters, each with all retained messages to be found.
        await asyncio.sleep(0)
        guest = self.guests.get(session.client_id or "")
        return packets.SUBSCRIBE_FAILED if guest is None else guest.subscribe(subscription[0])

    def _del_subscription(self, a_filter: str, session: Session) -> int:
        guest = self.guests.get(session.client_id or "")
        return 0 if guest is None else int(guest.unsubscribe(a_filter))

    async def _del_all_subscriptions(self, session: Session) -> None:
        """Subscriptions end with our session, not with amqtt's."""

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        guest = self.guests.get(session.client_id or "")
        if guest is not None:
            guest.send_retained(subscription[0])

    async def _session_monitor(self) -> None:
        """Sessions are ended where they are known to have ended.

        Upstream looks once a second and awaits between finding a session disconnected and
        removing it, so that a client that came back meanwhile is thrown out.
        """


class Seat:
    """One connection's place in the session host."""

    def __init__(self, broker: _HostedBroker, guest: Guest, client_id: str) -> None:
        self._broker = broker
        self._guest = guest
        self._client_id = client_id
        self._reader = _Reader()
        self._task: asyncio.Task[None] | None = None

    def take(self, *, clean: bool) -> None:
        """Hand the connection to amqtt, whose CONNACK comes through ``Guest.host_sent``."""
        self._broker.guests[self._client_id] = self._guest
        self._reader.feed(packets.encode_host_connect(self._client_id, clean=clean))
        self._task = asyncio.create_task(
            self._broker.external_connected(self._reader, _Writer(self._guest), LISTENER),
            name=f"host {self._client_id}",
        )

    def feed(self, packet: bytes) -> None:
        """Pass a control packet on."""
        self._reader.feed(packet)

    async def leave(self, *, forget: bool) -> None:
        """The connection has ended; returns when amqtt has let go of it.

        ``forget``: the session has ended too.
        """
        self._reader.feed_eof()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=5)
            if not self._task.done():
                self._task.cancel()
                await asyncio.wait([self._task], timeout=1)
            if not self._task.cancelled() and (error := self._task.exception()) is not None:
                logging.getLogger(__name__).error("session host: %r", error)
        if self._broker.guests.get(self._client_id) is self._guest:
            del self._broker.guests[self._client_id]
            if forget:
                await self._broker._cleanup_session(self._client_id)  # noqa: SLF001 - pinned


class SessionHost:
    """amqtt, started and stopped with the appliance."""

    def __init__(self) -> None:
        self._broker: _HostedBroker | None = None

    async def start(self) -> None:
        """Start amqtt without any listener of its own."""
        for name in ("amqtt", "transitions"):
            logging.getLogger(name).setLevel(logging.ERROR)
        config = BrokerConfig(
            listeners={LISTENER: ListenerConfig(type=ListenerType.EXTERNAL, bind="door:0")},
            plugins={f"{Admitted.__module__}.{Admitted.__name__}": {}},
        )
        broker_handler.Session = _LightSession
        self._broker = _HostedBroker(config)
        await self._broker.start()

    def seat(self, guest: Guest, client_id: str) -> Seat:
        """A place for one admitted connection."""
        if self._broker is None:
            raise RuntimeError("the session host is not started")
        return Seat(self._broker, guest, client_id)

    async def forget(self, client_id: str) -> None:
        """A session has ended while its client was away."""
        if self._broker is not None and client_id not in self._broker.guests:
            await self._broker._cleanup_session(client_id)  # noqa: SLF001 - pinned

    async def stop(self) -> None:
        """Stop amqtt; all connections have left before."""
        if self._broker is not None:
            await self._broker.shutdown()
            self._broker = None
