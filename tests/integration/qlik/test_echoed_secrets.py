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
from appliance.errors import ConfigError
from appliance.log import logs
from appliance.qlik.connect import connect
from appliance.qlik.server import QlikError

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
        thread = threading.Thread(target=server.serve_forever, daemon=True)
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


def test_the_end_of_a_line_is_no_part_of_a_token(tmp_path: Path) -> None:
    """A variable may hold what a file held."""
    path = written(tmp_path, "https://sense.example.com", 'jwt = "${JWT}"')
    qlik = load(path, {"JWT": "a.b.c\r\n"}).qlik
    assert qlik is not None
    connect(qlik).close()
