"""Every numbered statement of the two standards, and why some of them have no test.

The numbers are those of the OASIS standards MQTT 3.1.1 (appendix B) and MQTT 5 (appendix B). Not
for: the tests of the others, which name them with ``broker_rig.states``.
"""

from __future__ import annotations

_MQTT_311 = {
    "1.5.3": 3,
    "2.2.2": 2,
    "2.3.1": 7,
    "3.1.0": 2,
    "3.1.2": 24,
    "3.1.3": 11,
    "3.1.4": 5,
    "3.2.0": 1,
    "3.2.2": 6,
    "3.3.1": 12,
    "3.3.2": 3,
    "3.3.4": 1,
    "3.3.5": 2,
    "3.6.1": 1,
    "3.8.1": 1,
    "3.8.3": 4,
    "3.8.4": 6,
    "3.9.3": 2,
    "3.10.1": 1,
    "3.10.3": 2,
    "3.10.4": 6,
    "3.12.4": 1,
    "3.14.1": 1,
    "3.14.4": 3,
    "4.1.0": 2,
    "4.2.0": 1,
    "4.3.1": 1,
    "4.3.2": 2,
    "4.3.3": 2,
    "4.4.0": 1,
    "4.5.0": 2,
    "4.6.0": 6,
    "4.7.1": 3,
    "4.7.2": 1,
    "4.7.3": 4,
    "4.8.0": 2,
    "6.0.0": 4,
    "7.0.0": 2,
    "7.1.1": 1,
    "7.1.2": 1,
}
"""Number of statements by section."""

_MQTT_5 = {
    "1.5.4": 3,
    "1.5.5": 1,
    "1.5.7": 1,
    "2.1.3": 1,
    "2.2.1": 6,
    "2.2.2": 1,
    "3.1.0": 2,
    "3.1.2": 30,
    "3.1.3": 12,
    "3.1.4": 6,
    "3.2.0": 2,
    "3.2.2": 22,
    "3.3.1": 13,
    "3.3.2": 20,
    "3.3.4": 10,
    "3.4.2": 3,
    "3.5.2": 3,
    "3.6.1": 1,
    "3.6.2": 3,
    "3.7.2": 3,
    "3.8.1": 1,
    "3.8.3": 5,
    "3.8.4": 8,
    "3.9.2": 2,
    "3.9.3": 2,
    "3.10.1": 1,
    "3.10.3": 2,
    "3.10.4": 6,
    "3.11.2": 2,
    "3.11.3": 2,
    "3.12.4": 1,
    "3.14.0": 1,
    "3.14.1": 1,
    "3.14.2": 4,
    "3.14.4": 3,
    "3.15.1": 1,
    "3.15.2": 3,
    "4.1.0": 2,
    "4.2": 1,
    "4.3.1": 1,
    "4.3.2": 5,
    "4.3.3": 13,
    "4.4.0": 2,
    "4.5.0": 2,
    "4.6.0": 6,
    "4.7.0": 1,
    "4.7.1": 2,
    "4.7.2": 1,
    "4.7.3": 4,
    "4.8.2": 6,
    "4.9.0": 3,
    "4.12.0": 7,
    "4.12.1": 2,
    "4.13.1": 1,
    "4.13.2": 1,
    "6.0.0": 4,
}

ALL = frozenset(
    f"{standard}-{section}-{number}"
    for standard, sections in (("MQTT", _MQTT_311), ("MQTT5", _MQTT_5))
    for section, count in sections.items()
    for number in range(1, count + 1)
) - {"MQTT5-2.2.1-1"}
"""The first number of MQTT 5, section 2.2.1, was never given."""

WITHOUT_TEST = {
    "They are about clients.": (
        "MQTT-2.3.1-2, MQTT-2.3.1-3, MQTT-3.1.2-23, MQTT-3.14.4-1, MQTT-4.5.0-2, MQTT-6.0.0-3,"
        " MQTT-7.1.2-1, MQTT5-3.1.2-20, MQTT5-3.1.2-21, MQTT5-3.1.2-30, MQTT5-3.2.2-4,"
        " MQTT5-3.2.2-5, MQTT5-3.2.2-11, MQTT5-3.2.2-14, MQTT5-3.2.2-15, MQTT5-3.2.2-17,"
        " MQTT5-3.2.2-18, MQTT5-3.2.2-21, MQTT5-3.3.2-10, MQTT5-3.3.4-7, MQTT5-3.3.4-8,"
        " MQTT5-4.5.0-2, MQTT5-4.12.0-3, MQTT5-4.12.0-7, MQTT5-4.12.1-1, MQTT5-6.0.0-3"
    ),
    "They are about servers that lack a QoS or wildcards. The appliance has all of them.": (
        "MQTT-3.8.3-2, MQTT5-3.2.2-10, MQTT5-3.2.2-12"
    ),
    "They are about AUTH packets from the server. The appliance sends none.": (
        "MQTT5-3.15.2-1, MQTT5-3.15.2-2, MQTT5-3.15.2-3, MQTT5-4.12.0-2, MQTT5-4.12.0-5"
    ),
    "They are about servers that connect to other servers. The appliance does not.": (
        "MQTT-7.0.0-1"
    ),
    "They can't be broken: a text has a length field of two bytes; every test uses TCP or WebSocket"
    " and no extension.": (
        "MQTT-4.2.0-1, MQTT-4.7.3-3, MQTT-7.0.0-2, MQTT-7.1.1-1, MQTT5-4.2-1, MQTT5-4.7.3-3"
    ),
}
"""Why statements have no test: the statements."""
