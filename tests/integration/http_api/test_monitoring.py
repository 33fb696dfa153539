"""``/healthz`` and ``/metrics`` of ``[metrics]`` and ``[http]``: what monitors are promised."""

from __future__ import annotations

import socket
import threading

import pytest
from appliance_process import ApplianceProcess, free_port, until
from http_site import DEADLINE_S, HttpSite, text_of

from appliance.counters import Counter
from appliance.engine.view import View
from appliance.engine_api import Health, JournalState
from appliance.http_api import monitoring
from appliance.ops.health import report
from appliance.ui.views.client import listeners


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    hosts = 'hosts = ["*.plant.example"]'
    with HttpSite(tmp_path_factory.mktemp("metrics"), metrics=hosts) as site:
        yield site


def test_healthz_and_metrics_over_http(port, monkeypatch) -> None:
    """/healthz is 200 or 503 with the report as JSON; /metrics is text; all else is refused."""
    answer = port.ask("GET", "/healthz")
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")
    answer = port.ask("GET", "/metrics?x=1")
    assert answer.status_code == 200
    assert "\nappliance_clients 0.0\n" in answer.text
    assert answer.headers["connection"] == "close"
    assert answer.headers["cache-control"] == "no-store"
    assert port.ask("GET", "/").status_code == 404
    assert port.ask("POST", "/messages/a", data=b"x").status_code == 404
    assert port.ask("POST", "/healthz", data=b"x").status_code == 405
    bad = JournalState(Health("bad", "disk full"))
    monkeypatch.setattr(port.appliance.journal, "stats", lambda: bad)
    answer = port.ask("GET", "/healthz")
    assert (answer.status_code, answer.json()["status"]) == (503, "bad")
    answer = port.ask("HEAD", "/healthz")
    assert (answer.status_code, answer.content) == (503, b"")


def test_an_engine_that_hangs_is_not_well(port, monkeypatch) -> None:
    """Its loop is asked; without an answer in time, the monitor hears 503."""
    monkeypatch.setattr(monitoring, "ENGINE_S", 0.05)
    goes_on = threading.Event()
    port.appliance.loop.call_soon_threadsafe(goes_on.wait, DEADLINE_S)
    try:
        for path in ("/healthz", "/metrics"):
            answer = port.ask("GET", path)
            assert (answer.status_code, answer.json()["status"]) == (503, 503)
    finally:
        goes_on.set()


def test_silent_and_talkative_strangers_cost_the_port_nothing(port) -> None:
    """Connections that say nothing are bounded in number, a head without end is cut off, and the
    port serves on."""
    with port.raw(b"GET / HTTP/1.1\r\nX: " + b"x" * 40_000) as talker:
        assert talker.recv(100).startswith(b"HTTP/1.1 431 ")
    silent = [port.raw() for _ in range(30)]
    assert port.ask("GET", "/healthz").status_code == 200
    assert silent[0].recv(100) == b"", "the oldest has made room"
    until(lambda: port.counted(Counter.MONITORING_CONNECTIONS_ENDED) == 11, "they are counted")
    for each in silent:
        each.close()
    assert port.ask("GET", "/healthz").status_code == 200


def test_a_page_that_was_given_this_machines_address_reads_nothing(port) -> None:
    """Only requests for an address or a name of this machine are answered (DNS rebinding)."""

    def asked(host: str) -> int:
        return port.ask("GET", "/healthz", headers={"Host": host}).status_code

    own = ("localhost:80", "127.0.0.1", "[::1]:9464", socket.gethostname(), "A.plant.example.:80")
    assert [asked(host) for host in own] == [200] * len(own)
    foreign = ("evil.example", "127.0.0.1.evil.example:80", "plant.example", "localhost.evil", "")
    foreign += ("127.0.0.1:80.evil.example", "[::1]evil.example", "localhost:x")
    assert [asked(host) for host in foreign] == [421] * len(foreign)
    refused = Counter.MONITORING_REQUESTS_REFUSED_HOST
    until(lambda: port.counted(refused) == len(foreign), "they are counted")
    answer = port.ask("GET", "/metrics", headers={"Host": "evil.example"})
    assert (answer.status_code, "hosts in [metrics]" in answer.text) == (421, True)

    def raw(request: bytes) -> bytes:
        with port.raw(request) as client:
            return client.recv(100)[:12]

    assert raw(b"GET /healthz HTTP/1.0\r\n\r\n") == b"HTTP/1.1 200"
    assert raw(b"GET /healthz HTTP/1.1\r\n\r\n") == b"HTTP/1.1 400"
    two = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"
    assert raw(two) == b"HTTP/1.1 400"


def test_a_monitoring_port_in_use_is_told_and_the_appliance_goes_on(tmp_path) -> None:
    """What is wrong and what to do, without a traceback; health says so too."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        text = text_of(tmp_path, metrics="#").replace(
            '[metrics]\nbind = "127.0.0.1:0"', f'[metrics]\nbind = "127.0.0.1:{taken}"'
        )
        with ApplianceProcess(tmp_path, text) as process:
            process.start()
            line = process.wait_for_line("there is no monitoring")
            assert "the port is in use by another program" in line
            assert "choose another address or port" in line
            assert "Traceback" not in "\n".join(process.lines)
            assert process.end() == 0


@pytest.mark.campaign
def test_an_http_port_in_use_ends_the_start(tmp_path) -> None:
    """As with a listener of MQTT: nobody would notice that starts do not arrive."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        text = text_of(tmp_path).replace(
            '[http]\nbind = "127.0.0.1:0"', f'[http]\nbind = "127.0.0.1:{taken}"'
        )
        with ApplianceProcess(tmp_path, text) as process:
            process.begin()
            assert process.exit_code() == 69
            assert "[http] bind" in process.lines[-1]
            assert "choose another address or port" in process.lines[-1]


def test_the_http_port_is_for_monitors_too(tmp_path) -> None:
    """On loopback all of it is open, as in [metrics]."""
    with HttpSite(tmp_path, users=("anna",)) as site:
        assert site.ask("GET", "/healthz").json()["pid"]
        assert site.ask("GET", "/metrics").status_code == 200


def test_the_terminal_and_health_show_the_port(port) -> None:
    """Screen 4 has it beside the listeners of MQTT, and a health report has its part."""
    snapshot = View(port.appliance).snapshot()
    lines = ["".join(text for text, _ in line) for line in listeners(snapshot)]
    (line,) = [each for each in lines if "metrics" in each]
    assert f"127.0.0.1:{port.port}" in line
    assert len(line) <= 80
    assert any(part.name == "port metrics" for part in report(snapshot).parts)


def test_beyond_loopback_the_numbers_are_for_users(tmp_path) -> None:
    """A stranger learns whether messages are accepted, and nothing else."""
    text = f'bind = "0.0.0.0:{free_port()}"'
    with HttpSite(tmp_path, users=("anna",), bind=text) as site:
        answer = site.ask("GET", "/healthz")
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
        assert site.ask("GET", "/healthz", "anna").json()["pid"]
        assert site.ask("GET", "/healthz", "anna", "wrong").status_code == 401
        assert site.ask("GET", "/metrics").status_code == 401
        assert site.ask("GET", "/metrics", "anna").status_code == 200
