"""A blocking MQTT client that connects and publishes, one message at a time.

``appliance publish`` is called from scripts, so it must start at once: the broker's library takes
a second to import, paho-mqtt would be a dependency for a hundred lines. MQTT 5 is spoken first
because only there a broker says why it refuses a message; 3.1.1 with a broker that knows no other.
Not for: subscribing, reconnecting, or anything within the running appliance.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import time
from types import TracebackType
from typing import NoReturn, Self

import msgspec

from appliance.errors import ApplianceError, NoPermissionError, UnavailableError, UsageError
from appliance.secret import Secret

_CONNECT, _CONNACK, _PUBLISH, _PUBACK, _PUBREC, _PUBREL, _PUBCOMP = 1, 2, 3, 4, 5, 6, 7
_PINGREQ, _PINGRESP, _DISCONNECT = 12, 13, 14
_LARGEST_PACKET = 268_435_455
"""MQTT 5, section 1.5.5: four bytes of seven bits."""
_LARGEST_ANSWER = 64 * 1024
_FAILURE = 0x80
"""MQTT 5, section 2.4: reason codes from here on say that it failed."""

# MQTT 3.1.1, table 3.1, as the reason codes of MQTT 5 with the same meaning.
_OLD_CODES = {1: 0x84, 2: 0x85, 3: 0x88, 4: 0x86, 5: 0x87}
_NO_PERMISSION = frozenset({0x86, 0x87, 0x8A, 0x8C})
_REASONS = {
    0x81: "it can't read what was sent",
    0x84: "it speaks another version of MQTT",
    0x85: "it does not accept the client id; choose another with --client-id",
    0x86: "wrong user name or password; sign in with -u NAME",
    0x87: "not authorized; sign in with -u NAME, or ask for the right to publish there",
    0x88: "it is not available now; try again later",
    0x89: "it is busy; try again later",
    0x8A: "this client is banned",
    0x8B: "it is shutting down; try again later",
    0x8C: "it wants another way to sign in",
    0x8E: "another client with the same client id took over; choose another with --client-id",
    0x90: "it does not accept the topic",
    0x95: "the message is too large",
    0x97: "a quota is used up; try again later",
    0x9A: "it does not keep retained messages; leave out -r",
    0x9B: "it does not offer this quality of service; use a lower -q",
    0x9F: "too many connections at a time; try again later",
}


class Target(msgspec.Struct, frozen=True):
    """Where to and as whom."""

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


class _OldBroker(Exception):  # noqa: N818  a turn of the way, not an error that anybody sees
    pass


def _text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    if len(data) > 65535:
        raise UsageError("a topic, name or password is longer than MQTT's 65535 bytes")
    return struct.pack("!H", len(data)) + data


class Client:
    """A connection to one broker, open within its ``with`` block. Not for use by several threads.

    Every method raises ``NoPermissionError`` when the broker does not let us, and
    ``UnavailableError`` when it is out of reach, too slow or refuses for another reason. After an
    error the connection is of no more use.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._version = 5
        self._packet_id = 0
        self._deadline = 0.0
        self._what = "the connection"
        self._socket: socket.socket | None = None

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
            with contextlib.suppress(ApplianceError):  # all that mattered is acknowledged
                self._send(_DISCONNECT << 4, b"")
        self._close()

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> None:
        """Publish one message and wait until the broker has taken it, for QoS 0 too (by a ping).

        Raises ``UsageError`` when the message is larger than MQTT allows.
        """
        self._deadline = time.monotonic() + self._target.timeout_s
        self._what = "the message"
        variable = _text(topic)
        if qos:
            self._packet_id = self._packet_id % 65535 + 1
            variable += struct.pack("!H", self._packet_id)
        if self._version == 5:  # no properties
            variable += b"\0"
        self._send(_PUBLISH << 4 | qos << 1 | retain, variable + payload)
        if qos == 1:
            self._expect(_PUBACK)
        elif qos == 2:
            self._expect(_PUBREC)
            self._send(_PUBREL << 4 | 2, struct.pack("!H", self._packet_id))
            self._expect(_PUBCOMP)
        else:
            self._send(_PINGREQ << 4, b"")
            self._expect(_PINGRESP)

    def _open(self) -> None:
        target = self._target
        self._deadline = time.monotonic() + target.timeout_s
        try:
            plain = socket.create_connection((target.host, target.port), target.timeout_s)
            # Or a ping behind a message would wait for the other side's delayed acknowledgement.
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = plain
            if target.tls is not None:
                self._socket = target.tls.wrap_socket(plain, server_hostname=target.host)
        except (OSError, UnicodeError) as error:
            self._fail(error)
        flags = 0x02  # clean start: nothing is to be kept for us
        fields = _text(target.client_id)
        if target.username is not None:
            flags |= 0x80
            fields += _text(target.username)
        if target.password is not None:
            flags |= 0x40
            fields += _text(target.password.reveal().encode("utf-8", "surrogateescape"))
        head = _text("MQTT") + struct.pack("!BBH", self._version, flags, 0)
        self._send(_CONNECT << 4, head + (b"\0" if self._version == 5 else b"") + fields)
        self._expect(_CONNACK)

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def _send(self, first: int, body: bytes) -> None:
        if len(body) > _LARGEST_PACKET:
            raise UsageError("the message is larger than MQTT's 256 MiB")
        length, left = bytearray(), len(body)
        while True:
            left, low = divmod(left, 128)
            length.append(low | 0x80 if left else low)
            if not left:
                break
        try:
            self._ready().sendall(bytes([first]) + bytes(length) + body)
        except OSError as error:
            # A broker that refuses says so and closes at once: its word is worth more than ours.
            self._last_word(error)

    def _expect(self, kind: int) -> None:
        """Wait for an answer of this kind and raise what it says if it is a refusal."""
        try:
            first, body = self._receive(kind, _DISCONNECT)
        except OSError as error:
            self._fail(error)
        if first >> 4 == _DISCONNECT:
            self._refused(body[0] if body else 0)
        if kind == _PINGRESP:
            return
        if kind == _CONNACK:
            code = body[1] if len(body) > 1 else _FAILURE
        else:
            if body[:2] != struct.pack("!H", self._packet_id):
                raise UnavailableError(f"{self._target.shown} acknowledged another message")
            code = body[2] if len(body) > 2 and self._version == 5 else 0
        if kind == _CONNACK:  # an old broker answers in its own way to MQTT 5 as well
            code = _OLD_CODES.get(code, code)
        if kind == _CONNACK and code == 0x84 and self._version == 5:
            raise _OldBroker
        if code >= _FAILURE:
            self._refused(code)

    def _receive(self, *kinds: int) -> tuple[int, bytes]:
        """The next packet, which is of one of these kinds: its first byte and its body."""
        first = self._read(1)[0]
        if first >> 4 not in kinds:
            raise UnavailableError(f"{self._target.shown} does not answer as an MQTT broker does")
        length = 0
        for place in range(4):
            byte = self._read(1)[0]
            length |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                break
        if length > _LARGEST_ANSWER:
            raise UnavailableError(f"{self._target.shown} does not answer as an MQTT broker does")
        return first, self._read(length)

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self._ready().recv(size - len(data))
            if not part:
                raise ConnectionResetError
            data += part
        return data

    def _ready(self) -> socket.socket:
        assert self._socket is not None
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        return self._socket

    def _last_word(self, error: OSError) -> NoReturn:
        try:
            first, body = self._receive(_CONNACK, _DISCONNECT)
        except (OSError, UnavailableError):
            self._fail(error)
        place = 1 if first >> 4 == _CONNACK else 0
        if len(body) > place:
            self._refused(body[place])
        self._fail(error)

    def _refused(self, code: int) -> NoReturn:
        reason = _REASONS.get(code, f"reason code {code:#04x}")
        kind: type[ApplianceError] = (
            NoPermissionError if code in _NO_PERMISSION else UnavailableError
        )
        raise kind(f"{self._target.shown} refused {self._what}: {reason}")

    def _fail(self, error: OSError | UnicodeError) -> NoReturn:
        shown = self._target.shown
        if isinstance(error, ssl.SSLCertVerificationError):
            text = (
                f"the certificate of {shown} is not trusted: {error.verify_message}; name the "
                "authority that signed it with --ca-file"
            )
        elif isinstance(error, ssl.SSLError):
            text = (
                f"TLS with {shown} failed: {error.reason or error}; is this a TLS port, and does "
                "it want a client certificate (--certfile, --keyfile)?"
            )
        elif isinstance(error, TimeoutError):
            text = f"{shown} did not answer within {self._target.timeout_s:g} s; is it a broker?"
        elif isinstance(error, ConnectionRefusedError):
            text = f"nothing listens at {shown}; is the appliance running?"
        elif isinstance(error, socket.gaierror | UnicodeError):
            text = f"the name {self._target.host} can't be resolved; check the spelling"
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
