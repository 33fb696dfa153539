"""The answer to the HTTP request with which a WebSocket begins (RFC 6455, section 4.2).

The library checks the headers; this module checks what the library leaves to its user: the method,
the path, and an answer for every request that can't be read.
Not for: frames (websocket.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from http import HTTPStatus

from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

LARGEST_HEAD = 16 * 1024
FOREIGN_PAGE = HTTPStatus.FORBIDDEN
_MQTT = Subprotocol("mqtt")
_MQTT_31 = Subprotocol("mqttv3.1")
"""What libraries offer for MQTT 3.1, which has no text about WebSocket."""
_PATHS = frozenset({"/", "/mqtt"})
_VERSION = "13"

_silent = logging.getLogger(f"{__name__}.library")
"""The library writes tracebacks of what clients send; websocket.py logs what counts."""
_silent.setLevel(logging.CRITICAL + 1)


def new_protocol(largest_frame: int, *, allow_mqtt31: bool) -> ServerProtocol:
    """The server's side of one WebSocket; ``largest_frame`` is the bytes of a message."""
    subprotocols = [_MQTT, _MQTT_31] if allow_mqtt31 else [_MQTT]
    return ServerProtocol(subprotocols=subprotocols, max_size=largest_frame, logger=_silent)


def answer(
    protocol: ServerProtocol, head: bytes, is_foreign: Callable[[Request], bool]
) -> Response:
    """What a request is answered; status 101 accepts it.

    ``head`` goes up to its empty line; empty if there is none within ``LARGEST_HEAD``.
    ``is_foreign`` tells whether the page that asks may not connect.
    """
    method = head.partition(b" ")[0]
    if method != b"GET" and method.isalpha() and method.isupper():
        response = protocol.reject(HTTPStatus.METHOD_NOT_ALLOWED, "GET only.\n")
        response.headers["Allow"] = "GET"
        return response
    try:
        protocol.receive_data(head)
        found = protocol.events_received()
        request = found[0] if found and isinstance(found[0], Request) else None
        if request is None:
            return _not_http(protocol)
        if request.path.partition("?")[0] not in _PATHS:
            return protocol.reject(HTTPStatus.NOT_FOUND, "MQTT is at / and /mqtt.\n")
        if is_foreign(request):
            return protocol.reject(FOREIGN_PAGE, "Pages of other machines need users.\n")
        response = protocol.accept(request)
    except Exception:  # noqa: BLE001 - a header that the library can't take
        return _not_http(protocol)
    if response.status_code == HTTPStatus.INTERNAL_SERVER_ERROR:
        return _not_http(protocol)
    is_websocket = response.status_code == HTTPStatus.BAD_REQUEST
    if is_websocket and request.headers.get_all("Sec-WebSocket-Version") != [_VERSION]:
        response = protocol.reject(HTTPStatus.UPGRADE_REQUIRED, "WebSocket version 13 only.\n")
        response.headers["Upgrade"] = "websocket"
    if response.status_code == HTTPStatus.UPGRADE_REQUIRED:
        response.headers["Sec-WebSocket-Version"] = _VERSION
    return response


def _not_http(protocol: ServerProtocol) -> Response:
    return protocol.reject(HTTPStatus.BAD_REQUEST, "This is no WebSocket handshake.\n")
