"""TLS on a connection that is counted from its accept on, not from the end of its handshake.

An event loop's own TLS server makes a connection known only once the handshake is done, so
connections that never finish it could not be bounded. Bytes that come before its ``start_tls`` is
under way can be lost. Here the standard library's ``SSLObject`` is fed by hand, the same way on
every loop. Not for: certificates (listener.py), MQTT and time-outs (connection.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable

from appliance.broker.access import origin_of
from appliance.broker.carrier_transport import Carrier
from appliance.broker.certificate_name import KNOWN_AS
from appliance.broker.sparse_log import SparseLogs
from appliance.counters import Count, Counter

logger = logging.getLogger(__name__)
_strangers = SparseLogs(logger)

_READ_BYTES = 256 * 1024
_UNUSABLE_LIST = frozenset({3, 5, 8, 11, 12, 15, 16})
"""OpenSSL's codes for a revocation list that is missing, unreadable, not signed by the authority,
not valid yet, expired, or has a wrong date (``X509_V_ERR_..._CRL_...`` of x509_vfy.h)."""


class TlsServer(Carrier):
    """Carries one connection over TLS.

    ``unusable_list`` is called with OpenSSL's text when a client can't come in because its
    authority's certificate revocation list can't be used.
    """

    def __init__(
        self,
        connection: asyncio.Protocol,
        context: ssl.SSLContext,
        *,
        identity_as_username: bool,
        unusable_list: Callable[[str], None],
        count: Count,
    ) -> None:
        super().__init__(connection, count)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._unusable_list = unusable_list
        self._known = {"ssl_object": self._tls, KNOWN_AS: identity_as_username}

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        try:
            if not self._is_open:
                self._tls.do_handshake()
                self._is_open = True
            while self._is_open:
                plain = self._tls.read(_READ_BYTES)
                if plain:
                    self._connection.data_received(plain)
                else:
                    # The client has ended TLS.
                    self.say_goodbye()
        except ssl.SSLWantReadError:
            self._flush()
        except (ssl.SSLError, ValueError) as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if not self._is_open:
            self._count(Counter.CONNECTIONS_ENDED_NO_TLS_HANDSHAKE)
        peer = self.below.get_extra_info("peername")
        if self._is_open:
            logger.info("%s: TLS ended the connection: %s", peer, error)
        else:
            origin = origin_of(str(peer[0])) if peer else ""
            _strangers.log(origin, logging.INFO, "%s: no TLS handshake: %s", peer, error)
        if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _UNUSABLE_LIST:
            self._unusable_list(error.verify_message)
        self._is_open = False
        # What OpenSSL has to say to the client (its alert) still goes out.
        self._flush()
        self.below.close()

    def _flush(self) -> None:
        if self._outgoing.pending and not self.below.is_closing():
            self.below.write(self._outgoing.read())

    def send(self, data: bytes) -> None:
        """Send bytes through TLS; before the handshake they are dropped."""
        if not self._is_open:
            return
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._tls.write(rest) :]
        except ssl.SSLError as error:
            self._fail(error)
        else:
            self._flush()

    def say_goodbye(self) -> None:
        """Close TLS, then the connection; before the handshake's end there is no TLS to close."""
        if self._is_open:
            self._is_open = False
            # The client's own goodbye is not waited for.
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            self._flush()
            self.below.close()
        else:
            self.below.abort()
