"""``appliance demo`` as its user runs it, and the Qlik server that ``--qlik`` offers."""

import contextlib
import http.client
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tmux_window import Window

from appliance import demo
from appliance.config.reading import load
from appliance.config.tables import CertificateConfig
from appliance.demo import certificates
from appliance.demo.qlik_server import offered
from appliance.errors import UnavailableError

FIRST_S = 20.0
"""Within this time the demo shows what the appliance is for."""
BUSY_S = 40.0
"""How much longer a start may take on a busy machine."""


class Demo:
    """``appliance demo`` without a terminal; its lines, with the second in which each came."""

    def __init__(self, *arguments: str, folder: Path, code: str = "pass") -> None:
        program = f"import sys; from appliance import cli, demo; {code}; sys.exit(cli.main())"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, "demo", "--data-dir", str(folder), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.lines: list[tuple[float, str]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        began = None
        for line in self.process.stdout:
            if began is None and "listening on" in line:
                began = time.monotonic()
            self.lines.append((time.monotonic() - (began or time.monotonic()), line.rstrip()))

    def end(self, timeout_s: float) -> int:
        try:
            code = self.process.wait(timeout_s)
            self._reader.join(5)
            return code
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join(5)
            if self.process.stdout is not None:
                self.process.stdout.close()

    def second_of(self, pattern: str) -> float:
        for second, line in self.lines:
            if re.search(pattern, line):
                return second
        raise AssertionError(f"no line has {pattern}: {[line for _, line in self.lines]}")


@pytest.mark.campaign
def test_without_a_terminal_the_demo_ends_by_itself(tmp_path) -> None:
    """It says when it ends, ends then with 0, and sums up; --qlik says where the server is."""
    assert demo.HEADLESS_S == 30
    run = Demo("--qlik", folder=tmp_path, code="demo.HEADLESS_S = 5.0")
    assert run.end(BUSY_S) == 0
    run.second_of("ends by itself after 5 s")
    run.second_of(r'published \{"Generated number": "0"\} to /demo/integers')
    run.second_of("Copy files: succeeded")
    run.second_of("What happened:")
    run.second_of(r"\d messages of /demo/integers are in .*integers\.json")
    numbers = json.loads((tmp_path / "recordings" / "integers.json").read_text())
    assert numbers[:2] == [{"Generated number": "0"}, {"Generated number": "1"}]

    run.second_of(r"with a certificate +https://127\.0\.0\.1:\d+/qrs")
    run.second_of(r"with a header +https://127\.0\.0\.1:\d+/header/qrs")
    # The demo uses what it offers: demo.toml is a configuration for a real server.
    config = load(tmp_path / "demo.toml")
    assert config.qlik is not None and config.qlik.edition == "client-managed"
    assert config.qlik.url.startswith("https://127.0.0.1:")
    assert config.qlik.certificate == CertificateConfig(
        certfile=str(tmp_path / "qlik" / "client.pem"),
        keyfile=str(tmp_path / "qlik" / "client_key.pem"),
    )


@pytest.mark.campaign
@pytest.mark.parametrize("is_first", [True, False], ids=["first", "after an interrupted one"])
def test_headless_the_first_seconds_name_what_the_appliance_is_for(tmp_path, is_first) -> None:
    if not is_first:  # it ends in the run that is to fail
        assert Demo("--run-for", "4s", folder=tmp_path).end(BUSY_S) == 0
    run = Demo(folder=tmp_path)
    assert run.end(30 + BUSY_S) == 0
    seconds = {
        "a message": run.second_of(r'publishes \{"taskId": ".*"\} to qliksense/start_task'),
        "a start": run.second_of(r"Reload line 7: running \(.* asked for by demo-source"),
        "a failure with its reason": run.second_of(
            r"Reload supplier prices: failed after .*: Cannot open file .*Password=\*\*\*"
        ),
        "a recording": run.second_of(r"recorded: \d+ messages of /demo/integers are in .*json"),
        "a timer": run.second_of(r"timer sales is due in \d+ s: every 10 s"),
        "a timer's start": run.second_of(r"Reload sales: running \(.* asked for by timer sales\)"),
    }
    assert max(seconds.values()) < FIRST_S, seconds
    assert 28 < run.second_of("the run limit is reached") < 35


@pytest.mark.campaign
@pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")
@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (140, 40)])
def test_at_a_terminal_the_first_seconds_show_it_without_a_key(tmp_path, columns, rows) -> None:
    command = f"{sys.executable} -m appliance demo --data-dir {tmp_path / 'data'}"
    window = Window(tmp_path, f"env -u COLUMNS -u LINES {command}", columns=columns, rows=rows)
    wide = columns > 80
    wanted = {
        "a message": r"/demo/integers +1 +\{\"Generated",
        "a start": r"Copy files +done" if not wide else r"Reload line 7 ",
        "a failure": r"✗ .* Reload suppl\S* ?\S* failed",
        "its reason": r"Cannot open file 'lib://suppliers",
        "a recording": r"integers\.json +\d" if wide else r"recorded \d",
        "a timer": r"sales +in 0:0\d" if wide else r"next sales 0:0\d",
        "a timer's start": r"Reload sales .*timer sales",
    }
    seen: dict[str, float] = {}
    with contextlib.closing(window):
        window.wait("/demo/integers")
        began = time.monotonic()
        while time.monotonic() < began + FIRST_S and len(seen) < len(wanted):
            screen = window.screen()
            for what, pattern in wanted.items():
                if re.search(pattern, screen):
                    seen.setdefault(what, round(time.monotonic() - began, 1))
            time.sleep(0.1)
        assert set(seen) == set(wanted), f"{seen}\n{window.screen()}"


# --- --qlik --------------------------------------------------------------------------------------


def get(url: str, path: str, folder: Path, *, certificate: bool = False, **headers: str):
    """One GET over TLS that trusts ``root.pem`` alone; returns the status."""
    context = ssl.create_default_context(cafile=str(folder / "root.pem"))
    if certificate:
        context.load_cert_chain(folder / "client.pem", folder / "client_key.pem")
    host, _, prefix = url.removeprefix("https://").partition("/")
    connection = http.client.HTTPSConnection(host, timeout=10, context=context)
    key = "0123456789abcdef"
    path = f"{'/' if prefix else ''}{prefix}/qrs/{path}?xrfkey={key}"
    try:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET", path, headers={"X-Qlik-Xrfkey": key, **fields})
        return connection.getresponse().status
    finally:
        connection.close()


def test_the_offered_server_has_a_door_for_certificates_and_one_for_a_header(tmp_path) -> None:
    folder = tmp_path / "qlik"
    user = "UserDirectory=INTERNAL;UserId=sa_repository"
    with offered(folder) as server:
        assert server.url in server.explanation and str(folder) in server.explanation
        assert get(server.url, "about", folder, certificate=True, X_Qlik_User=user) == 200
        with pytest.raises((ssl.SSLError, ConnectionError)):
            get(server.url, "about", folder, X_Qlik_User=user)
        assert get(server.proxy_url, "task/count", folder, hdr_usr=r"INTERNAL\anyone") == 200
        assert get(server.proxy_url, "task/count", folder, X_Qlik_User=user) == 302
        localhost = server.url.replace("127.0.0.1", "localhost")
        assert get(localhost, "about", folder, certificate=True, X_Qlik_User=user) == 200
        with offered(folder) as second:  # the usual ports are taken
            assert second.url not in (server.url, server.proxy_url)
            assert get(second.url, "about", folder, certificate=True, X_Qlik_User=user) == 200


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_certificates_are_kept_while_they_are_good(tmp_path, monkeypatch) -> None:
    certificates.ensure(tmp_path)
    first = contents(tmp_path)
    assert set(first) == {
        *("root.pem", "server.pem", "server_key.pem", "client.pem", "client_key.pem")
    }
    if os.name == "posix":
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    certificates.ensure(tmp_path)
    assert contents(tmp_path) == first
    (tmp_path / "client.pem").write_text("cut off")
    certificates.ensure(tmp_path)
    second = contents(tmp_path)
    assert not set(second.values()) & set(first.values())
    (tmp_path / "root.pem").write_bytes(first["root.pem"])  # of another set
    certificates.ensure(tmp_path)
    third = contents(tmp_path)
    assert third["root.pem"] != first["root.pem"]
    monkeypatch.setattr(certificates, "_SPARE", certificates._VALID)  # it ends too soon
    certificates.ensure(tmp_path)
    assert contents(tmp_path) != third


def test_without_the_package_for_certificates_it_says_what_to_install(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    monkeypatch.delitem(sys.modules, "appliance.demo.certificates")
    monkeypatch.delattr(demo, "certificates")
    with pytest.raises(UnavailableError, match="pip install"), offered(tmp_path):
        pass
