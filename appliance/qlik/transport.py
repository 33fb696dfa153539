"""HTTP as both Qlik editions need it: one bounded request, and errors that say what to do.

Every call has a limit on connecting, on waiting, on its whole length and on the bytes it reads;
certificates are always verified; redirects are followed only while signing in and only on the same
server; nothing is ever repeated here. Thread-safe: each call has a connection to itself while it
lasts. Not for: paths, JSON shapes and retries; connections and cookies (connections.py).
"""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.client import HTTPException
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urljoin, urlsplit

import msgspec
from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError

from appliance.clock import Clock
from appliance.known_secrets import KnownSecrets, address_secrets
from appliance.qlik import deadlines
from appliance.qlik.bodies import Body
from appliance.qlik.connections import Connections, Exchange, environment_proxy
from appliance.qlik.failures import (
    closed_error,
    exception_error,
    given_up_error,
    http_date_s,
    log_limit_error,
    login_page_error,
    not_json_error,
    too_large_error,
    too_many_values_error,
    too_slow_error,
)
from appliance.qlik.server import QlikError
from appliance.qlik.server_clock import ServerClock
from appliance.secret import Secret

if TYPE_CHECKING:
    from requests.auth import AuthBase

BODY_LIMIT = 64 * 1024 * 1024
LOG_LIMIT = 4 * 1024**3
"""Bytes of an answer of which only the end is kept: it takes time, but no memory."""
LOG_LIMIT_S = 300.0
"""Seconds for the same: a log of 1 GB at 4 MB/s."""
SLOWEST_UPLOAD = 32_000
"""Bytes a second: for so much of a body that is sent, a call may take a second longer."""
_PIECE = 65536
_MOST_VALUES = 5_000_000
"""Lists, objects and their items in one answer. A hundred thousand tasks have about that many, and
each may take a hundred bytes of memory."""
_PLAUSIBLE_S = (946_684_800.0, 7_258_118_400.0)
"""The years 2000 to 2200: a clock that shows another time is none to go by."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SIGN_IN_HOPS = 6
LEFT_OUT = "(The beginning of this log is left out here.)"
_LEAST_COOKIE = 8
"""Characters. A shorter value may be any word; a session's is longer."""
_MOST_COOKIES = 4
"""The newest, which a text may repeat."""


class Reply(msgspec.Struct, frozen=True):
    """An answer that has been read to its end."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    where: str
    """Method and address, without the query, for error texts."""
    elapsed_s: float = 0.0
    known: KnownSecrets = KnownSecrets()
    """What the answer may repeat of the request."""
    is_cut: bool = False
    """Whether only the end of the body was kept."""

    @property
    def log(self) -> str:
        """The body as the text of a log: its first line says if the beginning was left out."""
        return f"{LEFT_OUT}\n{self.text}" if self.is_cut else self.text

    @property
    def text(self) -> str:
        """The body, with the secrets of the request masked, for people."""
        return self.known.mask(self.content.decode("utf-8", "replace"))

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
            QlikError: it is a login page, not JSON, or has too many values.
        """
        if self.is_sign_in:
            raise login_page_error(self.where)
        # An error is read for its texts alone. Elsewhere a name or id must stay what it is.
        content = self.content if self.status < 400 else self.text.encode("utf-8", "replace")
        if sum(map(content.count, (b",", b"[", b"{"))) > _MOST_VALUES:
            raise too_many_values_error(self.where, _MOST_VALUES)
        try:
            return _without_surrogates(json.loads(content), content)
        except (ValueError, RecursionError):  # the second for lists within lists within lists
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
        ca_file: str | None = None,
        auth: Callable[[], AuthBase] | None = None,
        body_limit: int = BODY_LIMIT,
        secrets: Sequence[Secret] = (),
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Prepare requests; nothing is sent.

        Args:
            base_url: scheme, host, port and perhaps a prefix, without a slash at its end.
            timeout_s: seconds to connect, and between two pieces of an answer; a whole call
                may take four times as long.
            headers: sent with every request; may hold secrets.
            tls: for https: the trusted authorities, and the client certificate if there is one;
                by default the authorities that the system trusts.
            has_certificate: whether there is one, for error texts.
            ca_file: where the authorities are from, for error texts.
            auth: makes the handler that signs a connection in (NTLM).
            body_limit: bytes of an answer that are read at most.
            secrets: what the requests carry and no text may show.
            clock: our time in nanoseconds since the epoch.
        """
        self.base_url = base_url
        self.clock_offset_s = 0.0
        """Seconds that the server's clock is ahead, from its last Date header (to 1 s)."""
        parts = urlsplit(base_url)
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._prefix = parts.path
        self._timeout_s = timeout_s
        self._limit_s = 4 * timeout_s
        self._headers = {"Accept-Encoding": "gzip, deflate", **(headers or {})}
        self._has_certificate = has_certificate
        self._ca_file = ca_file
        self._body_limit = body_limit
        self._clock = clock
        self.server_clock = ServerClock(clock)
        self._stepped_ns = 0
        """How far our clock had been set when ``clock_offset_s`` was found out."""
        self._is_closed = False
        self._calls: set[deadlines.Deadline] = set()
        self._calls_lock = threading.Lock()
        proxy = environment_proxy(base_url)
        self._secrets = (*secrets, *address_secrets(proxy))
        self._token = Secret("")
        self._cookies: deque[Secret] = deque(maxlen=_MOST_COOKIES)
        self._known = KnownSecrets(*self._secrets)
        if tls is None and parts.scheme == "https":
            tls = ssl.create_default_context()
        self._exchange: Exchange
        if auth is None and not proxy:
            self._exchange = Connections(base_url, tls=tls, timeout_s=timeout_s)
        else:
            # Imported here, because only this branch needs the library.
            from appliance.qlik.sessions import Sessions  # noqa: PLC0415  see above

            self._exchange = Sessions(
                base_url, tls=tls, timeout_s=timeout_s, proxy=proxy, auth=auth
            )

    def mask(self, text: str) -> str:
        """A text without the secrets that the requests carry."""
        return self._known.mask(text)

    def know(self, token: Secret) -> None:
        """Mask this one, too. It replaces the one before, which is no longer sent."""
        self._token = token
        self._known = KnownSecrets(*self._secrets, token, *self._cookies)

    def _know_cookies(self, answered: list[str]) -> None:
        """Mask the cookies that an answer brought: a proxy's session is as good as a password."""
        for cookie in answered:
            value = cookie.partition(";")[0].partition("=")[2].strip().strip('"')
            if len(value) >= _LEAST_COOKIE and Secret(value) not in self._cookies:
                self._cookies.append(Secret(value))
                self._known = KnownSecrets(*self._secrets, self._token, *self._cookies)

    def server_time_ns(self, own_ns: int | None = None) -> int:
        """A local time (by default now) as the server's clock shows it."""
        own_ns = self._clock() if own_ns is None else own_ns
        return own_ns + int(self.clock_offset_s * 1e9) - (self._steps_ns() - self._stepped_ns)

    def own_time_ns(self) -> int:
        """The local time, nanoseconds since the epoch."""
        return self._clock()

    def _steps_ns(self) -> int:
        return self._clock.stepped_ns if isinstance(self._clock, Clock) else 0

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        json_body: object = None,
        body: Body | None = None,
        keep_last: int | None = None,
    ) -> Reply:
        """Send one request and read its answer, whatever its status.

        Args:
            method: an HTTP method.
            path: is appended to the base URL; may have the beginning of the query.
            params: the query, or the rest of it.
            headers: beside those that go with every request.
            json_body: is sent as JSON, if it is not ``None``.
            body: is sent instead, read from a file on the way; the call may take longer for it.
            keep_last: keep only about this many of the body's last bytes (for logs), from the
                beginning of a line; the body may then have ``LOG_LIMIT`` bytes and take
                ``LOG_LIMIT_S`` seconds.

        Raises:
            QlikError: no answer, or one that is too large or too slow.
        """
        content: bytes | Body | None = body
        if body is not None:
            length = {"Content-Type": body.kind, "Content-Length": str(len(body))}
            headers = {**(headers or {}), **length}
        elif json_body is not None:
            content = msgspec.json.encode(json_body)
            headers = {**(headers or {}), "Content-Type": "application/json"}
        return self._send(
            method,
            self._target(path, params),
            headers,
            body=content,
            keep_last=keep_last,
        )

    def sign_in(self, path: str, *, params: Mapping[str, str], headers: Mapping[str, str]) -> Reply:
        """A GET that follows redirects on the same server, as a proxy's sign-in needs it.

        Raises:
            QlikError: no answer, or the sign-in leads to a login form or elsewhere.
        """
        url = self._origin + self._target(path, params)
        with deadlines.within(self._limit_s):
            for _ in range(_SIGN_IN_HOPS):
                parts = urlsplit(url)
                query = f"?{parts.query}" if parts.query else ""
                reply = self._send(
                    "GET", f"{parts.path or '/'}{query}", headers, shown=f"{self._prefix}{path}"
                )
                location = reply.headers.get("location")
                if reply.status not in _REDIRECTS or not location:
                    return reply
                try:
                    url = urljoin(url, location)
                    if _origin(url) != _origin(self.base_url):
                        break  # Secrets never go to another server.
                except ValueError:  # the server's text is no address
                    break
        raise login_page_error(f"GET {self.base_url}{path}")

    def forget_cookies(self) -> None:
        """Drop the proxy's session, so that the next sign-in makes a new one."""
        self._exchange.forget_cookies()

    def give_up(self, older_than_s: float) -> None:
        """Break off the calls that began longer ago than this, in seconds. Any thread."""
        before_s = time.monotonic() - older_than_s
        with self._calls_lock:
            old = [one for one in self._calls if one.began_s < before_s]
        for call in old:
            call.give_up()

    def close(self) -> None:
        """Close every connection; calls under way end with a ``QlikError``."""
        self._is_closed = True
        self._exchange.close()

    def _target(self, path: str, params: Mapping[str, str] | None) -> str:
        if not params:
            return f"{self._prefix}{path}"
        return f"{self._prefix}{path}{'&' if '?' in path else '?'}{urlencode(params)}"

    def _send(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None,
        *,
        body: bytes | Body | None = None,
        keep_last: int | None = None,
        shown: str | None = None,
    ) -> Reply:
        known = self._known
        # Where a redirect leads is the server's text, which may repeat a part of a secret.
        path = shown if shown is not None else target.partition("?")[0]
        where = known.mask(f"{method} {self._origin}{path}")
        began = time.monotonic()
        sent_ns = self._clock()
        if self._is_closed:
            raise closed_error(where)
        all_headers = {**self._headers, **headers} if headers else self._headers
        limit_s = self._limit_s if keep_last is None else LOG_LIMIT_S
        if isinstance(body, Body):
            limit_s += len(body) / SLOWEST_UPLOAD
        with deadlines.limited(limit_s) as deadline, self._under_way(deadline, keep_last):
            try:
                with self._exchange.answer(method, target, all_headers, body) as response:
                    self._note_clock(response.headers.get("Date"), sent_ns)
                    if "Set-Cookie" in response.headers:
                        self._know_cookies(response.headers.getlist("Set-Cookie"))
                        known = self._known
                    content, is_cut = self._read(response, where, deadline, keep_last)
                    took_s = time.monotonic() - began
                    return Reply(
                        response.status,
                        response.headers,
                        content,
                        where,
                        took_s,
                        known,
                        is_cut,
                    )
            except (HTTPError, HTTPException, OSError, ValueError) as error:
                # OSError: requests raises it, too. ValueError: raised for a socket that close()
                # or the deadline closed during the call.
                if self._is_closed:
                    raise closed_error(where) from None
                if deadline.is_given_up:
                    raise given_up_error(where, is_sent=deadline.is_sent) from None
                if deadline.is_over and deadline.is_sent:
                    raise self._too_slow(where, deadline, keep_last) from None
                raise exception_error(
                    error,
                    where,
                    timeout_s=min(self._timeout_s, deadline.limit_s),
                    has_certificate=self._has_certificate,
                    mask=known.mask,
                    ca_file=self._ca_file,
                    is_sent=deadline.is_sent,
                ) from None

    @contextlib.contextmanager
    def _under_way(self, call: deadlines.Deadline, keep_last: int | None) -> Iterator[None]:
        """Let ``give_up`` break the call off. A log may take longer: its reader asks again."""
        if keep_last is not None:
            yield
            return
        with self._calls_lock:
            self._calls.add(call)
        try:
            yield
        finally:
            with self._calls_lock:
                self._calls.discard(call)

    def _read(
        self,
        response: BaseHTTPResponse,
        where: str,
        deadline: deadlines.Deadline,
        keep_last: int | None,
    ) -> tuple[bytes, bool]:
        """The body, and whether only its end was kept."""
        body = bytearray()
        total = 0
        is_cut = False
        # Not read(): it waits until a piece is full, however slow the server is.
        while piece := response.read1(_PIECE, decode_content=True):
            total += len(piece)
            body += piece
            if keep_last is not None and len(body) > 2 * keep_last:
                is_cut = True
                # From the beginning of a line: half a line may be a secret without its name.
                del body[: body.find(b"\n", len(body) - keep_last) + 1 or len(body)]
            if total > (self._body_limit if keep_last is None else LOG_LIMIT):
                if keep_last is not None:
                    raise log_limit_error(where, f"{LOG_LIMIT // 1024**3} GiB", label="too large")
                raise too_large_error(where, self._body_limit)
            if time.monotonic() > deadline.at_s:
                raise self._too_slow(where, deadline, keep_last)
        if deadline.is_over:
            # A body without a length ends where its connection does.
            if deadline.is_given_up:
                raise given_up_error(where, is_sent=True)
            raise self._too_slow(where, deadline, keep_last)
        return bytes(body), is_cut

    @staticmethod
    def _too_slow(where: str, deadline: deadlines.Deadline, keep_last: int | None) -> QlikError:
        if keep_last is None:
            return too_slow_error(where, deadline.limit_s)
        return log_limit_error(where, f"{deadline.limit_s:g} seconds", label="too slow")

    def _note_clock(self, date: str | None, sent_ns: int) -> None:
        server_s = http_date_s(date or "")
        if server_s is not None and _PLAUSIBLE_S[0] < server_s < _PLAUSIBLE_S[1]:
            received_ns = self._clock()
            self.clock_offset_s = server_s - received_ns / 1e9
            self._stepped_ns = self._steps_ns()
            self.server_clock.saw_date(int(server_s) * 1_000_000_000, sent_ns, received_ns)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port
