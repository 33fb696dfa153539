"""Finds the configured secrets in foreign text, in every form in which text carries them.

A server, a proxy or a library repeats what it was sent: as it is, percent-encoded, as JSON, as
base64 together with a user name, or with other line ends. Not for: texts that look like secrets and
are not ours (qlik/masking.py, log/sanitize.py).
"""

from __future__ import annotations

import base64
import html
import json
import re
import string
from collections.abc import Iterator
from urllib.parse import quote, quote_plus, unquote

from appliance.secret import Secret

MASK = "***"
_LEAST_SECRET = 4
"""Characters. Masking a shorter one everywhere would hide the text, not the secret."""
_LEAST_LINE = 8
"""Characters. A shorter line of a secret of several lines may be any word."""
_BASE64 = frozenset(string.ascii_letters + string.digits + "+/_-")
_LEAST_CODE = 8
"""Characters of base64 that depend on the secret alone."""


def address_secrets(address: str) -> Iterator[Secret]:
    """The password in an address (of a proxy, say), also where it is not a right one."""
    user, at, _ = address.partition("://")[2 if "://" in address else 0].rpartition("@")
    password = user.partition(":")[2]
    if at and password:
        yield Secret(user)
        yield Secret(password)
        yield Secret(unquote(password))


class KnownSecrets:
    """The secrets of a configuration. Thread-safe: ``add`` replaces what ``mask`` reads."""

    def __init__(self, *secrets: Secret) -> None:
        self._values: frozenset[str] = frozenset()
        self._forms: tuple[str, ...] = ()
        self._codes: tuple[str, ...] = ()
        self.add(*secrets)

    def __bool__(self) -> bool:
        return bool(self._forms)

    def add(self, *secrets: Secret) -> None:
        """Mask these too, from now on."""
        values = self._values | {secret.reveal() for secret in secrets}
        forms = {form for value in values for form in _forms(value)}
        codes = {code for value in values for code in _codes(value)}
        # The longest first: a secret may be part of another.
        self._values = frozenset(values)
        self._forms = tuple(sorted(forms, key=lambda form: (-len(form), form)))
        self._codes = tuple(sorted(codes))

    def mask(self, text: str) -> str:
        """``text`` with ``***`` in place of each known secret."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, MASK)
        for code in self._codes:
            if code in text:
                text = _without(text, code)
        return text


def _without(text: str, code: str) -> str:
    """``text`` with ``***`` in place of each word of base64 that has ``code`` in it.

    Not by a regular expression: that looks for the word's beginning from each of its characters, so
    long base64 of a server would take minutes.
    """
    kept: list[str] = []
    done, at = 0, text.find(code)
    while at >= 0:
        end = at + len(code)
        while at > done and text[at - 1] in _BASE64:
            at -= 1
        while end < len(text) and (text[end] in _BASE64 or text[end] == "="):
            end += 1
        kept += (text[done:at], MASK)
        done, at = end, text.find(code, end)
    return "".join((*kept, text[done:]))


def _forms(value: str) -> Iterator[str]:
    """The forms of a secret that are at least as long as what is masked."""
    lines = value.splitlines()
    texts = {value, value.strip()}
    if len(lines) > 1:
        texts |= {end.join(lines) for end in ("\n", "\r\n", "\r", " ", "")}
        texts |= {" ".join(value.split())}
        texts |= {line.strip() for line in lines if len(line.strip()) >= _LEAST_LINE}
    for text in texts:
        for form in _written(text):
            if len(form) >= _LEAST_SECRET:
                yield form


def _written(text: str) -> Iterator[str]:
    """A text as it is, in a URL, in JSON, in HTML, and as Python and the log escape it."""
    yield text
    yield _decoded_wrongly(text)
    yield html.escape(text)
    for ascii_only in (True, False):
        yield json.dumps(text, ensure_ascii=ascii_only)[1:-1]
    yield json.dumps(text)[1:-1].replace("/", "\\/")
    yield repr(text)[1:-1]
    yield repr(_bytes(text))[2:-1]
    yield text.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    for encoded in (quote(text, "", errors="replace"), quote_plus(text, errors="replace")):
        yield encoded
        yield re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), encoded)
    yield quote(text, errors="replace")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _decoded_wrongly(text: str) -> str:
    return _bytes(text).decode("latin-1")


def _codes(value: str) -> Iterator[str]:
    """What base64 makes of the secret wherever it stands in the encoded bytes.

    Three bytes make four characters, so there are three places; the characters at both ends depend
    on the neighbours too and are left out.
    """
    if len(value) < _LEAST_SECRET:
        return
    for data in {_bytes(value), value.encode("latin-1", "replace")}:
        for before in range(3):
            code = base64.b64encode(bytes(before) + data).decode()
            first = (0, 2, 3)[before]
            # Whole groups of three bytes only: the rest depends on the next bytes.
            code = code[first : (before + len(data)) // 3 * 4]
            if len(code) >= _LEAST_CODE:
                yield code
                yield code.replace("+", "-").replace("/", "_")
