"""Why a connection to another broker failed or ended: a kind, a sentence, an advice.

A refusal often looks like a broken connection: brokers close without a word where MQTT 3.1.1 has
none, and a cluster that elects a leader closes before its CONNACK. So the cause depends on what was
under way as well. Not for: what a bridge does about it (bridge.py, backoff.py).
References are to MQTT 5 unless said otherwise.
"""

from __future__ import annotations

import enum
import errno
import socket
import ssl

import msgspec

from appliance.errors import ApplianceError
from appliance.known_secrets import KnownSecrets
from appliance.log.sanitize import escape
from appliance.mqtt.reasons import FAILURE

_LONGEST_TEXT = 200
"""Characters of a remote's own words that are kept."""


class Kind(enum.Enum):
    """What went wrong, for the pace of the next attempts and for tests."""

    NAME = "name not found"
    UNREACHABLE = "out of reach"
    NOTHING_LISTENS = "nothing listens"
    FILES = "file"
    TLS = "no TLS"
    CERTIFICATE = "certificate"
    CLIENT_CERTIFICATE = "client certificate"
    WEBSOCKET = "no WebSocket"
    NO_ANSWER = "no answer"
    CLOSED_EARLY = "closed before CONNACK"
    VERSION = "protocol version"
    CLIENT_ID = "client id refused"
    PASSWORD = "wrong password"  # noqa: S105 - the name of a cause
    NOT_AUTHORIZED = "not authorised"
    UNAVAILABLE = "not available"
    BANNED = "banned"
    QUOTA = "quota"
    TOO_LARGE = "too large"
    TAKEN_OVER = "client id taken over"
    MOVED = "server moved"
    SUBSCRIPTION = "subscription refused"
    PUBLISH = "publish refused"
    PROTOCOL = "not MQTT"
    REFUSED = "refused"
    CLOSED = "closed"
    INTERNAL = "internal error"


LASTING = frozenset(
    {
        Kind.FILES,
        Kind.TLS,
        Kind.CERTIFICATE,
        Kind.CLIENT_CERTIFICATE,
        Kind.WEBSOCKET,
        Kind.VERSION,
        Kind.CLIENT_ID,
        Kind.PASSWORD,
        Kind.NOT_AUTHORIZED,
        Kind.BANNED,
        Kind.TAKEN_OVER,
        Kind.MOVED,
        Kind.PROTOCOL,
        Kind.INTERNAL,
    }
)
"""What does not get well until somebody changes something, so that an operator is told at once."""


class Cause(msgspec.Struct, frozen=True):
    """Why a connection failed or ended."""

    kind: Kind
    text: str
    """A clause without a full stop, safe to show."""
    advice: str = ""
    """What to do about it, if something can be done."""
    code: int = 0
    """The reason code of MQTT 5 behind it, 0 if there is none."""
    server: str = ""
    """The other server that the broker names, ``"host:port"`` or whatever it wrote."""

    is_of_broker: bool = False
    """Whether the broker ended the connection, and not the network or this side."""

    def __str__(self) -> str:
        return f"{self.text}: {self.advice}" if self.advice else self.text


class HandshakeError(Exception):
    """The remote does not open a WebSocket; the text says what it answered."""


_PORT_ADVICE = "check host and port, and that the broker runs"
_OF_CODES: dict[int, tuple[Kind, str, str]] = {
    0x80: (Kind.REFUSED, "refused without a reason", "the broker's log may say more"),
    0x81: (Kind.PROTOCOL, "the broker can't read what was sent", ""),
    0x82: (Kind.PROTOCOL, "the broker calls it a protocol error", ""),
    0x83: (Kind.REFUSED, "refused by the broker's own rules", "the broker's log may say more"),
    0x84: (Kind.VERSION, "the broker does not speak this version of MQTT", "set `version`"),
    0x85: (Kind.CLIENT_ID, "the client id is refused", "set `client_id`"),
    0x86: (Kind.PASSWORD, "wrong password or user name", "set `username` and `password`"),
    0x87: (
        Kind.NOT_AUTHORIZED,
        "not authorised",
        "check `username` and `password`, and what the broker permits this user and client id",
    ),
    0x88: (Kind.UNAVAILABLE, "the broker is not available now", ""),
    0x89: (Kind.UNAVAILABLE, "the broker is busy", ""),
    0x8A: (Kind.BANNED, "the broker has banned this client", "ask its operator"),
    0x8B: (Kind.UNAVAILABLE, "the broker is shutting down", ""),
    0x8C: (
        Kind.NOT_AUTHORIZED,
        "the broker wants another way to sign in",
        "only user name and password, and certificates are supported",
    ),
    0x8D: (Kind.NO_ANSWER, "the broker heard nothing in time", "raise `keepalive`"),
    0x8E: (
        Kind.TAKEN_OVER,
        "another client uses this client id",
        "give this bridge a `client_id` of its own",
    ),
    0x8F: (Kind.SUBSCRIPTION, "the topic filter is refused", "check `topic`"),
    0x90: (Kind.PUBLISH, "the topic of a message is refused", "check `publish`"),
    0x93: (Kind.QUOTA, "more was sent than the broker takes at a time", ""),
    0x94: (Kind.PROTOCOL, "a topic alias is not accepted", ""),
    0x95: (Kind.TOO_LARGE, "a packet is larger than the broker takes", "set `max_packet_size`"),
    0x96: (Kind.QUOTA, "messages go out faster than the broker takes", "set `max_rate`"),
    0x97: (Kind.QUOTA, "a quota of the broker is used up", "raise it there, or set `max_rate`"),
    0x98: (Kind.REFUSED, "an operator of the broker ended the connection", ""),
    0x9A: (Kind.PUBLISH, "the broker keeps no retained messages", "set `retained = false`"),
    0x9B: (Kind.PUBLISH, "the broker does not offer this quality of service", "set `qos = 0`"),
    0x9C: (Kind.MOVED, "the broker names another server for now", "set `follow_redirects`"),
    0x9D: (Kind.MOVED, "the broker has moved to another server", "set `host`, `port`"),
    0x9E: (Kind.SUBSCRIPTION, "the broker has no shared subscriptions", "leave out `share`"),
    0x9F: (Kind.QUOTA, "too many connections in a short time", "the next attempts come later"),
    0xA0: (Kind.QUOTA, "the broker ends connections after their time", ""),
    0xA1: (Kind.SUBSCRIPTION, "the broker has no subscription identifiers", ""),
    0xA2: (Kind.SUBSCRIPTION, "the broker allows no wildcards in topic filters", "check `topic`"),
}

_WRONG_NAME = frozenset({62, 63, 64})
_EXPIRED, _NOT_YET_VALID = 10, 9
_UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21})
"""OpenSSL's codes ``X509_V_ERR_...`` (x509_vfy.h)."""
_NOT_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL", "HTTP_REQUEST")
_OLD_TLS = ("PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE")
_REFUSING_ALERTS = (
    "CERTIFICATE_REQUIRED",
    "HANDSHAKE_FAILURE",
    "BAD_CERTIFICATE",
    "UNKNOWN_CA",
    "CERTIFICATE_UNKNOWN",
    "CERTIFICATE_EXPIRED",
    "CERTIFICATE_REVOKED",
    "ACCESS_DENIED",
)


class Causes:
    """Makes causes for one bridge; the remote's own words lose the bridge's secrets."""

    def __init__(self, secrets: KnownSecrets, *, has_certificate: bool, has_tls: bool) -> None:
        self._secrets = secrets
        self._has_certificate = has_certificate
        self._has_tls = has_tls

    def said(self, text: str) -> str:
        """A remote's own words, safe to show: bounded, on one line, without our secrets."""
        masked = self._secrets.mask(text[: 4 * _LONGEST_TEXT])
        shown = escape(masked[:_LONGEST_TEXT])
        return f"{shown} ..." if len(masked) > _LONGEST_TEXT else shown

    def of_code(self, code: int, reason: str = "", *, server: str = "") -> Cause:
        """A reason code of MQTT 5 in a CONNACK, a SUBACK or a DISCONNECT.

        Args:
            code: 0x80 or more.
            reason: the remote's reason string.
            server: the remote's server reference.
        """
        kind, text, advice = _OF_CODES.get(
            code, (Kind.REFUSED, f"refused with reason code {code:#04x}", "")
        )
        if reason:
            text += f" (it says: {self.said(reason)})"
        if server:
            text += f", {self.said(server)}"
        return Cause(kind, text, advice, code, server, is_of_broker=True)

    def of_connack(self, code: int, version: int, reason: str = "", *, server: str = "") -> Cause:
        """A CONNACK that refuses.

        Args:
            code: the reason code; that of MQTT 3.1.1 as ``decode_connack`` translates it.
            version: the version of the CONNECT, 4 or 5.
            reason: the remote's reason string.
            server: the remote's server reference.
        """
        cause = self.of_code(code, reason, server=server)
        if version < 5 and cause.kind is Kind.NOT_AUTHORIZED:
            # mosquitto answers so for a wrong password.
            text = "not authorised, or wrong password or user name"
            return msgspec.structs.replace(cause, text=text)
        return cause

    def of_disconnect(self, code: int, reason: str = "", *, server: str = "") -> Cause:
        """A DISCONNECT from the broker."""
        if code < FAILURE:
            text = "the broker ended the connection"
            if reason:
                text += f" (it says: {self.said(reason)})"
            return Cause(Kind.CLOSED, text, is_of_broker=True)
        return self.of_code(code, reason, server=server)

    def of_protocol(self, text: str) -> Cause:
        """A packet that MQTT does not permit."""
        return Cause(Kind.PROTOCOL, f"it breaks the protocol: {self.said(text)}")

    def of_message(self, topic: str) -> Cause:
        """The broker closed the connection right after a message, more than once."""
        return Cause(
            Kind.PUBLISH,
            f"the broker closed the connection right after a message on {self.said(topic)}",
            "check `publish` and what the broker permits",
            is_of_broker=True,
        )

    def of_error(self, error: BaseException) -> Cause:
        """What the operating system or TLS says, before or while the connection is open."""
        if isinstance(error, ApplianceError):
            return Cause(Kind.FILES, str(error))
        if isinstance(error, HandshakeError):
            advice = "check `port`, `path`, and that MQTT over WebSocket is enabled there"
            return Cause(Kind.WEBSOCKET, self.said(str(error)), advice)
        if isinstance(error, ssl.SSLError):
            return self._of_tls(error)
        if isinstance(error, TimeoutError):
            return Cause(Kind.NO_ANSWER, "no answer in time", _PORT_ADVICE)
        if isinstance(error, socket.gaierror | UnicodeError):
            return Cause(Kind.NAME, "the host name can't be resolved", "check `host` and DNS")
        if isinstance(error, ConnectionRefusedError):
            return Cause(Kind.NOTHING_LISTENS, "nothing listens there", _PORT_ADVICE)
        if isinstance(error, ConnectionError):
            return self.of_silent_end()
        if isinstance(error, OSError):
            if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
                return Cause(Kind.UNREACHABLE, "the network does not reach it", "check routes")
            # asyncio joins the errors of several addresses into one text.
            if "Multiple exceptions" in str(error):
                return Cause(Kind.UNREACHABLE, "none of its addresses answers", _PORT_ADVICE)
            said = self.said(error.strerror or str(error) or type(error).__name__)
            return Cause(Kind.UNREACHABLE, f"it can't be reached ({said})", _PORT_ADVICE)
        return Cause(Kind.INTERNAL, f"internal error ({type(error).__name__})", "the log has it")

    def of_silent_end(self) -> Cause:
        """The connection was closed before the CONNACK, without a word."""
        advice = "this is retried: a cluster does so while it elects a leader"
        if not self._has_tls:
            advice += "; or the port wants TLS, or `version` is one that it does not speak"
        elif self._has_certificate:
            advice += "; or there is no TLS on this port"
        else:
            advice += (
                "; or it wants a client certificate (`tls.certfile`), or has no TLS on this port"
            )
        return Cause(Kind.CLOSED_EARLY, "it closed the connection before its answer", advice)

    def _of_tls(self, error: ssl.SSLError) -> Cause:
        name = f"{error.reason or ''} {error}".upper().replace(" ", "_")
        code = getattr(error, "verify_code", None)
        if code in _WRONG_NAME:
            return Cause(
                Kind.CERTIFICATE,
                "the broker's certificate is for another name",
                "set `host` or `tls.server_name` to the name in it",
            )
        if code == _EXPIRED:
            text = "the broker's certificate, or an authority of it, has expired"
            return Cause(Kind.CERTIFICATE, text, "renew it, or set this machine's clock")
        if code == _NOT_YET_VALID:
            text = "the broker's certificate is not valid yet"
            return Cause(Kind.CERTIFICATE, text, "check the clocks of both machines")
        if code in _UNKNOWN_AUTHORITY:
            return Cause(
                Kind.CERTIFICATE,
                "the broker's certificate is signed by an authority that is not trusted here",
                "set `tls.ca_file` to that authority's certificate",
            )
        if isinstance(error, ssl.SSLCertVerificationError):
            text = f"the broker's certificate can't be verified ({self.said(error.verify_message)})"
            return Cause(Kind.CERTIFICATE, text)
        if any(sign in name for sign in _NOT_TLS):
            return Cause(Kind.TLS, "there is no TLS on this port", "check `port`, or leave out tls")
        if any(sign in name for sign in _REFUSING_ALERTS):
            if self._has_certificate:
                return Cause(
                    Kind.CLIENT_CERTIFICATE,
                    "the broker does not accept the client certificate",
                    "check `tls.certfile` and `tls.keyfile`",
                )
            return Cause(
                Kind.CLIENT_CERTIFICATE,
                "the broker wants a client certificate",
                "set `tls.certfile` and `tls.keyfile`",
            )
        if any(sign in name for sign in _OLD_TLS):
            text = "the broker speaks only versions of TLS that are no longer safe"
            return Cause(Kind.TLS, text, "enable TLS 1.2 there")
        if "EOF" in name:
            return self.of_silent_end()
        return Cause(Kind.TLS, f"TLS failed ({self.said(error.reason or str(error))})")
