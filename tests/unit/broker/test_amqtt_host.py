"""The session host's overrides fit the amqtt that is installed."""

from __future__ import annotations

import hashlib
import inspect
from importlib.metadata import version

import pytest
from amqtt.broker import Broker
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.session import Session

from appliance.broker import amqtt_host

PARTS = {
    Session._init_states: "63c76988bf4f81ce",
    Session._on_enter_connected: "d15ae98f493d7386",
    Session._on_enter_disconnected: "c05347833df778d3",
    BrokerProtocolHandler.init_from_connect: "036dc04c1133a18f",
    BrokerProtocolHandler.start: "f7637c34a27f905e",
    BrokerProtocolHandler.handle_disconnect: "63b454d06eab58f8",
}
SOURCES = {
    "add_subscription": "07757b63113c395e",
    "_del_subscription": "415f349273b0552d",
    "_del_all_subscriptions": "615579810f47d1e0",
    "_publish_retained_messages_for_subscription": "d6ad257821ba29ef",
    "_session_monitor": "5091fa20cdfdc203",
    "_cleanup_session": "530ae891d9f536cc",
    "_client_connected": "432b724bc4fb7946",
    "_initialize_client_session": "5dd89158bbe46266",
    "_handle_client_session": "8b1b52a03df9daf5",
    "_client_message_loop": "916c4647c3389918",
    "_handle_subscription": "3dae18afa195209e",
    "_handle_unsubscription": "29253b1b63036d7a",
}
"""What was overridden or relied on, as it was read: the beginning of its source's SHA-256."""


def test_version():
    """Another amqtt than the one that was read is not used unnoticed."""
    assert version("amqtt") == amqtt_host.AMQTT_VERSION


@pytest.mark.parametrize("name", SOURCES)
def test_upstream_is_unchanged(name):
    """If this fails, amqtt has changed a method: read it, adapt broker/amqtt_host.py, note it here."""
    source = inspect.getsource(getattr(Broker, name))
    assert hashlib.sha256(source.encode()).hexdigest()[:16] == SOURCES[name]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__qualname__)
def test_upstream_parts_are_unchanged(part):
    """The same for what the host relies on besides the broker's own methods."""
    source = inspect.getsource(part)
    assert hashlib.sha256(source.encode()).hexdigest()[:16] == PARTS[part]


def test_everything_overridden_is_watched():
    """Every override is on the list above, and every name on the list is still overridden."""
    mine = {
        name
        for name, value in vars(amqtt_host._HostedBroker).items()
        if callable(value) and name != "__init__"
    }
    assert mine == set(amqtt_host.OVERRIDDEN)
    assert mine <= set(SOURCES)
