"""What hosts a client's MQTT session for SUBSCRIBE and UNSUBSCRIBE, as the broker sees it.

The host is amqtt (amqtt_host.py). The tests also run with a stand-in that has no amqtt, so that
everything the broker needs of amqtt stands in these protocols.
"""

from __future__ import annotations

from typing import Protocol


class SessionHandler(Protocol):
    """One connection, as the session host sees it."""

    def host_sent(self, packet: bytes) -> None:
        """The host answered SUBSCRIBE or UNSUBSCRIBE: its 3.1.1 packet."""

    def host_closed(self) -> None:
        """The host has ended the session, by itself or because of an error."""

    def subscribe(self, topic_filter: str) -> int:
        """Carry a subscription out; returns the SUBACK code of 3.1.1."""

    def unsubscribe(self, topic_filter: str) -> bool:
        """Carry an unsubscription out; returns whether there was such a subscription."""

    @property
    def peer(self) -> tuple[str, int]:
        """Host and port of the client."""


class HostedSession(Protocol):
    """One connection's session in the host."""

    def feed(self, packet: bytes) -> None:
        """Pass a control packet of 3.1.1 on: SUBSCRIBE, UNSUBSCRIBE or DISCONNECT."""

    async def leave(self) -> None:
        """The connection has ended; returns when the host has let go of the session."""


class SessionHost(Protocol):
    """Hosts sessions. Engine's loop only."""

    async def start(self) -> None:
        """Start before the first session."""

    async def stop(self) -> None:
        """Stop behind the last session."""

    def host(self, handler: SessionHandler, client_id: str) -> HostedSession:
        """Begin a session for one connection, when its client first subscribes."""
