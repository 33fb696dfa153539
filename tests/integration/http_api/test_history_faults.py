"""``GET /messages`` while clients are slow or go away, and the journal's messages with them."""

from __future__ import annotations

import base64
import json
import re
import socket
from pathlib import Path

import pytest
import requests
from appliance_process import DEADLINE_S, until
from http_site import PASSWORD, HttpProcess, HttpSite, session

from appliance.broker.users import Users
from appliance.counters import Counter
from appliance.http_api import history, streaming

PAYLOAD = b"x" * 20_000
"""A thousand of them are more than the buffers between server and client hold."""


def fill(site: HttpSite, count: int, payload: bytes = PAYLOAD) -> int:
    """Messages in the journal, through the door; the number of the last one."""
    door = site.appliance.door

    def enter(amount: int) -> int:
        return [
            door.publish("plant/a", payload, client_id="test", username=None, address="")
            for _ in range(amount)
        ][-1]

    last = 0
    for start in range(0, count, 100):
        last = site.appliance.call(lambda start=start: enter(min(100, count - start)), DEADLINE_S)
        site.appliance.wait_settled(DEADLINE_S)
    return last


class SlowClient:
    """Asks, and reads only what it is told to."""

    def __init__(self, site: HttpSite, query: str, user: str = "") -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self.socket.connect(("127.0.0.1", site.port))
        self.socket.settimeout(DEADLINE_S)
        credentials = base64.b64encode(f"{user}:{PASSWORD}".encode()).decode()
        sign_in = f"Authorization: Basic {credentials}\r\n" if user else ""
        head = f"GET /messages?{query} HTTP/1.1\r\nHost: localhost\r\n{sign_in}\r\n"
        self.socket.sendall(head.encode())

    def rest(self) -> bytes:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        found = b""
        while piece := self.socket.recv(1 << 20):
            found += piece
            if found.endswith(b"\r\n0\r\n\r\n"):
                break
        return found


@pytest.mark.campaign
def test_a_slow_client_gets_everything_and_holds_up_nobody(tmp_path: Path) -> None:
    """The journal is written meanwhile, others are answered, and what came later is not in it."""
    with HttpSite(tmp_path) as site:
        fill(site, 1000)
        client = SlowClient(site, "topic=plant/%23&limit=0&format=jsonl")
        with client.socket:
            head = client.socket.recv(1024)
            assert b"200 OK" in head
            fill(site, 10)
            assert site.ask("POST", "/messages/a", data=b"1").status_code == 200
            whole = head + client.rest()
        assert whole.endswith(b"\r\n0\r\n\r\n")
        assert whole.count(b'"topic": "plant/a"') == 1000


@pytest.mark.campaign
def test_clients_that_go_away_free_their_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many answers at a time as allowed; one more waits, and is refused after a while."""
    monkeypatch.setattr(streaming, "MOST", 2)
    monkeypatch.setattr(streaming, "WAIT_S", 0.1)
    with HttpSite(tmp_path) as site:
        fill(site, 1000)
        clients = [SlowClient(site, "limit=0") for _ in range(2)]
        for client in clients:
            client.socket.recv(100)
        refused = site.ask("GET", "/messages?limit=1")
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        until(lambda: site.counted(Counter.HTTP_READINGS_REFUSED) == 1, "it is counted")
        clients[0].socket.close()
        until(lambda: site.ask("GET", "/messages?limit=1").status_code == 200, "a turn is free")
        clients[1].socket.close()


SMALL = '[journal]\nmax_size = "16MiB"\n'


def overtake(site: HttpSite, seq: int) -> int:
    """Messages until retention has deleted that one; the first that is left."""

    def deleted() -> int:
        fill(site, 100)
        return site.appliance.history.bounds()[0]

    return until(lambda: (first := deleted()) > seq and first, "messages are deleted")


@pytest.mark.campaign
def test_what_was_deleted_behind_a_cursor_is_told(tmp_path: Path) -> None:
    """How many, in each form; without a cursor nothing was promised."""
    with HttpSite(tmp_path, SMALL) as site:
        seq = fill(site, 100)
        page = site.ask("GET", f"/messages?limit=10&cursor={seq - 50}").json()
        assert page["missed"] == 0
        after = seq - 40
        overtake(site, seq)
        for query in ("limit=10", "limit=10&format=csv", "limit=0", "limit=0&format=jsonl"):
            answer = site.ask("GET", f"/messages?{query}&cursor={page['cursor']}")
            first = site.ask("GET", "/messages?limit=1").json()
            assert first["missed"] == 0
            missed = int(answer.headers["appliance-missed"])
            assert seq - after < missed <= first["messages"][0]["seq"] - 1 - after


@pytest.mark.campaign
@pytest.mark.parametrize("form", ["jsonl", "json"])
def test_an_answer_that_retention_overtakes_says_so(tmp_path: Path, form: str) -> None:
    """Lines and rows end before they are complete; an object says how many are missing."""
    with HttpSite(tmp_path, SMALL) as site:
        last = fill(site, 700)
        client = SlowClient(site, f"limit=0&format={form}")
        with client.socket:
            head = client.socket.recv(1000)
            assert b"200 OK" in head
            overtake(site, last - 10)
            whole = head + client.rest()
        is_complete = whole.endswith(b"\r\n0\r\n\r\n")
        if form == "json":
            assert is_complete
            assert int(re.search(rb'"missed":(\d+)', whole)[1]) > 0
        else:
            until(lambda: site.appliance.counters[Counter.HTTP_READINGS_ENDED_DELETED], "counted")
            assert not is_complete


@pytest.mark.campaign
def test_an_appliance_that_is_killed_leaves_no_whole_answer(tmp_path: Path) -> None:
    """The client sees that it is not complete, and goes on with the last number it has."""
    with HttpProcess(tmp_path) as process, session() as client:
        process.start()
        sent = [
            client.post(f"{process.url}/messages/a", data=PAYLOAD * 20, timeout=DEADLINE_S).json()
            for _ in range(40)
        ]
        seen: list[int] = []
        with (
            pytest.raises(requests.exceptions.RequestException),
            client.get(
                f"{process.url}/messages?topic=a&limit=0&format=jsonl",
                stream=True,
                timeout=DEADLINE_S,
            ) as answer,
        ):
            for line in answer.iter_lines(chunk_size=1000):
                seen.append(json.loads(line)["seq"])
                if len(seen) == 3:
                    process.kill()
        process.start()
        rest = client.get(
            f"{process.url}/messages?topic=a&limit=0&cursor={seen[-1]}", timeout=DEADLINE_S
        ).json()
        seen += [one["seq"] for one in rest["messages"]]
        assert seen == [one["seq"] for one in sent]


@pytest.mark.campaign
def test_a_user_who_is_removed_gets_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that is under way ends, and is not whole."""
    monkeypatch.setattr(history, "_ADMITTED_S", 0.0)
    with HttpSite(tmp_path, users=("anna", "ben")) as site:
        fill(site, 1000)
        client = SlowClient(site, "limit=0", user="anna")
        with client.socket:
            assert b"200 OK" in client.socket.recv(1000)
            Users(str(tmp_path / "users.txt")).remove("anna")
            until(lambda: site.ask("GET", "/messages", "anna").status_code == 401, "removed")
            assert not client.rest().endswith(b"0\r\n\r\n")


@pytest.mark.campaign
def test_a_stop_does_not_wait_for_a_client(tmp_path: Path) -> None:
    with HttpSite(tmp_path) as site:
        fill(site, 1000)
        client = SlowClient(site, "limit=0")
        with client.socket:
            client.socket.recv(100)
            site.stop()
            assert not client.rest().endswith(b"0\r\n\r\n")
