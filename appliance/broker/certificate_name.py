"""The name in a client's certificate as its user name (``identity_as_username``).

TLS has verified the certificate before. Not for: which certificates count (listener.py), what a
user may do (access.py).
"""

from __future__ import annotations

from typing import Any

import msgspec

from appliance.mqtt.packets import Connect, PacketError, Reason

KNOWN_AS = "identity_as_username"
"""What a transport is asked for (``get_extra_info``): whether its listener names users so."""


def named(asked: Connect, ssl_object: Any) -> Connect:
    """The CONNECT with the name that the client's certificate has, without a password.

    Raises:
        PacketError: the certificate has no usable name.
    """
    return msgspec.structs.replace(asked, username=common_name(ssl_object), password=None)


def common_name(ssl_object: Any) -> str:
    """The common name (CN) of the client's certificate.

    Raises:
        PacketError: there is none, there are several, or it is no text to be printed.
    """
    certificate = None if ssl_object is None else ssl_object.getpeercert()
    names = [
        value
        for part in (certificate or {}).get("subject", ())
        for key, value in part
        if key == "commonName"
    ]
    if len(names) != 1 or not names[0] or not names[0].isprintable():
        raise PacketError(
            "the client's certificate must have one common name (CN), of printable characters",
            Reason.BAD_USER_NAME_OR_PASSWORD,
        )
    return str(names[0])
