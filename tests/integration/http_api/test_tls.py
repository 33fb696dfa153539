"""HTTPS: versions, certificates that change, clients that never finish a handshake."""

from __future__ import annotations

import shutil
import socket
import ssl
import warnings

import certificates
import pytest
from appliance_process import until
from http_site import DEADLINE_S, HttpProcess, HttpSite

from appliance.counters import Counter
from appliance.http_api import bounds, port

TLS = 'tls = {certfile = "server.pem", keyfile = "server_key.pem"}'


@pytest.fixture
def folder(tmp_path):
    """Where a site has its certificate; ``folder / "other"`` has another one of another authority."""
    certificates.make(tmp_path)
    certificates.make(tmp_path / "other")
    return tmp_path


def serial(site: HttpSite) -> int:
    shown = ssl.get_server_certificate(site.where, timeout=DEADLINE_S)
    return certificates.x509.load_pem_x509_certificate(shown.encode()).serial_number


def test_https(folder, monkeypatch) -> None:
    """A client that verifies is served; an old version, plain HTTP and silence are not; changed
    files count for new connections, and a broken pair does not."""
    monkeypatch.setattr(port, "_SWEEP_S", 0.02)
    monkeypatch.setattr(bounds, "HEAD_S", 0.5)
    with HttpSite(folder, http=TLS) as site:
        ca = str(folder / "root.pem")
        answer = site.ask("POST", "/messages/a", data=b"x" * 200_000, verify=ca)
        assert answer.status_code == 200
        kept = site.appliance.journal.get(answer.json()["seq"])
        assert kept.payload == b"x" * 200_000
        assert site.appliance.port_states()[0].tls
        silent = socket.create_connection(site.where, DEADLINE_S)
        with site.raw(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n") as plain:
            assert not plain.recv(1000).startswith(b"HTTP")
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(ca)
        with warnings.catch_warnings(action="ignore"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with socket.create_connection(site.where, DEADLINE_S) as client, pytest.raises(OSError):
            old.wrap_socket(client, server_hostname="localhost")
        until(lambda: site.counted(Counter.CONNECTIONS_ENDED_NO_TLS_HANDSHAKE) >= 2, "they count")
        assert silent.recv(10) == b"", "who says nothing is not waited for"
        silent.close()
        (folder / "server.pem").write_text("broken")
        until(lambda: site.appliance.port_states()[0].health.level == "warn", "it is told")
        first = serial(site)
        for name in ("server_key.pem", "server.pem"):
            shutil.copy(folder / "other" / name, folder / name)
        until(lambda: serial(site) != first, "the new certificate is shown")
        until(lambda: site.appliance.port_states()[0].health.level == "ok", "all is well")


def test_a_certificate_that_is_none_ends_the_start(tmp_path) -> None:
    """In words, as for a listener of MQTT."""
    for name in ("server.pem", "server_key.pem"):
        (tmp_path / name).write_text("none")
    with HttpProcess(tmp_path, http=TLS) as process:
        process.begin()
        assert process.exit_code() == 78
        said = "\n".join(process.lines)
        assert "[http]: the certificate files can't be used" in said
        assert "Traceback" not in said
