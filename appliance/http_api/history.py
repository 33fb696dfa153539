"""``GET /messages``: the journal, in pages with a cursor or streamed as a whole.

A page is made before it is sent and has bounds in number, size and time. Without a limit
(``limit=0``), messages are read while the client takes them. Not for: the parameters
and the OpenAPI document (history_query.py), reading (journal_walk.py), the forms (message_text.py),
how an answer is sent (streaming.py).
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from appliance.bridge.installation import installation_id
from appliance.counters import Counter
from appliance.http_api.caller import Caller, admitted, caller_of
from appliance.http_api.context import Context
from appliance.http_api.history_query import LARGEST_LIMIT, OPENAPI, Query, is_as_text, query_of
from appliance.http_api.journal_walk import Span, Step, walk
from appliance.http_api.message_text import CONTENT_TYPES, MessageText, one_message
from appliance.http_api.messages import topic_of
from appliance.http_api.problem import ProblemError
from appliance.http_api.query import parameters
from appliance.http_api.streaming import CutError, Slots, Streamed
from appliance.message_filter import MessageFilter
from appliance.mqtt.topics import topic_problem
from appliance.recorders.metadata import iso_time

__all__ = ["OPENAPI", "routes"]

PAGE_BYTES = 4 * 1024 * 1024
"""Of payloads, topics and properties in one page."""
PAGE_S = 10.0
"""A page that takes longer ends with what was found, and its cursor goes on."""
_ADMITTED_S = 1.0
"""As often a user whose answer takes long is let in again: a password may be taken back."""
_READERS = 2
"""Steps that threads make at one time: each takes a share of the interpreter."""


class History:
    """The calls of one server."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._slots = Slots(context)
        self._readers = asyncio.Semaphore(_READERS)
        self._installation = ""

    async def messages(self, request: Request) -> Response:
        """``GET /messages``."""
        caller = await caller_of(request)
        if not self._installation:
            data_dir = self._context.appliance.data_dir
            self._installation = await self._context.in_worker(lambda: installation_id(data_dir))
        now_ns = self._context.appliance.clock_ns()
        query = query_of(request, self._installation[:8], now_ns)
        if request.method == "HEAD":
            return Response(headers={"content-type": CONTENT_TYPES[query.kind]})
        query = msgspec.structs.replace(query, asked=_readable(caller, query.asked))
        first, last = await self._read(self._context.appliance.history.bounds)
        if query.after_seq is None:
            after_seq = max(0, first - 1)
        elif query.after_seq <= last:
            after_seq = query.after_seq
        else:
            raise ProblemError(
                409,
                f"The cursor is {query.after_seq}, and the journal's last message is {last}: the"
                " cursor is of another journal. Ask without it to begin with the first message.",
            )
        release = await self._slots.take()
        try:
            reading = _Reading(self, caller, query, last, after_seq)
            if query.limit:
                body, headers = await reading.page(request)
                return Streamed(_whole(body), release, headers)
            headers = await reading.begin()
            return Streamed(reading.stream(request), release, headers)
        except BaseException:
            release()
            raise

    async def retained(self, request: Request) -> Response:
        """``GET /retained/{topic}``."""
        caller = await caller_of(request)
        topic = topic_of(request)
        as_text = is_as_text(parameters(request, ("payload",)).get("payload"))
        if wrong := topic_problem(topic):
            raise ProblemError(400, f"The topic {topic!r} can't have a message: {wrong}")
        if not await caller.may_receive(topic):
            raise ProblemError(403, f"The user may not subscribe to {topic}.")

        async def find() -> Any:
            return self._context.appliance.retained.get(topic)

        message = await self._context.on_engine(find)
        if message is None:
            raise ProblemError(404, f"No message of the topic {topic} is retained.")
        body = one_message(message, as_text=as_text)
        return Response(body, media_type="application/json")

    async def _read(self, work: Any) -> Any:
        """Run a reading of the journal in a thread, few at a time."""
        async with self._readers:
            try:
                return await self._context.in_worker(work)
            except sqlite3.Error as error:
                raise ProblemError(503, f"The journal can't be read: {error}.") from None

    async def step(self, caller: Caller, asked: MessageFilter, span: Span) -> Step:
        """One step of the walk. Raises ``ProblemError``."""
        history = self._context.appliance.history
        # Rights may change meanwhile: each step asks for those that count.
        found: Step = await self._read(lambda: walk(history, asked, caller.reader(), span))
        return found

    def cursor(self, seq: int) -> str:
        """Where an answer goes on."""
        return f"{seq}-{self._installation[:8]}"

    @property
    def is_stopping(self) -> bool:
        return self._context.stopping.is_set()

    def count(self, counter: Counter) -> None:
        self._context.count(counter)


def _readable(caller: Caller, asked: MessageFilter) -> MessageFilter:
    """The filter, made as narrow as the caller's rights are.

    Raises:
        ProblemError: 403, nothing of what is asked for may be read.
    """
    topics = tuple(each for each in asked.topics if each != "#")
    if len(topics) == len(asked.topics) == 1 and not set("+#") & set(topics[0]):
        if not caller.may_read(topics[0]):
            raise ProblemError(403, f"The user may not subscribe to {topics[0]}.")
    elif len(topics) < len(asked.topics) or not topics:
        readable = caller.readable()
        if readable == ():
            raise ProblemError(403, "The user may not subscribe to any topic.")
        topics = () if readable is None or "#" in readable else readable
    return msgspec.structs.replace(asked, topics=topics)


async def _whole(body: bytes) -> AsyncGenerator[bytes]:
    yield body


class _Reading:
    """One answer's way through the journal."""

    def __init__(
        self, history: History, caller: Caller, query: Query, last_seq: int, after_seq: int
    ) -> None:
        self._history = history
        self._caller = caller
        self._query = query
        self._last_seq = last_seq
        self._reached = after_seq
        self._missed = 0
        self._text = MessageText(query.kind, as_text=query.as_text)
        self._first = b""

    async def _next(self, limit: int, max_bytes: int) -> list[Any]:
        span = Span(self._reached, self._last_seq, limit, max_bytes)
        step = await self._history.step(self._caller, self._query.asked, span)
        self._reached = step.reached
        if self._query.after_seq is not None or self._text.has_begun:
            # Without a cursor, nothing is promised about what was deleted before the first message.
            self._missed += step.missed
        return await self._caller.receivable(step.messages)

    @property
    def _has_more(self) -> bool:
        return self._reached < self._last_seq

    async def page(self, request: Request) -> tuple[bytes, dict[str, str]]:
        """A page and its headers."""
        until = time.monotonic() + PAGE_S
        limit, size = self._query.limit, PAGE_BYTES
        body: list[bytes] = []
        while limit and size > 0 and self._has_more and time.monotonic() < until:
            messages = await self._next(limit, size)
            text = self._text.rows(messages)
            body.append(text)
            limit -= len(messages)
            size -= len(text)
        next_url = self._next_url(request) if self._has_more else None
        cursor = self._history.cursor(self._reached)
        body.append(self._text.end(next_url=next_url, cursor=cursor, missed=self._missed))
        whole = b"".join(body)
        headers = self._headers(cursor)
        headers["content-length"] = str(len(whole))
        if next_url is not None:
            headers["link"] = f'<{next_url}>; rel="next"'
        return whole, headers

    def _next_url(self, request: Request) -> str:
        asked = self._query.asked
        fixed = {"since": asked.since_ns, "until": asked.until_ns}
        query: list[tuple[str, str]] = []
        for name, value in request.query_params.multi_items():
            at_ns = fixed.get(name)
            if name != "cursor":
                query.append((name, value if at_ns is None else iso_time(at_ns)))
        query.append(("cursor", self._history.cursor(self._reached)))
        return str(request.url.replace(query=urlencode(query)))

    def _headers(self, cursor: str) -> dict[str, str]:
        return {
            "content-type": CONTENT_TYPES[self._query.kind],
            "cache-control": "no-store",
            "appliance-cursor": cursor,
            "appliance-missed": str(self._missed),
        }

    # --- without a limit -------------------------------------------------------------------------

    async def begin(self) -> dict[str, str]:
        """Look up to the first messages; the headers."""
        until = time.monotonic() + PAGE_S
        while self._has_more and not self._first and time.monotonic() < until:
            self._first = await self._rows()
        return self._headers(self._history.cursor(self._last_seq))

    async def _rows(self) -> bytes:
        return self._text.rows(await self._next(LARGEST_LIMIT, PAGE_BYTES))

    async def stream(self, request: Request) -> AsyncGenerator[bytes]:
        """Everything, from the first messages on. Raises ``CutError``."""
        missed, admitted_at = self._missed, time.monotonic()
        yield self._first
        self._first = b""
        try:
            while self._has_more:
                if self._history.is_stopping:
                    raise CutError
                if time.monotonic() > admitted_at + _ADMITTED_S:
                    await admitted(request)
                    admitted_at = time.monotonic()
                rows = await self._rows()
                if self._missed > missed and self._query.kind != "json":
                    # These forms have no place to say so.
                    self._history.count(Counter.HTTP_READINGS_ENDED_DELETED)
                    raise CutError
                yield rows
        except ProblemError:
            raise CutError from None
        cursor = self._history.cursor(self._reached)
        yield self._text.end(next_url=None, cursor=cursor, missed=self._missed)


def routes(context: Context) -> list[Route]:
    """The routes."""
    history = History(context)
    return [
        Route("/messages", history.messages, methods=["GET"]),
        Route("/retained/{topic:topic}", history.retained, methods=["GET"]),
    ]
