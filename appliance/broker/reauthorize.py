"""What other terms of access mean at once for the clients that are connected.

A client that would not be admitted any more is disconnected; a subscription that would not be
granted any more ends, and what was queued for it alone is not delivered; what may be published is
asked again for every topic. Not for: the rules themselves (access.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import msgspec

from appliance.broker.access import Access
from appliance.broker.client_ids import looks_assigned
from appliance.broker.sessions import ClientConnection, Session, Sessions
from appliance.broker.subscriptions import Subscriptions, split_shared
from appliance.counters import Count, Counter
from appliance.mqtt.packets import Reason
from appliance.mqtt.topics import matches


class Enforced(msgspec.Struct, frozen=True):
    """What came of it."""

    disconnected: int = 0
    unsubscribed: int = 0


def enforce(
    access: Access,
    connections: Iterable[ClientConnection],
    sessions: Sessions,
    subscriptions: Subscriptions,
    count: Count,
) -> Enforced:
    """Look at all connections and sessions by the terms that count now."""
    disconnected = unsubscribed = 0
    for connection in connections:
        connection.forget_topics()
        proof = connection.proof
        if proof is not None and not connection.is_gone:
            if not access.still_admits(connection.username, proof):
                why = "its user is gone, has another password or may not come in"
            elif not _may_keep_its_id(access, connection):
                why = "its user may not use this client id any more (access.client_ids)"
            else:
                continue
            disconnected += 1
            count(Counter.CONNECTIONS_ENDED_ACCESS_WITHDRAWN)
            connection.end(Reason.NOT_AUTHORIZED, why)
    for session in sessions.all():
        unsubscribed += enforce_on_session(access, session, sessions, subscriptions, count)
    return Enforced(disconnected, unsubscribed)


def enforce_on_session(
    access: Access, session: Session, sessions: Sessions, subscriptions: Subscriptions, count: Count
) -> int:
    """Look at one session by the terms that count now; returns how many subscriptions ended."""
    denied = access.denial(session.username, session.client_id)
    subscriptions.deny(session.outbox, denied)
    lost = _lost(access, session, subscriptions)
    for topic_filter in lost:
        sessions.unsubscribe(session, topic_filter)
        count(Counter.SUBSCRIPTIONS_ENDED_NOT_ALLOWED)
    if lost or denied is not None:
        filters = _filters(session, subscriptions) if lost else None
        session.outbox.withhold(partial(_may_have, filters, denied))
        sessions.save_queue(session)
    return len(lost)


def _may_keep_its_id(access: Access, connection: ClientConnection) -> bool:
    client_id = connection.client_id
    return looks_assigned(client_id) or access.may_choose(connection.username, client_id)


def _lost(access: Access, session: Session, subscriptions: Subscriptions) -> list[str]:
    address = "" if session.connection is None else session.connection.address
    return [
        options.topic_filter
        for options in subscriptions.of(session.client_id)
        if not access.may_subscribe(
            session.username, session.client_id, _plain(options.topic_filter), address
        )
    ]


def _filters(session: Session, subscriptions: Subscriptions) -> list[str]:
    return [_plain(options.topic_filter) for options in subscriptions.of(session.client_id)]


def _plain(topic_filter: str) -> str:
    """The filter of a shared subscription, which is what its member gets messages of."""
    shared = split_shared(topic_filter)
    return topic_filter if shared is None else shared[1]


def _may_have(filters: list[str] | None, denied: Callable[[str], bool] | None, topic: str) -> bool:
    if denied is not None and denied(topic):
        return False
    return filters is None or any(matches(each, topic) for each in filters)
