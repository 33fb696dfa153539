"""The connections under ``requests``: with our TLS settings, and kept hold of.

``requests`` has no way to interrupt a call that waits for an answer; shutting its socket down
ends it at once. And it reads certificate files anew for each connection, trusts either its own
list of authorities or a file, and follows Python 3.13 in refusing certificates for their form, as
private authorities often make them; one ``ssl.SSLContext`` of ours settles all three. Not for:
deciding when to connect or to cut (transport.py).
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import weakref
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection


class Connections:
    """The open connections of one client."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        """Start without connections.

        Args:
            context: for ``https``; ``None`` if only ``http`` is used.
        """
        self._context = context
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._is_cut = False
        self._pools = _pools(self)

    def adapter(self) -> HTTPAdapter:
        """A transport adapter whose connections are known here."""
        # No retries: the appliance's rule is that a POST is never repeated by itself.
        adapter = _Adapter(self._context, pool_connections=2, pool_maxsize=2, max_retries=0)
        adapter.poolmanager.pool_classes_by_scheme = self._pools
        return adapter

    def remember(self, opened: socket.socket) -> None:
        with self._lock:
            self._sockets.add(opened)
            is_late = self._is_cut
        if is_late:
            _shut_down(opened)

    def cut(self) -> None:
        """Shut every socket down, also those that are being opened at this moment.

        Whoever reads from one sees the connection end.
        """
        with self._lock:
            self._is_cut = True
            sockets = list(self._sockets)
        for opened in sockets:
            _shut_down(opened)


def _shut_down(opened: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # Not SSLSocket.shutdown: that would free the TLS state under a thread that reads.
        socket.socket.shutdown(opened, socket.SHUT_RDWR)


class _Adapter(HTTPAdapter):
    def __init__(self, context: ssl.SSLContext | None, **settings: Any) -> None:
        self._context = context
        super().__init__(**settings)

    def init_poolmanager(self, *args: Any, **settings: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._context, **settings)

    def proxy_manager_for(self, proxy: str, **settings: Any) -> Any:
        return super().proxy_manager_for(proxy, ssl_context=self._context, **settings)

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        del url, verify, cert  # All of it is in the context, and verifying is not optional.
        conn.cert_reqs = "CERT_REQUIRED"


def _pools(connections: Connections) -> dict[str, Any]:
    class KnownConnection(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            connections.remember(self.sock)

    class KnownTlsConnection(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            connections.remember(self.sock)

    class Pool(HTTPConnectionPool):
        ConnectionCls = KnownConnection

    class TlsPool(HTTPSConnectionPool):
        ConnectionCls = KnownTlsConnection

    return {"http": Pool, "https": TlsPool}
