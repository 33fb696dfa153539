"""Certificates for tests: an authority, a server's and a client's, as PEM files in a folder."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

QLIK_CONFIG = """
[qlik]
edition = "client-managed"
url = "{url}"
user = 'INTERNAL\\sa_repository'
certificate = {{certfile = "certificates/client.pem", keyfile = "certificates/client_key.pem"}}
ca_file = "certificates/root.pem"
"""
"""For ``str.format``: a Qlik server that trusts what ``make`` writes into ``certificates``."""


@dataclass(frozen=True)
class Certificates:
    """Paths of PEM files."""

    root: str
    server: str
    server_key: str
    client: str
    client_key: str
    other: str
    other_key: str


_NAMES = {"client": "Test", "other": "Other"}


def revocation_list(
    files: Certificates, *revoked: str, valid: datetime.timedelta = datetime.timedelta(days=1)
) -> bytes:
    """A list of the authority (PEM) with these certificate files, out of date after ``valid``."""
    now = datetime.datetime.now(datetime.UTC)
    folder = Path(files.root).parent
    key = serialization.load_pem_private_key((folder / "root_key.pem").read_bytes(), None)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(_name("Test authority"))
        .last_update(now - datetime.timedelta(days=2))
        .next_update(now + valid)
    )
    for file in revoked:
        serial = x509.load_pem_x509_certificate(Path(file).read_bytes()).serial_number
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
        )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def make(folder: Path, *, host: str = "localhost", uri: str | None = None) -> Certificates:
    """Write an authority and what it signed: a server (``host``, 127.0.0.1, ::1) and two clients.

    ``uri`` is one more name of each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    root_key = ec.generate_private_key(ec.SECP256R1())
    root_name = _name("Test authority")
    root = (
        _builder(root_name, root_name, root_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(False, False, False, False, False, True, True, False, False),
            critical=True,
        )
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(root_key.public_key()), critical=False
        )
        .sign(root_key, hashes.SHA256())
    )
    paths = {"root": _write(folder / "root.pem", root.public_bytes(serialization.Encoding.PEM))}
    _write(
        folder / "root_key.pem",
        root_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
    for kind, usage in (
        ("server", ExtendedKeyUsageOID.SERVER_AUTH),
        ("client", ExtendedKeyUsageOID.CLIENT_AUTH),
        ("other", ExtendedKeyUsageOID.CLIENT_AUTH),
    ):
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(
                _name(host if kind == "server" else f"{_NAMES[kind]} client"),
                root_name,
                key.public_key(),
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(
                x509.SubjectAlternativeName(
                    [
                        x509.DNSName(host),
                        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
                        x509.IPAddress(ipaddress.ip_address("::1")),
                        *([] if uri is None else [x509.UniformResourceIdentifier(uri)]),
                    ]
                ),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()),
                critical=False,
            )
            .sign(root_key, hashes.SHA256())
        )
        paths[kind] = _write(
            folder / f"{kind}.pem", certificate.public_bytes(serialization.Encoding.PEM)
        )
        paths[f"{kind}_key"] = _write(
            folder / f"{kind}_key.pem",
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )
    return Certificates(**paths)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(subject: x509.Name, issuer: x509.Name, key) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=4))
        .not_valid_after(now + datetime.timedelta(days=4))
    )


def _write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)
