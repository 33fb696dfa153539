"""What takes more than a connection: a proxy in between, or NTLM; done by ``requests``.

NTLM authenticates a connection with several requests on it, so a session with its own connection
is what each call gets here; the cookies are shared, because a proxy allows a user few sessions.
Imported only where it is needed. Not for: any other way in (connections.py).
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.cookies import RequestsCookieJar
from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool, ProxyManager
from urllib3.exceptions import LocationParseError, ProxyError

from appliance.qlik import deadlines
from appliance.qlik.bodies import Body
from appliance.qlik.connections import Pool, Sockets


class Sessions:
    """An ``Exchange`` over sessions of ``requests``."""

    def __init__(
        self,
        base_url: str,
        *,
        tls: ssl.SSLContext | None,
        timeout_s: float,
        proxy: str,
        auth: Callable[[], requests.auth.AuthBase] | None,
    ) -> None:
        """Start without connections.

        Args:
            base_url: scheme, host and port; the rest is not looked at.
            tls: for ``https``; ``None`` if only ``http`` is used.
            timeout_s: seconds to connect, and between two pieces of an answer.
            proxy: address of an HTTP proxy, perhaps with a password, or nothing.
            auth: makes the authentication handler of a session (it keeps state), if there is one.
        """
        parts = urlsplit(base_url)
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._tls = tls
        self._timeout_s = timeout_s
        self._proxies = {"all": proxy} if proxy else {}
        self._auth = auth
        self._sockets = Sockets()
        self._cookies = RequestsCookieJar()
        self._pool: Pool[requests.Session] = Pool()

    @contextlib.contextmanager
    def answer(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | Body | None,
    ) -> Iterator[BaseHTTPResponse]:
        """Send one request; see ``Exchange.answer``."""
        with self._pool.one(self._new_session) as session:
            try:
                response = session.request(
                    method,
                    self._origin + target,
                    headers=dict(headers),
                    data=body,
                    timeout=deadlines.timeout_s(self._timeout_s),
                    allow_redirects=False,
                    stream=True,
                )
            except (LocationParseError, requests.exceptions.InvalidURL) as error:
                if not self._proxies:
                    raise
                # The server's address was checked with the configuration, so the proxy's is wrong.
                raise ProxyError("The proxy's address is not one", error) from None
            with response:
                yield cast("BaseHTTPResponse", response.raw)

    def forget_cookies(self) -> None:
        self._cookies.clear()

    def close(self) -> None:
        self._sockets.cut()
        self._pool.close()

    def _new_session(self) -> requests.Session:
        session = requests.Session()
        # The environment is not trusted: a .netrc would replace the configured sign-in.
        session.trust_env = False
        session.proxies = dict(self._proxies)
        session.cookies = self._cookies
        session.headers.clear()  # Each request has all its headers.
        if self._auth is not None:
            session.auth = self._auth()
        for scheme in ("https://", "http://"):
            # No retries: the appliance never repeats a POST by itself.
            adapter = _Adapter(
                self._tls, self._sockets, pool_connections=2, pool_maxsize=2, max_retries=0
            )
            session.mount(scheme, adapter)
        return session


class _Adapter(HTTPAdapter):
    def __init__(self, context: ssl.SSLContext | None, sockets: Sockets, **settings: Any) -> None:
        self._context = context
        self._pools = _pools(sockets)
        super().__init__(**settings)

    def init_poolmanager(self, *args: Any, **settings: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._context, **settings)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **settings: Any) -> Any:
        manager = super().proxy_manager_for(proxy, ssl_context=self._context, **settings)
        if isinstance(manager, ProxyManager):  # SOCKS has its own pools.
            manager.pool_classes_by_scheme = self._pools
        return manager

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        del url, verify, cert  # The context has all of it, and it always verifies.
        conn.cert_reqs = "CERT_REQUIRED"


def _pools(sockets: Sockets) -> dict[str, type[HTTPConnectionPool]]:
    class Pool(HTTPConnectionPool):
        ConnectionCls = sockets.connection

    class TlsPool(HTTPSConnectionPool):
        ConnectionCls = sockets.tls_connection

    return {"http": Pool, "https": TlsPool}
