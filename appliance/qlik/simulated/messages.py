"""A request and an answer inside the simulated server, and the dates it writes.

Not for: sockets (server.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

EMPTY_DATE = "1753-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes = b""
    query_is_whole: bool = True
    """False if a part of the query has no ``=``, as when an ``&`` in a value was not encoded."""


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes = b""
    content_type: str = "application/json;charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Raw:
    """What is written as it is, headers and all; the connection is closed behind it."""

    pieces: Iterator[bytes]


def json_answer(value: object, status: int = 200) -> Answer:
    return Answer(status, msgspec.json.encode(value))


def text_answer(text: str, status: int) -> Answer:
    return Answer(status, text.encode(), "text/plain;charset=utf-8")


def html_answer(text: str, status: int = 200) -> Answer:
    page = f"<!DOCTYPE html><html><body>{text}</body></html>"
    return Answer(status, page.encode(), "text/html;charset=utf-8")


def date(at_ns: int | None) -> str:
    """As Qlik writes a time: UTC with milliseconds; the year 1753 stands for none."""
    if at_ns is None:
        return EMPTY_DATE
    moment = datetime.fromtimestamp(at_ns / 1e9, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
