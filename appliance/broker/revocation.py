"""Certificate revocation lists, which say what clients' certificates do not count any more.

OpenSSL checks the lists at a handshake. It can't be asked about a client that is connected already,
so the names in a list are read here too (RFC 5280, section 5.1).
Not for: when the file is read again (listener.py).
"""

from __future__ import annotations

import base64
import re
import ssl
from collections.abc import Iterator
from pathlib import Path

CertificateName = tuple[bytes, int]
"""The issuer as its certificates encode it, and the serial number."""

_PEM = re.compile(rb"-----BEGIN X509 CRL-----(.+?)-----END X509 CRL-----", re.DOTALL)
_INTEGER, _SEQUENCE, _VERSION_OF_CERTIFICATE = 0x02, 0x30, 0xA0
_TIMES = frozenset({0x17, 0x18})


def load_revocation_lists(context: ssl.SSLContext, file: str) -> None:
    """Refuse certificates that a list in this PEM file names.

    Raises:
        OSError, ssl.SSLError: there is no list in the file, or it can't be read.
    """
    before = context.cert_store_stats()["crl"]
    context.load_verify_locations(file)
    if context.cert_store_stats()["crl"] == before:
        raise ssl.SSLError(f"no certificate revocation list is in {file}")
    context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF


def revoked_certificates(file: str) -> frozenset[CertificateName]:
    """The certificates that the lists in a PEM file name. OpenSSL has read the file before.

    Raises:
        OSError: the file can't be read.
        ValueError: a list in it is not encoded as RFC 5280 says.
    """
    lists = (base64.b64decode(found[1]) for found in _PEM.finditer(Path(file).read_bytes()))
    return frozenset(name for each in lists for name in _revoked(each))


def certificate_name(certificate: bytes) -> CertificateName:
    """What a revocation list calls a certificate (DER).

    Raises:
        ValueError: it is no certificate.
    """
    fields = list(_fields(_content(_content(certificate))))
    if fields and fields[0][0] == _VERSION_OF_CERTIFICATE:
        del fields[0]
    (kind, serial, _), _, (_, _, issuer), *_ = fields
    if kind != _INTEGER:
        raise ValueError("the serial number is no integer")
    return issuer, int.from_bytes(serial, signed=True)


def _revoked(encoded: bytes) -> Iterator[CertificateName]:
    fields = list(_fields(_content(_content(encoded))))
    if fields and fields[0][0] == _INTEGER:  # the version
        del fields[0]
    _, (_, _, issuer), *rest = fields
    while rest and rest[0][0] in _TIMES:
        del rest[0]
    if rest and rest[0][0] == _SEQUENCE:
        for _, entry, _ in _fields(rest[0][1]):
            yield issuer, int.from_bytes(_content(entry), signed=True)


def _content(encoded: bytes) -> bytes:
    """What is in the first field."""
    for _, content, _ in _fields(encoded):
        return content
    raise ValueError("there is no field")


def _fields(encoded: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(tag, content, whole field) of DER fields that stand in a row."""
    at = 0
    while at < len(encoded):
        begin = at
        tag, size = encoded[at], encoded[at + 1] if at + 1 < len(encoded) else 0x80
        at += 2
        if size > 0x80:
            end = at + (size & 0x7F)
            size = int.from_bytes(encoded[at:end])
            at = end
        if size == 0x80 or at + size > len(encoded):
            raise ValueError("a field ends too early")
        yield tag, encoded[at : at + size], encoded[begin : at + size]
        at += size
