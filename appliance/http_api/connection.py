"""One HTTP connection: uvicorn's protocol on httptools, with bounds for all that a client sends.

uvicorn has no bound on a head, on a body, on requests that are sent without waiting for answers,
and none on the time of anything but the wait between two requests. Here every read is fed to the
parser in pieces, and what came is counted behind each of them.
Requests that a client sends without waiting are worked on together, so their messages reach the
disk in one commit. Their answers leave in the order of the requests (RFC 9112, section 9.3.2).
Not for: which requests are let in (admission.py), what is answered (app.py).
"""

from __future__ import annotations

import asyncio
import logging
import re
import urllib.parse
from collections import deque
from functools import partial

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from appliance.broker.access import origin_of
from appliance.counters import Counter
from appliance.http_api.bounds import (
    AT_ONCE,
    AT_ONCE_BYTES,
    BODY_BYTES_A_SECOND,
    BODY_S,
    HEAD_BYTES,
    HEADERS,
    LINGER_S,
    UNREAD_S,
)
from appliance.http_api.butler.errors import refusal as refusal_answer
from appliance.http_api.exchange import Answers, Exchange, Flow
from appliance.http_api.problem import ProblemError, problem
from appliance.http_api.shared import Shared

logger = logging.getLogger(__name__)
_silent = logging.getLogger("uvicorn.error")
_silent.setLevel(logging.CRITICAL + 1)  # what there is to say is said here

_END_OF_AUTHORITY = re.compile(rb"[/?#]")
_PIECE = 4096
"""Bytes that go to the parser between two looks at what came of them."""


class Connection(HttpToolsProtocol):
    """For the loop of its port."""

    flow: Flow

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared.uvicorn, shared.state, {}, shared.loop)
        self._shared = shared
        self._exchanges: deque[Exchange] = deque()
        """Those that are not answered, in order."""
        self._unfed = memoryview(b"")
        self._is_feeding = False
        self._overhead = 0
        """Bytes that came since the last request or piece of a body."""
        self._is_in_head = True
        self._takes_no_more = False
        """Whether further requests are ignored: the client or the stop has ended the sequence."""
        self._is_ignored = False
        """Whether what is being parsed comes behind the end of the sequence."""
        self._is_deaf = False
        """Whether nothing that comes is understood any more."""
        self._skipped_body = b""
        """The framing of a body that the parser did not see."""
        self._is_replaying = False
        self._last_words: ProblemError | None = None
        self._is_lingering = False
        self._unread_since: float | None = None
        self._deadline = shared.loop.time() + shared.bounds().head_s
        self._failed = False
        self.origin = ""

    # --- the loop's calls ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]  # asyncio's looser annotation
        self.flow = Flow(self.transport)
        self.scheme = "https" if self._shared.is_tls else "http"
        self.origin = origin_of(self.client[0] if self.client else "")
        self._answers = Answers(self.transport, self.finish)
        if not self._shared.connections.add(self):
            if not self._shared.is_tls:  # before the handshake there is nothing to say it with
                self._write(
                    ProblemError(503, "Too many connections.", headers={"Retry-After": "1"})
                )
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self._is_deaf or self.transport.is_closing():
            return
        self._unfed = memoryview(bytes(self._unfed) + data if self._unfed else data)
        self._feed()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's
        self._shared.connections.remove(self)
        self.connections.discard(self)
        self._unfed = memoryview(b"")
        for exchange in self._exchanges:
            if exchange.response_complete:
                continue
            exchange.disconnected = True
            exchange.message_event.set()
            if exchange.turn is not None:
                exchange.turn.set()
            if exchange.task is not None and not exchange.task.done():
                self._shared.count(Counter.HTTP_REQUESTS_ABANDONED)
                exchange.task.cancel()
        self._exchanges.clear()
        self.flow.resume_writing()
        # What belongs together can go without the garbage collector.
        self.parser = self.cycle = self._answers = None  # type: ignore[assignment]

    def pause_writing(self) -> None:
        self._unread_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._unread_since = None
        super().resume_writing()

    # --- what came ----------------------------------------------------------------------------

    def _feed(self) -> None:
        if self._is_feeding:
            return
        self._is_feeding = True
        try:
            while self._unfed and not (self._takes_no_more and self._is_in_head):
                if self._is_full():
                    self.flow.pause_reading()
                    self.flow.is_held = True
                    return
                piece = self._unfed[:_PIECE]
                self._unfed = self._unfed[len(piece) :]
                self._overhead += len(piece)
                if not self._parse(piece):
                    self._unfed = memoryview(b"")
                    return
            self._unfed = memoryview(b"")  # an empty rest would hold the whole read
        finally:
            self._is_feeding = False

    def _is_full(self) -> bool:
        """Whether requests have to be answered before more is read."""
        exchanges = self._exchanges
        if len(exchanges) <= 1:  # the only one may need the rest of its body
            return False
        waiting = sum(each.received for each in exchanges) - exchanges[-1].received
        return len(exchanges) >= AT_ONCE or waiting >= AT_ONCE_BYTES

    def _parse(self, piece: memoryview) -> bool:
        """Parse some bytes; returns whether more may follow."""
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            # RFC 9110, section 7.8: a server may ignore it, and the sequence goes on.
            if self._skipped_body and not self._expect_body():
                return False
            rest = piece[upgrade.args[0] :]
            return self._parse(rest) if rest else True
        except httptools.HttpParserError as error:
            self._shared.count(Counter.HTTP_REQUESTS_REFUSED_MALFORMED)
            if isinstance(error, httptools.HttpParserCallbackError):
                raise  # a defect of a method below
            self._refuse_rest(ProblemError(400, f"This is not HTTP as it should be: {error}."))
            return False
        if self._overhead > HEAD_BYTES or (self._is_in_head and len(self.headers or ()) > HEADERS):
            self._shared.count(Counter.HTTP_REQUESTS_REFUSED_HEAD)
            status = 431 if self._is_in_head else 400
            self._refuse_rest(ProblemError(status, f"More than {HEAD_BYTES} bytes of header."))
            return False
        return True

    def _expect_body(self) -> bool:
        """Httptools takes the body of a request that offers an upgrade for the other protocol.

        Another parser, which has seen a head with this body's framing, reads it. Returns whether
        it can: a framing that is refused is not looked at before.
        """
        self.parser = httptools.HttpRequestParser(self)
        self._is_replaying = True
        try:
            self.parser.feed_data(b"POST / HTTP/1.1\r\n" + self._skipped_body + b"\r\n")
        except httptools.HttpParserError as error:
            self._refuse_rest(ProblemError(400, f"This is not HTTP as it should be: {error}."))
            return False
        self._is_replaying = False
        self._skipped_body = b""
        return True

    def _refuse_rest(self, why: ProblemError) -> None:
        """Nothing that follows is understood: say it in turn, and end."""
        self._takes_no_more = self._is_deaf = True
        if not self._is_in_head and self._exchanges:
            self._exchanges[-1].fail(why)
        elif self._exchanges:
            self._last_words = why
        else:
            self._write(why)
            self.finish()

    def on_message_begin(self) -> None:
        if self._is_replaying:
            return
        super().on_message_begin()
        self._is_in_head = True
        if not self._exchanges:
            self._deadline = self.loop.time() + self._shared.bounds().head_s

    def on_header(self, name: bytes, value: bytes) -> None:
        if (
            self._is_in_head and not self._is_replaying
        ):  # not a trailer's, which would change a request that is under way
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._is_replaying:
            return
        self._is_in_head = False
        self._overhead = 0
        if self._takes_no_more:
            self._is_ignored = True
            return
        shared, parser, scope = self._shared, self.parser, self.scope
        version = parser.get_http_version()
        scope["method"] = parser.get_method().decode("ascii")
        scope["http_version"] = version
        refusal = self._set_target() or shared.admission.refusal(
            self.origin, version, scope["raw_path"], self.headers
        )
        if parser.should_upgrade():
            self._skipped_body = b"".join(
                name + b": " + value + b"\r\n"
                for name, value in self.headers
                if name in (b"content-length", b"transfer-encoding")
            )
        keeps_open = (
            bool(shared.bounds().idle_s) and version != "1.0" and parser.should_keep_alive()
        )
        if refusal is not None and refusal.status in (400, 431, 501):
            keeps_open = False  # what follows may be something else to another reader of it
        self._takes_no_more = not keeps_open
        exchange = Exchange(
            scope=scope,
            transport=self._answers,  # type: ignore[arg-type]  # all that it uses of a transport
            flow=self.flow,
            logger=_silent,
            access_logger=_silent,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            # RFC 9110, section 10.1.1: a client of HTTP/1.0 does not know it.
            expect_100_continue=self.expect_100_continue and version != "1.0",
            keep_alive=keeps_open,
            on_response=lambda: None,
        )
        exchange.on_response = partial(self._answered, exchange)
        exchange.began = self.loop.time()
        if self._exchanges:
            exchange.turn = asyncio.Event()
        self.cycle = exchange
        self._exchanges.append(exchange)
        shared.connections.is_busy(self)
        path = str(scope.get("path", ""))
        app = self.app if refusal is None else refusal_answer(path, refusal)
        exchange.task = self.loop.create_task(exchange.run_asgi(app))  # type: ignore[arg-type]
        self.tasks.add(exchange.task)
        exchange.task.add_done_callback(self.tasks.discard)

    def _set_target(self) -> ProblemError | None:
        try:
            parsed = httptools.parse_url(self.url)
            raw_path = parsed.path or (b"/" if parsed.schema else self.url)
            path = raw_path.decode("ascii")
            if parsed.schema:
                self._take_authority()
        except (httptools.HttpParserInvalidURLError, ValueError):
            self._shared.count(Counter.HTTP_REQUESTS_REFUSED_MALFORMED)
            return ProblemError(400, "The target of the request is not understood.")
        scope = self.scope
        scope["path"] = urllib.parse.unquote(path) if "%" in path else path
        scope["raw_path"] = raw_path
        scope["query_string"] = parsed.query or b""
        return None

    def _take_authority(self) -> None:
        """A target in absolute form names the host; a ``Host`` beside it is ignored.

        RFC 9112, section 3.2.2. Raises ``ValueError`` where the target is not one of this port.
        """
        scheme, _, rest = self.url.partition(b"://")
        authority = _END_OF_AUTHORITY.split(rest, 1)[0]
        if scheme.lower() != str(self.scheme).encode() or b"@" in authority:
            raise ValueError
        hosts = [at for at, (name, _) in enumerate(self.headers) if name == b"host"]
        if len(hosts) == 1:  # none or several are refused
            self.headers[hosts[0]] = (b"host", authority)
        elif not hosts and self.parser.get_http_version() == "1.0":
            self.headers.append((b"host", authority))

    def on_body(self, body: bytes) -> None:
        self._overhead = 0
        exchange = self.cycle
        if self._is_ignored or not isinstance(exchange, Exchange) or exchange.broken is not None:
            return
        exchange.received += len(body)
        most = self._shared.bounds().max_body
        if exchange.received > most:
            self._takes_no_more = self._is_deaf = True
            exchange.body = bytearray()
            exchange.fail(self._shared.admission.too_large(most))
            return
        if exchange.response_complete:
            return
        exchange.body += body
        if len(exchange.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        exchange.message_event.set()

    def on_message_complete(self) -> None:
        if self._skipped_body and not self._is_replaying:
            return
        self._is_in_head = True
        self._overhead = 0
        self.headers = []
        if not self._is_ignored:
            self.cycle.more_body = False
            self.cycle.message_event.set()

    # --- what goes ----------------------------------------------------------------------------

    def _answered(self, exchange: Exchange) -> None:
        """An answer has been given to the transport as a whole."""
        self._shared.count(Counter.HTTP_REQUESTS_ANSWERED)
        if self._exchanges and self._exchanges[0] is exchange:
            self._exchanges.popleft()
        if self.transport.is_closing() or self._is_lingering:
            return
        if exchange.more_body:
            self.finish()
        elif self._exchanges:
            if (turn := self._exchanges[0].turn) is not None:
                turn.set()
            self._go_on()
        elif self._last_words is not None:
            self._write(self._last_words)
            self.finish()
        else:
            self._deadline = self.loop.time() + self._shared.bounds().idle_s
            self._shared.connections.is_idle(self)
            self._go_on()

    def _go_on(self) -> None:
        """Read further requests."""
        if self.flow.is_held:
            self.flow.is_held = False
            if self._exchanges:
                self._exchanges[-1].began = self.loop.time()  # its body was not read
        if self._unfed:
            self._feed()
        if not self.flow.is_held:
            self.flow.resume_reading()

    def _write(self, why: ProblemError) -> None:
        """Answer what is no request."""
        found = problem(why)
        lines = [STATUS_LINE[why.status]]
        for name, value in (*self.server_state.default_headers, *found.raw_headers):
            lines += [name, b": ", value, b"\r\n"]
        self.transport.write(b"".join([*lines, b"connection: close\r\n\r\n", bytes(found.body)]))

    def finish(self) -> None:
        """Close after what was said; a client that still sends is let speak for a while."""
        if self.transport.is_closing() or self._is_lingering:
            return
        if self._is_in_head and not self._overhead and not self._is_deaf:
            self.transport.close()
            return
        self._is_lingering = self._is_deaf = True
        self._unfed = memoryview(b"")
        self._deadline = self.loop.time() + LINGER_S
        self.flow.is_held = False
        self.flow.resume_reading()
        if not self._shared.is_tls:
            self.transport.write_eof()

    def end_at_once(self) -> None:
        """Nothing more is sent."""
        self.transport.abort()

    def fail(self, error: Exception) -> None:
        """End it because of an error of the appliance's own."""
        if not self._failed:
            self._failed = True
            self._shared.count(Counter.HTTP_REQUESTS_FAILED)
            logger.error("HTTP: internal error, the connection ends", exc_info=error)

    def shutdown(self) -> None:
        """The server stops: running requests are answered, no further ones are taken."""
        self._takes_no_more = True
        if self._exchanges:
            self._exchanges[-1].keep_alive = False
        elif not self._is_lingering:
            self.transport.close()

    # --- time ---------------------------------------------------------------------------------

    def end_if_late(self, now: float) -> None:
        """End it, or its request, if something takes longer than it may."""
        if self._unread_since is not None and now - self._unread_since > UNREAD_S:
            self._shared.count(Counter.HTTP_CONNECTIONS_ENDED_SLOW)
            self.transport.abort()
        elif self._exchanges:
            last = self._exchanges[-1]
            may_take_s = BODY_S + last.received / BODY_BYTES_A_SECOND
            is_read = not self.flow.is_held and not last.is_silent
            if is_read and last.more_body and last.broken is None and now - last.began > may_take_s:
                self._shared.count(Counter.HTTP_CONNECTIONS_ENDED_SLOW)
                self._takes_no_more = self._is_deaf = True
                last.fail(ProblemError(408, "The body comes too slowly."))
        elif now <= self._deadline:
            return
        elif self._is_lingering:
            self.transport.abort()
        elif self._overhead:
            self._shared.count(Counter.HTTP_CONNECTIONS_ENDED_SLOW)
            self._write(ProblemError(408, "The head of the request comes too slowly."))
            self.finish()
        else:
            self.transport.close()
