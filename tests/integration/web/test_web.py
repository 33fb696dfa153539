"""The UI in a browser: the command as its user runs it, real sockets, and what attackers try."""

import asyncio
import itertools
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import aiohttp
import attached_appliance
import certificates
import pytest
from appliance_process import ApplianceProcess, until
from attached_appliance import PASSWORD, publish

pytest.importorskip("textual_serve", reason="needs the extra web: pip install textual-serve")

from web_rig import Browser, Chromium, WebProcess, needs_chromium, seen, typed

campaign = pytest.mark.campaign
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def appliance(tmp_path_factory):
    with attached_appliance.make(tmp_path_factory.mktemp("web")) as process:
        process.start()
        publish(process, "plant/line1", b'{"value": 21}')
        yield process


@pytest.fixture(scope="module")
def web(appliance):
    with WebProcess(appliance) as process:
        yield process
        assert PASSWORD not in process.said
        assert "Traceback" not in process.said


async def closed(socket) -> int:
    """Read on until the server has closed the WebSocket; returns its code."""
    while True:
        message = await socket.receive(60)
        if message.type is not aiohttp.WSMsgType.BINARY:
            return message.data if message.type is aiohttp.WSMsgType.CLOSE else socket.close_code


async def refused(browser, **headers) -> int:
    """The status with which the WebSocket is refused."""
    with pytest.raises(aiohttp.WSServerHandshakeError) as error:
        async with browser.terminal(**headers):
            pass
    return error.value.status


async def test_a_user_signs_in_and_gets_a_terminal(web):
    """Nothing is seen before that; then the UI, with the user's role; q ends the session."""
    async with Browser(web) as browser:
        status, page, _ = await browser.get()
        assert status == 200
        assert "Sign in" in page
        assert "textual.js" not in page
        assert await refused(browser) == 403
        status, page, _ = await browser.sign_in("admin", "wrong")
        assert (status, "is wrong" in page) == (403, True)
        status, _, answer = await browser.sign_in()
        assert (status, answer.headers["Location"]) == (303, "/")
        cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert "/static/textual.js" in (await browser.get())[1]
        async with browser.terminal() as terminal:
            assert "operator" in await seen(terminal, "plant/line1")
            await typed(terminal, "q")
            assert await closed(terminal) == 1000
        assert "Sign in" in (await browser.get())[1]
        assert await refused(browser) == 403


@campaign
@linux
async def test_the_password_is_nowhere_to_be_seen(web):
    """Not on the command line, not in the environment of the terminal's process; the name neither."""
    async with Browser(web) as browser:
        await browser.sign_in()
        async with browser.terminal() as terminal:
            await seen(terminal, "Live")
            (number,) = web.terminals()
            for name in ("cmdline", "environ"):
                found = Path(f"/proc/{number}/{name}").read_bytes()
                assert PASSWORD.encode() not in found
                assert b"admin" not in found
        await asyncio.to_thread(until, lambda: not web.terminals(), "the end of the process")


@campaign
async def test_a_viewer_may_not_act(web):
    """The appliance refuses, whatever the page sends."""
    async with Browser(web) as browser:
        await browser.sign_in("anna")
        async with browser.terminal() as terminal:
            assert "viewer" in await seen(terminal, "plant/line1")
            await typed(terminal, "4")
            await seen(terminal, "user anna")
            await typed(terminal, "x")
            await seen(terminal, "Disconnect")
            await typed(terminal, "y")
            await seen(terminal, "may look and not act")


@campaign
async def test_the_terminal_outlives_a_restart_of_the_appliance(tmp_path):
    """The page says that the connection is lost, and goes on when the appliance is back."""
    with attached_appliance.make(tmp_path) as appliance, WebProcess(appliance.start()) as web:
        async with Browser(web) as browser:
            await browser.sign_in()
            async with browser.terminal() as terminal:
                await seen(terminal, "Live")
                await asyncio.to_thread(appliance.kill)
                await seen(terminal, "trying again")
                await asyncio.to_thread(appliance.start)
                await asyncio.to_thread(publish, appliance, "plant/later", b"x")
                await seen(terminal, "plant/later")


@campaign
async def test_a_reload_of_the_page_keeps_the_session(web):
    """One terminal a session: a second page takes it over."""
    async with Browser(web) as browser:
        await browser.sign_in()
        async with browser.terminal() as first:
            await seen(first, "Live")
            async with browser.terminal() as second:
                await seen(second, "Live")
                assert await closed(first) == 4000
        async with browser.terminal() as third:
            await seen(third, "Live")


@campaign
async def test_sign_out_ends_the_terminal_and_the_token(web):
    """A token that somebody has kept is worth nothing."""
    async with Browser(web) as browser, Browser(web) as thief:
        answer = (await browser.sign_in())[2]
        kept = answer.headers["Set-Cookie"].partition(";")[0]
        async with browser.terminal() as terminal:
            await seen(terminal, "Live")
            async with browser.http.post(
                "/sign-out", headers=browser.headers, allow_redirects=False
            ) as out:
                assert out.status == 303
            assert await closed(terminal) == 4000
        assert await refused(thief, Cookie=kept) == 403


@campaign
@pytest.mark.parametrize("origin", ["https://evil.example.com", "null", "", "http://127.0.0.1:1"])
async def test_pages_of_other_sites_get_nothing(web, origin):
    """With a victim's cookie: no WebSocket (hijacking), no sign-in, no sign-out."""
    async with Browser(web) as victim, Browser(web, origin) as evil:
        answer = (await victim.sign_in())[2]
        cookie = {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}
        assert await refused(evil, **cookie) == 403
        assert (await evil.sign_in(**cookie))[0] == 403
        async with evil.http.post("/sign-out", headers=evil.headers | cookie) as out:
            assert out.status == 403
        assert "/static/textual.js" in (await victim.get())[1]
        del evil.headers["Origin"]
        assert await refused(evil, **cookie) == 403
        assert (await evil.get("/", **cookie, **{"Sec-Fetch-Site": "cross-site"}))[0] == 403


@campaign
async def test_another_name_is_not_answered(web):
    """DNS rebinding: every path, also with the cookie and a fitting origin."""
    async with Browser(web) as browser:
        await browser.sign_in()
        evil = {
            "Host": f"evil.example.com:{web.port}",
            "Origin": f"http://evil.example.com:{web.port}",
        }
        for path in ("/", "/static/textual.js", "/sign-in", "/nothing"):
            assert (await browser.get(path, **evil))[0] == 421
        assert await refused(browser, **evil) == 421


def raw(web, data: bytes) -> bytes:
    """Bytes as no client library would send them; returns the answer."""
    with socket.create_connection(("127.0.0.1", web.port), timeout=60) as connection:
        connection.sendall(data)
        answer = b""
        while b"\r\n\r\n" not in answer and (piece := connection.recv(65536)):
            answer += piece
        return answer


@campaign
@pytest.mark.parametrize(
    "path",
    ["/static/", "/static", "/static/../server.py", "/static/%2e%2e/%2e%2e/server.py",
     "/static/..%2fserver.py", "/static/%00", "/static/js/textual.js", "//etc/passwd", "/download/x",
     "/../../etc/passwd", "/static/page.css/..%5c..%5cx", "*"],
)  # fmt: skip
def test_no_file_but_those_of_the_page(web, path):
    """Nothing of the disk, no listing, no downloads; and no traceback."""
    answer = raw(
        web, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    )
    assert answer.split()[1] in {b"404", b"400", b"403", b"405"}
    assert b"Traceback" not in answer
    assert b"root:" not in answer


@campaign
@pytest.mark.parametrize(
    "request_",
    [b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n",
     b"\x00\xff\r\n\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * 100_000 + b"\r\n\r\n",
     b"POST /sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999999\r\n\r\n",
     b"TRACE / HTTP/1.1\r\nHost: localhost\r\nCookie: appliance=x\r\n\r\n",
     b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\r\n"],
)  # fmt: skip
def test_what_is_no_request_is_refused(web, request_):
    """Shortly, without a traceback, and the server goes on."""
    answer = raw(web, request_)
    assert not answer or answer.split()[1][:1] == b"4"
    assert b"Traceback" not in answer
    assert b" 200 " in raw(web, b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")


@campaign
@pytest.mark.parametrize(
    "packet",
    [b"x", "x" * 100_000, "{", '["stdin", 5]', '["quit"]', "[" * 50_000],
)  # fmt: skip
async def test_packets_that_are_none_of_the_page_end_the_terminal(web, packet):
    """Giant frames too. Others are not touched."""
    async with Browser(web) as browser, Browser(web) as other:
        await browser.sign_in()
        await other.sign_in("anna")
        async with browser.terminal() as terminal, other.terminal() as others:
            await seen(terminal, "Live")
            await seen(others, "Live")
            await (terminal.send_bytes if isinstance(packet, bytes) else terminal.send_str)(packet)
            await closed(terminal)
            await typed(others, "5")
            await seen(others, "[5]Log")


@campaign
@linux
async def test_sizes_are_bounded_and_arguments_are_data(web, appliance):
    """A giant terminal costs no memory; nothing of the address reaches a shell."""
    async with Browser(web) as browser:
        await browser.sign_in()
        address = "/ws?width=99999;touch%20pwned&height=$(touch%20pwned)&x=--help"
        async with browser.http.ws_connect(address, headers=browser.headers) as terminal:
            await seen(terminal, "Live")
            for size in (10**9, -5, True):
                await terminal.send_str(json.dumps(["resize", {"width": size, "height": size}]))
            await terminal.send_str(json.dumps(["resize", {"width": 100, "height": 30}]))
            await typed(terminal, "5")
            await seen(terminal, "[5]Log")
            (number,) = until(lambda: len(web.terminals()) == 1 and web.terminals(), "one terminal")
            status = Path(f"/proc/{number}/status").read_text()
            peak_kb = int(status.partition("VmHWM:")[2].split()[0])
            assert peak_kb < 400_000
        assert not (appliance.folder / "pwned").exists()


@campaign
async def test_names_are_never_shown_as_markup(web):
    """XSS by the name that is typed."""
    async with Browser(web) as browser:
        name = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
        status, page, answer = await browser.sign_in(name, "x")
        assert status == 403
        assert "alert(1)" not in page
        assert "script-src 'self';" in answer.headers["Content-Security-Policy"]


@campaign
async def test_a_thousand_connections_shut_nobody_out(web):
    """Those that say nothing make room, and a person signs in meanwhile."""
    held = []
    try:
        for _ in range(1000):
            held.append(socket.create_connection(("127.0.0.1", web.port), timeout=60))
            held[-1].sendall(b"GET / HTTP/1.1\r\nHost: loc")
        async with Browser(web) as browser:
            assert (await browser.sign_in())[0] == 303
            async with browser.terminal() as terminal:
                await seen(terminal, "Live")
    finally:
        for each in held:
            each.close()


@campaign
async def test_slow_forms_of_one_address_shut_nobody_out(web):
    """Bodies that never come make room as silence does."""
    head = (
        f"POST /sign-in HTTP/1.1\r\nHost: 127.0.0.1:{web.port}\r\nOrigin: {web.origin}\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 999\r\n\r\nname="
    ).encode()
    held = []
    try:
        for _ in range(300):
            held.append(socket.create_connection(("127.0.0.1", web.port), timeout=60))
            held[-1].sendall(head)
        async with Browser(web) as browser:
            assert (await browser.sign_in())[0] == 303
            async with browser.terminal() as terminal:
                await seen(terminal, "Live")
    finally:
        for each in held:
            each.close()


@campaign
@linux
async def test_pages_that_open_at_one_moment_have_one_terminal(web):
    """A session is one process, however often its page is opened; one page has it."""
    async with Browser(web) as browser:
        await browser.sign_in()
        pages = await asyncio.gather(*(browser.terminal() for _ in range(8)))
        ends = [asyncio.create_task(closed(each)) for each in pages]
        async with asyncio.timeout(60):
            for first in itertools.islice(asyncio.as_completed(ends), 7):
                await first
        await asyncio.to_thread(until, lambda: len(web.terminals()) == 1, "one terminal")
        (last,) = (end for end in ends if not end.done())
        await browser.http.post("/sign-out", headers=browser.headers)
        await last


@campaign
async def test_sessions_are_bounded(appliance):
    """One more than there may be is told so; the page of one that left makes room."""
    with WebProcess(appliance, "--sessions", "1") as web:
        async with Browser(web) as first, Browser(web) as second:
            await first.sign_in()
            async with first.terminal() as terminal:
                await seen(terminal, "Live")
                status, page, _ = await second.sign_in("anna")
                assert (status, "as many sessions" in page) == (503, True)

            async def let_in():
                while (status := (await second.sign_in("anna"))[0]) == 503:
                    await asyncio.sleep(0.05)
                return status

            assert await asyncio.wait_for(let_in(), 60) == 303


def is_alive(number) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{number}/status").read_text()
    except FileNotFoundError:
        return False


@campaign
@linux
async def test_no_terminal_outlives_the_server(appliance):
    """Also if the server is killed: its terminals see their input end."""
    with WebProcess(appliance) as web:
        async with Browser(web) as browser:
            await browser.sign_in()
            async with browser.terminal() as terminal:
                await seen(terminal, "Live")
                (number,) = web.terminals()
                web.process.kill()
                await closed(terminal)
        await asyncio.to_thread(until, lambda: not is_alive(number), "its end")


@campaign
@linux
async def test_ctrl_c_ends_the_server_and_its_terminals(appliance):
    """Also while a terminal opens: the whole foreground group gets the signal, none complains."""
    with WebProcess(appliance, own_group=True) as web:
        async with Browser(web) as browser:
            await browser.sign_in()
            async with browser.terminal() as terminal:
                (number,) = await asyncio.to_thread(until, web.terminals, "a terminal")
                os.killpg(web.process.pid, signal.SIGINT)
                await closed(terminal)
        assert await asyncio.to_thread(web.process.wait, 60) == 0
        assert not is_alive(number)
        assert "Traceback" not in web.said


@campaign
async def test_tls(appliance, tmp_path):
    """The cookie is for HTTPS and this host alone; plain HTTP gets no answer."""
    made = certificates.make(tmp_path)
    with WebProcess(
        appliance, "--server-cert", made.server, "--server-key", made.server_key
    ) as web:
        assert web.scheme == "https"
        async with Browser(web) as browser:
            answer = (await browser.sign_in())[2]
            assert answer.headers["Set-Cookie"].startswith("__Host-appliance=")
            assert "Secure" in answer.headers["Set-Cookie"]
            async with browser.terminal() as terminal:
                await seen(terminal, "Live")
        assert not raw(web, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").startswith(b"HTTP")


@campaign
@linux
async def test_tls_handshakes_that_never_come_are_bounded(appliance, tmp_path):
    """They count as connections from the first moment, and make room."""
    made = certificates.make(tmp_path)
    held = []
    try:
        with WebProcess(
            appliance, "--server-cert", made.server, "--server-key", made.server_key
        ) as web:
            for _ in range(400):
                held.append(socket.create_connection(("127.0.0.1", web.port), timeout=60))
            async with Browser(web) as browser:
                assert (await browser.sign_in())[0] == 303
            assert len(list(Path(f"/proc/{web.process.pid}/fd").iterdir())) < 150
    finally:
        for each in held:
            each.close()


@campaign
async def test_a_changed_certificate_is_taken_into_use(appliance, tmp_path):
    """As at the broker: without a restart, for new connections."""
    made, other = certificates.make(tmp_path / "old"), certificates.make(tmp_path / "new")

    def served(web) -> str:
        return ssl.get_server_certificate(("127.0.0.1", web.port)).strip()

    with WebProcess(
        appliance, "--server-cert", made.server, "--server-key", made.server_key
    ) as web:
        before = await asyncio.to_thread(served, web)
        Path(made.server_key).write_bytes(Path(other.server_key).read_bytes())
        Path(made.server).write_bytes(Path(other.server).read_bytes())
        await asyncio.to_thread(until, lambda: served(web) != before, "the other certificate")


@campaign
async def test_without_users_only_this_machine_is_let_in(tmp_path):
    """There, everybody of the machine is an operator, and each browser comes from this machine: where
    others can reach the page, nobody is let in, with any name or none."""
    config = attached_appliance.CONFIG.replace('users_file = "users.txt"', "anonymous = true")
    with ApplianceProcess(tmp_path, config) as appliance:
        appliance.start()
        with WebProcess(appliance) as web:
            async with Browser(web) as browser:
                assert (await browser.sign_in("", ""))[0] == 303
                async with browser.terminal() as terminal:
                    await seen(terminal, "operator")
        with WebProcess(appliance, "--hosts", "plant7.example.com") as web:
            async with Browser(web) as browser:
                for name in ("", "anna"):
                    status, page, _ = await browser.sign_in(name, "x")
                    assert (status, "has no users file" in page) == (403, True)


def test_options_that_cannot_be():
    """Said before anything is opened."""
    for arguments, said in [
        (["--bind", "0.0.0.0:8088"], "clear text"),
        (["--server-cert", "x.pem"], "give both"),
        (["--sessions", "0"], "from 1 to 30"),
        (["--idle", "5s"], "at least"),
        (["--bind", "nothing"], "not an address"),
    ]:
        from appliance.cli import main
        from contextlib import redirect_stderr
        from io import StringIO

        with redirect_stderr(StringIO()) as error:
            assert main(["web", "127.0.0.1", *arguments]) == 64
        assert said in error.getvalue()


@campaign
@needs_chromium
def test_in_chromium(web, appliance, tmp_path):
    """Sign-in, first frame, keys without a click, a copied topic, a reload, the end; a clean console.
    A page of another origin can't open the terminal."""
    with Chromium(tmp_path / "profile") as chromium:
        chromium.go(f"{web.origin}/")
        chromium.type("input[name=name]", "admin")
        chromium.type("input[name=password]", PASSWORD)
        chromium.type("button", "\ue007")
        until(lambda: "-first-byte" in chromium.run("return document.body.className"), "a frame")
        until(
            lambda: (
                chromium.run("return document.activeElement.className") == "xterm-helper-textarea"
            ),
            "the focus",
        )
        before = chromium.ask("GET", "/screenshot")
        chromium.press("5")
        until(lambda: chromium.ask("GET", "/screenshot") != before, "another screen")
        chromium.picture(tmp_path / "terminal.png")
        assert len((tmp_path / "terminal.png").read_bytes()) > 10_000
        assert not chromium.errors()
        cookies = chromium.ask("GET", "/cookie")
        assert [(each["httpOnly"], each["sameSite"]) for each in cookies] == [(True, "Strict")]
        assert chromium.run("return document.cookie") == ""
        chromium.go("data:text/html,<title>evil</title>")
        address = web.origin.replace("http", "ws") + "/ws"
        chromium.run(
            f"window.said = ''; const it = new WebSocket('{address}');"
            "it.onopen = () => { window.said = 'open'; }; it.onerror = () => { window.said = 'no'; };"
        )
        assert until(lambda: chromium.run("return window.said"), "an answer") == "no"
        chromium.go(f"{web.origin}/")
        until(lambda: "-first-byte" in chromium.run("return document.body.className"), "it again")
        chromium.press("q")
        until(lambda: "-closed" in chromium.run("return document.body.className"), "the end")
        chromium.go(f"{web.origin}/")
        assert chromium.run("return document.querySelector('form').action").endswith("/sign-in")
