"""Lets requests in: by the users file, plugins, tokens, or without a name where that is allowed.

A password that was right before, and a token, need no other thread. Everything else waits in the
broker's queue of logins, as a CONNECT does (broker/access.py). Not for: what a user may do
(caller.py), the header (credentials.py).
"""

from __future__ import annotations

import hmac
import logging
import secrets
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request

from appliance.broker.access import Proof
from appliance.counters import Counter
from appliance.http_api.credentials import ASK_BASIC, WRONG_TOKEN, Basic, Bearer, credentials_of
from appliance.http_api.problem import ProblemError
from appliance.model import HTTP_CLIENT
from appliance.mqtt.packets import Connect, PacketError

if TYPE_CHECKING:
    from appliance.broker.plugins import PluginClient
    from appliance.http_api.context import Context

logger = logging.getLogger(__name__)

_FRESH_S = 0.02
"""The files of users and tokens are looked at again after this time, by the next request."""
_LOGIN_S = 15.0
_REMEMBERED = 1000
"""Callers whom plugins know; 1 KB each."""
_LONGEST_NAME = 1024
"""Bytes of a user name, as for MQTT (broker/connect.py)."""


class SignedIn(msgspec.Struct, frozen=True):
    """Who sent a request."""

    username: str | None
    plugin_client: PluginClient | None = None
    """How plugins know the caller, where there are any."""


class _Known(msgspec.Struct):
    signed_in: SignedIn
    proof: Proof
    until: float


class SignIn:
    """One for each HTTP server. The server's loop only."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._looked_at = 0.0
        self._key = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._held = 0

    async def admit(self, request: Request, host: str, port: int) -> SignedIn:
        """Let a request in that came from an address.

        Raises:
            ProblemError: 401, the credentials are missing or wrong; 503, too many logins wait, or a
                plugin does not answer.
        """
        shown = credentials_of(request.headers.getlist("authorization"))
        appliance = self._context.appliance
        if isinstance(shown, Bearer):
            return await self._by_token(shown.token, host, port)
        if shown.name is not None and len(shown.name.encode()) > _LONGEST_NAME:
            self._context.count(Counter.CONNECTIONS_REFUSED_USER_NAME_TOO_LONG)
            raise ProblemError(
                401, f"A user name has at most {_LONGEST_NAME} bytes.", headers=ASK_BASIC
            )
        access = appliance.access
        if appliance.plugins is not None:
            return await self._by_plugins(shown, host, port)
        if access.admit_at_once(shown.name, shown.password) is not None:
            return SignedIn(shown.name)
        if shown.name is not None and shown.password is not None:
            await self._look_at_files()
            if access.remembered(shown.name, shown.password) is not None:
                return SignedIn(shown.name)
        elif shown.name is None:
            # No guess, so there is nothing to hold: browsers and tools ask this way first.
            raise self._refusal(shown)
        signed_in, _ = await self._checked(shown, host, port)
        return signed_in

    async def _look_at_files(self) -> None:
        """See a change of users or tokens; requests that come together look once."""
        now = time.monotonic()
        if now - self._looked_at < _FRESH_S:
            return
        await self._context.in_worker(self._context.appliance.access.refresh)
        self._looked_at = now

    async def _by_token(self, token: str, host: str, port: int) -> SignedIn:
        appliance = self._context.appliance
        await self._look_at_files()
        user = appliance.access.token_user(token, appliance.clock_ns() / 1e9)
        if user is None:
            await self._context.on_engine(lambda: appliance.access.refuse(host), _LOGIN_S)
            raise ProblemError(
                401,
                "The token is unknown or has expired, or its user is gone; make one with"
                " appliance user token add NAME --label LABEL.",
                headers=WRONG_TOKEN,
            )
        if appliance.plugins is None:
            return SignedIn(user)
        digest = self._digest_of("bearer", host, token.encode())
        if (known := self._known_by(digest)) is not None:
            return known.signed_in
        client = await self._plugin_client(Basic(user), host, port)
        found = SignedIn(user, client)
        self._remember(digest, found, Proof())
        return found

    async def _by_plugins(self, shown: Basic, host: str, port: int) -> SignedIn:
        digest = self._digest_of(shown.name or "", host, shown.password or b"")
        await self._look_at_files()
        known = self._known_by(digest)
        access = self._context.appliance.access
        if known is not None and access.still_admits(shown.name, known.proof):
            return known.signed_in
        signed_in, proof = await self._checked(shown, host, port)
        self._remember(digest, signed_in, proof)
        return signed_in

    async def _checked(self, shown: Basic, host: str, port: int) -> tuple[SignedIn, Proof]:
        """Have the broker check credentials, which may take seconds."""
        context = self._context
        access = context.appliance.access
        plugins = context.appliance.plugins
        client = await self._plugin_client(shown, host, port)

        async def ask() -> Proof | None:
            try:
                return await access.admit(shown.name, shown.password, host, client)
            finally:
                if plugins is not None and client is not None:
                    plugins.came_in(client)

        self._make_room()
        self._held += 1
        try:
            # A client that leaves cancels this, and with it the login.
            proof = await context.on_engine(ask, _LOGIN_S)
        except PacketError as error:
            raise ProblemError(
                503, f"The login can't be checked now: {error}.", headers={"Retry-After": "5"}
            ) from None
        finally:
            self._held -= 1
        if proof is None:
            raise self._refusal(shown)
        return SignedIn(shown.name, client), proof

    def _make_room(self) -> None:
        """Guessers who wait for their answers must not have all connections: one is answered."""
        if self._held < self._context.config.http.max_connections // 2:
            return
        loop = self._context.appliance.loop
        if loop is not None:
            loop.call_soon_threadsafe(self._context.appliance.access.make_room, None)

    async def _plugin_client(self, shown: Basic, host: str, port: int) -> PluginClient | None:
        plugins = self._context.appliance.plugins
        if plugins is None:
            return None
        asked = Connect(5, HTTP_CLIENT, True, 0, shown.name, shown.password)

        async def make() -> PluginClient:
            return plugins.client(asked, HTTP_CLIENT, (host, port), None)

        return await self._context.on_engine(make)

    def _refusal(self, shown: Basic) -> ProblemError:
        text = (
            "A user name and password (Basic) or a token (Bearer) are needed."
            if shown.name is None
            else "The user name or the password is wrong."
        )
        return ProblemError(401, text, headers=ASK_BASIC)

    def _digest_of(self, name: str, host: str, secret: bytes) -> bytes:
        shown = msgspec.msgpack.encode((name, host, secret))
        return hmac.digest(self._key, shown, "sha256")

    def _known_by(self, digest: bytes) -> _Known | None:
        found = self._known.get(digest)
        return None if found is None or found.until <= time.monotonic() else found

    def _remember(self, digest: bytes, signed_in: SignedIn, proof: Proof) -> None:
        cache_s = self._context.config.access.plugin_cache
        self._known[digest] = _Known(signed_in, proof, time.monotonic() + cache_s)
        self._known.move_to_end(digest)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
