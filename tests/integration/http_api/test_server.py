"""What the HTTP port promises, whatever its clients do: bounds, order, and an engine undisturbed."""

from __future__ import annotations

import asyncio
import http.client
import logging
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import msgspec
import pytest
from appliance_process import until
from http_site import DEADLINE_S, HttpProcess, HttpSite, session
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from appliance.counters import Counter
from appliance.http_api import bounds, connection, port

HOST = b"Host: localhost\r\n"


class Handlers:
    """Routes of the test's own, on the appliance's port."""

    def __init__(self) -> None:
        self.began, self.cancelled = threading.Event(), threading.Event()
        self.is_reading = threading.Event()
        self._open: Callable[[], object] | None = None

    def add_to(self, site: HttpSite) -> None:
        routes = site.server._port._app.router.routes
        self.routes = [
            Route("/wait", self.wait),
            Route("/defect", self.defect),
            Route("/gate", self.gate),
            Route("/read", self.read, methods=["POST"]),
        ]
        routes[:0] = self.routes

    def open_gate(self) -> None:
        """Let the answer of ``/gate`` go on, which has begun."""
        self._open()

    async def wait(self, _request):
        self.began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def gate(self, _request):
        opened, loop = asyncio.Event(), asyncio.get_running_loop()
        self._open = lambda: loop.call_soon_threadsafe(opened.set)

        async def parts():
            yield b"before"
            await opened.wait()
            yield b"after"

        self.began.set()
        return StreamingResponse(parts())

    async def read(self, request):
        self.is_reading.set()
        return PlainTextResponse(await request.body())

    async def defect(self, _request):
        raise RuntimeError("s3cr3t")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(port, "_SWEEP_S", 0.02)
        limits = 'max_body = "64KiB"\nmax_connections = 20'
        with HttpSite(tmp_path_factory.mktemp("http"), http=limits) as found:
            found.ask("GET", "/healthz")
            yield found


@pytest.fixture
def handlers(site):
    found = Handlers()
    found.add_to(site)
    yield found
    del site.server._port._app.router.routes[: len(found.routes)]


def all_of(client: socket.socket) -> bytes:
    """Everything until the server closes; a reset ends it as well."""
    found = b""
    client.settimeout(DEADLINE_S)
    try:
        while piece := client.recv(65536):
            found += piece
    except ConnectionResetError:
        pass
    return found


def answers_in(data: bytes) -> list[int]:
    return [int(each) for each in re.findall(rb"HTTP/1\.1 (\d{3}) ", data)]


def post(topic: bytes, body: bytes = b"1", more: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body)
    return b"POST /messages/" + topic + b" HTTP/1.1\r\n" + HOST + length + more + b"\r\n" + body


def last_seq(site: HttpSite) -> int:
    return site.appliance.journal.last_seq


# --- requests -------------------------------------------------------------------------------------


def test_a_message_is_in_the_journal_when_the_answer_comes(site) -> None:
    """And the answer does not tell which server made it."""
    answer = site.ask("POST", "/messages/a/b", data=b"1")
    assert answer.status_code == 200, answer.text
    assert site.appliance.journal.get(answer.json()["seq"]).payload == b"1"
    assert "server" not in answer.headers
    assert answer.headers["date"]


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_that_is_too_large_is_refused_before_it_is_read(site, is_chunked) -> None:
    """By its announced length at once, else as soon as too much has come; the client, which still
    sends, gets its answer."""
    before = last_seq(site)
    counter = Counter.HTTP_REQUESTS_REFUSED_BODY
    counted = site.counted(counter)
    if is_chunked:
        head, piece = b"Transfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b"x" * 4096 + b"\r\n"
    else:
        head, piece = b"Content-Length: 1000000\r\nExpect: 100-continue\r\n\r\n", b""
    with site.raw(b"POST /messages/big HTTP/1.1\r\n" + HOST + head) as client:
        client.sendall(piece * 100)
        answer = all_of(client)
    assert answers_in(answer) == [413]
    assert b"max_body" in answer
    assert b"application/problem+json" in answer
    assert last_seq(site) == before
    until(lambda: site.counted(counter) == counted + 1, "it is counted")
    assert site.ask("POST", "/messages/big", data=b"x" * 65536).status_code == 200


@pytest.mark.parametrize(
    "head", [b"X: " + b"x" * 30_000, b"\r\n".join(b"H%d: x" % number for number in range(101))]
)
def test_a_head_that_is_too_large_is_refused(site, head) -> None:
    with site.raw(b"GET /healthz HTTP/1.1\r\n" + HOST + head + b"\r\n\r\n") as client:
        assert answers_in(all_of(client)) == [431]


@pytest.mark.parametrize(
    "request_",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"Content-Length: +3\r\n\r\nabc",
        b"Content-Length : 3\r\n\r\nabc",
        b"A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
        b"A: b\0c\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n-1\r\nabc\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0;" + b"x" * 20_000,
        b"Transfer-Encoding: chunked\r\n\r\n0\r\nTrailer: " + b"x" * 20_000,
    ],
)
def test_a_request_that_two_readers_would_understand_differently_is_refused(site, request_) -> None:
    """Neither it nor what stands behind it is carried out."""
    before = last_seq(site)
    head = b"POST /messages/smuggled HTTP/1.1\r\n" + HOST
    with site.raw(head + request_ + post(b"smuggled")) as client:
        found = answers_in(all_of(client))
    assert len(found) == 1
    assert found[0] in (400, 501)
    assert last_seq(site) == before


def test_a_trailer_changes_nothing(site) -> None:
    """What comes behind the body can't name a user or another host."""
    chunks = (
        b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nHost: evil\r\nOrigin: http://e\r\n\r\n"
    )
    with site.raw(b"POST /messages/t HTTP/1.1\r\n" + HOST + chunks + post(b"t")) as client:
        until(lambda: answers_in(client.recv(65536)) and True, "an answer")
    assert site.ask("GET", "/healthz").status_code == 200


def test_a_page_of_another_site_can_do_nothing(site) -> None:
    """A form on any page in a browser of this machine could publish and start tasks otherwise."""
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
        answer = site.ask("POST", "/messages/a", data=b"x", headers={"Origin": origin})
        assert answer.status_code == 403, origin
    answer = site.ask("POST", "/messages/a", data=b"x", headers={"Origin": site.url})
    assert answer.status_code == 200


def test_targets_that_mean_nothing_are_refused(site) -> None:
    for target in (b"/messages/%ff", b"a:80", b"/messages/\xff", b"http://[", b"*"):
        with site.raw(
            b"POST " + target + b" HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
        ) as c:
            assert answers_in(all_of(c))[0] in (400, 404, 405), target


def test_an_offer_of_another_protocol_is_ignored(site) -> None:
    """Clients that would like HTTP/2 (curl --http2, Java) are served with HTTP/1.1."""
    more = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    close = b"Connection: close\r\n"
    with site.raw(post(b"h2", more=more) + post(b"h2", more=close)) as client:
        assert answers_in(all_of(client)) == [200, 200]


def test_an_offer_of_another_protocol_with_a_body_that_is_refused(site) -> None:
    """It is refused as without the offer, and is no defect."""
    failed = site.counted(Counter.HTTP_REQUESTS_FAILED)
    more = b"Connection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: gzip\r\n\r\n"
    with site.raw(b"POST /messages/h2 HTTP/1.1\r\n" + HOST + more + post(b"h2")) as client:
        assert answers_in(all_of(client)) == [501]
    assert site.counted(Counter.HTTP_REQUESTS_FAILED) == failed


@pytest.mark.parametrize(
    ("target", "host", "expected"),
    [
        (b"http://localhost/healthz", b"evil", 200),
        (b"HTTP://127.0.0.1:8080/healthz?a=/b", b"localhost", 200),
        (b"http://evil/healthz", b"localhost", 421),
        (b"http://evil?/healthz", b"localhost", 421),
        (b"http://localhost", b"localhost", 200),
        (b"http://user@localhost/healthz", b"localhost", 400),
        (b"https://localhost/healthz", b"localhost", 400),
        (b"ftp://localhost/healthz", b"localhost", 400),
        (b"http://localhost/healthz", b"localhost\r\nHost: localhost", 400),
    ],
)
def test_a_target_in_absolute_form_says_the_host(site, target, host, expected) -> None:
    """Whatever the header says (RFC 9112, section 3.2.2): it is also what addresses are made of."""
    rest = b" HTTP/1.1\r\nConnection: close\r\nHost: " + host + b"\r\n\r\n"
    with site.raw(b"GET " + target + rest) as client:
        assert answers_in(all_of(client)) == [expected]


def test_a_client_of_http_1_0_gets_no_chunks(site) -> None:
    """It would take their lengths for a part of the answer."""
    with site.raw(b"GET /messages?limit=0&format=jsonl HTTP/1.0\r\n\r\n") as client:
        head, _, body = all_of(client).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert [msgspec.json.decode(line)["seq"] for line in body.splitlines()]


def test_head_and_http_1_0(site) -> None:
    assert site.ask("HEAD", "/healthz").content == b""
    with site.raw(b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n") as client:
        assert answers_in(all_of(client)) == [200]


def test_a_defect_is_a_problem_and_one_line(site, handlers, caplog) -> None:
    """The client learns nothing of what happened inside."""
    with caplog.at_level(logging.INFO):
        answer = site.ask("GET", "/defect")
        until(lambda: site.counted(Counter.HTTP_REQUESTS_FAILED) == 1, "it is counted")
    assert (answer.status_code, answer.json()["status"]) == (500, 500)
    assert "s3cr3t" not in answer.text
    assert "Traceback" not in answer.text
    (record,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert "GET /defect: internal error" in record.getMessage()


# --- requests without waiting ---------------------------------------------------------------------


def test_requests_without_waiting_are_answered_in_order(site) -> None:
    """Their messages have the order of the requests, and each answer is for its request."""
    before = last_seq(site)
    requests = [post(b"p/%d" % number) for number in range(200)]
    requests[-1] = post(b"p/199", more=b"Connection: close\r\n")
    with site.raw() as client:
        sender = threading.Thread(target=client.sendall, args=(b"".join(requests),))
        sender.start()
        data = all_of(client)
        sender.join()
    assert answers_in(data) == [200] * 200
    topics = re.findall(rb'"topic":"([^"]*)"', data)
    assert topics == [b"p/%d" % number for number in range(200)]
    assert sorted(map(int, re.findall(rb'"seq":(\d+)', data))) == [*range(before + 1, before + 201)]


def test_a_client_is_told_to_go_on_when_it_is_its_turn(site, handlers) -> None:
    """And not within the answer to the request before."""
    head = b"Content-Length: 3\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    first = b"GET /gate HTTP/1.1\r\n" + HOST + b"\r\n"
    with site.raw(first + b"POST /read HTTP/1.1\r\n" + HOST + head) as client:
        assert handlers.began.wait(DEADLINE_S)
        assert handlers.is_reading.wait(DEADLINE_S)
        handlers.open_gate()
        data = b""
        while b"100 Continue\r\n\r\n" not in data:
            data += client.recv(65536)
        client.sendall(b"xyz")
        data += all_of(client)
    assert answers_in(data) == [200, 100, 200]
    assert b"6\r\nbefore\r\n5\r\nafter\r\n0\r\n\r\nHTTP/1.1 100 Continue" in data
    assert data.endswith(b"xyz")


def test_bodies_of_requests_that_wait_for_their_turn_are_bounded(site, handlers) -> None:
    """What is beyond is read when those before are answered, and is not slow because of that."""
    close = b"Connection: close\r\n"
    requests = [post(b"held", b"x" * 65536) for _ in range(30)]
    requests.append(post(b"held", b"x" * 65536, more=close))
    with site.raw(b"GET /gate HTTP/1.1\r\n" + HOST + b"\r\n") as client:
        assert handlers.began.wait(DEADLINE_S)
        sender = threading.Thread(target=client.sendall, args=(b"".join(requests),))
        sender.start()
        (held,) = [each for each in site.server._port.connections if each._exchanges]
        until(lambda: held.flow.is_held, "no more is read")
        received = sum(each.received for each in held._exchanges)
        assert received <= bounds.AT_ONCE_BYTES + 65536

        async def look_late() -> None:
            held.end_if_late(held.loop.time() + 3600)

        asyncio.run_coroutine_threadsafe(look_late(), held.loop).result(DEADLINE_S)
        handlers.open_gate()
        assert answers_in(all_of(client)) == [200] * 32
        sender.join()


@pytest.mark.campaign
def test_a_flood_of_requests_without_reading_answers_is_held_back(site) -> None:
    """What is not worked on yet stays in the client's hands; others are served meanwhile."""
    flood = b"GET /metrics HTTP/1.1\r\n" + HOST + b"\r\n"
    with site.raw() as client:
        client.setblocking(False)
        sent = 0
        with pytest.raises(BlockingIOError):
            while sent < 200_000_000:
                sent += client.send(flood * 2000)
        assert len(site.server._port.connections) <= 20
        assert site.ask("GET", "/healthz").status_code == 200
        for each in site.server._port.connections:
            assert len(each._exchanges) < connection.AT_ONCE + 200
    assert site.ask("GET", "/healthz").status_code == 200


# --- clients that are slow or go away -------------------------------------------------------------


def test_a_client_that_goes_away_while_it_waits_frees_everything(site, handlers) -> None:
    """Its handler ends, and the connection does not count any more."""
    with site.raw(b"GET /wait HTTP/1.1\r\n" + HOST + b"\r\n"):
        assert handlers.began.wait(DEADLINE_S)
    assert handlers.cancelled.wait(DEADLINE_S)
    until(lambda: site.counted(Counter.HTTP_REQUESTS_ABANDONED) >= 1, "it is counted")
    until(lambda: not site.server._port._shared.state.tasks, "no task is left")


@pytest.mark.parametrize(
    "request_", [b"GET /hea", post(b"slow", b"x" * 1000)[:-1], b"", b"GET / HTTP/1.1\r\nX: "]
)
def test_half_a_request_ends_in_time(site, monkeypatch, request_) -> None:
    """A head, a body, or nothing at all: the connection is not held for ever."""
    monkeypatch.setattr(bounds, "HEAD_S", 0.05)
    monkeypatch.setattr(connection, "BODY_S", 0.05)
    site.server._port._shared._seen = None
    before = last_seq(site)
    with site.raw(request_) as client:
        assert answers_in(all_of(client)) == ([408] if request_ else [])
    assert last_seq(site) == before
    site.server._port._shared._seen = None


def test_a_client_that_does_not_take_its_answer_is_ended(site, monkeypatch) -> None:
    async def endless(_request):
        return PlainTextResponse("x" * 50_000_000)

    site.server._port._app.router.routes.insert(0, Route("/endless", endless))
    monkeypatch.setattr(connection, "UNREAD_S", 0.05)
    counted = site.counted(Counter.HTTP_CONNECTIONS_ENDED_SLOW)
    try:
        with site.raw(b"GET /endless HTTP/1.1\r\n" + HOST + b"\r\n"):
            until(
                lambda: site.counted(Counter.HTTP_CONNECTIONS_ENDED_SLOW) > counted, "it is ended"
            )
    finally:
        del site.server._port._app.router.routes[0]


def test_connections_are_bounded_and_idle_ones_make_room(site, handlers) -> None:
    """One address can't have all; one that waits for an answer is not ended for a newer one."""
    waiting = [site.raw(b"GET /wait HTTP/1.1\r\n" + HOST + b"\r\n") for _ in range(10)]
    until(lambda: len(site.server._port._shared.state.tasks) == 10, "ten wait")
    ended = site.counted(Counter.HTTP_CONNECTIONS_ENDED_ROOM)
    silent = [site.raw() for _ in range(30)]
    until(
        lambda: site.counted(Counter.HTTP_CONNECTIONS_ENDED_ROOM) >= ended + 25,
        "those that there is no room for have ended",
    )
    assert site.ask("GET", "/healthz").status_code == 200
    assert len(site.server._port.connections) <= 15
    assert silent[0].recv(10) == b"", "the oldest silent one has made room"
    assert not handlers.cancelled.is_set()
    for each in silent:
        each.close()
    more = [site.raw(b"GET /wait HTTP/1.1\r\n" + HOST + b"\r\n") for _ in range(5)]
    until(lambda: len(site.server._port._shared.state.tasks) == 15, "fifteen wait")
    with site.raw(b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n") as last:
        assert answers_in(all_of(last)) in ([503], []), "nobody makes room"
    until(lambda: site.counted(Counter.HTTP_CONNECTIONS_REFUSED) >= 1, "it is counted")
    for each in (*waiting, *more):
        each.close()
    until(lambda: not site.server._port._shared.state.tasks, "they have ended")


def test_requests_in_a_minute_are_bounded(site) -> None:
    """A changed bound counts at once, as after a reload."""
    before = site.appliance.config
    few = msgspec.structs.replace(before.http, max_requests=3)
    site.appliance.config = msgspec.structs.replace(before, http=few)
    site.server._port._shared.admission._due.clear()
    try:
        answers = [site.ask("GET", "/healthz") for _ in range(5)]
        assert [each.status_code for each in answers] == [200, 200, 200, 429, 429]
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 20
        until(lambda: site.counted(Counter.HTTP_REQUESTS_REFUSED_RATE) >= 2, "it is counted")
    finally:
        site.appliance.config = before
    site.server._port._shared.admission._due.clear()
    assert site.ask("GET", "/healthz").status_code == 200


# --- start and stop -------------------------------------------------------------------------------


def test_the_stop_answers_what_is_under_way(tmp_path, monkeypatch) -> None:
    """A request that waits is told; a message that came before is in the journal; the socket is
    closed."""
    monkeypatch.setattr(port, "_FINISH_S", 0.1)
    with HttpSite(tmp_path) as site:
        assert site.ask("POST", "/messages/a", data=b"last").status_code == 200
        handlers = Handlers()
        handlers.add_to(site)
        waiting = http.client.HTTPConnection(*site.where, timeout=DEADLINE_S)
        waiting.request("GET", "/wait")
        assert handlers.began.wait(DEADLINE_S)
        where = site.where
        site.appliance.stop()
        answer = waiting.getresponse()
        assert (answer.status, answer.headers["connection"]) == (503, "close")
        assert b"stopping" in answer.read()
        waiting.close()
        assert site.appliance.wait(DEADLINE_S)
        with pytest.raises(OSError):
            socket.create_connection(where, 1).close()


@pytest.mark.campaign
def test_a_process_shows_its_port_and_says_nothing_else(tmp_path) -> None:
    """Port 0 is a free port, which the log names; what serves it adds no lines of its own."""
    with HttpProcess(tmp_path) as process, session() as client:
        process.start()
        assert client.post(f"{process.url}/messages/a", data=b"1", timeout=60).status_code == 200
        answer = client.get(f"{process.url}/metrics", timeout=60)
        assert '\nappliance_listener_connections{listener="http"} 1.0\n' in answer.text
        assert "\nappliance_http_requests_answered_total 1.0\n" in answer.text
        assert process.end() == 0
        assert not [line for line in process.lines if "vicorn" in line or "server process" in line]


ALONE = """
import sys
from appliance.config.reading import load
from appliance.engine.service import Appliance
from appliance.http_api.server import attach
import appliance.process.run, appliance.ops.supervisor
one = Appliance(load(sys.argv[1]))
attach(one)
one.start()
one.stop()
assert one.wait(60)
print(sorted({"uvicorn", "starlette", "httptools", "anyio"} & set(sys.modules)))
"""


def test_without_a_port_nothing_of_it_is_loaded(tmp_path) -> None:
    """It costs memory that an appliance without HTTP need not have."""
    config = tmp_path / "config.toml"
    config.write_text('[service]\ndata_dir = "data"\n[[listener]]\nbind = "127.0.0.1:0"\n')
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(config)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.campaign
@pytest.mark.posix("ten thousand sockets")
def test_ten_thousand_connections_and_a_flood_do_not_disturb_mqtt(tmp_path) -> None:
    """QoS 1 is acknowledged all the while, and the port serves afterwards."""
    from appliance.storage.files import allow_open_files

    if not allow_open_files(11_000):
        pytest.skip("this process may not open ten thousand sockets")
    with HttpSite(tmp_path) as site, site.client() as device:
        device.publish("before", b"x", qos=1, retain=False)
        done, waits, opened = threading.Event(), [], []

        def publish() -> None:
            while not done.is_set():
                began = time.monotonic()
                device.publish("during", b"x", qos=1, retain=False)
                waits.append(time.monotonic() - began)

        publisher = threading.Thread(target=publish)
        publisher.start()
        flood = post(b"flood") * 20
        try:
            for number in range(10_000):
                opened.append(client := site.raw())
                if number % 40 == 0:
                    client.sendall(flood)
            assert len(site.server._port.connections) <= 200
        finally:
            done.set()
            publisher.join(DEADLINE_S)
        print(f"{len(waits)} acknowledged, the longest wait {max(waits):.3f} s")
        assert not publisher.is_alive()
        assert len(waits) > 100
        assert site.ask("GET", "/healthz").status_code == 200
        for each in opened:
            each.close()
