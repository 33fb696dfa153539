"""The HTTP server for monitoring: ``/healthz`` and ``/metrics``, on the engine's loop.

It runs on that loop on purpose: an engine that hangs does not answer, which a monitor notices. The
server accepts GET only, reads a bounded head, keeps no connection open and changes nothing.
Not for: the contents (ops/health.py, ops/metrics.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial

import msgspec

from appliance.config.values import parse_bind
from appliance.engine_api import Snapshot
from appliance.errors import NoPermissionError, UnavailableError
from appliance.listening import RESERVED, bound_sockets, is_taken, serve_each
from appliance.ops.health import report

logger = logging.getLogger(__name__)

_HEAD_BYTES = 16 * 1024
_HEAD_S = 5.0
_CONNECTIONS = 20
_TEXTS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


class MonitoringServer:
    """One listening socket. For the engine's loop only."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot
        self._servers: tuple[asyncio.Server, ...] = ()
        self._open = 0
        self.refused = 0
        """Connections that were refused because twenty were open."""

    async def start(self, bind: str) -> str:
        """Listen; returns the address with its port.

        Raises:
            UnavailableError: the port is in use, or this machine does not have the address.
            NoPermissionError: the operating system refuses the port to this user.
        """
        host, port = parse_bind(bind)
        try:
            sockets = await bound_sockets(host, port)
        except OSError as error:
            if is_taken(error):
                raise UnavailableError(
                    f"[metrics] bind {bind}: the port is in use by another program{RESERVED};"
                    " choose another address or port."
                ) from None
            if isinstance(error, PermissionError):
                raise NoPermissionError(
                    f"[metrics] bind {bind}: the system refuses this port; choose one above 1023."
                ) from None
            raise UnavailableError(
                f"[metrics] bind {bind}: {error.strerror}; choose another address or port."
            ) from None
        self._servers = await serve_each(
            sockets, partial(asyncio.start_server, self._serve, limit=_HEAD_BYTES)
        )
        address = sockets[0].getsockname()
        shown = f"[{address[0]}]" if ":" in address[0] else address[0]
        return f"{shown}:{address[1]}"

    async def close(self) -> None:
        for server in self._servers:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open > _CONNECTIONS:
                self.refused += 1
                return
            with contextlib.suppress(OSError, EOFError, ValueError, asyncio.LimitOverrunError):
                async with asyncio.timeout(_HEAD_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(self._answer(head.split(b"\r\n", 1)[0]))
                    await writer.drain()
        finally:
            self._open -= 1
            writer.close()

    def _answer(self, request: bytes) -> bytes:
        method, _, rest = request.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if method not in (b"GET", b"HEAD"):
            return _response(405, b"GET only\n", head_only=False)
        status, kind, body = 404, "text/plain", b"/healthz and /metrics are here\n"
        if path == b"/healthz":
            found = report(self._snapshot())
            status = 503 if found.is_bad else 200
            kind, body = "application/json", msgspec.json.encode(found) + b"\n"
        elif path == b"/metrics":
            # Imported with the first request, because it takes two megabytes.
            from appliance.ops.metrics import CONTENT_TYPE, exposition  # noqa: PLC0415

            status, kind, body = 200, CONTENT_TYPE, exposition(self._snapshot())
        return _response(status, body, kind, head_only=method == b"HEAD")


def _response(status: int, body: bytes, kind: str = "text/plain", *, head_only: bool) -> bytes:
    head = (
        f"HTTP/1.1 {status} {_TEXTS[status]}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if head_only else body)
