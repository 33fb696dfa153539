"""The connections to one server: urllib3's pool, with our TLS settings, and kept hold of.

``requests`` stands on the same pool. It is left out here because it takes three times as long to
put a call together, which is most of what lies between a message and its start call
(docs/performance.md); what needs it signs in through windows_login.py. One ``ssl.SSLContext`` of
ours says whom to trust, and every socket is known, because nothing else ends a call that waits for
an answer. Not for: limits and errors (transport.py).
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies

import urllib3
from urllib3 import (
    BaseHTTPResponse,
    HTTPConnectionPool,
    HTTPSConnectionPool,
    PoolManager,
    ProxyManager,
)
from urllib3.connection import HTTPConnection, HTTPSConnection

from appliance.config import is_loopback
from appliance.qlik.cookies import Cookies

IDLE_LIMIT = 8
"""Connections that are kept for the next call; more only while more calls are under way."""
# The appliance's rule is that a POST is never repeated by itself, and no secret is redirected.
_NEVER = urllib3.Retry(False)


class Exchange(Protocol):
    """A way for a request to its answer."""

    def answer(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None
    ) -> AbstractContextManager[BaseHTTPResponse]:
        """Send one request, once; the answer's body has not been read yet.

        Args:
            method: an HTTP method.
            target: path and query.
            headers: all that are sent, but for the host and the body's length.
            body: or ``None``.

        Raises:
            urllib3.exceptions.HTTPError, OSError, ValueError: there is no answer.
        """

    def forget_cookies(self) -> None:
        """Drop what the server told us to keep."""

    def close(self) -> None:
        """Close every connection; who waits for an answer sees it end."""


class Connections:
    """The open connections of one client."""

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
        self._timeout = urllib3.Timeout(connect=timeout_s, read=timeout_s)
        self._sockets = Sockets()
        self._cookies = Cookies()
        self._lock = threading.Lock()
        self._pool: HTTPConnectionPool | None = None
        self._before_target = ""

    @contextlib.contextmanager
    def answer(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None
    ) -> Iterator[BaseHTTPResponse]:
        """Send one request; see ``Exchange.answer``."""
        pool = self._pool or self._open()
        cookie = self._cookies.header(self._origin + target)
        response = pool.urlopen(
            method,
            self._before_target + target,
            body=body,
            headers={**headers, "Cookie": cookie} if cookie else headers,
            retries=_NEVER,
            redirect=False,
            assert_same_host=False,
            preload_content=False,
        )
        try:
            self._cookies.keep(response, self._origin + target)
            yield response
        finally:
            # Nothing of both happens if it was read to its end: the connection is kept then.
            response.close()
            response.release_conn()

    def forget_cookies(self) -> None:
        self._cookies.clear()

    def close(self) -> None:
        self._sockets.cut()
        pool = self._pool
        if pool is not None:
            pool.close()

    def _open(self) -> HTTPConnectionPool:
        with self._lock:
            if self._pool is None:
                manager = self._manager(environment_proxy(self._origin))
                if isinstance(manager, ProxyManager) and self._origin.startswith("http:"):
                    self._before_target = self._origin  # RFC 9112, section 3.2.2
                self._pool = manager.connection_from_url(self._origin)
            return self._pool

    def _manager(self, proxy: str) -> PoolManager:
        settings: dict[str, Any] = {
            "timeout": self._timeout,
            "ssl_context": self._tls,
            "cert_reqs": "CERT_REQUIRED",
        }
        if not proxy:
            direct = PoolManager(maxsize=IDLE_LIMIT, **settings)
            direct.pool_classes_by_scheme = self._sockets.pools
            return direct
        # Only here: requests knows the forms that a proxy's address takes (password, SOCKS).
        from requests.adapters import HTTPAdapter  # noqa: PLC0415  see above

        adapter = HTTPAdapter(pool_maxsize=IDLE_LIMIT, max_retries=0)
        try:
            address = proxy if "://" in proxy else f"http://{proxy}"
            manager: PoolManager = adapter.proxy_manager_for(address, **settings)
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise urllib3.exceptions.ProxyError("The proxy's address is not one", error) from None
        if isinstance(manager, ProxyManager):  # SOCKS has pools of its own.
            manager.pool_classes_by_scheme = self._sockets.pools
        return manager


def environment_proxy(origin: str) -> str:
    """The proxy that the environment (or the system) names for a server, or nothing.

    A proxy can't reach our own loopback addresses, so it is not asked to.
    """
    if is_loopback(urlsplit(origin).hostname or "") or not getproxies():
        return ""
    # Only here: requests knows the forms that NO_PROXY takes (ranges of addresses, ports).
    from requests import utils  # noqa: PLC0415  see above

    return utils.select_proxy(origin, utils.get_environ_proxies(origin, no_proxy=None)) or ""


class Sockets:
    """Sockets that are open, or about to be, so that all of them can be shut down at once."""

    def __init__(self) -> None:
        self._open: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._is_cut = False
        self.pools = _pools(self)
        """Connection pools by scheme, whose sockets are remembered here."""

    def remember(self, opened: socket.socket) -> None:
        with self._lock:
            self._open.add(opened)
            is_late = self._is_cut
        if is_late:
            _shut_down(opened)

    def cut(self) -> None:
        """Shut every socket down, also those that are being opened at this moment.

        Whoever reads from one sees the connection end.
        """
        with self._lock:
            self._is_cut = True
            sockets = list(self._open)
        for opened in sockets:
            _shut_down(opened)


def _shut_down(opened: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # Not SSLSocket.shutdown: that would free the TLS state under a thread that reads.
        socket.socket.shutdown(opened, socket.SHUT_RDWR)


def _pools(sockets: Sockets) -> dict[str, type[HTTPConnectionPool]]:
    class KnownConnection(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            sockets.remember(self.sock)

    class KnownTlsConnection(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            sockets.remember(self.sock)

    class Pool(HTTPConnectionPool):
        ConnectionCls = KnownConnection

    class TlsPool(HTTPSConnectionPool):
        ConnectionCls = KnownTlsConnection

    return {"http": Pool, "https": TlsPool}
