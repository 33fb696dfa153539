"""The parts of the web server that need no socket: who is let in, for how long, what pages say."""

import asyncio
import re

import pytest
from hypothesis import given, strategies as st

from appliance.errors import NoPermissionError
from appliance.mqtt.client import Target
from appliance.secret import Secret
from appliance.web import pages
from appliance.web.admission import Admission
from appliance.web.sessions import LINGER_S, LONGEST_S, Sessions
from appliance.web.sign_in import RefusedError, SignIn, user_target

LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
ADMISSION = Admission(["plant7.example.com", "*.hall.example.com"], tls=True)


class Clock:
    now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.mark.parametrize(
    "host",
    ["localhost", "127.0.0.1:8088", "[::1]:8088", "PLANT7.example.com.", "a.hall.example.com:1"],
)
def test_own_names_are_answered(host):
    """Addresses too: they can't be made to mean another machine."""
    assert ADMISSION.is_own_host(host)


@pytest.mark.parametrize(
    "host",
    ["", "evil.example.com", "plant7.example.com.evil.com", "127.0.0.1.evil.com", "localhost@evil",
     "localhost/..", "localhost:8088:1", "localhost evil", "[::1", "a,localhost", "\xa0localhost"],
)  # fmt: skip
def test_other_names_are_not(host):
    """DNS rebinding: the attacker's name, resolved to this machine."""
    assert not ADMISSION.is_own_host(host)


@given(st.text(max_size=30))
def test_any_host_is_judged(host):
    """Nothing that a client sends raises; what is taken can stand in a header and in a page."""
    if ADMISSION.is_own_host(host):
        assert re.fullmatch(r"[A-Za-z0-9_.:\[\]-]+", host)


@pytest.mark.parametrize(
    ("headers", "elsewhere", "here"),
    [
        ({}, False, False),
        ({"Origin": "https://localhost"}, False, True),
        ({"Origin": "http://localhost"}, True, False),
        ({"Origin": "https://localhost:444"}, True, False),
        ({"Origin": "null"}, True, False),
        ({"Origin": "https://localhost.evil.com"}, True, False),
        ({"Sec-Fetch-Site": "cross-site"}, True, False),
        ({"Sec-Fetch-Site": "same-site"}, True, False),
        ({"Sec-Fetch-Site": "none"}, False, False),
        (LINK, False, False),
        ({**LINK, "Sec-Fetch-Dest": "iframe"}, True, False),
        ({**LINK, "Origin": "https://evil.example.com"}, True, False),
    ],
)
def test_pages_of_others(headers, elsewhere, here):
    """Another scheme or port is another origin; saying nothing is not saying "from here"."""
    headers = {"Host": "localhost", **headers}
    assert ADMISSION.is_from_elsewhere(headers) is elsewhere
    assert ADMISSION.is_from_here(headers) is here


class TestSessions:
    def make(self, most=2, idle_s=600.0):
        clock = Clock()
        return Sessions(most, idle_s, clock), clock

    def test_a_token_is_good_until_its_session_ends(self):
        """A token of before is none: not guessed, not replayed."""
        sessions, _ = self.make()
        token = sessions.begin("anna", Secret("x"))
        session = sessions.find(token)
        assert session.username == "anna"
        for other in (None, "", token[:-1], token + "x", "\ud800"):
            assert sessions.find(other) is None
        sessions.end(session)
        assert sessions.find(token) is None
        assert sessions.begin("anna", Secret("x")) != token

    def test_a_closed_page_may_come_back_for_a_minute(self):
        """A reload keeps the session; longer than that, it is over."""
        sessions, clock = self.make()
        token = sessions.begin("anna", None)
        session = sessions.find(token)
        sessions.opened(session)
        clock.now_s += LINGER_S + 1
        assert sessions.find(token) is session
        sessions.closed(session)
        clock.now_s += LINGER_S
        assert sessions.find(token) is session
        clock.now_s += 1
        assert sessions.find(token) is None
        assert sessions.ended() == [session]
        assert len(sessions) == 0

    def test_idle_and_old_sessions_end(self):
        """With a terminal too; a key makes it busy again, but not for ever."""
        sessions, clock = self.make()
        token = sessions.begin("anna", None)
        session = sessions.find(token)
        sessions.opened(session)
        for _ in range(int(LONGEST_S / 500)):
            clock.now_s += 500
            assert sessions.find(token) is session
            sessions.used(session)
        clock.now_s += 500
        assert sessions.ended() == [session]
        token = sessions.begin("anna", None)
        sessions.opened(sessions.find(token))
        clock.now_s += 601
        assert sessions.find(token) is None

    def test_a_session_without_a_page_makes_room(self):
        """One with a terminal does not."""
        sessions, _ = self.make(most=2)
        first, second = sessions.begin("a", None), sessions.begin("b", None)
        sessions.opened(sessions.find(first))
        assert not sessions.is_full
        third = sessions.begin("c", None)
        assert sessions.find(second) is None
        sessions.opened(sessions.find(third))
        assert sessions.is_full
        assert sessions.find(first) is not None


class TestSignIn:
    async def test_wrong_passwords_are_answered_ever_later(self, monkeypatch):
        """From the fourth of an address on, as at the broker's own sign-in."""
        clock = Clock()
        sign_in, waits = SignIn(Target("127.0.0.1", 1883), only_here=True, clock=clock), []

        async def hold(_origin, seconds):
            waits.append(seconds)

        def refuse(*_):
            raise NoPermissionError("no")

        monkeypatch.setattr(sign_in, "_attach", refuse)
        monkeypatch.setattr(sign_in._failures, "hold", hold)
        for _ in range(8):
            with pytest.raises(RefusedError) as refused:
                await sign_in.check("anna", "wrong", "10.1.2.3")
            assert refused.value.status == 403
        assert waits[:3] == [0, 0, 0]
        assert waits[3:] == sorted(waits[3:])
        assert waits[3] > 0
        assert waits[-1] == 3.5

    async def test_a_crowd_is_turned_away(self, monkeypatch):
        """Beyond those that wait, nobody gets a thread."""
        sign_in = SignIn(Target("127.0.0.1", 1883), only_here=True)
        go = asyncio.Event()

        async def later(*_):
            await go.wait()

        monkeypatch.setattr(asyncio, "to_thread", later)
        crowd = [asyncio.create_task(sign_in.check("a", "b", "10.0.0.1")) for _ in range(40)]
        for _ in range(5):
            await asyncio.sleep(0)
        full = [each for each in crowd if each.done()]
        assert len(full) == 8
        assert all(each.exception().status == 503 for each in full)
        go.set()
        await asyncio.gather(*crowd, return_exceptions=True)

    @pytest.mark.parametrize(("name", "password"), [("x" * 257, ""), ("x", "y" * 1025)])
    async def test_long_names_and_passwords_are_refused(self, name, password):
        """Before anything is asked."""
        with pytest.raises(RefusedError, match="too long"):
            await SignIn(Target("127.0.0.1", 1), only_here=True).check(name, password, "10.0.0.1")

    def test_without_a_name_there_is_no_password(self):
        """MQTT 3.1.1 knows no password without a name."""
        assert user_target(Target("h", 1), None, Secret("x")).password is None


def test_pages_have_no_foreign_markup():
    """Names and texts are escaped, and no script or handler stands in a page itself."""
    for page in (
        pages.sign_in("<b>'\"&", "<script>alert(1)</script>"),
        pages.terminal("<b>", '"><b>'),
    ):
        assert "<b>" not in page
        assert "<script>" not in page
        assert not re.search(r"\son\w+=|javascript:|style=", page)
