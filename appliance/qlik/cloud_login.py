"""Signing in to Qlik Cloud: an API key, or tokens of an OAuth client.

Source: qlik.dev, "OAuth machine-to-machine" (docs/qlik.md, "Qlik Cloud"). Not for: what is then
asked (cloud.py).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from appliance.qlik import deadlines, rows
from appliance.qlik.cloud_errors import expect_success
from appliance.qlik.failures import status_error, unexpected_error
from appliance.qlik.transport import Transport
from appliance.secret import Secret

_TOKEN_MARGIN_NS = 60_000_000_000


class TokenSource(Protocol):
    """Where the bearer token comes from."""

    def token(self) -> str:
        """A token that is valid as far as is known. May raise ``QlikError``."""

    def refused(self, token: str) -> bool:
        """Note that the server refused a token; returns whether another one can be requested."""


class ApiKey:
    """An API key is the token."""

    def __init__(self, key: Secret) -> None:
        self._key = key

    def token(self) -> str:
        return self._key.reveal()

    def refused(self, token: str) -> bool:  # noqa: ARG002  # there is no other key
        return False


class OAuth:
    """Tokens of an OAuth client (machine to machine), fetched when needed and before they end."""

    def __init__(
        self,
        transport: Transport,
        client_id: str,
        client_secret: Secret,
        *,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Prepare; nothing is sent.

        Args:
            transport: to the tenant.
            client_id: of the OAuth client.
            client_secret: of the OAuth client.
            clock: nanoseconds since the epoch.
        """
        self._transport = transport
        self._client_id = client_id
        self._client_secret = client_secret
        self._clock = clock
        self._lock = threading.Lock()
        self._token = Secret("")
        self._until_ns = 0

    def token(self) -> str:
        with deadlines.locked(self._lock, f"POST {self._transport.base_url}/oauth/token"):
            if not self._token or self._clock() >= self._until_ns:
                self._fetch()
            return self._token.reveal()

    def refused(self, token: str) -> bool:
        with self._lock:
            # Another thread may have fetched a new one meanwhile: that one was not refused.
            if token == self._token.reveal():
                self._token = Secret("")
        return True

    def _fetch(self) -> None:
        reply = self._transport.call(
            "POST",
            "/oauth/token",
            json_body={
                "grant_type": "client_credentials",
                "client_id": self._client_id,
                "client_secret": self._client_secret.reveal(),
            },
        )
        if reply.status in {400, 401, 403}:
            # The body is not shown: it may repeat parts of the request.
            raise status_error(
                reply.where,
                reply.status,
                "",
                reply.headers,
                advice="Check [qlik] client_id and client_secret_file; the OAuth client must be "
                "of type Web, allow M2M and be published in the tenant.",
            )
        expect_success(reply)
        answer = reply.json()
        token = answer.get("access_token") if isinstance(answer, Mapping) else None
        if not isinstance(token, str) or not token:
            raise unexpected_error(reply.where, "no access_token")
        lifetime_s = rows.number(answer, "expires_in")
        lifetime_ns = lifetime_s * 1_000_000_000
        # A short lifetime is halved rather than made negative by the margin.
        margin_ns = min(_TOKEN_MARGIN_NS, lifetime_ns // 2)
        self._token = Secret(token)
        self._transport.know(self._token)
        self._until_ns = self._clock() + lifetime_ns - margin_ns
