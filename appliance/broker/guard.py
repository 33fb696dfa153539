"""What the event loop calls for one connection: the protocol behind it gets ``bytes``, no error.

A proactor loop (Windows) hands ``bytearray`` to ``data_received`` and may use it again
(CPython gh-99941). A loop also logs an exception of a callback and leaves the connection open.
Not for: what the callbacks do (tls.py, websocket.py, connection.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class GuardedProtocol(asyncio.Protocol):
    """A connection that a guard can end."""

    __slots__ = ()

    is_open: bool
    """Whether its client is admitted."""

    def fail(self, error: Exception) -> None:
        """End the connection at once because of an error of the appliance's own."""
        raise NotImplementedError


class Guard(asyncio.Protocol):
    """Stands between the loop and ``inner``, the outermost protocol of a connection.

    ``fail`` is called with an exception that a callback raised; the connection is aborted then.
    """

    __slots__ = ("_fail", "_inner", "_transport")

    def __init__(self, inner: asyncio.Protocol, fail: Callable[[Exception], None]) -> None:
        self._inner = inner
        self._fail = fail
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        try:
            self._inner.connection_made(transport)
        except Exception as error:  # noqa: BLE001 - any error ends the connection
            self._end(error)

    def data_received(self, data: bytes | bytearray | memoryview) -> None:
        try:
            self._inner.data_received(bytes(data))  # no copy if it is bytes already
        except Exception as error:  # noqa: BLE001
            self._end(error)

    def eof_received(self) -> bool | None:
        try:
            return self._inner.eof_received()
        except Exception as error:  # noqa: BLE001
            self._end(error)
            return None

    def pause_writing(self) -> None:
        try:
            self._inner.pause_writing()
        except Exception as error:  # noqa: BLE001
            self._end(error)

    def resume_writing(self) -> None:
        try:
            self._inner.resume_writing()
        except Exception as error:  # noqa: BLE001
            self._end(error)

    def connection_lost(self, exc: Exception | None) -> None:
        try:
            self._inner.connection_lost(exc)
        except Exception as error:  # noqa: BLE001
            self._end(error)

    def _end(self, error: Exception) -> None:
        try:
            self._fail(error)
        finally:
            if isinstance(self._transport, asyncio.Transport):
                self._transport.abort()
