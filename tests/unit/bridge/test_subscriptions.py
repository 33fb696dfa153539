"""What a bridge subscribes to: the texts of its filters."""

from __future__ import annotations

import time

import msgspec

from appliance.bridge.causes import Causes
from appliance.bridge.store import SessionRecord, save_session
from appliance.bridge.subscriptions import SUBSCRIBE_ID, Subscriptions
from appliance.config.reading import loads
from appliance.known_secrets import KnownSecrets

CONFIG = """
[[bridge]]
name = "plant"
host = "broker.example.com"
subscribe = [{topic = "plant/#"}, {topic = "line/+/state", share = "appliances"}]
"""


def test_filters_of_a_configuration_file_can_be_stored_and_sent_to_terminals() -> None:
    """The values that a file is read into are not those that a database and a terminal take."""
    subscriptions = Subscriptions(loads(CONFIG).bridge[0].subscribe, 4, time.monotonic)
    wanted = subscriptions.wanted
    assert list(wanted) == ["plant/#", "$share/appliances/line/+/state"]
    save_session("plant", SessionRecord(address="", client_id="", filters=tuple(wanted.items())))
    msgspec.msgpack.encode(subscriptions.states())


def test_a_session_of_the_older_protocol_is_subscribed_to_again_with_no_local() -> None:
    """MQTT 3.1.1 has no such option, so the session has it not when the bridge changes to MQTT 5."""
    configs = (
        loads('[[bridge]]\nname = "a"\nhost = "b"\nsubscribe = [{topic = "x"}]\n')
        .bridge[0]
        .subscribe
    )
    before = Subscriptions(configs, 4, time.monotonic).wanted
    assert before != Subscriptions(configs, 5, time.monotonic).wanted


def test_a_refused_filter_is_asked_for_again_soon_and_then_more_rarely() -> None:
    """A cluster that lost a node refuses for a moment what it grants then."""
    now = [0.0]
    subscriptions = Subscriptions(loads(CONFIG).bridge[0].subscribe[:1], 4, lambda: now[0])
    causes = Causes(KnownSecrets(), has_certificate=False, has_tls=False)
    subscriptions.begin(())
    asked = []
    while now[0] < 1000:
        if subscriptions.next_packet() is not None:
            asked.append(now[0])
            subscriptions.answered(SUBSCRIBE_ID, 0x80, "", causes)
        now[0] += 1
    assert asked == [0, 5, 15, 35, 75, 155, 315, 615, 915]
