"""Marks in the MQTT 5 user properties of a bridged message: its way and its first publisher.

They end loops that no-local can't see, because they lead over other brokers or appliances. A
message may come back by a bridge, or by another appliance's bridge, which is a client here.
Not for: no-local, and MQTT 3.1.1, which has no properties (config/bridge_topics.py).
"""

from __future__ import annotations

import msgspec

from appliance.model import BRIDGED_CLIENT, EncodedProperties, MessageProperties, bridge_of

PATH = "appliance-path"
"""The installation id of an appliance that the message passed; one property for each."""
CLIENT = BRIDGED_CLIENT
"""The client id of the publisher at the first appliance."""
LONGEST_PATH = 16
"""A message that passed more appliances than this goes no further."""
_PATH = PATH.encode()
_PLAIN = MessageProperties()


def passed(properties: MessageProperties) -> tuple[str, ...]:
    """The installation ids of the appliances that a message passed, the first one first."""
    return tuple(value for name, value in properties.user_properties if name == PATH)


def publisher_of(properties: MessageProperties) -> str:
    """The client id of the first publisher as another appliance told it, empty if none did."""
    return next((value for name, value in properties.user_properties if name == CLIENT), "")


def is_looping(properties: EncodedProperties, installation: str) -> bool:
    """Whether a message that comes in was here before, or has passed too many appliances."""
    if properties.find(_PATH) < 0:
        return False
    path = passed(properties.decoded())
    return installation in path or len(path) > LONGEST_PATH


def marked(
    properties: MessageProperties | None, *, installation: str, client_id: str
) -> MessageProperties:
    """The properties of a message that goes out, with the marks of this appliance.

    ``client_id`` is the message's here: that of a bridge says nothing about its publisher.
    """
    before = properties or _PLAIN
    added: tuple[tuple[str, str], ...] = ((PATH, installation),)
    says_who = any(name == CLIENT for name, _ in before.user_properties)
    if not says_who and client_id and not bridge_of(client_id):
        added += ((CLIENT, client_id),)
    return msgspec.structs.replace(before, user_properties=before.user_properties + added)
