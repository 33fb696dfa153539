"""The MQTT 5 properties of a message that comes over HTTP: content type, payload format, expiry.

Not for: user properties, response topics and correlation data, which have no form in HTTP.
"""

from __future__ import annotations

from email.message import Message as HeaderMessage
from functools import lru_cache

from appliance.http_api.problem import ProblemError
from appliance.model import EncodedProperties, MessageProperties

_LONGEST_TYPE = 256
"""Characters of a content type."""
LONGEST_EXPIRY_S = 0xFFFFFFFF
"""MQTT 5, section 3.3.2.3.3: four bytes."""


def properties_of(
    payload: bytes, content_type: str | None, expiry_s: int | None
) -> EncodedProperties | None:
    """The properties; ``None`` if there are none.

    A payload is said to be UTF-8 text if its content type is text or JSON in no other charset, and
    if it is.

    Raises:
        ProblemError: 400, a value can't be sent on by MQTT.
    """
    if content_type is None and expiry_s is None:
        return None
    if expiry_s is not None and not 0 <= expiry_s <= LONGEST_EXPIRY_S:
        raise ProblemError(400, f"An expiry is a number of seconds from 0 to {LONGEST_EXPIRY_S}.")
    is_text = False
    if content_type is not None:
        if len(content_type) > _LONGEST_TYPE or not content_type.isprintable():
            raise ProblemError(
                400, f"A content type has at most {_LONGEST_TYPE} printable characters."
            )
        is_text = _says_text(content_type) and _is_utf8(payload)
    return MessageProperties(
        payload_format=int(is_text), message_expiry_s=expiry_s, content_type=content_type
    ).encoded()


@lru_cache(maxsize=256)
def _says_text(content_type: str) -> bool:
    header = HeaderMessage()
    header["content-type"] = content_type
    charset = header.get_content_charset("utf-8")
    if charset not in ("utf-8", "utf8", "us-ascii"):
        return False
    kind = header.get_content_type()
    return header.get_content_maintype() == "text" or kind.endswith(("/json", "+json"))


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True
