"""From [qlik] to a working connection, over real HTTPS; and what is said when it does not work."""

import datetime
import ipaddress
import logging
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from appliance.config.tables import CertificateConfig, HeaderConfig, QlikConfig
from appliance.config.values import ReadPath
from appliance.secret import Secret
from appliance.errors import ApplianceError, ConfigError
from appliance.qlik.connect import connect, qlik_user
from appliance.finding import Finding
from appliance.qlik.diagnosis import diagnose
from appliance.qlik.server import RetryPolicy, QlikError
from appliance.qlik.simulated import FaultKind, ManualClock, Proxy, SimulatedQlik, TlsFiles
from appliance_process import free_port

USER = "INTERNAL\\sa_repository"


@dataclass
class Authority:
    """A certificate authority of the test, and what it signed."""

    folder: Path
    name: str

    def __post_init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        self.certificate = self._sign(self.subject, self.key.public_key(), ca=True)
        self.file = self._write("root.pem", self.certificate.public_bytes(_PEM))

    def issue(
        self, name: str, *, address: str | None = None, days: int = 365, password: bytes = b""
    ) -> tuple[str, str]:
        """Certificate and key files for a name; ``days`` < 0: it has ended already."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.DNSName(name)]
        if address is not None:
            names.append(x509.IPAddress(ipaddress.ip_address(address)))
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signed = self._sign(subject, key.public_key(), names=names, days=days)
        protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password:
            protection = serialization.BestAvailableEncryption(password)
        pem = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, protection)
        stem = f"{name}_{address}_{days}_{len(password)}"
        return (
            self._write(f"{stem}.pem", signed.public_bytes(_PEM)),
            self._write(f"{stem}_key.pem", pem),
        )

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        *,
        ca: bool = False,
        names: list[x509.GeneralName] | None = None,
        days: int = 365,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=400))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if ca:
            usage = x509.KeyUsage(
                digital_signature=True, content_commitment=False, key_encipherment=False,
                data_encipherment=False, key_agreement=False, key_cert_sign=True, crl_sign=True,
                encipher_only=False, decipher_only=False,
            )  # fmt: skip
            builder = builder.add_extension(usage, critical=True)
        return builder.sign(self.key, hashes.SHA256())

    def _write(self, name: str, data: bytes) -> str:
        path = self.folder / f"{self.name}_{name}"
        path.write_bytes(data)
        return str(path)


_PEM = serialization.Encoding.PEM


@dataclass
class Site:
    """Files of one Qlik site."""

    authority: Authority
    other: Authority
    server: TlsFiles
    client: CertificateConfig


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("certificates")
    authority, other = Authority(folder, "site"), Authority(folder, "other")
    certfile, keyfile = authority.issue("sense.example.com", address="127.0.0.1")
    return Site(
        authority,
        other,
        TlsFiles(certfile, keyfile, client_ca=authority.file),
        pair(authority.issue("client")),
    )


@pytest.fixture
def qlik(site: Site) -> Iterator[SimulatedQlik]:
    with SimulatedQlik(tls=site.server, proxies=[Proxy("hdr")]) as server:
        yield server


def pair(files: tuple[str, str]) -> CertificateConfig:
    return CertificateConfig(certfile=ReadPath(files[0]), keyfile=ReadPath(files[1]))


def config(url: str, site: Site, **settings: object) -> QlikConfig:
    given: dict[str, object] = {
        "edition": "client-managed",
        "url": url,
        "user": USER,
        "certificate": site.client,
        "ca_file": ReadPath(site.authority.file),
        "timeout": 5,
    }
    return QlikConfig(**(given | settings))  # type: ignore[arg-type]  # settings of a test


def findings(config: QlikConfig) -> tuple[list[str], str]:
    found = diagnose(config)
    return [finding.level for finding in found], "\n".join(finding.text for finding in found)


def test_a_client_certificate_opens_the_repository_service(qlik: SimulatedQlik, site: Site) -> None:
    """With the three files of a QMC export and a user, tasks are listed and started."""
    task = qlik.add_task("A")
    server = connect(config(qlik.url, site))
    assert server.check().version == "31.5.3.0"
    assert server.start(task.id).execution_id
    assert qlik.requests[0].headers["x-qlik-user"] == "UserDirectory=INTERNAL;UserId=sa_repository"
    assert qlik.posts[0].headers["content-length"] == "0"
    server.close()


def test_starting_a_task_takes_no_more_than_it_needs(qlik: SimulatedQlik, site: Site) -> None:
    """A start after a health check finds its connection open, TLS and all; and what only other
    ways in and proxies need is not even loaded, which memory and the time to start would pay."""
    task = qlik.add_task("A")
    given = config(qlik.url, site)
    assert given.certificate is not None
    script = f"""
import sys
from appliance.config.tables import CertificateConfig, QlikConfig
from appliance.config.values import ReadPath
from appliance.qlik.connect import connect
pair = CertificateConfig(
    certfile=ReadPath({str(given.certificate.certfile)!r}),
    keyfile=ReadPath({str(given.certificate.keyfile)!r}),
)
server = connect(
    QlikConfig(
        edition="client-managed", url={given.url!r}, user={given.user!r},
        ca_file=ReadPath({str(given.ca_file)!r}), certificate=pair,
    )
)
server.check()
assert server.start({task.id!r}).execution_id
server.close()
print(sorted(sys.modules.keys() & {{"requests", "charset_normalizer", "requests_ntlm"}}))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
    assert qlik.starts(task.id) == 1
    assert qlik.connections == 1


def test_a_working_connection_is_said_to_work(qlik: SimulatedQlik, site: Site) -> None:
    """Network, certificate, login, rights: each step has its own good news, and nothing starts."""
    qlik.add_task("A")
    qlik.add_task("B", enabled=False)
    levels, text = findings(config(qlik.url, site))
    assert levels == ["ok"] * 4
    assert "certificate is trusted" in text
    assert "31.5.3.0" in text
    assert "2 tasks are visible" in text
    assert qlik.posts == []


@pytest.mark.parametrize("wrong", ["missing", "foreign"])
def test_a_missing_or_foreign_client_certificate_is_explained(
    qlik: SimulatedQlik, site: Site, wrong: str
) -> None:
    """Port 4242 says no more than a TLS alert; the text says which files it wants."""
    certificate = pair(site.other.issue("client")) if wrong == "foreign" else None
    given = config(qlik.url, site, certificate=certificate)
    server = connect(given)
    with pytest.raises(QlikError, match="client certificate"):
        server.start("5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b10")
    levels, text = findings(given)
    assert levels[-1] == "bad"
    assert "certificate" in text
    assert qlik.requests == []
    server.close()


@pytest.mark.parametrize("kind", [FaultKind.DROP_BEFORE, FaultKind.DROP_AFTER, FaultKind.HANG])
def test_a_tls_connection_that_breaks_is_not_safe_to_repeat(
    qlik: SimulatedQlik, site: Site, kind: FaultKind
) -> None:
    """Over TLS as without: once the request may have arrived, a look comes before a repeat."""
    task = qlik.add_task("A", duration_s=60)
    server = connect(config(qlik.url, site, timeout=0.5))
    qlik.fail(kind, method="POST", times=1)
    with pytest.raises(QlikError) as caught:
        server.start(task.id)
    assert caught.value.retry is RetryPolicy.LOOK_FIRST
    assert qlik.starts() == 1
    server.close()


def test_a_certificate_for_another_name_is_explained_with_its_names(site: Site) -> None:
    """The text lists the names that would work."""
    certfile, keyfile = site.authority.issue("sense.example.com")
    with SimulatedQlik(tls=TlsFiles(certfile, keyfile)) as qlik:
        server = connect(config(qlik.url, site))
        with pytest.raises(QlikError, match="another host name") as caught:
            server.check()
        assert (caught.value.label, caught.value.retry) == ("certificate", RetryPolicy.SAFE)
        levels, text = findings(config(qlik.url, site))
        assert levels == ["bad"]
        assert "sense.example.com" in text
        server.close()


def test_an_unknown_authority_is_explained(qlik: SimulatedQlik, site: Site) -> None:
    """Without ca_file, or with another site's, the text says which file to take."""
    for ca_file in (None, ReadPath(site.other.file)):
        levels, text = findings(config(qlik.url, site, ca_file=ca_file))
        assert levels == ["bad"]
        assert "root.pem" in text
    assert qlik.requests == []


def test_an_expired_certificate_is_explained(site: Site) -> None:
    """Expired is told apart from not trusted, and soon to expire is a warning."""
    for days, level, words in ((-1, "bad", "has expired"), (10, "warn", "ends in 9 days")):
        certfile, keyfile = site.authority.issue("x", address="127.0.0.1", days=days)
        with SimulatedQlik(tls=TlsFiles(certfile, keyfile)) as qlik:
            levels, text = findings(config(qlik.url, site))
            assert levels[0] == level
            assert words in text


def test_https_to_a_port_without_tls_is_explained(site: Site) -> None:
    """The wrong port is named as such."""
    with SimulatedQlik() as qlik:
        levels, text = findings(config(qlik.url.replace("http:", "https:"), site))
    assert levels == ["bad"]
    assert "no TLS on this port" in text


def test_a_server_that_is_not_there_is_explained(site: Site) -> None:
    """Refused, unknown name and silence have their own sentences."""
    levels, text = findings(config(f"https://127.0.0.1:{free_port()}", site))
    assert (levels, "nothing listens there" in text) == (["bad"], True)
    levels, text = findings(config("https://sense.invalid:4242", site))
    assert (levels, "can't be resolved" in text) == (["bad"], True)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        levels, text = findings(config(url, site, timeout=0.3))
    assert (levels, "0.3 seconds" in text) == (["bad"], True)


def test_users_rights_prefix_and_login_page_are_explained(qlik: SimulatedQlik, site: Site) -> None:
    """Everything after TLS: who we are, what we may, and whether the proxy lets us in."""
    qlik.add_task("A")
    qlik.rightless_users.add(USER)
    levels, text = findings(config(qlik.url, site))
    assert ("warn" in levels, "No tasks are visible" in text) == (True, True)
    qlik.inactive_users.add(USER)
    levels, text = findings(config(qlik.url, site))
    assert (levels[-1], "inactive" in text) == ("bad", True)
    header = HeaderConfig(name="wrong-name")
    levels, text = findings(config(f"{qlik.url}/hdr", site, header=header))
    assert (levels[-1], "login page" in text) == ("bad", True)
    levels, text = findings(config(f"{qlik.url}/nosuch", site, jwt=Secret("a.b.c")))
    assert (levels[-1], "prefix 'nosuch'" in text) == ("bad", True)


def test_clocks_that_differ_are_a_warning(site: Site) -> None:
    """A server whose clock is an hour ahead is told so."""
    ours, theirs = ManualClock(), ManualClock()
    theirs.advance(3600)
    with SimulatedQlik(clock=theirs) as qlik:
        found = diagnose(config(qlik.url, site, certificate=None, ca_file=None), clock=ours)
    assert "3600 seconds ahead" in "".join(f.text for f in found if f.level == "warn")


def test_files_that_can_not_be_used_are_explained_at_once(site: Site, tmp_path: Path) -> None:
    """Wrong, swapped, protected or missing files: a sentence with the way out, no prompt."""
    certfile, keyfile = site.authority.issue("a")
    _, foreign_key = site.authority.issue("b")
    _, locked_key = site.authority.issue("c", password=b"secret")
    pfx = tmp_path / "client.pfx"
    pfx.write_bytes(b"\x30\x82\x0a\x00binary")
    cases = [
        ((certfile, foreign_key), "does not belong"),
        ((certfile, locked_key), "password"),
        ((str(pfx), str(pfx)), "PEM"),
        ((certfile, str(tmp_path / "nosuch.pem")), "no such file"),
        ((certfile, str(tmp_path)), "can't be|no such|may not"),
    ]
    for files, words in cases:
        with pytest.raises(ApplianceError, match=words) as caught:
            connect(config("https://127.0.0.1:1", site, certificate=pair(files)))
        assert "[qlik] `certificate`" in str(caught.value)
    with pytest.raises(ConfigError, match="ca_file"):
        connect(config("https://127.0.0.1:1", site, ca_file=ReadPath(keyfile)))
    assert [finding.level for finding in diagnose(config("https://127.0.0.1:1", site,
        certificate=pair((certfile, foreign_key))))] == ["bad"]  # fmt: skip


@pytest.mark.parametrize("user", ["", "sa_repository", "\\x", "x\\", "a;b\\c"])
def test_a_user_of_another_form_is_explained(user: str) -> None:
    """Directory, backslash, name; nothing else reaches the header."""
    with pytest.raises(ConfigError, match="directory, backslash, name"):
        qlik_user(user)


def test_secrets_come_from_files_and_show_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A token from jwt_file is used, and is in no error, representation or log line."""
    token = tmp_path / "jwt.txt"
    token.write_text("hunter2.hunter2.hunter2\n")
    caplog.set_level(logging.DEBUG)
    with SimulatedQlik(proxies=[Proxy("jwt", kind="jwt", token="hunter2.hunter2.hunter2")]) as qlik:
        given = QlikConfig(
            edition="client-managed", url=f"{qlik.url}/jwt", jwt_file=ReadPath(str(token))
        )
        server = connect(given)
        server.check()
        qlik.refuse()
        with pytest.raises(QlikError) as caught:
            server.check()
        shown = f"{given!r}{server!r}{caught.value!r}{diagnose(given)}{caplog.text}"
        assert "hunter2" not in shown
        server.close()


def test_ntlm_without_its_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The optional extra is named."""
    monkeypatch.setitem(__import__("sys").modules, "requests_ntlm", None)
    given = QlikConfig(
        edition="client-managed", url="http://127.0.0.1:1", user=USER, ntlm=True,
        password=Secret("x"),
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"\[ntlm\]"):
        connect(given)


def test_the_simulated_edition_is_a_server_of_its_own() -> None:
    """Edition simulated needs nothing else; its tasks are there, and close ends it."""
    server = connect(QlikConfig(edition="simulated"))
    assert server.label == "simulated"
    tasks = server.tasks()
    assert len(tasks) == 9
    assert server.start(tasks[0].id).execution_id
    server.close()
    with pytest.raises(QlikError):
        server.check()
    assert diagnose(QlikConfig(edition="simulated"))[-1] == Finding(
        "ok", "Executions can be read; 0 under way now."
    )


def test_a_server_that_is_down_does_not_keep_the_appliance_from_starting(site: Site) -> None:
    """connect() sends nothing."""
    connect(config(f"https://127.0.0.1:{free_port()}", site)).close()
