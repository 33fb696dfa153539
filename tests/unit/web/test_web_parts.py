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
from appliance.web.connections import HEAD_S, MAX_CONNECTIONS, Connection, Connections
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


class Wire(asyncio.Transport):
    """The socket of a connection from ``address``."""

    def __init__(self, address):
        super().__init__({"peername": (address, 5)})
        self.is_aborted = self.is_closed = False

    def is_closing(self):
        return self.is_closed or self.is_aborted

    def abort(self):
        self.is_aborted = True


class TestConnections:
    def make(self):
        clock = Clock()
        return Connections(clock), clock

    def open(self, connections, address="10.0.0.1", *, is_silent=False):
        wire, handler = Wire(address), asyncio.Protocol()
        Connection(handler, handler, connections).connection_made(wire)
        connections.of(handler).is_silent = is_silent
        return wire, handler

    def test_a_flood_of_one_address_ends_its_own(self):
        """People of other addresses stay, also if they say nothing; so does each terminal."""
        connections, _ = self.make()
        person, _ = self.open(connections, "10.0.0.2", is_silent=True)
        terminal, handler = self.open(connections)
        connections.of(handler).has_terminal = True
        flood = [self.open(connections)[0] for _ in range(3 * MAX_CONNECTIONS)]
        assert len(connections) == MAX_CONNECTIONS
        assert not person.is_aborted
        assert not terminal.is_aborted
        assert [each.is_aborted for each in flood].count(True) == 2 * MAX_CONNECTIONS + 2
        assert not flood[-1].is_aborted

    def test_who_says_nothing_makes_room_first(self):
        """Among connections of one address; the oldest of them."""
        connections, _ = self.make()
        busy = [self.open(connections)[0] for _ in range(50)]
        silent = [self.open(connections, is_silent=True)[0] for _ in range(50)]
        self.open(connections)
        assert [each.is_aborted for each in silent] == [True] + 49 * [False]
        assert not any(each.is_aborted for each in busy)

    def test_connections_have_a_time_to_ask_and_to_end(self):
        """One that has asked stays; one that is closed but does not read is ended."""
        connections, clock = self.make()
        silent, _ = self.open(connections, is_silent=True)
        asked, _ = self.open(connections)
        clock.now_s += HEAD_S - 1
        connections.end_late()
        assert not silent.is_aborted
        clock.now_s += 1
        connections.end_late()
        assert silent.is_aborted
        assert not asked.is_aborted
        asked.is_closed = True
        clock.now_s += HEAD_S - 1
        connections.end_late()
        assert not asked.is_aborted
        clock.now_s += 1
        connections.end_late()
        assert asked.is_aborted
        assert len(connections) == 0

    def test_what_has_ended_is_forgotten(self):
        """Its handler hears of it."""
        connections, _ = self.make()
        told = []

        class Handler(asyncio.Protocol):
            def connection_lost(self, exc):
                told.append(exc)

        handler = Handler()
        connection = Connection(handler, handler, connections)
        connection.connection_made(Wire("10.0.0.1"))
        connection.connection_lost(None)
        assert (told, len(connections), connections.of(handler)) == ([None], 0, None)


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

    async def test_guessers_of_one_address_keep_nobody_else_out(self, monkeypatch):
        """The next turn is the person's; of the crowd, a bounded number waits."""
        sign_in, turns = SignIn(Target("127.0.0.1", 1883), only_here=True), asyncio.Queue()
        asked = []

        async def in_thread(_function, name, _password):
            asked.append(name)
            await turns.get()
            if name != "anna":
                raise NoPermissionError("no")

        monkeypatch.setattr(asyncio, "to_thread", in_thread)
        crowd = [
            asyncio.create_task(sign_in.check(f"guess{number}", "b", "10.0.0.1"))
            for number in range(400)
        ]
        for _ in range(3):
            await asyncio.sleep(0)
        full = [each for each in crowd if each.done()]
        person = asyncio.create_task(sign_in.check("anna", "right", "10.0.0.2"))
        while not person.done():
            turns.put_nowait(None)
            await asyncio.sleep(0)
        for each in crowd:
            each.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)
        await person
        assert asked.index("anna") < 12
        assert full

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
