"""HTTP as both Qlik editions need it: one bounded request, and errors that say what to do.

Every call has a limit on connecting, on waiting, on its whole length and on the bytes it reads;
certificates are always verified; redirects are followed only while signing in and only on the same
server; nothing is ever repeated here. Thread-safe: each call has a ``requests`` session to itself,
from a pool, over one shared cookie jar, because a proxy allows a user few sessions (docs/qlik.md,
"Ways in").
Not for: paths, JSON shapes and retries.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

import msgspec
import requests
import urllib3
from requests.cookies import RequestsCookieJar

from appliance.config import is_loopback
from appliance.qlik.connections import Connections
from appliance.qlik.failures import (
    closed_error,
    exception_error,
    login_page_error,
    not_json_error,
    too_large_error,
    too_slow_error,
)

BODY_LIMIT = 64 * 1024 * 1024
_PIECE = 65536
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SIGN_IN_HOPS = 6
_IDLE_LIMIT = 8
"""Sessions that are kept for the next call; more only while more calls are under way."""


class Reply(msgspec.Struct, frozen=True):
    """An answer that has been read to its end."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    where: str
    """Method and address, without the query, for error texts."""
    elapsed_s: float = 0.0

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", "replace")

    @property
    def is_html(self) -> bool:
        kind = self.headers.get("content-type", "").lower()
        return "html" in kind or self.content[:64].lstrip().lower().startswith(
            (b"<!doctype html", b"<html")
        )

    @property
    def is_sign_in(self) -> bool:
        """Whether a proxy answers with its sign-in instead of the server with its answer."""
        return self.status in _REDIRECTS or (self.status < 400 and self.is_html)

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            QlikError: it is a login page or not JSON.
        """
        if self.is_sign_in:
            raise login_page_error(self.where)
        try:
            return _without_surrogates(json.loads(self.content), self.content)
        except ValueError:
            raise not_json_error(self.where, self.status) from None


def _without_surrogates(value: Any, source: bytes) -> Any:
    """Put a question mark where JSON escapes half of a surrogate pair (RFC 8259, section 8.2).

    No text file, topic or database takes such a half.
    """
    if b"\\ud" not in source and b"\\uD" not in source:
        return value
    return json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))


class Transport:
    """Requests to one server."""

    def __init__(
        self,
        base_url: str,
        *,
        timeout_s: float = 30.0,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        has_certificate: bool = False,
        auth: Callable[[], requests.auth.AuthBase] | None = None,
        body_limit: int = BODY_LIMIT,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Prepare requests; nothing is sent.

        Args:
            base_url: scheme, host, port and perhaps a prefix, without a slash at its end.
            timeout_s: seconds to connect, and between two pieces of an answer; a whole call
                may take four times as long.
            headers: sent with every request; may hold secrets.
            tls: for https: whom to trust, and our certificate if we have one; by default those
                that the system trusts.
            has_certificate: whether there is one, for error texts.
            auth: makes an authentication handler for a session (NTLM keeps state).
            body_limit: bytes of an answer that are read at most.
            clock: our time in nanoseconds since the epoch.
        """
        self.base_url = base_url
        self.clock_offset_s = 0.0
        """How far the server's clock is ahead of ours, from its last Date header (to 1 s)."""
        self._timeout_s = timeout_s
        self._headers = dict(headers or {})
        self._has_certificate = has_certificate
        self._auth = auth
        self._body_limit = body_limit
        self._clock = clock
        self._cookies = RequestsCookieJar()
        self._idle: list[requests.Session] = []
        self._lock = threading.Lock()
        if tls is None and base_url.startswith("https:"):
            tls = ssl.create_default_context()
        self._connections = Connections(tls)
        self._closed = False
        # An HTTP proxy of the environment can't reach our own loopback addresses.
        is_near = is_loopback(urlsplit(base_url).hostname or "")
        self._http_proxies = (
            {} if is_near else requests.utils.get_environ_proxies(base_url, no_proxy=None)
        )

    def server_time_ns(self, own_ns: int | None = None) -> int:
        """A time of ours (now without an argument) as the server's clock would show it."""
        own_ns = self._clock() if own_ns is None else own_ns
        return own_ns + int(self.clock_offset_s * 1e9)

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        json_body: object = None,
        keep_last: int | None = None,
    ) -> Reply:
        """Send one request and read its answer, whatever its status.

        Args:
            method: an HTTP method.
            path: is appended to the base URL.
            params: the query.
            headers: beside those that go with every request.
            json_body: is sent as JSON, if it is not ``None``.
            keep_last: keep only about this many of the body's last bytes (for logs), from the
                beginning of a line.

        Raises:
            QlikError: no answer, or one that is too large or too slow.
        """
        return self._send(
            method,
            self.base_url + path,
            params=params,
            headers=headers,
            json_body=json_body,
            keep_last=keep_last,
        )

    def sign_in(self, path: str, *, params: Mapping[str, str], headers: Mapping[str, str]) -> Reply:
        """A GET that follows redirects on the same server, as a proxy's sign-in needs it.

        Raises:
            QlikError: no answer, or the sign-in leads to a login form or elsewhere.
        """
        url = self.base_url + path
        asked: Mapping[str, str] | None = params
        for _ in range(_SIGN_IN_HOPS):
            reply = self._send("GET", url, params=asked, headers=headers)
            target = reply.headers.get("location")
            if reply.status not in _REDIRECTS or not target:
                return reply
            url, asked = urljoin(url, target), None
            if _origin(url) != _origin(self.base_url):
                break  # Never take our secrets to another server.
        raise login_page_error(f"GET {self._shown(self.base_url + path)}")

    def forget_cookies(self) -> None:
        """Drop the proxy's session, so that the next sign-in makes a new one."""
        self._cookies.clear()

    def close(self) -> None:
        """Close every connection; calls under way end with a ``QlikError``."""
        with self._lock:
            self._closed = True
            sessions, self._idle = self._idle, []
        self._connections.cut()
        for session in sessions:
            session.close()

    def _send(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        json_body: object = None,
        keep_last: int | None = None,
    ) -> Reply:
        where = f"{method} {self._shown(url)}"
        began = time.monotonic()
        try:
            with (
                self._session(where) as session,
                session.request(
                    method,
                    url,
                    params=params,
                    headers=headers,
                    json=json_body,
                    timeout=(self._timeout_s, self._timeout_s),
                    allow_redirects=False,
                    stream=True,
                ) as response,
            ):
                self._note_clock(response.headers.get("Date"))
                content = self._read(response, where, began, keep_last)
                return Reply(
                    response.status_code,
                    response.headers,
                    content,
                    where,
                    time.monotonic() - began,
                )
        except (
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            OSError,
            ValueError,
        ) as error:
            # ValueError: what the HTTP library raises for a socket that close() cut under it.
            if self._closed:
                raise closed_error(where) from None
            raise exception_error(
                error, where, timeout_s=self._timeout_s, has_certificate=self._has_certificate
            ) from None

    def _read(
        self,
        response: requests.Response,
        where: str,
        began: float,
        keep_last: int | None,
    ) -> bytes:
        limit_s = 4 * self._timeout_s
        body = bytearray()
        total = 0
        for piece in _pieces(response):
            total += len(piece)
            body += piece
            if keep_last is not None and len(body) > 2 * keep_last:
                # From a line's beginning: half a line could be a secret without its name.
                del body[: body.find(b"\n", len(body) - keep_last) + 1 or len(body)]
            if total > self._body_limit:
                raise too_large_error(where, self._body_limit)
            if time.monotonic() - began > limit_s:
                raise too_slow_error(where, limit_s)
        return bytes(body)

    @contextlib.contextmanager
    def _session(self, where: str) -> Iterator[requests.Session]:
        """A session for one call: an idle one, whose connection is warm, or a new one."""
        with self._lock:
            if self._closed:
                raise closed_error(where)
            session = self._idle.pop() if self._idle else None
        if session is None:
            session = self._new_session()
        try:
            yield session
        except BaseException:
            session.close()  # Its connection is in a state that nobody knows.
            raise
        with self._lock:
            kept = not self._closed and len(self._idle) < _IDLE_LIMIT
            if kept:
                self._idle.append(session)
        if not kept:
            session.close()

    def _new_session(self) -> requests.Session:
        session = requests.Session()
        # Not the environment: a .netrc would replace our Authorization header.
        session.trust_env = False
        session.proxies = dict(self._http_proxies)
        session.cookies = self._cookies
        session.headers.update(self._headers)
        if self._auth is not None:
            session.auth = self._auth()
        for scheme in ("https://", "http://"):
            session.mount(scheme, self._connections.adapter())
        return session

    def _note_clock(self, date: str | None) -> None:
        with contextlib.suppress(TypeError, ValueError):
            server_s = parsedate_to_datetime(date or "").timestamp()
            self.clock_offset_s = server_s - self._clock() / 1e9

    @staticmethod
    def _shown(url: str) -> str:
        return url.partition("?")[0]


def _pieces(response: requests.Response) -> Iterator[bytes]:
    """The body as it comes, decoded, so that limits are looked at between two pieces.

    Not ``iter_content``: that waits until a piece is full, however slowly it drips.
    """
    try:
        while piece := response.raw.read1(_PIECE, decode_content=True):
            yield piece
    except urllib3.exceptions.HTTPError as error:
        raise requests.exceptions.ChunkedEncodingError(error) from error


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port
