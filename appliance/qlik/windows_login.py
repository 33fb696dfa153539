"""Signing in the Windows way (NTLM), which ``requests-ntlm`` does on sessions of ``requests``.

NTLM signs a connection in, over several requests on it, so a session with a connection of its own
is what each call gets here; the cookies are shared, because a proxy allows a user few sessions.
Imported only where ``[qlik] ntlm`` asks for it. Not for: any other way in (connections.py).
"""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.cookies import RequestsCookieJar
from urllib3 import BaseHTTPResponse

from appliance.qlik.connections import IDLE_LIMIT, Sockets, environment_proxy


class SignedSessions:
    """An ``Exchange`` whose connections are signed in."""

    def __init__(
        self,
        base_url: str,
        *,
        tls: ssl.SSLContext | None,
        timeout_s: float,
        auth: Callable[[], requests.auth.AuthBase],
    ) -> None:
        """Start without connections.

        Args:
            base_url: scheme, host and port; the rest is not looked at.
            tls: for ``https``; ``None`` if only ``http`` is used.
            timeout_s: seconds to connect, and between two pieces of an answer.
            auth: makes the authentication handler of a session (it keeps state).
        """
        parts = urlsplit(base_url)
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._tls = tls
        self._timeout_s = timeout_s
        self._auth = auth
        self._sockets = Sockets()
        self._cookies = RequestsCookieJar()
        self._idle: list[requests.Session] = []
        self._is_closed = False
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def answer(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None
    ) -> Iterator[BaseHTTPResponse]:
        """Send one request; see ``Exchange.answer``."""
        with (
            self._session() as session,
            session.request(
                method,
                self._origin + target,
                headers=dict(headers),
                data=body,
                timeout=self._timeout_s,
                allow_redirects=False,
                stream=True,
            ) as response,
        ):
            yield cast("BaseHTTPResponse", response.raw)

    def forget_cookies(self) -> None:
        self._cookies.clear()

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            sessions, self._idle = self._idle, []
        self._sockets.cut()
        for session in sessions:
            session.close()

    @contextlib.contextmanager
    def _session(self) -> Iterator[requests.Session]:
        """A session for one call: an idle one, whose connection is signed in, or a new one."""
        with self._lock:
            session = self._idle.pop() if self._idle else None
        if session is None:
            session = self._new_session()
        try:
            yield session
        except BaseException:
            session.close()  # Its connection is in a state that nobody knows.
            raise
        with self._lock:
            kept = not self._is_closed and len(self._idle) < IDLE_LIMIT
            if kept:
                self._idle.append(session)
        if not kept:
            session.close()

    def _new_session(self) -> requests.Session:
        session = requests.Session()
        # Not the environment: a .netrc would replace our own sign-in.
        session.trust_env = False
        proxy = environment_proxy(self._origin)
        session.proxies = {"all": proxy} if proxy else {}
        session.cookies = self._cookies
        session.headers.clear()  # All that is sent is given with each request.
        session.auth = self._auth()
        for scheme in ("https://", "http://"):
            # No retries: the appliance's rule is that a POST is never repeated by itself.
            adapter = _Adapter(self._tls, pool_connections=2, pool_maxsize=2, max_retries=0)
            adapter.poolmanager.pool_classes_by_scheme = self._sockets.pools
            session.mount(scheme, adapter)
        return session


class _Adapter(HTTPAdapter):
    def __init__(self, context: ssl.SSLContext | None, **settings: Any) -> None:
        self._context = context
        super().__init__(**settings)

    def init_poolmanager(self, *args: Any, **settings: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._context, **settings)

    def proxy_manager_for(self, proxy: str, **settings: Any) -> Any:
        return super().proxy_manager_for(proxy, ssl_context=self._context, **settings)

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        del url, verify, cert  # All of it is in the context, and verifying is not optional.
        conn.cert_reqs = "CERT_REQUIRED"
