"""The topics between an attached terminal and the desk, each with the terminal's client id.

They begin with ``$``, so no wildcard of a subscriber, recorder or trigger takes them (MQTT 3.1.1,
section 4.7.2), and without the name of the appliance, which a terminal need not know.
Not for: who may use them (broker/access.py).
"""

from __future__ import annotations

PREFIX = "$desk/"


def request_topic(client_id: str) -> str:
    """Where a terminal publishes what it asks for."""
    return f"{PREFIX}request/{client_id}"


def state_topic(client_id: str) -> str:
    """Where a terminal gets the changes of the engine's state."""
    return f"{PREFIX}state/{client_id}"


def reply_topic(client_id: str) -> str:
    """Where a terminal gets the answers to its requests."""
    return f"{PREFIX}reply/{client_id}"


def is_own_topic(topic: str, client_id: str) -> bool:
    """Whether a client with this id may subscribe to this topic, as far as its id goes."""
    if not client_id or any(sign in client_id for sign in "/+#"):
        return False
    return topic in (state_topic(client_id), reply_topic(client_id))


def is_own_request(topic: str, client_id: str) -> bool:
    """Whether a client with this id may ask on this topic, as far as its id goes."""
    if not client_id or any(sign in client_id for sign in "/+#"):
        return False
    return topic == request_topic(client_id)
