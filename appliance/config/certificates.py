"""The names and dates of the certificates in a PEM file, without a library for X.509.

Only two fields are read, by their place in the encoding (RFC 5280, section 4.1). Not for: verifying
anything, which OpenSSL does.
"""

from __future__ import annotations

import datetime as dt
import re
import ssl
from collections.abc import Sequence
from pathlib import Path

import msgspec

_BLOCK = re.compile(
    r"-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----.+?"
    r"-----END (?:TRUSTED |X509 )?CERTIFICATE-----",
    re.DOTALL,
)
_TIME = rb"(?:\x17\x0d(?:\d{12}Z)|\x18\x0f(?:\d{14}Z))"
_VALIDITY = re.compile(rb"\x30[\x1e-\x22](" + _TIME + rb")(" + _TIME + rb")")
"""A sequence of two times: UTCTime or GeneralizedTime (RFC 5280, section 4.1.2.5)."""
_COMMON_NAME = re.compile(rb"\x06\x03\x55\x04\x03[\x0c\x13\x14\x16](.)", re.DOTALL)
"""The attribute commonName, the kind of its string, and the string's length."""
_LARGEST = 16 * 1024 * 1024


class Dates(msgspec.Struct, frozen=True):
    """A certificate's common name (perhaps empty) and the times it is valid between."""

    name: str
    begins: dt.datetime
    ends: dt.datetime

    @property
    def shown(self) -> str:
        """The name and the last day, for messages."""
        name = f" ({self.name!a})" if self.name else ""
        return f"certificate{name}, which ended on {self.ends:%Y-%m-%d}"


def dates_in(path: str) -> Sequence[Dates]:
    """The certificates of a PEM file, in its order; none if it can't be read."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(_LARGEST).decode("latin-1")
    except OSError:
        return ()
    return tuple(
        found for block in _BLOCK.findall(text) if (found := _dates(_decoded(block))) is not None
    )


def dates_of(certificate: bytes) -> Dates | None:
    """The dates of a certificate in DER, as ``SSLSocket.getpeercert(True)`` has it."""
    return _dates(certificate)


def ended(path: str, now: dt.datetime | None = None) -> Dates | None:
    """The certificate of a PEM file that has ended, if none in it is still valid."""
    now = now or dt.datetime.now(dt.UTC)
    found = dates_in(path)
    return max(found, key=lambda each: each.ends) if found and _all_ended(found, now) else None


def _all_ended(found: Sequence[Dates], now: dt.datetime) -> bool:
    return all(each.ends < now for each in found)


def _decoded(block: str) -> bytes:
    block = re.sub("(?:TRUSTED |X509 )CERTIFICATE", "CERTIFICATE", block)
    try:
        return ssl.PEM_cert_to_DER_cert(block)
    except ValueError:
        return b""


def _dates(certificate: bytes) -> Dates | None:
    validity = _VALIDITY.search(certificate)
    if validity is None:
        return None
    name = ""
    # The issuer's name stands before the dates, the subject's after them.
    if found := _COMMON_NAME.search(certificate, validity.end()):
        begin = found.end()
        name = certificate[begin : begin + found[1][0]].decode("utf-8", "replace")
    try:
        return Dates(name, _time(validity[1]), _time(validity[2]))
    except ValueError:
        return None


def _time(encoded: bytes) -> dt.datetime:
    digits = encoded[2:-1].decode()
    if len(digits) == 12:  # UTCTime: two digits for 1950 to 2049
        digits = ("19" if digits >= "5" else "20") + digits
    return dt.datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=dt.UTC)
