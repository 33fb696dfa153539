"""The simulated Qlik server itself: sockets, TLS, signing in, faults, and a record of requests.

``SimulatedQlik`` is what tests and the demo use. Not for: what the answers say (repository.py,
cloud.py) and what tasks do (site.py).
"""

from __future__ import annotations

import re
import secrets
import ssl
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from appliance.model import TaskKind
from appliance.qlik.simulated import ntlm
from appliance.qlik.simulated.cloud import Cloud
from appliance.qlik.simulated.faults import Fault, FaultKind, Faults
from appliance.qlik.simulated.listener import Listener
from appliance.qlik.simulated.messages import (
    Answer,
    Raw,
    Request,
    html_answer,
    text_answer,
)
from appliance.qlik.simulated.repository import NO_ENDPOINT, Repository
from appliance.qlik.simulated.site import ManualClock, Outcome, SimulatedTask, Site

__all__ = [
    "Fault",
    "FaultKind",
    "ManualClock",
    "Outcome",
    "Proxy",
    "Received",
    "SimulatedQlik",
    "TlsFiles",
]

_XSRF = "XSRF prevention check failed. Possible XSRF discovered."
_XRFKEY = re.compile("[0-9A-Za-z]{16}")
_MISSING_VALUE = "Missing parameter value(s)"
_INACTIVE = "Forbidden: Your account is inactive. Contact your administrator to activate it."
_SIGN_IN_FORM = "<form>Sign in to Qlik Sense</form>"
_APP_RELOAD = re.compile("/qrs/app/([0-9a-f-]{36})/reload", re.IGNORECASE)
_SESSIONS_KEPT = 1000
_BODY_KEPT = 4096


@dataclass(frozen=True)
class TlsFiles:
    """PEM files. With ``client_ca`` a client certificate is demanded, as on port 4242."""

    certfile: str
    keyfile: str
    client_ca: str | None = None


@dataclass(frozen=True)
class Proxy:
    """A virtual proxy: ``/<prefix>/qrs/...`` with a session cookie ``X-Qlik-Session-<prefix>``.

    An empty prefix is the default proxy; it is reached where the server has no direct way in.
    """

    prefix: str
    kind: str = "header"
    """``"header"``, ``"jwt"`` or ``"ntlm"``."""
    header: str = "hdr-usr"
    token: str = ""
    allowed_hosts: tuple[str, ...] = ("127.0.0.1", "localhost")


@dataclass
class Received:
    """A request that arrived."""

    at_ns: int
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    status: int | None = None
    """Of the answer; ``None`` while there is none, or because a fault swallowed it."""


@dataclass
class _Sessions:
    """Proxy sessions, the newest thousand."""

    ids: OrderedDict[str, str] = field(default_factory=OrderedDict)

    def new(self, prefix: str) -> str:
        session_id = secrets.token_hex(16)
        self.ids[session_id] = prefix
        while len(self.ids) > _SESSIONS_KEPT:
            self.ids.popitem(last=False)
        return session_id


class SimulatedQlik:
    """A Qlik Sense server on 127.0.0.1 that is not one.

    Use it as a context manager, or call ``start`` and ``stop``.
    """

    def __init__(
        self,
        tasks: Sequence[SimulatedTask] = (),
        *,
        site: Site | None = None,
        clock: Callable[[], int] = time.time_ns,
        port: int = 0,
        tls: TlsFiles | None = None,
        proxies: Sequence[Proxy] = (),
        direct: bool = True,
        keep_requests: int = 5000,
    ) -> None:
        """Prepare a server.

        Args:
            tasks: the site's tasks.
            site: a whole site instead; ``clock`` is then not used.
            clock: nanoseconds since the epoch; ``ManualClock`` for tests.
            port: 0 takes a free one; it stays the same over ``refuse`` and ``restart``.
            tls: serve HTTPS with these files.
            proxies: virtual proxies beside the direct way in.
            direct: whether ``/qrs`` may be used without a proxy, as on port 4242.
            keep_requests: how many requests are remembered.
        """
        self.site = site if site is not None else Site(clock=clock)
        for task in tasks:
            self.site.add_task(task)
        self.repository = Repository(self.site)
        self.cloud = Cloud(self.site)
        self.faults = Faults()
        self.inactive_users: set[str] = set()
        """User ids (``"directory\\name"``) whose account is inactive."""
        self.rightless_users: set[str] = set()
        """User ids that see nothing and may do nothing."""
        self._requests: deque[Received] = deque(maxlen=keep_requests)
        self._start_posts: Counter[str] = Counter()
        """Start POSTs that arrived, by task id (lower case); ``"?"`` for tasks that are unknown."""
        self._proxies = {proxy.prefix: proxy for proxy in proxies}
        self._direct = direct
        self._sessions = _Sessions()
        self._arrived = threading.Condition()
        self._listener = Listener(
            self._serve, port=port, context=_tls_context(tls), now=self.site.now
        )
        self._scheme = "https" if tls is not None else "http"

    # --- life --------------------------------------------------------------------------------

    def start(self) -> str:
        """Begin to listen; returns the URL, without a slash at its end."""
        self._listener.open()
        return self.url

    def stop(self) -> None:
        """Close every connection and stop; hanging requests are let go."""
        self.faults.clear()
        self._listener.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._listener.port}"

    @property
    def port(self) -> int:
        return self._listener.port

    @property
    def tls_failures(self) -> int:
        """TLS handshakes that failed."""
        return self._listener.tls_failures

    @property
    def connections(self) -> int:
        """Connections that were accepted."""
        return self._listener.connections

    # --- tasks -------------------------------------------------------------------------------

    def add_task(self, name: str, **settings: object) -> SimulatedTask:
        """Add a task; the settings are the fields of ``SimulatedTask``."""
        return self.site.add_task(SimulatedTask(name, **settings))  # type: ignore[arg-type]  # fields are checked by the dataclass's readers

    def add_app(self, name: str) -> str:
        """Add an app without a task; returns its id."""
        return self.site.add_app(name)

    def run_elsewhere(self, task_id: str) -> str:
        """Start a task as the QMC would; returns the execution id."""
        execution_id = self.site.start(task_id)
        if execution_id is None:
            raise LookupError(f"no task {task_id}")
        return execution_id

    # --- faults ------------------------------------------------------------------------------

    def fail(
        self,
        kind: FaultKind,
        *,
        method: str = "",
        path: str = "",
        times: int | None = None,
        status: int = 503,
        text: str = "Service unavailable",
        seconds: float = 600.0,
        retry_after_s: float | None = None,
        size: int = 0,
    ) -> Fault:
        """Switch a fault on (see ``Fault`` for what the arguments mean)."""
        return self.faults.add(
            Fault(kind, method, path, times, status, text, seconds, retry_after_s, size)
        )

    def heal(self) -> None:
        """Switch every fault off; listen again if connections were refused."""
        self.faults.clear()
        self._listener.open()

    def end_faults(self) -> None:
        """Switch every fault off and listen again; requests that hang go on hanging."""
        self.faults.end()
        self._listener.open()

    def refuse(self) -> None:
        """Refuse connections: nothing listens on the port, open connections are cut."""
        self.faults.clear()
        self._listener.close()

    def restart(self, *, results: str = "lost") -> None:
        """A restart of the server: connections cut, proxy and execution sessions forgotten.

        Args:
            results: of the runs that were under way, see ``Site.forget_sessions``.
        """
        self._listener.close()
        self.site.forget_sessions(results=results)
        self._sessions.ids.clear()
        self.cloud.forget_tokens()
        self._listener.open()

    def end_sign_ins(self) -> None:
        """Forget the proxies' sessions, as after their inactivity time."""
        self._sessions.ids.clear()

    # --- what arrived ------------------------------------------------------------------------

    @property
    def requests(self) -> list[Received]:
        """The requests that arrived, oldest first: a copy, others may arrive meanwhile."""
        with self._arrived:
            return list(self._requests)

    def forget_requests(self) -> None:
        """Forget the requests that arrived so far."""
        with self._arrived:
            self._requests.clear()

    @property
    def posts(self) -> list[Received]:
        """Every POST that arrived, oldest first, sign-ins (OAuth) left out."""
        return [
            seen for seen in self.requests if seen.method == "POST" and seen.path != "/oauth/token"
        ]

    def starts(self, task_id: str = "") -> int:
        """How many start POSTs arrived, in all or for one task (or app, by its id)."""
        with self._arrived:
            return self._start_posts[task_id.lower()] if task_id else self._start_posts.total()

    def wait_for(self, holds: Callable[[], bool], timeout_s: float = 10.0) -> bool:
        """Wait until ``holds()`` is true, asked again at each request that arrives or is answered.

        Returns whether it became true within ``timeout_s`` seconds.
        """
        with self._arrived:
            return self._arrived.wait_for(holds, timeout_s)

    # --- answering ---------------------------------------------------------------------------

    def _serve(self, request: Request) -> Answer | Raw | Iterator[bytes] | None:
        """Answer one request; ``None`` cuts the connection."""
        seen = self._record(request)
        fault = self.faults.take(request.method, request.path)
        answer = self._answer_with(fault, request)
        with self._arrived:
            seen.status = answer.status if isinstance(answer, Answer) else None
            self._arrived.notify_all()
        return answer

    def _record(self, request: Request) -> Received:
        seen = Received(
            self.site.now(),
            request.method,
            request.path,
            dict(request.query),
            dict(request.headers),
            request.body[:_BODY_KEPT],
        )
        with self._arrived:
            self._requests.append(seen)
            if request.method == "POST" and "/start" in request.path:
                self._start_posts.update(self.repository.named_by(request) or ["?"])
            elif request.method == "POST" and (app := _APP_RELOAD.fullmatch(request.path)):
                self._start_posts[app[1].lower()] += 1
            elif request.method == "POST" and request.path == "/api/v1/reloads":
                self._start_posts[self.cloud.app_of(request) or "?"] += 1
            self._arrived.notify_all()
        return seen

    def _answer_with(
        self, fault: Fault | None, request: Request
    ) -> Answer | Raw | Iterator[bytes] | None:
        match fault.kind if fault is not None else None:
            case None:
                return self._answer(request)
            case FaultKind.DELAY:
                self.faults.wait(fault.seconds if fault else 0)
                return self._answer(request)
            case FaultKind.HANG:
                self.faults.wait(fault.seconds if fault else 0)
                return None
            case FaultKind.HANG_AFTER:
                self._answer(request)
                self.faults.wait(fault.seconds if fault else 0)
                return None
            case FaultKind.DROP_BEFORE:
                return None
            case FaultKind.DROP_AFTER:
                self._answer(request)
                return None
            case FaultKind.LOGIN_PAGE:
                return html_answer(_SIGN_IN_FORM)
            case FaultKind.REDIRECT:
                target = fault.text if fault and fault.text.startswith("http") else "/form/login"
                return Answer(302, headers={"Location": target})
            case FaultKind.GARBAGE:
                self._answer(request)
                return Answer(200, b'{"value": ')
            case FaultKind.DRIP_HEADERS:
                return Raw(self._dripping_headers(fault.seconds if fault else 0))
            case FaultKind.ENDLESS:
                return _endless()
            case FaultKind.DRIP:
                assert fault is not None
                return self._dripping(fault.seconds)
            case FaultKind.LONG_TEXT:
                assert fault is not None
                return _long_text(fault.size, fault.text)
            case _:
                assert fault is not None
                headers = {}
                if fault.retry_after_s is not None:
                    headers["Retry-After"] = f"{fault.retry_after_s:g}"
                return Answer(fault.status, fault.text.encode(), "text/plain", headers)

    def _dripping(self, seconds: float) -> Iterator[bytes]:
        while True:
            yield b"x"
            self.faults.wait(seconds)

    def _dripping_headers(self, seconds: float) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n"
        while self.faults.bites():
            self.faults.wait(seconds)
            yield b"X-More: to come\r\n"

    def _answer(self, request: Request) -> Answer:
        if request.method == "HEAD":
            # The listener leaves the body out.
            request = replace(request, method="GET")
        if request.path.startswith(("/api/", "/oauth/")):
            return self.cloud.answer(request)
        if request.path.startswith("/form/"):
            return html_answer(_SIGN_IN_FORM)
        prefix = request.path.split("/")[1]
        if prefix in self._proxies:
            return self._through_proxy(self._proxies[prefix], request)
        if not request.path.lower().startswith("/qrs/"):
            return text_answer(NO_ENDPOINT, 404)
        if not self._direct:
            default = self._proxies.get("")
            if default is None:
                return text_answer(NO_ENDPOINT, 404)
            return self._through_proxy(default, request)
        return self._as_user(request, _user_of(request.headers.get("x-qlik-user", "")))

    def _through_proxy(self, proxy: Proxy, request: Request) -> Answer:
        host = request.headers.get("host", "").rpartition(":")[0] or request.headers.get("host")
        if host not in proxy.allowed_hosts:
            return html_answer("The http request header is incorrect", 400)
        prefix = f"/{proxy.prefix}" if proxy.prefix else ""
        inner = replace(request, path=request.path.removeprefix(prefix))
        cookie = f"X-Qlik-Session-{proxy.prefix}".rstrip("-")
        for item in request.headers.get("cookie", "").split(";"):
            name, _, value = item.strip().partition("=")
            if name == cookie and self._sessions.ids.get(value) == proxy.prefix:
                return self._as_user(inner, self._proxy_user(proxy, request) or "PROXY\\session")
        if proxy.kind == "ntlm" and "Windows" in request.headers.get("user-agent", ""):
            given = request.headers.get("authorization", "")
            if ntlm.user_of(given) is None:
                wanted = ntlm.challenge() if given.startswith("NTLM ") else "NTLM"
                return Answer(401, headers={"WWW-Authenticate": wanted})
        user = self._proxy_user(proxy, request)
        if user is None:
            return Answer(302, headers={"Location": "/form/login"})
        if not user:
            return text_answer("Unauthorized", 401)
        session = {"Set-Cookie": f"{cookie}={self._sessions.new(proxy.prefix)}; Path=/; HttpOnly"}
        if request.method != "GET":
            # The sign-in turns the request into a GET, which is why a client signs in first.
            return Answer(302, headers={"Location": request.path} | session)
        answer = self._as_user(inner, user)
        headers = dict(answer.headers) | session
        return Answer(answer.status, answer.body, answer.content_type, headers)

    @staticmethod
    def _proxy_user(proxy: Proxy, request: Request) -> str | None:
        """The user, an empty text if the token is wrong, ``None`` if there is nothing to see."""
        if proxy.kind == "jwt":
            given = request.headers.get("authorization")
            if given is None:
                return None
            return "JWT\\user" if given == f"Bearer {proxy.token}" else ""
        if proxy.kind == "ntlm":
            return ntlm.user_of(request.headers.get("authorization", ""))
        return request.headers.get(proxy.header.lower()) or None

    def _as_user(self, request: Request, user: str | None) -> Answer:
        key = request.query.get("xrfkey", "")
        if not _XRFKEY.fullmatch(key) or request.headers.get("x-qlik-xrfkey") != key:
            return text_answer(_XSRF, 403)
        if user is None:
            return text_answer("Forbidden", 403)
        if _has_user(self.inactive_users, user):
            return text_answer(_INACTIVE, 403)
        if not request.query_is_whole:
            return text_answer(_MISSING_VALUE, 400)
        return self.repository.answer(
            request, with_rights=not _has_user(self.rightless_users, user)
        )

    def hide(self, kind: TaskKind) -> None:
        """Answer the lists of one kind of tasks with 403."""
        self.repository.hidden_kinds.add(kind)


def _user_of(header: str) -> str | None:
    """The user of an X-Qlik-User header; clients write its keys in several cases."""
    parts = {}
    for item in header.split(";"):
        name, _, value = item.partition("=")
        parts[name.strip().lower()] = value.strip()
    if parts.get("userdirectory") and parts.get("userid"):
        return f"{parts['userdirectory']}\\{parts['userid']}"
    return None


def _has_user(users: set[str], user: str) -> bool:
    return user.lower() in {each.lower() for each in users}


def _endless() -> Iterator[bytes]:
    chunk = b'["' + b"x" * 65536
    while True:
        yield chunk


def _long_text(size: int, last_line: str) -> Iterator[bytes]:
    line = b"2026-11-29 12:00:00      0001 Measurements: LOAD * FROM [lib://warehouse/m.qvd];\r\n"
    piece = line * (1_000_000 // len(line))
    for _ in range(size // len(piece)):
        yield piece
    yield f"{last_line}\r\n".encode()


def _tls_context(tls: TlsFiles | None) -> ssl.SSLContext | None:
    if tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certfile, tls.keyfile)
    if tls.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(tls.client_ca)
    return context
