"""What other terms of access mean at once for the clients that are connected.

A client that would not be admitted any more is disconnected; a subscription that would not be
granted any more ends, and what was queued for it alone is not delivered; what may be published is
asked again for every topic. Not for: the rules themselves (access.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from appliance.broker.access import Access
from appliance.broker.client_ids import looks_assigned
from appliance.broker.sessions import ClientConnection, Session, Sessions
from appliance.broker.subscriptions import Subscriptions, split_shared
from appliance.broker.work import Steps
from appliance.counters import Count, Counter
from appliance.mqtt.packets import Reason
from appliance.mqtt.topics import Matcher


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
) -> Steps[Enforced]:
    """Look at all connections and sessions by the terms that count now."""
    disconnected = unsubscribed = 0
    for connection in connections:
        yield
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
        unsubscribed += yield from enforce_on_session(
            access, session, sessions, subscriptions, count
        )
    return Enforced(disconnected, unsubscribed)


def enforce_on_session(
    access: Access, session: Session, sessions: Sessions, subscriptions: Subscriptions, count: Count
) -> Steps[int]:
    """Look at one session by the terms that count now; returns how many subscriptions ended."""
    yield
    if not sessions.is_current(session):
        return 0
    denied = access.denial(session.username, session.client_id)
    subscriptions.deny(session.outbox, denied)
    lost = yield from _lost(access, session, subscriptions)
    ended = 0
    for topic_filter in lost:
        yield
        if sessions.is_current(session) and sessions.unsubscribe(session, topic_filter):
            ended += 1
            count(Counter.SUBSCRIPTIONS_ENDED_NOT_ALLOWED)
    if lost or denied is not None:
        filters = _filters(session, subscriptions) if lost else None
        may_have = _Permitted(filters, denied)
        for topic in session.outbox.waiting_topics():
            yield
            may_have(topic)
        if sessions.is_current(session):
            session.outbox.withhold(may_have)
            sessions.save_queue(session)
    return ended


def _may_keep_its_id(access: Access, connection: ClientConnection) -> bool:
    client_id = connection.client_id
    return looks_assigned(client_id) or access.may_choose(connection.username, client_id)


def _lost(access: Access, session: Session, subscriptions: Subscriptions) -> Steps[list[str]]:
    address = "" if session.connection is None else session.connection.address
    permits = access.subscriber(session.username, session.client_id, address)
    lost = []
    for options in subscriptions.of(session.client_id):
        yield
        if not permits(_plain(options.topic_filter)):
            lost.append(options.topic_filter)
    return lost


def _filters(session: Session, subscriptions: Subscriptions) -> Matcher[None]:
    found: Matcher[None] = Matcher()
    for options in subscriptions.of(session.client_id):
        found.add(_plain(options.topic_filter), None)
    return found


def _plain(topic_filter: str) -> str:
    """The filter of a shared subscription, which is what its member gets messages of."""
    shared = split_shared(topic_filter)
    return topic_filter if shared is None else shared[1]


class _Permitted:
    """Whether a session may still have messages of a topic. Answers are remembered."""

    def __init__(self, filters: Matcher[None] | None, denied: Callable[[str], bool] | None) -> None:
        """``filters`` are those that the session still has, if any have ended."""
        self._filters = filters
        self._denied = denied
        self._answers: dict[str, bool] = {}

    def __call__(self, topic: str) -> bool:
        answer = self._answers.get(topic)
        if answer is None:
            is_denied = self._denied is not None and self._denied(topic)
            answer = not is_denied and (self._filters is None or bool(self._filters.match(topic)))
            self._answers[topic] = answer
        return answer
