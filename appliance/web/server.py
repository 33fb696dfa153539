"""The web server of ``appliance web``: pages, sign-in, and the WebSocket of each terminal.

Not for: what a request must show to be answered (admission.py), passwords (sign_in.py), the
process of a terminal (browser_terminal.py).
"""

from __future__ import annotations

import asyncio
import importlib.resources
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping

import msgspec
from aiohttp import WSMsgType, web

from appliance.broker.certificate_files import CertificateFiles
from appliance.broker.sparse_log import SparseLogs
from appliance.broker.tls import TlsServer
from appliance.counters import Counter
from appliance.listening import serve_each
from appliance.mqtt.client import Target
from appliance.secret import Secret
from appliance.web import pages
from appliance.web.admission import Admission
from appliance.web.browser_terminal import BrowserTerminal
from appliance.web.connections import MAX_CONNECTIONS, Connection, Connections
from appliance.web.sessions import Session, Sessions
from appliance.web.sign_in import RefusedError, SignIn

_LOG = logging.getLogger(__name__)
_STRANGERS = SparseLogs(_LOG)
_NO_LOG = logging.getLogger(f"{__name__}.aiohttp")
"""aiohttp logs a traceback, with what the client sent, for each request that is none."""
_NO_LOG.setLevel(logging.CRITICAL)

_BODY_S = 10.0
_MAX_BODY = 16 * 1024
_MAX_FRAME = 64 * 1024
"""Bytes of a message on the WebSocket. A longer paste ends the terminal."""
_HEARTBEAT_S = 20.0
_SWEEP_S = 5.0
_OVER = 4000
"""The WebSocket's close code for a session that has ended (RFC 6455, section 7.4.2)."""

_FILES = {
    "textual.js": ("js/textual.js", "text/javascript"),
    "xterm.css": ("css/xterm.css", "text/css"),
    "RobotoMono.ttf": ("fonts/RobotoMono-VariableFont_wght.ttf", "font/ttf"),
}
"""What a browser gets of textual-serve."""


class WebServer:
    """One server.

    Args:
        target: the appliance, without a user.
        first_line: what a terminal's process is given first, for a user and password.
        admission: which requests are answered.
        sessions: the sessions.
        certificates: loaded; ``None``: without TLS.
        only_here: whether nobody but users of this machine can reach it.
    """

    def __init__(
        self,
        target: Target,
        first_line: Callable[[str | None, Secret | None], bytes],
        admission: Admission,
        sessions: Sessions,
        certificates: CertificateFiles | None,
        *,
        only_here: bool,
    ) -> None:
        self._shown = target.shown
        self._first_line = first_line
        self._admission = admission
        self._sessions = sessions
        self._certificates = certificates
        self._sign_in = SignIn(target, only_here=only_here)
        self._cookie = "appliance" if certificates is None else "__Host-appliance"
        files = importlib.resources.files("textual_serve") / "static"
        self._files = {
            name: ((files / path).read_bytes(), kind) for name, (path, kind) in _FILES.items()
        } | {
            "page.css": (pages.STYLE.encode(), "text/css"),
            "page.js": (pages.SCRIPT.encode(), "text/javascript"),
        }
        self._connections = Connections(time.monotonic)

    async def serve(self, sockets: list[socket.socket], stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set; then every terminal is ended."""
        app = web.Application(middlewares=[self._admit], client_max_size=_MAX_BODY)
        app.add_routes(
            [
                web.get("/", self._page),
                web.post("/sign-in", self._begin),
                web.post("/sign-out", self._end),
                web.get("/ws", self._terminal),
                web.get("/static/{name}", self._file),
            ]
        )
        app.on_response_prepare.append(self._protect)
        runner = web.AppRunner(
            app, access_log=None, logger=_NO_LOG, keepalive_timeout=5, shutdown_timeout=5
        )
        await runner.setup()
        server = runner.server
        assert server is not None

        def connection() -> asyncio.Protocol:
            handler = server()
            return Connection(handler, self._with_tls(handler), self._connections)

        async def listen(sock: socket.socket) -> asyncio.Server:
            loop = asyncio.get_running_loop()
            return await loop.create_server(connection, sock=sock, backlog=MAX_CONNECTIONS)

        servers = await serve_each(sockets, listen)
        sweeper = asyncio.create_task(self._sweep())
        try:
            await stop.wait()
        finally:
            sweeper.cancel()
            for each in servers:
                each.close()
            await self._close(self._sessions.all())
            await runner.cleanup()

    def _with_tls(self, handler: asyncio.Protocol) -> asyncio.Protocol:
        if self._certificates is None:
            return handler
        return TlsServer(
            handler,
            self._certificates.context,
            identity_as_username=False,
            unusable_list=_LOG.warning,
            count=_not_counted,
        )

    # --- what is asked of every request ---------------------------------------------------------

    @web.middleware
    async def _admit(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        connection = self._connections.of(request.protocol)
        if connection is None:
            return _text(503, "The connection has ended.")
        connection.is_silent = request.can_read_body
        hosts = request.headers.getall("Host", [])
        if len(hosts) != 1 or not self._admission.is_own_host(hosts[0]):
            _STRANGERS.log(
                connection.origin,
                logging.WARNING,
                "web: a request for another host is refused: %.100r",
                hosts[:1],
            )
            # RFC 9110, section 15.5.20
            return _text(
                421, "Not a name of this server. Start appliance web with --hosts NAME to add one."
            )
        if self._admission.is_from_elsewhere(request.headers):
            return _text(403, "A page of another site may not ask here.")
        changes = request.method != "GET" or request.path == "/ws"
        if changes and not self._admission.is_from_here(request.headers):
            return _text(403, "This must be asked by a page of this server.")
        try:
            return await handler(request)
        except web.HTTPException as error:
            return _text(error.status, f"{error.reason}.")
        except ConnectionError:  # the browser has gone
            return _text(400, "The request did not come as a whole.")
        except Exception as error:  # noqa: BLE001 - a browser gets no traceback
            _LOG.error("web: %s %s failed: %r", request.method, request.path, error)
            return _text(500, "This failed; the log of appliance web says why.")

    async def _protect(self, request: web.Request, response: web.StreamResponse) -> None:
        host = request.headers.get("Host", "")
        scheme = "ws" if self._certificates is None else "wss"
        is_own = self._admission.is_own_host(host)
        sockets = f" {scheme}://{host}" if is_own else ""
        headers = response.headers
        headers["Server"] = "appliance"
        headers["Content-Security-Policy"] = (
            "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
            f"font-src 'self'; img-src 'self' data:; connect-src 'self'{sockets}; "
            "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )
        headers["X-Content-Type-Options"] = "nosniff"
        headers["X-Frame-Options"] = "DENY"
        # Not "no-referrer": browsers would then send the Origin "null" with forms.
        headers["Referrer-Policy"] = "same-origin"
        headers["Cross-Origin-Opener-Policy"] = "same-origin"
        headers["Cross-Origin-Resource-Policy"] = "same-origin"
        headers["Permissions-Policy"] = (
            "camera=(), geolocation=(), microphone=(), clipboard-read=()"
        )
        headers.setdefault("Cache-Control", "no-store")

    # --- pages ---------------------------------------------------------------------------------

    def _session(self, request: web.Request) -> Session | None:
        return self._sessions.find(request.cookies.get(self._cookie))

    async def _page(self, request: web.Request) -> web.StreamResponse:
        if self._session(request) is None:
            return _html(pages.sign_in(self._shown))
        if request.query_string:  # textual.js takes orders from it
            return _moved("/")
        scheme = "ws" if self._certificates is None else "wss"
        return _html(pages.terminal(self._shown, f"{scheme}://{request.headers['Host']}/ws"))

    async def _file(self, request: web.Request) -> web.StreamResponse:
        found = self._files.get(request.match_info["name"])
        if found is None:
            return _text(404, "Not found.")
        data, kind = found
        return web.Response(
            body=data, content_type=kind, headers={"Cache-Control": "private, max-age=3600"}
        )

    async def _begin(self, request: web.Request) -> web.StreamResponse:
        try:
            async with asyncio.timeout(_BODY_S):
                form = await request.post()
        except TimeoutError:
            return _text(408, "The form did not come.")
        if (connection := self._connections.of(request.protocol)) is not None:
            connection.is_silent = False
        name, password = form.get("name", ""), form.get("password", "")
        if not isinstance(name, str) or not isinstance(password, str):
            return _text(400, "Name and password are texts.")
        if self._sessions.is_full:
            said = "There are as many sessions as there may be. Try again later."
            return _html(pages.sign_in(self._shown, said), 503)
        address = request.remote or ""
        try:
            await self._sign_in.check(name, password, address)
        except RefusedError as error:
            return _html(pages.sign_in(self._shown, str(error)), error.status)
        if self._sessions.is_full:  # meanwhile
            return _text(503, "There are as many sessions as there may be.")
        if (before := self._session(request)) is not None:
            await self._close([before])
        token = self._sessions.begin(name or None, Secret(password))
        _LOG.info("web: %.60r has signed in from %s", name, address)
        answer = _moved("/")
        answer.set_cookie(
            self._cookie,
            token,
            httponly=True,
            samesite="Strict",
            secure=self._certificates is not None,
            path="/",
        )
        return answer

    async def _end(self, request: web.Request) -> web.StreamResponse:
        if (session := self._session(request)) is not None:
            await self._close([session])
        answer = _moved("/")
        answer.del_cookie(self._cookie, path="/", secure=self._certificates is not None)
        return answer

    async def _close(self, sessions: Iterable[Session]) -> None:
        for each in sessions:
            self._sessions.end(each)
        closing = [each.close_terminal() for each in sessions if each.close_terminal is not None]
        await asyncio.gather(*closing, return_exceptions=True)

    # --- the terminal --------------------------------------------------------------------------

    async def _terminal(self, request: web.Request) -> web.StreamResponse:
        session = self._session(request)
        if session is None:
            return _text(403, "Sign in first.")
        browser = web.WebSocketResponse(
            # Without compression, a frame is never longer than it was on the line.
            heartbeat=_HEARTBEAT_S, max_msg_size=_MAX_FRAME, compress=False, timeout=3
        )  # fmt: skip
        terminal = self._terminal_of(session, browser)

        async def close() -> None:
            await browser.close(code=_OVER)
            await terminal.stop()

        try:
            # Pages of a session that open at the same moment come one by one; the last one has it.
            async with session.turns:
                if session.close_terminal is not None:
                    await session.close_terminal()
                if self._session(request) is not session:  # meanwhile
                    return _text(403, "Sign in first.")
                session.close_terminal = close
                self._sessions.opened(session)
                self._sessions.used(session)
                await browser.prepare(request)
                self._set_terminal(request, has=True)
                query = request.query
                await terminal.start(_number(query, "width", 80), _number(query, "height", 24))
            async for message in browser:
                text = message.data if message.type is WSMsgType.TEXT else ""
                await self._obey(text, session, terminal, browser)
        except (
            OSError,
            ValueError,
            RecursionError,
        ) as error:  # what a browser sends that is none of ours, or no process can be had
            _LOG.warning("web: a terminal was ended: %r", error)
        finally:
            self._set_terminal(request, has=False)
            await terminal.stop()
            if session.close_terminal is close:
                self._sessions.closed(session)
        return browser

    def _set_terminal(self, request: web.Request, *, has: bool) -> None:
        if (connection := self._connections.of(request.protocol)) is not None:
            connection.has_terminal = has

    def _terminal_of(self, session: Session, browser: web.WebSocketResponse) -> BrowserTerminal:
        async def left() -> None:
            if terminal.ended_itself:
                self._sessions.end(session)
            await browser.close()

        terminal = BrowserTerminal(
            self._first_line(session.username, session.password),
            write_bytes=browser.send_bytes,
            write_str=browser.send_str,
            close=left,
        )
        return terminal

    async def _obey(
        self,
        text: str,
        session: Session,
        terminal: BrowserTerminal,
        browser: web.WebSocketResponse,
    ) -> None:
        """Do what a packet of textual.js says; raises ``ValueError`` if it is none."""
        packet = msgspec.json.decode(text)
        match packet:
            case ["stdin", str(typed)]:
                self._sessions.used(session)
                await terminal.send_bytes(typed.encode("utf-8", "replace"))
            case ["resize", {"width": int(width), "height": int(height)}]:
                await terminal.set_terminal_size(width, height)
            case ["ping", str(number)] if len(number) <= 40:
                await browser.send_json(["pong", number])
            case ["blur", *_]:
                await terminal.blur()
            case ["focus", *_]:
                await terminal.focus()
            case _:
                raise ValueError("a packet that is not known")

    # --- bounds --------------------------------------------------------------------------------

    async def _sweep(self) -> None:
        """End sessions whose time is over, and connections beyond the bounds."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            await self._close(self._sessions.ended())
            self._connections.end_late()
            if self._certificates is not None:
                said = await asyncio.to_thread(self._certificates.reload)
                if said is not None:
                    _LOG.warning("%s", said)


def _number(query: Mapping[str, str], key: str, usual: int) -> int:
    text = query.get(key, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else usual


def _text(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=f"{text}\n")


def _html(text: str, status: int = 200) -> web.Response:
    return web.Response(status=status, text=text, content_type="text/html")


def _moved(where: str) -> web.Response:
    return web.Response(status=303, headers={"Location": where})


def _not_counted(_counter: Counter) -> None:
    """Counters are the appliance's."""
