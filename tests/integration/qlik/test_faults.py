"""What the Qlik client does when things go wrong on the wire: one POST, a clear error, in time."""

import base64
import socket
import ssl
import threading
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

import certificates
import pytest
from requests.auth import HTTPBasicAuth

from appliance.qlik.client_managed import ClientManaged
from appliance.qlik.server import RetryPolicy, QlikError
from appliance.qlik.simulated import FaultKind, SimulatedQlik
from appliance.qlik.simulated.server import TlsFiles
from appliance_process import free_port
from appliance.qlik.transport import Transport

USER = {"X-Qlik-User": "UserDirectory=INTERNAL;UserId=sa_repository"}


@pytest.fixture
def qlik() -> Iterator[SimulatedQlik]:
    with SimulatedQlik() as server:
        yield server


def client_of(url: str, **settings: object) -> ClientManaged:
    given = {"timeout_s": 0.5, "headers": USER} | settings
    return ClientManaged(Transport(url, **given))  # type: ignore[arg-type]  # settings of a test


@pytest.mark.parametrize(
    ("kind", "status", "label", "retry", "carried_out"),
    [
        (FaultKind.HANG, 0, "timeout", RetryPolicy.LOOK_FIRST, False),
        (FaultKind.HANG_AFTER, 0, "timeout", RetryPolicy.LOOK_FIRST, True),
        (FaultKind.DROP_BEFORE, 0, "dropped", RetryPolicy.LOOK_FIRST, False),
        (FaultKind.DROP_AFTER, 0, "dropped", RetryPolicy.LOOK_FIRST, True),
        (FaultKind.GARBAGE, 0, "not JSON", RetryPolicy.LOOK_FIRST, True),
        (FaultKind.LOGIN_PAGE, 0, "login page", RetryPolicy.NEVER, False),
        (FaultKind.REDIRECT, 0, "login page", RetryPolicy.NEVER, False),
        (FaultKind.STATUS, 401, "401", RetryPolicy.NEVER, False),
        (FaultKind.STATUS, 403, "403", RetryPolicy.NEVER, False),
        (FaultKind.STATUS, 429, "429", RetryPolicy.SAFE, False),
        (FaultKind.STATUS, 500, "500", RetryPolicy.LOOK_FIRST, False),
        (FaultKind.STATUS, 503, "503", RetryPolicy.LOOK_FIRST, False),
    ],
)
def test_one_start_is_one_post_whatever_happens(
    qlik: SimulatedQlik,
    kind: FaultKind,
    status: int,
    label: str,
    retry: RetryPolicy,
    carried_out: bool,
) -> None:
    """The client never repeats a POST, and says truthfully whether that may be done."""
    task = qlik.add_task("A", duration_s=600)
    client = client_of(qlik.url)
    qlik.fail(kind, method="POST", status=status, retry_after_s=7)
    with pytest.raises(QlikError) as caught:
        client.start(task.id)
    error = caught.value
    assert (error.label, error.retry) == (label, retry)
    assert error.retry_after_s == (7 if status in {429, 500, 503} else None)
    # The reason comes first, because a line of a screen ends somewhere.
    assert str(error).endswith(f" (POST {qlik.url}/qrs/task/{task.id}/start/synchronous)")
    assert qlik.starts() == 1
    assert len(qlik.site.sessions()) == carried_out
    client.close()


def test_what_began_is_found_after_the_answer_was_lost(qlik: SimulatedQlik) -> None:
    """The look before a repeat finds the run whose answer never came."""
    task = qlik.add_task("A", duration_s=600)
    client = client_of(qlik.url)
    before_ns = qlik.site.now()
    qlik.fail(FaultKind.DROP_AFTER, method="POST", times=1)
    with pytest.raises(QlikError):
        client.start(task.id)
    (found,) = client.since(task.id, before_ns)
    assert found.execution_id == qlik.site.sessions()[0].execution_id
    client.close()


def test_refused_and_back_again(qlik: SimulatedQlik) -> None:
    """With the server down a start is certain not to have arrived; the same client goes on."""
    task = qlik.add_task("A")
    client = client_of(qlik.url)
    client.check()
    qlik.refuse()
    with pytest.raises(QlikError) as caught:
        client.start(task.id)
    # The connection of before is gone; whether that shows as refused or as dropped is a matter of
    # luck, but a fresh client always sees it refused.
    assert caught.value.retry in {RetryPolicy.SAFE, RetryPolicy.LOOK_FIRST}
    with pytest.raises(QlikError, match="connection was refused") as caught:
        client_of(qlik.url).start(task.id)
    assert (caught.value.label, caught.value.retry) == ("refused", RetryPolicy.SAFE)
    qlik.heal()
    assert client.start(task.id).execution_id
    assert qlik.starts() == 1
    client.close()


def test_a_host_that_does_not_exist() -> None:
    """A name that can't be resolved is told apart from a server that is down."""
    with pytest.raises(QlikError, match="can't be resolved") as caught:
        client_of("http://sense.invalid:4242").check()
    assert (caught.value.label, caught.value.retry) == ("no such host", RetryPolicy.SAFE)


def test_a_port_that_accepts_and_says_nothing() -> None:
    """A connection that leads nowhere ends with the timeout."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(QlikError) as caught:
            client_of(f"http://127.0.0.1:{silent.getsockname()[1]}").check()
    assert (caught.value.label, caught.value.retry) == ("timeout", RetryPolicy.LOOK_FIRST)


def test_http_to_nothing_is_refused_at_once() -> None:
    """A port on which nothing listens: refused, with advice on the port."""
    with pytest.raises(QlikError, match="4242"):
        client_of(f"http://127.0.0.1:{free_port()}").check()


def test_an_endless_answer_costs_no_memory(qlik: SimulatedQlik) -> None:
    """A reply without an end is given up at the limit."""
    client = client_of(qlik.url, body_limit=1_000_000, timeout_s=20)
    qlik.fail(FaultKind.ENDLESS, path="/about")
    tracemalloc.start()
    with pytest.raises(QlikError, match="larger than") as caught:
        client.check()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.label == "too large"
    assert peak < 8_000_000
    client.close()


def _serve_once(answer: list[bytes], pause: threading.Event) -> tuple[socket.socket, str]:
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(65536)
            for piece in answer:
                try:
                    connection.sendall(piece)
                except OSError:
                    return
                pause.wait(0.05)

    threading.Thread(target=serve, daemon=True).start()
    return listening, f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_an_answer_that_drips_is_given_up() -> None:
    """A byte now and then does not keep a worker busy for ever: a call has a limit as a whole."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
    listening, url = _serve_once([head, *[b"x"] * 2000], threading.Event())
    with listening, pytest.raises(QlikError, match="not complete after 0.8 seconds") as caught:
        client_of(url, timeout_s=0.2).check()
    assert caught.value.label == "timeout"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{",
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"a"',
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"",
    ],
)
def test_broken_answers_are_errors_of_ours(answer: bytes) -> None:
    """Cut, wrongly packed or foreign answers end in a clear error, never in a traceback."""
    listening, url = _serve_once([answer] if answer else [], threading.Event())
    with listening, pytest.raises(QlikError) as caught:
        client_of(url).check()
    assert caught.value.retry is RetryPolicy.LOOK_FIRST


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("first", "again"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-More: to come\r\n"),
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (HEAD + b"\r\n", b" "),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-Trailer: 1\r\n"),
        (HEAD + b"Content-Encoding: gzip\r\n\r\n\x1f\x8b\x08\x08" + b"\0" * 6, b"x"),
    ],
    ids=["headers", "one header", "100", "body", "chunks", "chunk", "trailers", "gzip"],
)
def test_what_drips_without_end_is_cut_at_the_limit_of_the_call(first: bytes, again: bytes) -> None:
    """Each piece comes well within the time-out; the call has a limit as a whole."""
    listening, url = _serve_once([first, *[again] * 20_000], threading.Event())
    with listening, pytest.raises(QlikError) as caught:
        client_of(url, timeout_s=0.1).check()
    assert caught.value.label == "timeout"
    assert caught.value.retry is RetryPolicy.LOOK_FIRST


def test_the_limit_holds_for_calls_through_requests_as_well() -> None:
    """The way of NTLM and of HTTP proxies: headers that drip are cut there too."""
    pieces = [b"HTTP/1.1 200 OK\r\n", *[b"X-More: to come\r\n"] * 20_000]
    listening, url = _serve_once(pieces, threading.Event())
    with listening, pytest.raises(QlikError) as caught:
        client_of(url, timeout_s=0.1, auth=lambda: HTTPBasicAuth("ann", "secret")).check()
    assert (caught.value.label, caught.value.retry) == ("timeout", RetryPolicy.LOOK_FIRST)


def test_tls_that_is_never_established_is_a_call_that_did_not_arrive(tmp_path: Path) -> None:
    """A port that says nothing to a handshake: nothing was sent, so it may be repeated."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(QlikError) as caught:
            client_of(f"https://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.2).check()
    assert (caught.value.label, caught.value.retry) == ("no answer", RetryPolicy.SAFE)
    assert not caught.value.is_reached


@pytest.mark.parametrize(
    "header",
    [
        b"Date: Mon, 01 Jan 99999999999999999999 10:00:00 GMT",
        b"Date: Mon, 99999999999999999999 Jan 2024 10:00:00 GMT",
        b"Date: Mon, 01 Jan 0001 00:00:00 +2359",
        b"Date: Mon, 01 Jan 9999 23:59:59 -2359",
        b"Date: 1 Jan 2024 10:00:00 +99999999999999999999",
        b"Retry-After: Mon, 01 Jan 99999999999999999999 10:00:00 GMT",
        b"Retry-After: " + b"9" * 400,
        b"Retry-After: 1e999",
        b"Retry-After: nan",
        b"Retry-After: -5",
        b"Set-Cookie: X-Qlik-Session=" + b"a" * 60_000 + b"; expires=" + b"9" * 4000,
        b"Content-Type: \xff\xfe\x00text",
        b"Location: http://[",
    ],
)
@pytest.mark.parametrize("status", [200, 302, 429, 503])
def test_a_header_that_makes_no_sense_changes_nothing_else(status: int, header: bytes) -> None:
    """Times of no calendar, waits of no length: the answer is what it is without the header."""
    body = b'{"buildVersion": "1.0"}'
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n".encode()
    listening, url = _serve_once([head + header + b"\r\n\r\n" + body], threading.Event())
    client = client_of(url, timeout_s=20)
    with listening:
        if status == 200:
            assert client.check().version == "1.0"
            assert abs(client.clock_offset_s) < 1e9
        else:
            with pytest.raises(QlikError) as caught:
                client.check()
            assert caught.value.label in {"302": "login page"}.get(str(status), str(status))
            assert 0 <= (caught.value.retry_after_s or 0) <= 86_400
    client.close()


def test_more_values_than_any_site_has_are_not_unpacked(qlik: SimulatedQlik) -> None:
    """A few megabytes of empty lists would take hundreds of megabytes of memory."""
    client = client_of(qlik.url, timeout_s=20)
    qlik.fail(FaultKind.STATUS, status=200, text="[" + "[]," * 5_000_000)
    with pytest.raises(QlikError) as caught:
        client.tasks()
    assert caught.value.label == "too large"
    client.close()


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"X-Many: 1\r\n" * 1000 + b"\r\n{}",
        HEAD + b"X-Huge: " + b"x" * 2_000_000 + b"\r\n\r\n{}",
        b"HTTP/1.1 " + b"2" * 100_000 + b"\r\n\r\n",
        HEAD + b"Content-Encoding: " + b"gzip," * 2000 + b"gzip\r\n\r\n\x1f\x8b",
        HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n{}",
        HEAD + b"Content-Length: -5\r\n\r\n{}",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 100_000 + b"\r\n",
    ],
    ids=["many", "huge", "status", "encodings", "length", "negative", "chunk"],
)
def test_headers_beyond_all_bounds_are_errors_of_ours(answer: bytes) -> None:
    """More or longer headers than any server has: a clear error, at once."""
    listening, url = _serve_once([answer], threading.Event())
    with listening, pytest.raises(QlikError):
        client_of(url, timeout_s=20).check()


def test_a_body_that_swells_when_unpacked_costs_no_memory(qlik: SimulatedQlik) -> None:
    """Far more than comes over the wire is given up at the limit, and not unpacked as a whole."""
    packed = zlib.compressobj(wbits=31)
    body = b"".join(packed.compress(b" " * 1_000_000) for _ in range(50)) + packed.flush()
    head = HEAD + f"Content-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    listening, url = _serve_once([head + body], threading.Event())
    tracemalloc.start()
    with listening, pytest.raises(QlikError, match="larger than"):
        client_of(url, timeout_s=20, body_limit=1_000_000).check()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000


def test_redirects_without_end_are_a_login_that_is_not_accepted(qlik: SimulatedQlik) -> None:
    """A few are followed, then it is given up; an address that is none is one of them."""
    client = ClientManaged(Transport(qlik.url, headers=USER), through_proxy=True)
    for target in (f"{qlik.url}/qrs/about", "http://[", "//["):
        qlik.fail(FaultKind.REDIRECT, text=target)
        with pytest.raises(QlikError) as caught:
            client.check()
        assert caught.value.label == "login page"
        assert caught.value.is_page
        qlik.heal()
    assert len(qlik.requests) < 30
    client.close()


def test_close_ends_calls_under_way(qlik: SimulatedQlik) -> None:
    """A stop does not wait for a server that hangs."""
    client = client_of(qlik.url, timeout_s=60)
    qlik.fail(FaultKind.HANG, path="/about")
    errors: list[QlikError] = []

    def check() -> None:
        try:
            client.check()
        except QlikError as error:
            errors.append(error)

    thread = threading.Thread(target=check)
    thread.start()
    assert qlik.wait_for(lambda: len(qlik.requests) == 1)
    client.close()
    thread.join(10)
    assert [error.label for error in errors] == ["closed"]
    with pytest.raises(QlikError, match="closed"):
        client.check()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_call_that_is_given_up_ends_at_once(tmp_path: Path, scheme: str) -> None:
    """With and without TLS; the error says that it may be looked for, and the client goes on."""
    settings: dict[str, object] = {}
    tls = None
    if scheme == "https":
        files = certificates.make(tmp_path)
        tls = TlsFiles(files.server, files.server_key)
        settings["tls"] = ssl.create_default_context(cafile=files.root)
    with SimulatedQlik(tls=tls) as qlik:
        task = qlik.add_task("A", duration_s=600)
        client = client_of(qlik.url, timeout_s=60, **settings)
        fault = qlik.fail(FaultKind.HANG, method="POST")
        errors: list[QlikError] = []

        def start() -> None:
            try:
                client.start(task.id)
            except QlikError as error:
                errors.append(error)

        thread = threading.Thread(target=start)
        thread.start()
        assert qlik.wait_for(lambda: qlik.starts() == 1)
        client.give_up(3600.0)
        assert thread.is_alive()
        client.give_up(0.0)
        thread.join(30)
        (error,) = errors
        assert (error.is_given_up, error.retry) == (True, RetryPolicy.LOOK_FIRST)
        fault.times = 0
        assert client.start(task.id).execution_id
        client.close()


def test_many_threads_share_one_client(qlik: SimulatedQlik) -> None:
    """Each start from eight threads at once arrives once and gets its own answer."""
    tasks = [qlik.add_task(f"T{number}") for number in range(40)]
    client = client_of(qlik.url, timeout_s=20)
    got: dict[str, str] = {}

    def start(some: list[str]) -> None:
        for task_id in some:
            got[task_id] = client.start(task_id).execution_id

    threads = [
        threading.Thread(target=start, args=([task.id for task in tasks[first::8]],))
        for first in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    begun = {run.task.id: run.execution_id for run in qlik.site.runs()}
    assert got == begun
    assert all(qlik.starts(task.id) == 1 for task in tasks)
    client.close()


def test_threads_that_come_and_go_leave_nothing_behind(qlik: SimulatedQlik) -> None:
    """A call from a new thread each time uses the same connection, not a new one for ever."""
    client = client_of(qlik.url)
    for _ in range(50):
        thread = threading.Thread(target=client.check)
        thread.start()
        thread.join()
    assert len(qlik.requests) == 50
    assert qlik.connections == 1
    client.close()


def test_the_environment_does_not_change_who_we_are(
    qlik: SimulatedQlik, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    """A .netrc for the host does not replace our own sign-in."""
    netrc = f"{tmp_path}/netrc"
    with open(netrc, "w") as file:
        file.write("machine 127.0.0.1 login other password secret\n")
    monkeypatch.setenv("NETRC", netrc)
    client = client_of(qlik.url)
    client.check()
    assert "authorization" not in qlik.requests[0].headers
    client.close()


def test_an_http_proxy_of_the_environment_is_named_and_loopback_goes_without(
    qlik: SimulatedQlik, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP_PROXY counts for servers elsewhere, and an error says that it is the proxy's."""
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    near = client_of(qlik.url)
    near.check()
    near.close()
    with pytest.raises(QlikError, match="NO_PROXY") as caught:
        client_of("http://sense.invalid").check()
    assert (caught.value.label, caught.value.retry) == ("HTTP proxy", RetryPolicy.SAFE)


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("http://sense.invalid", "GET http://sense.invalid/qrs/about?xrfkey="),
        ("https://sense.invalid", "CONNECT sense.invalid:443 "),
    ],
)
def test_an_http_proxy_that_wants_a_password_gets_it(
    monkeypatch: pytest.MonkeyPatch, url: str, line: str
) -> None:
    """Name and password of a proxy's address go to the proxy, and our own headers to it only
    where it is to hand them on."""
    heads: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def serve() -> None:
            connection, _ = proxy.accept()
            with connection:
                heads.append(connection.recv(65536).decode())
                connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        address = f"127.0.0.1:{proxy.getsockname()[1]}"
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://plant:p%40ss@{address}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "10.0.0.0/8")
        with pytest.raises(QlikError) as caught:
            client_of(url).check()
        thread.join()
    (head,) = heads
    assert head.startswith(line)
    assert f"Proxy-Authorization: Basic {base64.b64encode(b'plant:p@ss').decode()}" in head
    assert ("X-Qlik-User" in head) is url.startswith("http:")
    assert "p@ss" not in str(caught.value)


@pytest.mark.parametrize("address", ["socks5://127.0.0.1:1", "ftp://127.0.0.1", "http://["])
def test_a_proxy_address_that_is_none_is_named(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """What the environment has wrong is not blamed on the server's address."""
    monkeypatch.setenv("HTTPS_PROXY", address)
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(QlikError, match="HTTPS_PROXY") as caught:
        client_of("https://sense.invalid").check()
    assert (caught.value.label, caught.value.retry) == ("HTTP proxy", RetryPolicy.SAFE)


def test_a_sign_in_never_leaves_the_server(qlik: SimulatedQlik) -> None:
    """A redirect to another server is not followed: our headers hold secrets."""
    with SimulatedQlik() as other:
        headers = {"Authorization": "Bearer a.b.c"}
        client = ClientManaged(Transport(qlik.url, headers=headers), through_proxy=True)
        qlik.fail(FaultKind.REDIRECT, text=f"{other.url}/qrs/about")
        with pytest.raises(QlikError) as caught:
            client.check()
        assert (caught.value.label, caught.value.retry) == ("login page", RetryPolicy.NEVER)
        assert other.requests == []
        client.close()


def test_the_record_of_requests_is_bounded() -> None:
    """The simulated server can run for weeks: it forgets old requests and counts them still."""
    with SimulatedQlik(keep_requests=10) as qlik:
        task = qlik.add_task("A", duration_s=600)
        client = client_of(qlik.url)
        for _ in range(20):
            client.start(task.id)
        assert len(qlik.requests) == 10
        assert qlik.starts(task.id) == 20
        client.close()
