"""What one HTTP port grants its clients: sizes, times, connections, requests, names of the host.

Not for: when a bound bites (connection.py, connections.py, admission.py).
"""

from __future__ import annotations

import socket
from collections.abc import Callable

import msgspec

from appliance.config.tables import Config
from appliance.config.values import is_loopback, parse_bind
from appliance.counters import Counter

HEAD_BYTES = 16 * 1024
"""Of a request's head; also of what stands between two pieces of a body (names of chunks)."""
HEADERS = 100
AT_ONCE = 32
"""Requests of one connection that are worked on at one time, if its client does not wait for
answers; what comes behind them is not read yet."""
AT_ONCE_BYTES = 1024 * 1024
"""Bytes of bodies of such requests; one more body is read on when they are answered."""
IDLE_S = 75.0
"""Between two requests on a connection."""
HEAD_S = 10.0
"""From the first byte of a request's head, or the accept, to the head's end."""
BODY_S = 30.0
BODY_BYTES_A_SECOND = 10_000
"""A body may take ``BODY_S`` and a second more for each of so many bytes that have come."""
UNREAD_S = 30.0
"""For so long a client may take nothing of an answer that waits for it."""
LINGER_S = 5.0
"""For so long, what a client still sends is thrown away, so that it gets its answer.

A socket that is closed with unread bytes in it is reset, and the answer is lost on its way
(RFC 9112, section 9.6)."""
_MONITORING_S = 5.0
_MONITORING_CONNECTIONS = 20
_MONITORING_BODY = 1024


class Bounds(msgspec.Struct, frozen=True):
    """What counts now."""

    hosts: tuple[str, ...]
    """Patterns of the names in a ``Host`` header, in lower case."""
    max_connections: int
    max_of_address: int
    """Connections of one address (``origin_of``)."""
    max_body: int
    max_requests: int | None
    """Requests of one address in a minute."""
    head_s: float
    idle_s: float
    """0: a connection is closed after its answer."""


class Kind(msgspec.Struct, frozen=True):
    """One of the two ports."""

    table: str
    bounds_of: Callable[[Config], Bounds]
    ended: Counter
    """Counts a connection that made room."""
    refused_host: Counter
    is_open: bool
    """Whether everybody who can reach it may read states and numbers."""
    only_monitoring: bool = False


def _own_names(more: tuple[str, ...]) -> tuple[str, ...]:
    return ("localhost", socket.gethostname().lower(), *(each.lower() for each in more))


def _http(config: Config) -> Bounds:
    http = config.http
    return Bounds(
        _own_names(http.hosts),
        http.max_connections,
        max(1, http.max_connections * 3 // 4),
        int(http.max_body),
        http.max_requests,
        HEAD_S,
        IDLE_S,
    )


def _metrics(config: Config) -> Bounds:
    most = _MONITORING_CONNECTIONS
    hosts = _own_names(config.metrics.hosts)
    return Bounds(hosts, most, most, _MONITORING_BODY, None, _MONITORING_S, 0.0)


def http_kind(config: Config) -> Kind:
    """The port of ``[http]``."""
    bind = config.http.bind
    return Kind(
        "[http]",
        _http,
        Counter.HTTP_CONNECTIONS_ENDED_ROOM,
        Counter.HTTP_REQUESTS_REFUSED_HOST,
        is_open=bind is not None and is_loopback(parse_bind(bind)[0]),
    )


METRICS_KIND = Kind(
    "[metrics]",
    _metrics,
    Counter.MONITORING_CONNECTIONS_ENDED,
    Counter.MONITORING_REQUESTS_REFUSED_HOST,
    is_open=True,
    only_monitoring=True,
)
