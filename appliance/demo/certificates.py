"""Certificates for the demo's Qlik server, as files like those that the QMC exports.

``root.pem``, ``client.pem`` and ``client_key.pem`` are what a client needs; ``server.pem`` and
``server_key.pem`` are the server's own. Not for: certificates of a real server.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOST = "127.0.0.1"
_NAMES = ("root.pem", "server.pem", "server_key.pem", "client.pem", "client_key.pem")
_VALID = timedelta(days=365)
_SPARE = timedelta(days=7)
"""Certificates that end within this time are replaced."""
_KEY_BITS = 2048
"""As Qlik's own; some clients know no other kind of key."""


def ensure(folder: Path) -> None:
    """Write the files, unless the folder has them and they are valid for a week at least.

    Raises:
        OSError: the folder can't be written.
    """
    if not _are_usable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _make(folder)


def _are_usable(folder: Path) -> bool:
    if not all((folder / name).is_file() for name in _NAMES):
        return False
    until = datetime.now(UTC) + _SPARE
    try:
        certificates = [
            x509.load_pem_x509_certificate((folder / name).read_bytes())
            for name in ("root.pem", "server.pem", "client.pem")
        ]
        for certificate in certificates[1:]:
            # A run that was killed in the middle leaves files that do not belong together.
            certificate.verify_directly_issued_by(certificates[0])
    except (ValueError, TypeError, InvalidSignature):
        return False
    return all(certificate.not_valid_after_utc > until for certificate in certificates)


def _make(folder: Path) -> None:
    root_key = _new_key()
    root_name = _name("Simulated Qlik authority")
    root = (
        _builder(root_name, root_name, root_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(root_key.public_key()), critical=False
        )
        .sign(root_key, hashes.SHA256())
    )
    _write(folder / "root.pem", root.public_bytes(serialization.Encoding.PEM))
    names: list[x509.GeneralName] = [x509.DNSName("localhost")]
    names += [x509.IPAddress(ipaddress.ip_address(each)) for each in (HOST, "::1")]
    for kind, subject, usage in (
        ("server", "Simulated Qlik server", ExtendedKeyUsageOID.SERVER_AUTH),
        ("client", "QlikClient", ExtendedKeyUsageOID.CLIENT_AUTH),
    ):
        key = _new_key()
        builder = (
            _builder(_name(subject), root_name, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()),
                critical=False,
            )
        )
        if kind == "server":
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(root_key, hashes.SHA256())
        _write(folder / f"{kind}.pem", certificate.public_bytes(serialization.Encoding.PEM))
        _write(
            folder / f"{kind}_key.pem",
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            ),
        )


def _new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=_KEY_BITS)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: rsa.RSAPrivateKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _VALID)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()  # the rights of a file that exists would stay
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
