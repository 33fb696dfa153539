"""Dates of certificates, and what is said of an authority that has ended."""

import datetime
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from appliance.config.certificates import dates_in, dates_of, ended
from appliance.qlik.failures import tls_error

_PEM = serialization.Encoding.PEM


def certificate(name: str, begins: int, ends: int) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Issuer")])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime(begins, 1, 2, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(ends, 3, 4, 5, 6, 7, tzinfo=datetime.UTC))
        .sign(key, hashes.SHA256())
    )


def test_names_and_dates_are_those_of_a_library(tmp_path: Path) -> None:
    """Two-digit and four-digit years; text around the certificates is left out."""
    made = [certificate("Müller CA", 1951, 2020), certificate("Later", 2020, 2060)]
    path = tmp_path / "root.pem"
    path.write_bytes(b"Bag Attributes\n" + b"\n".join(each.public_bytes(_PEM) for each in made))
    found = dates_in(str(path))
    assert [each.name for each in found] == ["Müller CA", "Later"]
    for own, theirs in zip(found, made, strict=True):
        assert (own.begins, own.ends) == (theirs.not_valid_before_utc, theirs.not_valid_after_utc)
    assert dates_of(made[0].public_bytes(serialization.Encoding.DER)) == found[0]
    assert ended(str(path)) is None


def test_an_expired_authority_is_not_blamed_on_the_server(tmp_path: Path) -> None:
    """The message has the file, the name, the last day and what to do."""
    path = tmp_path / "root.pem"
    path.write_bytes(certificate("Site CA", 2010, 2020).public_bytes(_PEM))
    error = ssl.SSLCertVerificationError(1, "certificate has expired")
    error.verify_code = 10
    told = str(tls_error(error, "GET https://sense", has_certificate=False, ca_file=str(path)))
    for part in ("authority in ca_file has expired", str(path), "Site CA", "2020-03-04", "QMC"):
        assert part in told
    own = str(tls_error(error, "GET https://sense", has_certificate=False))
    assert "server's certificate has expired" in own


def test_what_is_no_certificate_has_no_dates(tmp_path: Path) -> None:
    """A missing file, a key, a torn block."""
    path = tmp_path / "torn.pem"
    path.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "utf-8")
    assert not dates_in(str(path))
    assert not dates_in(str(tmp_path / "none"))
    assert ended(str(path)) is None
