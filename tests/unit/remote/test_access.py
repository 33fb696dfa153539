"""Which user may attach a terminal; none reads or writes another terminal's topics."""

from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.broker.access import Access, Role, Terms
from appliance.config.tables import AccessConfig, AccessRule
from appliance.remote.topics import PREFIX, is_own_topic, reply_topic, request_topic, state_topic
from appliance.mqtt.topics import matches

EVERYTHING = (AccessRule(publish=("#", "$desk/#"), subscribe=("#", "$desk/#")),)


def access(*, users=True, rules=(), operators=("admin",), viewers=("anna", "screen-*")):
    return Access(
        Terms(
            AccessConfig(operators=operators, viewers=viewers, rule=rules),
            SimpleNamespace(exists=True) if users else None,
            anonymous=not users,
            open_without_users=not users,
        ),
        reserved="appliance",
        executor=None,
        clock=lambda: 0.0,
        count=lambda name: Counter()[name],
    )


@pytest.mark.parametrize(
    ("username", "role"),
    [
        ("admin", Role.OPERATOR),
        ("anna", Role.VIEWER),
        ("screen-hall-3", Role.VIEWER),
        ("plc-7", None),
        ("Admin", None),
        ("", None),
        (None, None),
    ],
)
def test_only_named_users_may_attach(username, role):
    """With a users file, a role is had by being named in operators or viewers, and only so."""
    assert access().role(username, "127.0.0.1:5000") is role


def test_who_is_named_in_both_may_act():
    """The wider right counts."""
    assert access(operators=("a*",)).role("anna", "10.0.0.1:5") is Role.OPERATOR


def test_a_pattern_for_everybody_means_everybody_with_a_name():
    """viewers = ["*"] does not let those in who did not sign in."""
    both = access(viewers=("*",))
    assert both.role("plc-7", "10.0.0.1:5") is Role.VIEWER
    assert both.role(None, "127.0.0.1:5") is None


@pytest.mark.parametrize(
    ("address", "role"),
    [
        ("127.0.0.1:5000", Role.OPERATOR),
        ("[::1]:5000", Role.OPERATOR),
        ("192.0.2.7:5000", None),
        ("[2001:db8::1]:5000", None),
        ("", None),
    ],
)
def test_without_users_this_machine_is_the_operator(address, role):
    """While there are no users, a terminal on the same machine may act, one elsewhere may not."""
    assert access(users=False).role("whoever", address) is role


@pytest.mark.parametrize("rules", [(), EVERYTHING])
def test_a_client_gets_its_own_answers_alone(rules):
    """No rule, however wide, opens another terminal's topics; roles alone open one's own."""
    it = access(rules=rules)
    assert it.may_subscribe("anna", "t1", state_topic("t1"))
    assert it.may_subscribe("anna", "t1", reply_topic("t1"))
    assert it.may_ask("anna", "t1", request_topic("t1"), "10.0.0.1:5")
    for other in (
        state_topic("t2"),
        reply_topic("t2"),
        request_topic("t1"),
        "$desk/#",
        "$desk/+/t1",
    ):
        assert not it.may_subscribe("admin", "t1", other)
    assert not it.may_ask("admin", "t1", request_topic("t2"), "10.0.0.1:5")
    assert not it.may_ask("admin", "t1", state_topic("t1"), "10.0.0.1:5")
    assert not it.may_subscribe("plc-7", "t1", state_topic("t1"))
    assert not it.may_ask("plc-7", "t1", request_topic("t1"), "10.0.0.1:5")


@pytest.mark.parametrize("rules", [(), EVERYTHING])
def test_no_message_is_published_below_the_desk(rules):
    """Neither a PUBLISH nor a will reaches a terminal as if it came from the appliance."""
    for topic in (state_topic("t1"), reply_topic("t1"), request_topic("t1")):
        assert not access(rules=rules).may_publish("admin", "t1", topic)


NAMES = st.text("ab/+#$", max_size=4)


@given(NAMES, NAMES)
def test_no_client_id_reaches_into_another(mine, other):
    """With any signs in its id, what a client may subscribe to never takes another's topics."""
    for topic in (state_topic(mine), reply_topic(mine)):
        if is_own_topic(topic, mine) and mine != other and is_own_topic(state_topic(other), other):
            assert not matches(topic, state_topic(other))
            assert not matches(topic, reply_topic(other))


@given(st.text("a/+#$", max_size=8))
def test_wildcards_do_not_take_the_desk(topic_filter):
    """A recorder, trigger or subscriber of "#" gets nothing of what terminals and server say."""
    if topic_filter and not topic_filter.startswith(PREFIX):
        try:
            assert not matches(topic_filter, request_topic("t1"))
        except ValueError:
            pass
