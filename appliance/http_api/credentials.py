"""The ``Authorization`` header: Basic (RFC 7617) or Bearer (RFC 6750, section 2.1).

Not for: whether the credentials are right (sign_in.py).
"""

from __future__ import annotations

import base64
import binascii

import msgspec

from appliance.http_api.problem import ProblemError

ASK_BASIC = {"WWW-Authenticate": 'Basic realm="appliance", charset="UTF-8"'}
WRONG_TOKEN = {"WWW-Authenticate": 'Bearer realm="appliance", error="invalid_token"'}


class Basic(msgspec.Struct, frozen=True):
    """A user name and a password, or neither."""

    name: str | None = None
    password: bytes | None = None

    def __repr__(self) -> str:
        return f"Basic({self.name!r})"


class Bearer(msgspec.Struct, frozen=True):
    """A token."""

    token: str

    def __repr__(self) -> str:
        return "Bearer(***)"


def credentials_of(headers: list[str]) -> Basic | Bearer:
    """What a request shows of its sender.

    Args:
        headers: the values of its ``Authorization`` headers.

    Raises:
        ProblemError: 401, they are not understood.
    """
    if not headers:
        return Basic()
    scheme, _, value = headers[0].strip().partition(" ")
    value = value.strip()
    if len(headers) == 1 and value:
        if scheme.lower() == "bearer":
            return Bearer(value)
        if scheme.lower() == "basic" and (found := _basic(value)) is not None:
            return found
    raise ProblemError(
        401,
        "The Authorization header is not understood: it is there once, as Basic with the base64 of"
        " NAME:PASSWORD, or as Bearer with a token.",
        headers=ASK_BASIC,
    )


def _basic(value: str) -> Basic | None:
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
    try:
        data.decode()
    except UnicodeDecodeError:
        # Clients that know nothing of the charset send what the Web had before UTF-8.
        data = data.decode("latin-1").encode()
    name, colon, password = data.partition(b":")
    if not colon:
        return None
    # Tools send ":" where neither is configured.
    return Basic(name.decode(), password) if name or password else Basic()
