"""What a connection needs of the broker that it belongs to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from appliance.broker.access import Access
from appliance.broker.connections import Connections
from appliance.broker.door import Door
from appliance.broker.lag import Collections
from appliance.broker.session_binding import SessionBinding
from appliance.broker.session_host import SessionHost
from appliance.broker.sessions import Sessions
from appliance.broker.sparse_log import SparseLog, SparseLogs
from appliance.broker.subscriptions import Retained, Subscriptions
from appliance.broker.work import Turns
from appliance.config.tables import LimitsConfig, ListenerConfig
from appliance.counters import Count
from appliance.model import EncodedProperties, Message

if TYPE_CHECKING:  # amqtt's plugins take time to import, and are used where some are configured
    from appliance.broker.plugins import Plugins


class HasCertificate(Protocol):
    """A connection whose client may have shown a certificate."""

    listener_name: str

    @property
    def ssl_object(self) -> Any:
        """The TLS connection's, or ``None``."""


@dataclass(frozen=True, slots=True)
class BrokerContext:
    """The parts of one broker. Engine's loop only."""

    loop: asyncio.AbstractEventLoop
    limits: Callable[[], LimitsConfig]
    """The bounds that count now; a reload changes them."""
    access: Access
    door: Door
    subscriptions: Subscriptions
    retained: Retained
    sessions: Sessions
    connections: Connections
    binding: SessionBinding
    host: SessionHost
    count: Count
    """Counts a refusal or a bound that bit."""
    plugins: Plugins | None
    listener: Callable[[str], ListenerConfig]
    """A listener's configuration by its name."""
    take_terminal_request: Callable[[Message], None]
    """Hands on what an attached terminal asks for."""
    is_looping: Callable[[EncodedProperties], bool]
    """Whether a client brings back what a bridge of this appliance had sent out."""
    held_client: Callable[[str], str | None]
    """Why a client may not connect, for its operator; ``None``: nobody holds its client id."""
    is_revoked: Callable[[HasCertificate], bool]
    """Whether the certificate of a connection's client is on a revocation list now."""
    strangers_log: SparseLogs
    """Where it is written why clients are not let in."""
    lag_log: SparseLog
    """Where it is written which clients keep others waiting."""
    collections: Collections
    turns: Turns
    """Whose turn it is among connections that have much to do."""
