"""The topics between an attached terminal and the terminal server, each with the client id.

They begin with ``$``, so no wildcard of a subscriber, recorder or trigger matches them (MQTT
3.1.1, section 4.7.2). They lack the appliance's name, which a terminal does not know.
Not for: who may use them (broker/access.py).
"""

from __future__ import annotations

PREFIX = "$desk/"


def request_topic(client_id: str) -> str:
    """The topic on which a terminal publishes its requests."""
    return f"{PREFIX}request/{client_id}"


def state_topic(client_id: str) -> str:
    """The topic on which a terminal gets frames."""
    return f"{PREFIX}state/{client_id}"


def reply_topic(client_id: str) -> str:
    """The topic on which a terminal gets the answers to its requests."""
    return f"{PREFIX}reply/{client_id}"


def is_plain(name: str) -> bool:
    """Whether a user's name or a client id can be one level of a topic, and nothing more."""
    return name != "" and not any(sign in name for sign in "/+#")


def is_own_topic(topic: str, client_id: str) -> bool:
    """Whether a client with this id may subscribe to this topic, judged by the id alone."""
    return is_plain(client_id) and topic in (state_topic(client_id), reply_topic(client_id))


def is_own_request(topic: str, client_id: str) -> bool:
    """Whether a client with this id may send requests on this topic, judged by the id alone."""
    return is_plain(client_id) and topic == request_topic(client_id)
