"""A blocking MQTT client that connects and publishes, one message at a time.

It reports what became of each message, for ``appliance publish``, the demo, the self-test and the
first error of ``appliance attach``. paho-mqtt, which keeps the connection of an attached terminal
(remote/link.py), can't do that: it ignores the reason code of a PUBREC, so that a refused message
of QoS 2 counts as published (``Client._handle_pubrec`` in 2.2), and it does not wait for the broker
at QoS 0. Its import would also make ``appliance publish`` start 60 ms later.
MQTT 5 is spoken first, because only there a broker says why it refuses a message; MQTT 3.1.1 with
a broker that knows no other version.
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
from appliance.mqtt import packets
from appliance.secret import Secret

_LARGEST_ANSWER = 64 * 1024
_FAILURE = 0x80
"""MQTT 5, section 2.4: reason codes from here on report a failure."""

# MQTT 3.1.1, table 3.1, as the reason codes of MQTT 5 with the same meaning.
_CODES_OF_3_1_1 = {1: 0x84, 2: 0x85, 3: 0x88, 4: 0x86, 5: 0x87}
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
    return struct.pack("!H", len(data)) + data


class Client:
    """A connection to one broker, open within its ``with`` block. One thread may use it.

    Every method raises ``NoPermissionError`` when the broker refuses for want of a right, and
    ``UnavailableError`` when the broker is out of reach, too slow or refuses for another reason.
    After an error the connection can't be used any longer.
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
            with contextlib.suppress(ApplianceError):  # every message is acknowledged by now
                self._send(packets.DISCONNECT << 4, b"")
        self._close()

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> None:
        """Publish one message and wait until the broker has taken it.

        At QoS 0, which has no acknowledgement, a ping follows the message: a broker answers in
        order, and one that refuses the message ends the connection instead.

        Raises:
            UsageError: the message is larger than MQTT allows.
        """
        self._deadline = time.monotonic() + self._target.timeout_s
        self._what = "the message"
        variable = _text(topic)
        if qos:
            self._packet_id = self._packet_id % 65535 + 1
            variable += struct.pack("!H", self._packet_id)
        if self._version == 5:  # no properties
            variable += b"\0"
        self._send(packets.PUBLISH << 4 | qos << 1 | retain, variable + payload)
        if qos == 1:
            self._expect(packets.PUBACK)
        elif qos == 2:
            self._expect(packets.PUBREC)
            self._send(packets.PUBREL << 4 | 2, struct.pack("!H", self._packet_id))
            self._expect(packets.PUBCOMP)
        else:
            self._send(packets.PINGREQ << 4, b"")
            self._expect(packets.PINGRESP)

    def _open(self) -> None:
        target = self._target
        self._deadline = time.monotonic() + target.timeout_s
        try:
            plain = socket.create_connection((target.host, target.port), target.timeout_s)
            # Without it a ping behind a message waits for the broker's delayed acknowledgement.
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = plain
            if target.tls is not None:
                self._socket = target.tls.wrap_socket(plain, server_hostname=target.host)
        except (OSError, UnicodeError) as error:
            self._fail(error)
        flags = 0x02  # clean start: the broker keeps no session for this client
        fields = _text(target.client_id)
        if target.username is not None:
            flags |= 0x80
            fields += _text(target.username)
        if target.password is not None:
            flags |= 0x40
            fields += _text(target.password.reveal().encode("utf-8", "surrogateescape"))
        head = _text("MQTT") + struct.pack("!BBH", self._version, flags, 0)
        self._send(packets.CONNECT << 4, head + (b"\0" if self._version == 5 else b"") + fields)
        self._expect(packets.CONNACK)

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def _send(self, first: int, body: bytes) -> None:
        if len(body) > packets.LARGEST_LENGTH:
            raise UsageError("the message is larger than MQTT's 256 MiB")
        try:
            self._ready().sendall(bytes([first]) + packets.encode_length(len(body)) + body)
        except OSError as error:
            # A broker that refuses sends its reason and closes at once. The reason says more.
            self._fail_with_reason(error)

    def _expect(self, kind: int) -> None:
        """Wait for an answer of this kind; raises the error that a refusal stands for."""
        try:
            first, body = self._receive(kind, packets.DISCONNECT)
        except OSError as error:
            self._fail(error)
        if first >> 4 == packets.DISCONNECT:
            self._refused(body[0] if body else 0)
        if kind == packets.PINGRESP:
            return
        if kind == packets.CONNACK:
            code = body[1] if len(body) > 1 else _FAILURE
        else:
            if body[:2] != struct.pack("!H", self._packet_id):
                raise UnavailableError(f"{self._target.shown} acknowledged another message")
            code = body[2] if len(body) > 2 and self._version == 5 else 0
        if kind == packets.CONNACK:  # a 3.1.1 broker answers MQTT 5 with its own codes, too
            code = _CODES_OF_3_1_1.get(code, code)
        if kind == packets.CONNACK and code == 0x84 and self._version == 5:
            raise _OldBroker
        if code >= _FAILURE:
            self._refused(code)

    def _receive(self, *kinds: int) -> tuple[int, bytes]:
        """Read the next packet; returns its first byte and its body.

        Raises ``UnavailableError`` if it is not of one of these kinds.
        """
        strange = UnavailableError(f"{self._target.shown} does not answer as an MQTT broker does")
        header = self._read(1)
        if header[0] >> 4 not in kinds:
            raise strange
        try:
            while (found := packets.frame(header, 0, _LARGEST_ANSWER)) is None:
                header += self._read(1)
        except packets.PacketError:
            raise strange from None
        start, end = found
        return header[0], self._read(end - start)

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

    def _fail_with_reason(self, error: OSError) -> NoReturn:
        try:
            first, body = self._receive(packets.CONNACK, packets.DISCONNECT)
        except (OSError, UnavailableError):
            self._fail(error)
        place = 1 if first >> 4 == packets.CONNACK else 0
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
