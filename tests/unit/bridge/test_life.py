"""Promises of the small parts of a bridge's life: pings, takeovers, redirects, subscriptions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appliance.bridge.causes import Cause, Causes, Kind
from appliance.bridge.keepalive import Keepalive
from appliance.bridge.redirect import Redirects
from appliance.bridge.subscriptions import SUBSCRIBE_ID, UNSUBSCRIBE_ID, Subscriptions
from appliance.bridge.takeover import Takeovers
from appliance.config.tables import BridgeSubscribeConfig
from appliance.known_secrets import KnownSecrets

CAUSES = Causes(KnownSecrets(), has_certificate=False, has_tls=False)


@given(
    keepalive_s=st.integers(5, 300),
    steps=st.lists(st.sampled_from(["wait", "heard", "sent", "answer", "paused"]), max_size=200),
)
def test_pings_keep_the_connection(keepalive_s, steps):
    """A broker never waits a keepalive for a packet; one that answers is never given up; one
    PINGREQ at most is under way while answers are read."""
    now = 0.0
    keepalive = Keepalive(keepalive_s, now)
    last_sent = 0.0
    asked_at = None
    for step in steps:
        now += keepalive_s / 10
        is_read = step != "paused"
        if step == "heard":
            keepalive.heard(now)
        elif step == "sent":
            keepalive.sent(now)
            last_sent = now
        elif step == "answer" and keepalive.is_asked:
            keepalive.heard(now)
            assert keepalive.answered()
            asked_at = None
        elif step == "paused":
            keepalive.unheard(now)
            asked_at = None if asked_at is None else now
        if keepalive.wants_ping(now, for_proof=False, is_read=is_read):
            assert asked_at is None or not is_read
            keepalive.pinged(now)
            last_sent = asked_at = now
        if asked_at is None:
            assert now - last_sent < keepalive_s
            assert not keepalive.is_dead(now)
        elif keepalive.is_dead(now):
            assert now - asked_at >= 2.0
            return


def test_a_silent_broker_is_given_up():
    """An unanswered PINGREQ ends the connection within one and a half keepalives."""
    keepalive = Keepalive(60, 0.0)
    now = 0.0
    while not keepalive.is_dead(now):
        if keepalive.wants_ping(now, for_proof=False, is_read=True):
            keepalive.pinged(now)
        now += 0.25
    assert now <= 90


def test_takeover_needs_several_short_lives():
    """Four short connections within minutes are a takeover; a long one or a refusal clears."""
    takeovers = Takeovers()
    assert [takeovers.lost(now, 1.0) for now in (1.0, 3.0, 6.0, 11.0)] == [False] * 3 + [True]
    assert not takeovers.lost(4000.0, 3600.0)
    assert [takeovers.lost(now, 1.0) for now in (4001.0, 4003.0, 4006.0)] == [False] * 3
    takeovers.clear()
    assert not takeovers.lost(4010.0, 1.0)
    slow = Takeovers()
    assert [slow.lost(now * 200.0, 1.0) for now in range(6)] == [False] * 6


def test_servers_that_name_each_other_are_left():
    """A few servers in a row are followed, then the bridge waits and asks the configured one."""
    moved = Cause(Kind.MOVED, "moved", server="other:1")
    redirects = Redirects(is_followed=True, usual_port=7)
    followed = [redirects.follow(moved, is_stable=False) for _ in range(7)]
    assert followed == [True] * 5 + [False] * 2
    assert redirects.address is None
    assert redirects.follow(moved, is_stable=True)
    assert not redirects.follow(Cause(Kind.CLOSED, "closed"), is_stable=False)
    assert redirects.address is None


ANSWERS = st.sampled_from([0, 1, 0x80, 0x87, "closed", "silent", "reconnect", "wait"])


@given(answers=st.lists(ANSWERS, max_size=40), kept=st.sets(st.sampled_from("abcxy")))
def test_every_filter_gets_its_turn(answers, kept):
    """Whatever a broker answers: one packet at a time, what is granted is not asked for again,
    what the session has too much is unsubscribed, and no filter hinders the others."""
    now = [0.0]
    filters = [BridgeSubscribeConfig(topic=topic) for topic in "abc"]
    subscriptions = Subscriptions(filters, 4, lambda: now[0])
    subscriptions.begin(kept)
    for answer in [*answers, *["reconnect", *[1] * 12]]:
        if answer == "wait":
            now[0] += 600
            continue
        if answer == "reconnect":
            now[0] += 4000
            has = set(subscriptions.in_session)
            subscriptions.lost(CAUSES, is_silent=False)
            subscriptions.begin(has)
            continue
        packet = subscriptions.next_packet()
        if packet is None:
            continue
        assert subscriptions.next_packet() is None
        pending = subscriptions.pending
        if isinstance(answer, str):
            cause = subscriptions.lost(CAUSES, is_silent=answer == "silent")
            assert (cause is None) == (packet[0] == 0xA2)
            subscriptions.begin(set(subscriptions.in_session) | ({pending} - set("abc")))
        elif packet[0] == 0xA2:
            assert pending in kept - set("abc")
            assert subscriptions.answered(UNSUBSCRIBE_ID, None, "", CAUSES) == ""
        else:
            assert pending in set("abc")
            problem = subscriptions.answered(SUBSCRIBE_ID, answer, "", CAUSES)
            assert bool(problem) == (answer >= 0x80)
    assert set(subscriptions.in_session) == set("abc")
    assert all(each.granted in (0, 1) for each in subscriptions.states())
