"""A blocking MQTT client. It publishes one message at a time, or it subscribes and receives.

It reports what became of each message and why a broker ends a connection. ``appliance publish``,
the demo, the self-test and attached terminals (remote/link.py) use it.
MQTT 5 is spoken first, because only there a broker says why it refuses a message; MQTT 3.1.1 with
a broker that knows no other version.
Not for: reconnecting, receiving above QoS 0, or anything within the running appliance.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import struct
import threading
import time
from types import TracebackType
from typing import NoReturn, Self

import msgspec

from appliance.errors import ApplianceError, NoPermissionError, UnavailableError, UsageError
from appliance.mqtt import client_packets, packets, reasons
from appliance.secret import Secret

_LARGEST_PACKET = 64 * 1024
_READ_SIZE = 64 * 1024
_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_PING_S = 1.0
"""A broker may impose a shorter keepalive (MQTT 5, section 3.2.2.3.14); 1 s is the shortest."""

_ADVICE = {
    0x85: "choose another with --client-id",
    0x86: "sign in with -u NAME",
    0x87: "sign in with -u NAME, or ask for the right to publish there",
    0x88: "try again later",
    0x89: "try again later",
    0x8B: "try again later",
    0x8E: "choose another with --client-id",
    0x97: "try again later",
    0x9A: "leave out -r",
    0x9B: "use a lower -q",
    0x9F: "try again later",
}
"""What to do about a refusal, by its reason code, with the options of the commands."""


class Target(msgspec.Struct, frozen=True):
    """A broker's address, and the user and settings for a connection to it."""

    host: str
    port: int
    client_id: str = ""
    username: str | None = None
    password: Secret | None = None
    tls: ssl.SSLContext | None = None
    timeout_s: float = 10.0

    @property
    def shown(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class _OldBroker(Exception):  # noqa: N818 - caught in this module, it never reaches a user
    """The broker does not speak MQTT 5."""


def _text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    if len(data) > 65535:
        raise UsageError("a topic, name or password is longer than MQTT's 65535 bytes")
    return packets.string(data)


class Client:
    """A connection to one broker, open within its ``with`` block.

    One thread may use it; ``send`` and ``disconnect`` are safe from any thread.
    Every method raises ``NoPermissionError`` when the broker refuses for want of a right, and
    ``UnavailableError`` when the broker is out of reach, too slow or refuses for another reason.
    After an error the connection can't be used any longer.

    Args of the constructor:
        target: the broker, the user and the settings for the connection.
        keepalive_s: the keepalive that the broker is told, in seconds; 0 for none. ``receive``
            needs one.
        largest_packet: the size of the largest accepted packet, in bytes.
    """

    def __init__(
        self, target: Target, *, keepalive_s: int = 0, largest_packet: int = _LARGEST_PACKET
    ) -> None:
        self._target = target
        self._keepalive_s = keepalive_s
        self._largest_packet = largest_packet
        self._version = 5
        self._packet_id = 0
        self._deadline = 0.0
        self._sent_at = self._heard_at = 0.0
        self._what = "the connection"
        self._socket: socket.socket | None = None
        self._buffer = bytearray()
        # TLS in OpenSSL can't read and write at the same time.
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        try:
            try:
                self._open()
            except _OldBroker:
                self._close()
                self._version = 4
                self._open()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.disconnect()  # every message is acknowledged by now
        self._close()

    def disconnect(self) -> None:
        """End the connection: ``receive`` raises an error. Safe from any thread."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._write(packets.DISCONNECT << 4, b"")
            self._shut_down()

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> None:
        """Publish one message and wait until the broker has taken it.

        At QoS 0, which has no acknowledgement, a ping follows the message: a broker answers in
        order, and one that refuses the message ends the connection instead.

        Raises:
            UsageError: the message is larger than MQTT allows.
        """
        self._begin("the message")
        packet_id = self._next_packet_id() if qos else b""
        first = packets.PUBLISH << 4 | qos << 1 | retain
        message = _text(topic) + packet_id + self._no_properties + payload
        if qos == 0:
            self._send(first, message)
            self._ask(packets.PINGREQ << 4, b"", packets.PINGRESP)
        else:
            self._ask(first, message, packets.PUBACK if qos == 1 else packets.PUBREC)
        if qos == 2:
            self._ask(packets.PUBREL << 4 | 2, packet_id, packets.PUBCOMP)

    def subscribe(self, *topic_filters: str) -> None:
        """Subscribe at QoS 0 and wait until the broker has accepted every topic filter."""
        self._begin("the subscription")
        filters = b"".join(_text(each) + b"\0" for each in topic_filters)
        body = self._next_packet_id() + self._no_properties + filters
        self._ask(packets.SUBSCRIBE << 4 | 2, body, packets.SUBACK)

    def send(self, topic: str, payload: bytes) -> None:
        """Send one message at QoS 0 and don't wait for the broker. Safe from any thread."""
        try:
            self._write(packets.PUBLISH << 4, _text(topic) + self._no_properties + payload)
        except OSError as error:
            self._shut_down()  # the broker may have got a part of the packet
            self._fail(error)

    def receive(self, within_s: float | None = None) -> tuple[str, bytes]:
        """Wait for the next message; returns its topic and payload. Keeps the connection alive.

        Raises ``TimeoutError`` if none came in ``within_s``, to the second; the connection can be
        used any longer then.
        """
        self._what = ""
        end = None if within_s is None else time.monotonic() + within_s
        while True:
            if end is not None and time.monotonic() > end:
                raise TimeoutError
            if time.monotonic() - self._sent_at >= _PING_S:
                self._send(packets.PINGREQ << 4, b"")
            self._deadline = time.monotonic() + _PING_S
            try:
                first, data = self._read(packets.PUBLISH, packets.PINGRESP)
                if first >> 4 == packets.PUBLISH:
                    return self._topic_and_payload(first, data)
            except (OSError, packets.PacketError) as error:
                silent_s = time.monotonic() - self._heard_at
                if not isinstance(error, TimeoutError) or silent_s > 1.5 * self._keepalive_s:
                    self._fail(error)

    def _topic_and_payload(self, first: int, data: bytes) -> tuple[str, bytes]:
        if first & 0x06:
            raise packets.PacketError("the QoS is higher than subscribed to")
        body = packets.Body(data)
        return body.text(), self._after_properties(body, data)

    @property
    def _no_properties(self) -> bytes:
        return b"\0" if self._version == 5 else b""

    def _after_properties(self, body: packets.Body, data: bytes) -> bytes:
        size = packets.variable_number(body) if self._version == 5 else 0
        return data[body.position + size :]

    def _next_packet_id(self) -> bytes:
        self._packet_id = self._packet_id % 65535 + 1
        return struct.pack("!H", self._packet_id)

    def _begin(self, what: str) -> None:
        self._what = what
        self._deadline = time.monotonic() + self._target.timeout_s

    def _open(self) -> None:
        target = self._target
        self._begin("the connection")
        self._buffer.clear()
        try:
            plain = socket.create_connection((target.host, target.port), target.timeout_s)
            # Without it a ping behind a message waits for the broker's delayed acknowledgement.
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = plain
            if target.tls is not None:
                self._socket = target.tls.wrap_socket(plain, server_hostname=target.host)
        except (OSError, UnicodeError) as error:
            self._fail(error)
        options = client_packets.ConnectOptions(
            version=self._version,
            client_id=target.client_id,
            keepalive_s=self._keepalive_s,
            username=target.username,
            password=target.password,
        )
        try:
            body = client_packets.connect_body(options)
        except ValueError as error:
            raise UsageError(str(error)) from None
        self._ask(packets.CONNECT << 4, body, packets.CONNACK)

    def _close(self) -> None:
        if self._socket is not None:
            with self._lock:
                self._socket.close()

    def _shut_down(self) -> None:
        """End the connection below TLS, which needs no lock; a thread that waits for it wakes."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._ready(), socket.SHUT_RDWR)

    def _ready(self) -> socket.socket:
        assert self._socket is not None
        return self._socket

    def _send(self, first: int, body: bytes) -> None:
        # A broker that refuses sends its reason and closes at once. What is read next says more
        # than the error here.
        with contextlib.suppress(OSError):
            self._write(first, body)

    def _write(self, first: int, body: bytes) -> None:
        if len(body) > packets.LARGEST_LENGTH:
            raise UsageError("the message is larger than MQTT's 256 MiB")
        with self._lock:
            self._ready().settimeout(self._target.timeout_s)
            self._ready().sendall(packets.packet(first, body))
        self._sent_at = time.monotonic()

    def _ask(self, first: int, body: bytes, kind: int) -> None:
        """Send a packet and wait for an answer of this kind; raises what a refusal stands for."""
        self._send(first, body)
        try:
            code = self._code(kind, self._read(kind)[1])
        except (OSError, packets.PacketError) as error:
            self._fail(error)
        if code >= reasons.FAILURE:
            self._refused(code)

    def _code(self, kind: int, data: bytes) -> int:
        if kind == packets.PINGRESP:
            return 0
        body = packets.Body(data)
        if kind == packets.CONNACK:
            body.byte()
            code = body.byte()
            code = reasons.of_return_code(code)
            if code == 0x84 and self._version == 5:
                raise _OldBroker
            return code
        if body.number() != self._packet_id:
            raise UnavailableError(f"{self._target.shown} acknowledged another message")
        if kind == packets.SUBACK:
            return max(self._after_properties(body, data), default=reasons.FAILURE)
        return body.byte() if body.left and self._version == 5 else 0

    def _read(self, *kinds: int) -> tuple[int, bytes]:
        """Read the next packet; returns its first byte and its body.

        Raises ``PacketError`` if it is not of one of these kinds, ``TimeoutError`` if it is not
        complete at the deadline, and the error that a DISCONNECT stands for.
        """
        buffer = self._buffer
        while True:
            if buffer and buffer[0] >> 4 not in (*kinds, packets.DISCONNECT):
                raise packets.PacketError("a packet that does not belong here")
            found = packets.frame(buffer, 0, self._largest_packet)
            if found is not None and found[1] <= len(buffer):
                first, body = buffer[0], bytes(buffer[found[0] : found[1]])
                del buffer[: found[1]]
                if first >> 4 == packets.DISCONNECT:
                    self._refused(body[0] if body else 0)
                return first, body
            buffer += self._read_some()
            self._heard_at = time.monotonic()

    def _read_some(self) -> bytes:
        while True:
            with self._lock, contextlib.suppress(*_WOULD_BLOCK):
                self._ready().settimeout(0)
                if data := self._ready().recv(_READ_SIZE):
                    return data
                raise ConnectionResetError
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            with selectors.DefaultSelector() as selector:
                selector.register(self._ready(), selectors.EVENT_READ)
                selector.select(left)

    def _refused(self, code: int) -> NoReturn:
        reason = reasons.text(code)
        if code in _ADVICE:
            reason += f"; {_ADVICE[code]}"
        kind: type[ApplianceError] = (
            NoPermissionError if code in reasons.NO_PERMISSION else UnavailableError
        )
        did = f"refused {self._what}" if self._what else "ended the connection"
        raise kind(f"{self._target.shown} {did}: {reason}")

    def _fail(self, error: OSError | UnicodeError | packets.PacketError) -> NoReturn:
        shown = self._target.shown
        if isinstance(error, packets.PacketError):
            text = f"{shown} does not answer as an MQTT broker does"
        elif isinstance(error, ssl.SSLCertVerificationError):
            text = (
                f"the certificate of {shown} is not trusted: {error.verify_message}; name the "
                "authority that signed it with --ca-file"
            )
        elif isinstance(error, ssl.SSLError):
            text = (
                f"TLS with {shown} failed: {error.reason or error}; is this a TLS port, and does "
                "it want a client certificate (--certfile, --keyfile)?"
            )
        elif isinstance(error, TimeoutError) and not self._what:
            text = f"{shown} does not answer any longer"
        elif isinstance(error, TimeoutError):
            text = f"{shown} did not answer within {self._target.timeout_s:g} s; is it a broker?"
        elif isinstance(error, ConnectionRefusedError):
            text = f"nothing listens at {shown}; is the appliance running?"
        elif isinstance(error, socket.gaierror | UnicodeError):
            text = f"the name {self._target.host} can't be resolved; check the spelling"
        elif isinstance(error, ConnectionError) and not self._what:
            text = f"{shown} closed the connection"
        elif isinstance(error, ConnectionError):
            if self._what == "the connection" and self._version == 5:
                raise _OldBroker from None
            port = "wants TLS"
            if self._target.tls:
                port = "does not speak TLS or wants a client certificate: --certfile, --keyfile"
            text = (
                f"{shown} closed the connection instead of taking {self._what}; its log says why "
                f"(a missing right, a message that is too large, a port that {port})"
            )
        else:
            text = f"{shown} is out of reach: {error.strerror or error}"
        raise UnavailableError(text) from None
