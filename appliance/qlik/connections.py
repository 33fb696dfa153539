"""The connections to one server: urllib3's, kept open between calls and kept hold of.

Neither ``requests`` nor urllib3's own pool stands in between: putting a call together takes them
three times and one and a half times as long. What needs more than a connection, a proxy or NTLM,
goes through sessions.py. One ``ssl.SSLContext`` says which servers to trust. Every socket is known,
because only its end breaks off a call that waits for an answer.
Not for: limits and errors (transport.py).
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies

from urllib3 import BaseHTTPResponse
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from appliance.config.values import is_loopback
from appliance.qlik import deadlines
from appliance.qlik.bodies import Body
from appliance.qlik.cookies import Cookies

IDLE_LIMIT = 8
"""Connections that are kept for the next call; more only while more calls are under way."""


class Exchange(Protocol):
    """A way for a request to its answer."""

    def answer(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | Body | None,
    ) -> AbstractContextManager[BaseHTTPResponse]:
        """Send one request, once; the answer's body has not been read yet.

        Args:
            method: an HTTP method.
            target: path and query.
            headers: all that are sent, but for the host and the body's length.
            body: or ``None``.

        Raises:
            urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError: there is
                no answer.
        """

    def forget_cookies(self) -> None:
        """Drop what the server told us to keep."""

    def close(self) -> None:
        """Close every connection; a call that waits for an answer sees its connection end."""


class Closable(Protocol):
    """What a pool keeps."""

    def close(self) -> None:
        """Close its sockets."""


C = TypeVar("C", bound=Closable)


class Pool(Generic[C]):
    """What is kept open for the next call. Thread-safe."""

    def __init__(self) -> None:
        self._idle: list[C] = []
        self._is_closed = False
        self._lock = threading.Lock()
        # A client that is not closed (a check that failed, a test) leaves no sockets behind.
        weakref.finalize(self, _close_all, self._idle)

    @contextlib.contextmanager
    def one(self, make: Callable[[], C]) -> Iterator[C]:
        """The one that was used last, which the server is least likely to have closed; or a new."""
        with self._lock:
            used = self._idle.pop() if self._idle else None
        if used is None:
            used = make()
        try:
            yield used
        except BaseException:
            used.close()  # Its state is unknown.
            raise
        with self._lock:
            is_kept = not self._is_closed and len(self._idle) < IDLE_LIMIT
            if is_kept:
                self._idle.append(used)
        if not is_kept:
            used.close()

    def close(self) -> None:
        """Close what is idle, and from now on what is given back."""
        with self._lock:
            self._is_closed = True
            _close_all(self._idle)


def _close_all(idle: list[C]) -> None:
    while idle:
        idle.pop().close()


class Connections:
    """The open connections of one client. Thread-safe: each call has one to itself."""

    def __init__(self, base_url: str, *, tls: ssl.SSLContext | None, timeout_s: float) -> None:
        """Start without connections.

        Args:
            base_url: scheme, host and port; the rest is not looked at.
            tls: for ``https``; ``None`` if only ``http`` is used.
            timeout_s: seconds to connect, and between two pieces of an answer.
        """
        parts = urlsplit(base_url)
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._tls = tls
        self._timeout_s = timeout_s
        self._sockets = Sockets()
        self._cookies = Cookies()
        self._pool: Pool[HTTPConnection] = Pool()

    @contextlib.contextmanager
    def answer(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | Body | None,
    ) -> Iterator[BaseHTTPResponse]:
        """Send one request; see ``Exchange.answer``."""
        cookie = self._cookies.header(self._origin + target)
        if cookie:
            headers = {**headers, "Cookie": cookie}
        with self._pool.one(self._new) as connection:
            if not connection.is_connected:
                connection.close()  # The request opens it again.
            connection.timeout = deadlines.timeout_s(self._timeout_s)
            # A server that refuses a long body may answer and close before it has read all of it.
            early: tuple[type[OSError], ...] = (BrokenPipeError,) if isinstance(body, Body) else ()
            with contextlib.suppress(*early):
                connection.request(
                    method,
                    target,
                    body=body,
                    headers=headers,
                    preload_content=False,
                )
            # Closed by itself: it may have taken the socket over (RFC 9112, section 9.6).
            with contextlib.closing(connection.getresponse()) as response:
                self._cookies.keep(response, self._origin + target)
                yield response

    def forget_cookies(self) -> None:
        self._cookies.clear()

    def close(self) -> None:
        self._sockets.cut()
        self._pool.close()

    def _new(self) -> HTTPConnection:
        address = parse_url(self._origin)
        if not address.host:
            raise LocationParseError(self._origin)
        host = address.host.strip("[]")
        if address.scheme == "https":
            return self._sockets.tls_connection(
                host,
                address.port,
                timeout=self._timeout_s,
                ssl_context=self._tls,
                cert_reqs="CERT_REQUIRED",
            )
        return self._sockets.connection(host, address.port, timeout=self._timeout_s)


def environment_proxy(base_url: str) -> str:
    """The proxy that the environment (or the system) names for a server, or nothing.

    A proxy can't reach our own loopback addresses, so it is not asked to.
    """
    if is_loopback(urlsplit(base_url).hostname or "") or not getproxies():
        return ""
    # Only here: requests knows the forms that NO_PROXY takes (ranges of addresses, ports).
    from requests import utils  # noqa: PLC0415  see above

    return utils.select_proxy(base_url, utils.get_environ_proxies(base_url, no_proxy=None)) or ""


class Sockets:
    """Sockets that are open, or about to be, so that all of them can be shut down at once."""

    def __init__(self) -> None:
        self._open: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._is_cut = False
        self.connection, self.tls_connection = _connections(self)
        """Kinds of connection whose sockets are remembered here."""

    def remember(self, opened: socket.socket) -> None:
        with self._lock:
            self._open.add(opened)
            is_late = self._is_cut
        if (call := deadlines.present()) is not None:
            call.watch(opened)
        if is_late:
            deadlines.shut_down(opened)

    def cut(self) -> None:
        """Shut every socket down, also those that are being opened at this moment.

        A thread that reads from one sees the connection end.
        """
        with self._lock:
            self._is_cut = True
            sockets = list(self._open)
        for opened in sockets:
            deadlines.shut_down(opened)


def _connections(sockets: Sockets) -> tuple[type[HTTPConnection], type[HTTPSConnection]]:
    class Known(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            # TLS and the word to a proxy come next, and may hang as well.
            opened = super()._new_conn()
            sockets.remember(opened)
            return opened

        def connect(self) -> None:
            super().connect()
            sockets.remember(self.sock)

        def send(self, data: Any) -> None:
            if self.sock is None:
                self.connect()
            if (call := deadlines.present()) is not None:
                call.watch(self.sock)
                call.is_sent = True
            super().send(data)

    class KnownTls(Known, HTTPSConnection):
        """The same over TLS."""

    return Known, KnownTls
