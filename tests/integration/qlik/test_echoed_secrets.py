"""A server that repeats what it was sent, and secrets that no header can carry."""

import base64
import http.server
import io
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from appliance import cli
from appliance.config.files import all_secrets
from appliance.config.reading import load
from appliance.config.tables import Config
from appliance.errors import ConfigError
from appliance.log import logs
from appliance.qlik.cloud_errors import expect_success
from appliance.qlik.connect import connect
from appliance.qlik.server import QlikError
from appliance.qlik.transport import Transport

SECRET = "Zx9-hunter2/and more&than+that"  # noqa: S105  made up
LINES = ["first-line-of-it-0", "second-line-of-it-1", "third-line-of-it-2"]


class _Echo(http.server.BaseHTTPRequestHandler):
    """Repeats the header in body, header fields and redirects, by the way that the test sets."""

    way = ""
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        said = self.headers.get("hdr-usr") or ""
        forms = (said, quote(said, ""), base64.b64encode(f"user:{said}".encode()).decode())
        body = "; ".join(forms).encode("latin-1", "replace")
        status, headers = 400, {"Content-Type": "text/plain"}
        if self.way == "version":
            status, headers = 200, {"Content-Type": "application/json"}
            body = f'{{"buildVersion": "1 {said}"}}'.encode()
        elif self.way == "redirect" and "moved" not in self.path:
            status, headers = 302, {"Location": f"/moved/{quote(said, '')}/{said.split()[0]}"}
        elif self.way == "status line":
            self.wfile.write(f"HTTP/1.1 {said}\r\n\r\n".encode())
            self.close_connection = True
            return
        headers["Set-Cookie"] = f"seen={quote(said, '')}"
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def echo() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def written(folder: Path, url: str, sign_in: str) -> Path:
    path = folder / "config.toml"
    path.write_text(
        f"[qlik]\nedition = 'client-managed'\nurl = '{url}'\nuser = 'ACME\\svc'\n{sign_in}\n",
        "utf-8",
    )
    return path


@pytest.mark.parametrize("way", ["body", "version", "redirect", "status line"])
def test_a_server_that_repeats_the_secret_shows_none(
    echo: str,
    way: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Not in an error, its repr, the log or what `check --connect` prints; in no form."""
    monkeypatch.setattr(_Echo, "way", way)
    path = written(tmp_path, echo, f'header = {{name = "hdr-usr", value = "{SECRET}"}}')
    config = load(path)
    assert config.qlik is not None
    stream = io.StringIO()
    log = logs.start("debug", stream=stream, secrets=all_secrets(config))
    server = connect(config.qlik)
    texts = []
    try:
        texts.append(server.check().text)
    except QlikError as error:
        texts += [str(error), repr(error)]
        logging.getLogger("appliance.test").exception("The call failed: %s", error)
    finally:
        server.close()
        log.close()
    cli.main(["check", "--connect", "-c", str(path)])
    texts += [*capsys.readouterr(), stream.getvalue()]
    for text in texts:
        assert "hunter2" not in text
        assert "more%26than" not in text
        assert base64.b64encode(b"hunter2").decode()[:8] not in text


class _Session(_Echo):
    """A proxy that gives a session, and repeats that and what it was sent itself."""

    def do_GET(self) -> None:
        sent = self.headers.get("Proxy-Authorization", "").rpartition(" ")[2]
        plain = base64.b64decode(sent).decode()
        body = f"denied: {sent} {plain} {self.headers.get('Cookie')} {SESSION}".encode()
        self.send_response(403)
        self.send_header("Set-Cookie", f"X-Qlik-Session={SESSION}; Path=/; HttpOnly")
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


SESSION = "3f2b9c71-session-of-the-proxy"


def test_a_proxy_of_the_environment_and_its_session_show_no_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The password in HTTP_PROXY and the cookie of a session sign in as well as a secret of the
    configuration; no text of a server that repeats them shows them, at the first call or later."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Session) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        proxy = f"http://someone:hunter2%2Fand%20more@127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv("http_proxy", proxy)
        transport = Transport("http://qlik.example:4242", timeout_s=5)
        for _ in range(2):
            reply = transport.call("GET", "/qrs/about")
            shown = [reply.known.mask(reply.text), repr(transport), repr(reply.known)]
            with pytest.raises(QlikError) as caught:
                expect_success(reply)
            for text in (*shown, str(caught.value), repr(caught.value)):
                assert "hunter2" not in text
                assert "session-of" not in text
                assert base64.b64encode(b"someone:hunter2/").decode()[-12:-2] not in text
        transport.close()
        server.shutdown()
    texts = [
        "http://someone:hunter2/and more@[::1",
        "someone:hunter2/and more@proxy:x",
        "socks9://someone:hunter2/and more@proxy:8080",
    ]
    for text in texts:
        monkeypatch.setenv("http_proxy", text)
        transport = Transport("http://qlik.example:4242", timeout_s=5)
        with pytest.raises(QlikError) as caught:
            transport.call("GET", "/qrs/about")
        assert "hunter2" not in str(caught.value)
        assert "HTTP proxy" in str(caught.value)
        transport.close()
        stream = io.StringIO()
        log = logs.start("debug", stream=stream, secrets=all_secrets(Config()))
        logging.getLogger("appliance.test").warning("The proxy is %s", text)
        log.close()
        assert "hunter2" not in stream.getvalue()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("key", ["jwt_file", "password_file", "api_key_file", "client_secret_file"])
def test_a_secret_with_a_line_break_is_refused_before_it_is_sent(
    tmp_path: Path, key: str, end: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`check` and the start say so with code 78, and show nothing of it."""
    (tmp_path / "secret.txt").write_bytes((end.join(LINES) + "\n").encode())
    sign_in = f'{key} = "secret.txt"'
    path = written(tmp_path, "http://127.0.0.1:9", sign_in)
    if key == "password_file":
        path.write_text(path.read_text("utf-8") + "ntlm = true\n", "utf-8")
    elif key != "jwt_file":
        more = "client_id = 'x'\n" if key == "client_secret_file" else ""
        text = path.read_text("utf-8").replace("client-managed", "cloud")
        path.write_text(text + more, "utf-8")
    assert cli.main(["check", "-c", str(path)]) == 78
    said = capsys.readouterr().err
    assert "line break" in said
    assert "line-of-it" not in said
    qlik = load(path).qlik
    assert qlik is not None
    with pytest.raises(ConfigError, match="line break") as caught:
        connect(qlik).close()
    assert "line-of-it" not in str(caught.value)


@pytest.mark.parametrize(
    ("sign_in", "said"),
    [
        ('jwt = "a.b c.d"', "blank"),
        ('jwt = "a.b\\nc.d"', "line break"),
        ('jwt = "a.b\\u0142"', "no token has"),
        ('header = {name = "hdr", value = "a\\nb"}', "line break"),
        ('header = {name = "hdr", value = "Łukasz"}', "Latin-1"),
        ('header = {name = "hdr", value = " a"}', "blank"),
        ('header = {name = "Host"}', "HTTP itself"),
        ("header = {name = 'hdr'}\nuser = 'ACME\\Łukasz'", "Latin-1"),
        ('certificate = {certfile = "a", keyfile = "b"}\nuser = \'ACME\\Łukasz\'', "Latin-1"),
    ],
)
def test_a_sign_in_that_no_header_can_carry_is_a_problem_of_the_configuration(
    tmp_path: Path, sign_in: str, said: str
) -> None:
    """`check` says it, with what to do."""
    path = written(tmp_path, "https://sense.example.com", sign_in)
    if "user =" in sign_in:
        text = path.read_text("utf-8").replace("user = 'ACME\\svc'\n", "")
        path.write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=said):
        load(path)


@pytest.mark.parametrize("secret", ["eyJhbGci.hunter2-token.sig", "mailto://a:hunter2@example.com"])
@pytest.mark.parametrize(
    "table",
    [
        "[qlik]\nedition = 'client-managed'\nurl = 'https://q.example/p'\nuser = 'A\\b'\njwt_file = {}",
        "[qlik]\nedition = 'cloud'\nurl = 'https://q.example'\napi_key_file = {}",
        "[[notify]]\nurl_file = {}",
    ],
)
def test_a_secret_in_the_place_of_its_files_name_is_not_shown(
    tmp_path: Path, table: str, secret: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file does not exist: `check`, `run` and a wrong path name the key and the folder only."""
    path = tmp_path / "config.toml"
    for value in (f"'{secret}'", f'"{secret}\\n"'):
        path.write_text(table.format(value) + "\n", "utf-8")
        for command in (["check"], ["run", "--headless", "--run-for", "1s"]):
            assert cli.main([*command, "-c", str(path)]) == 78
            said = "".join(capsys.readouterr())
            assert "hunter2" not in said
            assert "_file`" in said


def test_the_end_of_a_line_is_no_part_of_a_token(tmp_path: Path) -> None:
    """A variable may hold what a file held."""
    path = written(tmp_path, "https://sense.example.com", 'jwt = "${JWT}"')
    qlik = load(path, {"JWT": "a.b.c\r\n"}).qlik
    assert qlik is not None
    connect(qlik).close()
