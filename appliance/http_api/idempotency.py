"""The header ``Idempotency-Key``: a request that is sent again does its work once.

The key counts for one user, and is kept with the work it led to, in the same transaction. The
header is that of draft-ietf-httpapi-idempotency-key-header-07: a text in quotation marks (RFC 9651,
section 3.3.3); keys without them, as most clients send, are taken too.

Not for: keeping keys (tasks/start_keys.py has those of starts).
"""

from __future__ import annotations

import hashlib
import re

from starlette.requests import Request

from appliance.http_api.problem import ProblemError

HEADER = "Idempotency-Key"
REPLAYED = {"Idempotency-Replayed": "true"}
"""The header of an answer to a request whose work was done before."""
MAX_KEY = 255
"""Characters."""
PARAMETER: dict[str, object] = {
    "name": HEADER,
    "in": "header",
    "description": "A text of your own for each new piece of work; a repeat with it does nothing"
    " again, and gets the first answer.",
    "schema": {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_KEY,
        "pattern": r"^[!#-\[\]-~]+$",
    },
}
"""For the OpenAPI document."""
_BARE = re.compile(r"[!#-\[\]-~]+")
"""Visible ASCII without quotation mark and backslash."""
_QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])+)"')
_ESCAPED = re.compile(r'\\(["\\])')


def key_of(request: Request) -> str | None:
    """The key that a request has; ``None`` without the header.

    Raises:
        ProblemError: 400, it is no key.
    """
    values = request.headers.getlist(HEADER)
    if not values:
        return None
    key = parse_key(values[0].strip()) if len(values) == 1 else None
    if key is None:
        raise ProblemError(
            400,
            f"The header {HEADER} must be there once, with 1 to {MAX_KEY} visible ASCII characters,"
            " for example a UUID.",
        )
    return key


def parse_key(text: str) -> str | None:
    """The key that a header's text means, ``None`` if it is none."""
    if _BARE.fullmatch(text):
        key = text
    elif found := _QUOTED.fullmatch(text):
        key = _ESCAPED.sub(r"\1", found[1])
    else:
        return None
    return key if len(key) <= MAX_KEY else None


def digest_of(*parts: bytes | str) -> bytes:
    """What tells one request from another: 32 bytes of the parts that say what it asks for."""
    found = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        found.update(len(data).to_bytes(8, "big"))
        found.update(data)
    return found.digest()


def reused() -> ProblemError:
    """The answer to a key that came before with another request."""
    return ProblemError(
        422,
        f"The {HEADER} was used for another request. Nothing was done: make a new key for each new"
        " request.",
    )
