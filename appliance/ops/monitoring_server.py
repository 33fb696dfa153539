"""The HTTP server for monitoring: ``/healthz`` and ``/metrics``, on the engine's loop.

It runs on that loop on purpose: an engine that hangs does not answer, which a monitor notices. The
server accepts GET only, reads a bounded head, keeps no connection open and changes nothing. A
connection that has sent no request yet makes room for a newer one.
A browser sends any page's requests to this machine. A page whose name an attacker's DNS server
resolves to this machine (DNS rebinding) could read the answers, so the server answers only to its
own names.
Not for: the contents (ops/health.py, ops/metrics.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import re
import socket
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from functools import partial

import msgspec

from appliance.config.values import parse_bind
from appliance.counters import Count, Counter
from appliance.engine_api import Snapshot
from appliance.errors import NoPermissionError, UnavailableError
from appliance.listening import RESERVED, bound_sockets, is_taken, serve_each
from appliance.ops.health import report

logger = logging.getLogger(__name__)

_HEAD_BYTES = 16 * 1024
_EXCHANGE_S = 5.0
"""From the accept to the last byte of the answer."""
_CONNECTIONS = 20
_OTHER_HOSTS_LOGGED = 5
_HOST = re.compile(r"(?:\[(?P<ipv6>[^]]+)\]|(?P<name>[^][:]*))(?::[0-9]*)?")
"""RFC 3986, section 3.2.2: a name or address, and a port."""
_TEXTS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    421: "Misdirected Request",
    503: "Service Unavailable",
}


class MonitoringServer:
    """One listening socket. For the engine's loop only.

    ``hosts``: patterns of the names in a request's ``Host`` header that it answers to, besides
    addresses, ``localhost`` and the name of this machine.
    """

    def __init__(
        self, snapshot: Callable[[], Snapshot], hosts: Iterable[str], count: Count
    ) -> None:
        self._snapshot = snapshot
        self._hosts = ["localhost", socket.gethostname().lower(), *(each.lower() for each in hosts)]
        self._count = count
        self._servers: tuple[asyncio.Server, ...] = ()
        self._open: dict[asyncio.StreamWriter, None] = {}
        """The connections, the oldest first."""
        self._logged_hosts: set[str] = set()

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
        if len(self._open) >= _CONNECTIONS:
            # A client of good will is answered within milliseconds: the oldest has waited longest.
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.transport.abort()
            self._count(Counter.MONITORING_CONNECTIONS_ENDED)
        self._open[writer] = None
        # ``drain`` then waits until the system has taken every byte.
        writer.transport.set_write_buffer_limits(0)
        try:
            with contextlib.suppress(OSError, EOFError, ValueError, asyncio.LimitOverrunError):
                async with asyncio.timeout(_EXCHANGE_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(self._answer(head))
                    await writer.drain()
                    writer.close()
                    return
            writer.transport.abort()
        finally:
            self._open.pop(writer, None)

    def _answer(self, head: bytes) -> bytes:
        request, *lines = head.split(b"\r\n")
        method, _, rest = request.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        fields = [line.partition(b":") for line in lines]
        hosts = [value.strip() for name, _, value in fields if name.lower() == b"host"]
        # RFC 9112, section 3.2: exactly one; a client of HTTP/1.0 may leave it out.
        if len(hosts) > 1 or (not hosts and not rest.endswith(b"HTTP/1.0")):
            return _response(400, b"one Host header is expected\n", head_only=False)
        if hosts and not self._is_own(hosts[0].decode("latin-1")):
            # RFC 9110, section 15.5.20.
            text = b"not a name of this server: add it to hosts in [metrics]\n"
            return _response(421, text, head_only=False)
        if method not in (b"GET", b"HEAD"):
            return _response(405, b"GET only\n", head_only=False)
        status, kind, body = 404, "text/plain", b"/healthz and /metrics are here\n"
        if path == b"/healthz":
            found = report(self._snapshot())
            status = 200 if found.is_accepting else 503
            kind, body = "application/json", msgspec.json.encode(found) + b"\n"
        elif path == b"/metrics":
            # Imported with the first request, because it takes two megabytes.
            from appliance.ops.metrics import CONTENT_TYPE, exposition  # noqa: PLC0415

            status, kind, body = 200, CONTENT_TYPE, exposition(self._snapshot())
        return _response(status, body, kind, head_only=method == b"HEAD")

    def _is_own(self, host: str) -> bool:
        """Whether a request's ``Host`` names this server."""
        name = _without_port(host).lower().rstrip(".")
        # An address can't be made to mean another machine.
        if _is_address(name) or any(fnmatchcase(name, each) for each in self._hosts):
            return True
        self._count(Counter.MONITORING_REQUESTS_REFUSED_HOST)
        if name not in self._logged_hosts and len(self._logged_hosts) < _OTHER_HOSTS_LOGGED:
            self._logged_hosts.add(name)
            logger.warning(
                "monitoring: a request for the host %.100r is refused; if this is a name of this"
                " machine, add it to hosts in [metrics]",
                name,
            )
        return False


def _without_port(host: str) -> str:
    found = _HOST.fullmatch(host)
    return host if found is None else found["ipv6"] or found["name"] or ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _response(status: int, body: bytes, kind: str = "text/plain", *, head_only: bool) -> bytes:
    head = (
        f"HTTP/1.1 {status} {_TEXTS[status]}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if head_only else body)
