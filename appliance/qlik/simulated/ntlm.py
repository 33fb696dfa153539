"""The server's side of NTLM, as far as a client's way in needs it: a challenge, and a user's name.

Message layout: Microsoft's [MS-NLMP], sections 2.2.1.1 to 2.2.1.3. The password is not verified,
which is fine for a server that only pretends. Not for: a real sign-in.
"""

from __future__ import annotations

import base64
import binascii
import struct

_SIGNATURE = b"NTLMSSP\0"
# Unicode, request target, NTLM, target is a domain, extended session security, target info,
# 128 and 56 bit keys.
_FLAGS = 0x1 | 0x4 | 0x200 | 0x10000 | 0x80000 | 0x800000 | 0x20000000 | 0x80000000
_DOMAIN = "LAB".encode("utf-16-le")
_TARGET_INFO = struct.pack("<HH", 2, len(_DOMAIN)) + _DOMAIN + struct.pack("<HH", 0, 0)
_HEADER_SIZE = 56


def challenge() -> str:
    """The CHALLENGE message for the WWW-Authenticate header."""
    message = (
        _SIGNATURE
        + struct.pack("<I", 2)
        + struct.pack("<HHI", len(_DOMAIN), len(_DOMAIN), _HEADER_SIZE)
        + struct.pack("<I", _FLAGS)
        + b"simulate"
        + bytes(8)
        + struct.pack("<HHI", len(_TARGET_INFO), len(_TARGET_INFO), _HEADER_SIZE + len(_DOMAIN))
        + bytes(8)
        + _DOMAIN
        + _TARGET_INFO
    )
    return "NTLM " + base64.b64encode(message).decode()


def user_of(header: str) -> str | None:
    r"""``domain\user`` of an AUTHENTICATE message; ``None`` for any other header."""
    try:
        message = base64.b64decode(header.removeprefix("NTLM ").strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    if not message.startswith(_SIGNATURE) or len(message) < _HEADER_SIZE:
        return None
    if struct.unpack_from("<I", message, 8)[0] != 3:
        return None
    return f"{_text(message, 28)}\\{_text(message, 36)}"


def _text(message: bytes, field: int) -> str:
    length, _, offset = struct.unpack_from("<HHI", message, field)
    return message[offset : offset + length].decode("utf-16-le", "replace")
