"""Opens the way to another broker: TCP, TLS (always verified), WebSocket.

Not for: MQTT (connection.py), what a failure means (causes.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import NamedTuple

import certifi
from websockets.client import ClientProtocol
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from appliance.bridge.causes import HandshakeError
from appliance.broker.guard import Guard, GuardedProtocol
from appliance.broker.websocket_frames import WebSocketFrames
from appliance.broker.work import Turns
from appliance.config.tables import BridgeConfig, BridgeTlsConfig
from appliance.counters import Count
from appliance.errors import ConfigError, NoPermissionError

_LARGEST_HEAD = 16 * 1024
"""Bytes of the answer to a WebSocket handshake."""
_SWITCHING = b" 101 "
_MOST_ADDRESSES = 4
"""Of one name that are tried."""

_silent = logging.getLogger(f"{__name__}.library")
"""The library writes tracebacks of what the remote sends; causes.py says what counts."""
_silent.setLevel(logging.CRITICAL + 1)


class Address(NamedTuple):
    """Where a broker is."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def acknowledge_at_once(transport: asyncio.BaseTransport) -> None:
    """Let the system acknowledge at once what has come, although nothing is sent back.

    Linux waits up to 40 ms for something to send. Until then a broker whose sockets gather small
    packets (RFC 896; mosquitto, unless ``set_tcp_nodelay`` is true) holds back the next message.
    """
    sock = transport.get_extra_info("socket")
    if sys.platform == "linux" and sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def tls_context(config: BridgeTlsConfig) -> ssl.SSLContext:
    """What ``tls`` says of certificates, tried out on the spot. Reads files: not on the loop.

    Raises:
        ConfigError: a file is not what it should be.
        NoPermissionError: a file may not be read.
    """
    if config.ca_file is None:
        context = ssl.create_default_context()
        context.load_verify_locations(certifi.where())
    else:
        ca_file = config.ca_file
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _tried("ca_file", ca_file, lambda: context.load_verify_locations(ca_file))
        # Signature, dates and name are verified. Only the strictness about a certificate's form
        # that Python 3.13 turned on is not asked of a private authority.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if config.certfile is not None:
        certfile, keyfile = config.certfile, config.keyfile
        _tried(
            "certfile",
            f"{certfile}, {keyfile or certfile}",
            lambda: context.load_cert_chain(certfile, keyfile, password=_no_password),
        )
    if config.alpn:
        context.set_alpn_protocols(list(config.alpn))
    return context


def _no_password() -> str:
    """Asked for the passphrase of a key; OpenSSL would ask the terminal otherwise."""
    raise ConfigError("tls.keyfile: the key is protected by a passphrase; store it without one")


def _tried(key: str, path: str, load: Callable[[], object]) -> None:
    try:
        load()
    except PermissionError as error:
        raise NoPermissionError(f"tls.{key}: {path} may not be read") from error
    except FileNotFoundError as error:
        raise ConfigError(f"tls.{key}: {path} does not exist") from error
    except (OSError, ValueError) as error:  # SSLError is an OSError
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or "not PEM"
        raise ConfigError(f"tls.{key}: {path} can't be used ({reason})") from error


async def open_transport(
    config: BridgeConfig,
    address: Address,
    connection: GuardedProtocol,
    *,
    executor: Executor,
    turns: Turns,
    count: Count,
) -> None:
    """Connect; ``connection`` has its transport then, by WebSocket once the remote agrees.

    Raises:
        OSError: it can't be reached, or TLS can't be agreed (``ssl.SSLError``).
        UnicodeError: the host name is none.
        ApplianceError: a file of the configuration can't be used.
    """
    loop = asyncio.get_running_loop()
    context = server_name = None
    if config.tls is not None:
        context = await loop.run_in_executor(executor, tls_context, config.tls)
        server_name = config.tls.server_name or address.host
    outermost: asyncio.Protocol = connection
    if config.transport == "websocket":
        outermost = WebSocketClient(
            connection,
            address,
            path=config.path,
            is_secure=context is not None,
            largest_frame=int(config.max_packet_size) + 16,
            count=count,
            turns=turns,
        )
    await _connect(
        await resolve(address),
        address.port,
        lambda: Guard(outermost, connection.fail),
        context,
        server_name,
        within_s=config.connect_timeout,
    )


async def _connect(
    hosts: Sequence[str],
    port: int,
    factory: Callable[[], asyncio.Protocol],
    context: ssl.SSLContext | None,
    server_name: str | None,
    *,
    within_s: float,
) -> None:
    """Try the addresses one after the other; one that does not answer leaves time for the rest."""
    loop = asyncio.get_running_loop()
    for number, host in enumerate(hosts):
        is_last = number == len(hosts) - 1
        try:
            async with asyncio.timeout(None if is_last else within_s / len(hosts)):
                await loop.create_connection(
                    factory, host, port, ssl=context, server_hostname=server_name
                )
        except OSError:
            if is_last:
                raise
        else:
            return


async def resolve(address: Address) -> list[str]:
    """The IP addresses of a host, at most a few.

    In a thread of its own: the loop's own threads are waited for at the stop, and a name server
    that is away keeps one busy for half a minute.

    Raises:
        OSError: the name is not known.
        UnicodeError: it is no name.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[str]] = loop.create_future()

    def ask() -> None:
        error: Exception | None = None
        hosts: list[str] = []
        try:
            answers = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
            hosts = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
        except (OSError, UnicodeError) as failure:
            error = failure
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(tell, hosts[:_MOST_ADDRESSES], error)

    def tell(hosts: list[str], error: Exception | None) -> None:
        if found.done():
            return
        if error is not None:
            found.set_exception(error)
        else:
            found.set_result(hosts)

    threading.Thread(target=ask, name="resolve", daemon=True).start()
    return await found


class WebSocketClient(WebSocketFrames):
    """Carries one MQTT connection to a broker over WebSocket binary frames.

    The connection above is told of its transport once the remote has agreed to the WebSocket; a
    remote that does not is told to ``connection.fail``.
    """

    def __init__(
        self,
        connection: GuardedProtocol,
        address: Address,
        *,
        path: str,
        is_secure: bool,
        largest_frame: int,
        count: Count,
        turns: Turns,
    ) -> None:
        resource, _, query = path.partition("?")
        uri = WebSocketURI(is_secure, address.host, address.port, resource, query)
        self._protocol = ClientProtocol(
            uri, subprotocols=[Subprotocol("mqtt")], max_size=largest_frame, logger=_silent
        )
        super().__init__(connection, self._protocol, count=count, turns=turns)
        self._head: bytearray | None = bytearray()
        """What has come of the answer to the handshake; ``None`` once it is complete."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.below = transport  # type: ignore[assignment]  # asyncio's own looser annotation
        self._protocol.send_request(self._protocol.connect())
        self.send_pending()

    def data_received(self, data: bytes) -> None:
        if self._head is not None:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            may_be_http = self._head.startswith(b"HTTP/"[: len(self._head)])
            if end < 0 and len(self._head) <= _LARGEST_HEAD and may_be_http:
                return
            head, rest = bytes(self._head[: end + 4]), bytes(self._head[end + 4 :])
            self._head = None
            self._read_answer(head if 0 <= end <= _LARGEST_HEAD else b"")
            if not self._is_open or not rest:
                return
            data = rest
        if self._is_open:
            self.take(data)

    def _read_answer(self, head: bytes) -> None:
        line = head.partition(b"\r\n")[0]
        if not line.startswith(b"HTTP/"):
            raise HandshakeError("what answers there is no web server")
        if _SWITCHING not in line[:16]:
            status = line.partition(b" ")[2][:80].decode("latin-1")
            raise HandshakeError(f"the answer to the WebSocket handshake is {status}")
        try:
            self._protocol.receive_data(head)
            self._protocol.events_received()
        except Exception as error:
            raise HandshakeError(f"the WebSocket handshake failed: {error}") from error
        if self._protocol.state is not State.OPEN:
            reason = self._protocol.handshake_exc or "the answer is wrong"
            raise HandshakeError(f"the WebSocket handshake failed: {reason}")
        if self._protocol.subprotocol != "mqtt":
            raise HandshakeError("the WebSocket there is not for MQTT (subprotocol mqtt)")
        self._is_open = True
        super().connection_made(self.below)

    def give_up(self, error: Exception) -> None:
        """End the connection because the library could not take what the broker sent."""
        self._is_open = False
        self._mqtt.fail(HandshakeError(f"the WebSocket ended: {error}"))

    def eof_received(self) -> None:
        if self._head is None:  # else the transport closes by itself
            self.take_eof()
