"""HTTP/1.1 on a loopback port that can be closed and opened again, for the simulated server.

One thread a connection, keep-alive, optional TLS. Other Qlik clients use it too (``appliance demo
--qlik``), so it reads what HTTP/1.1 allows. Not for: anything but the simulated server.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from appliance.qlik.simulated import bodies, data_files
from appliance.qlik.simulated.messages import Answer, Raw, Request, text_answer

Serve = Callable[[Request], Answer | Raw | Iterator[bytes] | None]

_IDLE_S = 60.0
_HANDSHAKE_S = 10.0


class Listener:
    """Listens on 127.0.0.1; the port stays the same when it is closed and opened again."""

    def __init__(
        self,
        serve: Serve,
        *,
        port: int,
        context: ssl.SSLContext | None,
        now: Callable[[], int],
    ) -> None:
        self._serve = serve
        self._context = context
        self._now = now
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self.port = port
        self.tls_failures = 0
        self.connections = 0
        """Connections that were accepted, TLS established."""

    def open(self) -> None:
        """Begin to listen; nothing happens if it listens already."""
        with self._lock:
            if self._server is not None:
                return
            server = _Server(
                ("127.0.0.1", self.port),
                self._serve,
                context=self._context,
                now=self._now,
                tls_failed=self._failed,
                accepted=self._accepted,
            )
            self.port = server.server_address[1]
            self._server = server
            # A short poll makes close() quick; it is the only thing that poll is for.
            self._thread = threading.Thread(
                target=server.serve_forever, args=(0.02,), name="simulated-qlik", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """Stop listening and cut every connection."""
        with self._lock:
            server, thread = self._server, self._thread
            self._server = self._thread = None
        if server is None or thread is None:
            return
        server.shutdown()
        server.server_close()
        server.cut()
        thread.join()

    def _failed(self) -> None:
        with self._lock:
            self.tls_failures += 1

    def _accepted(self) -> None:
        with self._lock:
            self.connections += 1


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    # On Windows this option would let another process take the port over.
    allow_reuse_address = os.name != "nt"

    def __init__(
        self,
        address: tuple[str, int],
        serve: Serve,
        *,
        context: ssl.SSLContext | None,
        now: Callable[[], int],
        tls_failed: Callable[[], None],
        accepted: Callable[[], None],
    ) -> None:
        self.serve = serve
        self.now = now
        self._context = context
        self._tls_failed = tls_failed
        self._accepted = accepted
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        super().__init__(address, _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        # Here, in the connection's own thread, a slow handshake delays no other client.
        if self._context is not None:
            request.settimeout(_HANDSHAKE_S)
            try:
                request = self._context.wrap_socket(request, server_side=True)
            except (ssl.SSLError, OSError):
                self._tls_failed()
                return
        self._accepted()
        with self._open_lock:
            self._open.add(request)
        try:
            super().finish_request(request, client_address)
        finally:
            with self._open_lock:
                self._open.discard(request)
            if self._context is not None:
                _cut(request)
                request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks is what faults are for: nothing to say."""

    def cut(self) -> None:
        with self._open_lock:
            connections = list(self._open)
        for connection in connections:
            _cut(connection)


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # Not SSLSocket.shutdown: that would free the TLS state under a thread that reads.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = _IDLE_S
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
        """Say nothing: what arrived is in the server's record."""

    def handle_expect_100(self) -> bool:
        """Ask for the body only if it would be read."""
        try:
            bodies.declared_length(self.headers, self._limit())
        except bodies.BodyError as error:
            self._refuse(error)
            return False
        return super().handle_expect_100()

    def do_GET(self) -> None:
        self._handle()

    def do_HEAD(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def do_PATCH(self) -> None:
        self._handle()

    def do_DELETE(self) -> None:
        self._handle()

    def do_OPTIONS(self) -> None:
        self._handle()

    def _handle(self) -> None:
        try:
            body = bodies.read(self.rfile, self.headers, self._limit())
        except bodies.BodyError as error:
            self._refuse(error)
            return
        parts = urlsplit(self.path)
        query = {name.lower(): value for name, value in parse_qsl(parts.query)}
        headers = {name.lower(): value for name, value in self.headers.items()}
        whole = all("=" in part for part in parts.query.split("&") if part)
        answer = self.server.serve(
            Request(self.command, parts.path, query, headers, body, query_is_whole=whole)
        )
        if isinstance(answer, Answer):
            self._write(answer)
            return
        self.close_connection = True
        if answer is None:
            _cut(self.connection)
            return
        if isinstance(answer, Raw):
            answer = answer.pieces
        else:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        for chunk in answer:
            self.wfile.write(chunk)

    def _limit(self) -> int:
        return data_files.BODY_LIMIT if data_files.takes_files(self.path) else bodies.LIMIT

    def _refuse(self, error: bodies.BodyError) -> None:
        self.close_connection = True
        self._write(text_answer(str(error), error.status))

    def _write(self, answer: Answer) -> None:
        """The whole answer in one piece, so that it leaves in one packet."""
        lines = [
            f"HTTP/1.1 {answer.status} {_reason(answer.status)}",
            f"Date: {formatdate(self.server.now() // 1_000_000_000, usegmt=True)}",
            *(f"{name}: {value}" for name, value in answer.headers.items()),
        ]
        if self.close_connection:
            lines.append("Connection: close")
        elif self.request_version == "HTTP/1.0":
            lines.append("Connection: keep-alive")
        if answer.status != HTTPStatus.NO_CONTENT:
            lines.append(f"Content-Length: {len(answer.body)}")
            if answer.body:
                lines.append(f"Content-Type: {answer.content_type}")
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        self.wfile.write(head if self.command == "HEAD" else head + answer.body)


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Status"
