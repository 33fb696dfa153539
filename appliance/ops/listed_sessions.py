"""Sessions as ``appliance session list`` gets them from a running appliance, a page at a time.

Not for: asking for them (ops/control_file.py), showing them (commands/session.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import msgspec

from appliance.engine_api import ClientState

_PAGE = 5000
"""Sessions in one answer."""
_FILTERS = 20
"""Topic filters of a session that are named; the others are counted."""
_FILTER_CHARACTERS = 4 * 1024 * 1024
"""Characters of all topic filters in one answer."""


class ListedSession(msgspec.Struct, frozen=True, rename="camel"):
    """One session: an element of ``appliance session list --json``."""

    client_id: str
    user: str | None
    """``None``: a client without a name."""
    is_connected: bool
    since_ns: int
    """When it connected, or was there last, in nanoseconds since 1970."""
    protocol: str
    """``"3.1"``, ``"3.1.1"`` or ``"5.0"``; empty if that was before the last start."""
    address: str
    subscription_count: int
    subscriptions: tuple[str, ...]
    """The first topic filters."""
    queued: int
    """Messages that wait or are unacknowledged."""
    queued_bytes: int
    """What they count for in memory."""
    expiry_s: int | None
    """How long it outlives its connection; ``None``: it never expires."""


def page(clients: Sequence[ClientState], after: str) -> tuple[tuple[ListedSession, ...], bool]:
    """The sessions whose client ids follow ``after``, in order; whether there are further ones."""
    found = sorted((one for one in clients if one.client_id > after), key=_client_id)
    room = _FILTER_CHARACTERS
    listed = []
    for client in itertools.islice(found, _PAGE):
        filters: list[str] = []
        for topic_filter, _qos in client.subscriptions[:_FILTERS]:
            room -= len(topic_filter)
            if room < 0:
                break
            filters.append(topic_filter)
        listed.append(_listed(client, tuple(filters)))
    return tuple(listed), len(found) > _PAGE


def _client_id(client: ClientState) -> str:
    return client.client_id


def _listed(client: ClientState, filters: tuple[str, ...]) -> ListedSession:
    return ListedSession(
        client_id=client.client_id,
        user=client.username,
        is_connected=client.connected,
        since_ns=client.since_ns,
        protocol=client.protocol,
        address=client.address,
        subscription_count=len(client.subscriptions),
        subscriptions=filters,
        queued=client.queued,
        queued_bytes=client.queued_bytes,
        expiry_s=client.expiry_s,
    )
