"""Why a broker refuses or ends something, as its reason codes say, in words.

Not for: what to do about it, which depends on what the client is (client.py, bridge/causes.py).
"""

from __future__ import annotations

FAILURE = 0x80
"""MQTT 5, section 2.4: reason codes from here on report a failure."""

NO_PERMISSION = frozenset({0x86, 0x87, 0x8A, 0x8C})
"""The reason codes for want of a right."""

_FROM_3_1_1 = {1: 0x84, 2: 0x85, 3: 0x88, 4: 0x86, 5: 0x87}

# The table of MQTT 5, section 2.4. "it" is the broker.
_TEXTS = {
    0x80: "it gives no reason",
    0x81: "it can't read what was sent",
    0x82: "what was sent breaks the protocol",
    0x83: "it gives no reason of the standard",
    0x84: "it speaks another version of MQTT",
    0x85: "it does not accept the client id",
    0x86: "wrong user name or password",
    0x87: "not authorized",
    0x88: "it is not available now",
    0x89: "it is busy",
    0x8A: "this client is banned",
    0x8B: "it is shutting down",
    0x8C: "it wants another way to sign in",
    0x8D: "it heard nothing from this client in time",
    0x8E: "another client with the same client id took over",
    0x8F: "it does not accept the topic filter",
    0x90: "it does not accept the topic",
    0x91: "the packet id is in use",
    0x92: "the packet id is unknown",
    0x93: "it got more messages at a time than it takes",
    0x94: "it does not accept the topic alias",
    0x95: "the message is too large",
    0x96: "messages come too fast",
    0x97: "a quota is used up",
    0x98: "an operator disconnected this client",
    0x99: "the payload is not of the format that it claims",
    0x9A: "it does not keep retained messages",
    0x9B: "it does not offer this quality of service",
    0x9C: "another server is to be used for now",
    0x9D: "it moved to another server",
    0x9E: "it has no shared subscriptions",
    0x9F: "too many connections at a time",
    0xA0: "the connection lasted as long as it may",
    0xA1: "it has no subscription identifiers",
    0xA2: "it has no subscriptions with wildcards",
}


def of_return_code(code: int) -> int:
    """The reason code with the meaning of a CONNACK return code of 3.1.1 (table 3.1).

    Brokers of 3.1.1 answer a CONNECT of MQTT 5 with them, too. Other codes stay what they are.
    """
    return _FROM_3_1_1.get(code, code)


def text(code: int) -> str:
    """What a reason code says, for people; unknown ones are given as numbers."""
    return _TEXTS.get(code, f"reason code {code:#04x}")
