"""Keeps hold of the sockets under ``requests``, so that calls under way can be ended.

``requests`` has no way to interrupt a call that waits for an answer; shutting its socket down
ends it at once. Not for: deciding when (transport.py).
"""

from __future__ import annotations

import contextlib
import socket
import threading
import weakref
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection


class Connections:
    """The open connections of one client."""

    def __init__(self) -> None:
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._pools = _pools(self)

    def adapter(self) -> HTTPAdapter:
        """A transport adapter whose connections are known here."""
        # No retries: the appliance's rule is that a POST is never repeated by itself.
        adapter = HTTPAdapter(pool_connections=2, pool_maxsize=2, max_retries=0)
        adapter.poolmanager.pool_classes_by_scheme = self._pools
        return adapter

    def remember(self, opened: socket.socket) -> None:
        with self._lock:
            self._sockets.add(opened)

    def cut(self) -> None:
        """Shut every socket down; whoever reads from one sees the connection end."""
        with self._lock:
            sockets = list(self._sockets)
        for opened in sockets:
            with contextlib.suppress(OSError):
                # Not SSLSocket.shutdown: that would free the TLS state under a thread that reads.
                socket.socket.shutdown(opened, socket.SHUT_RDWR)


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
