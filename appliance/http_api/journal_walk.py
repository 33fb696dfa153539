"""Reading the journal on for a while: what one step of an answer of ``GET /messages`` has.

A step begins anew at a number, so between two of them nothing is open or locked, and a client that
goes away leaves nothing behind. Not for: the text of an answer (message_text.py), its parameters
(history.py).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import lru_cache

import msgspec

from appliance.journal.message_cost import content_of
from appliance.journal.search import History
from appliance.message_filter import MessageFilter
from appliance.model import Message

STEP_S = 0.1
"""Seconds after which a step ends, with messages or without."""


class Span(msgspec.Struct, frozen=True):
    """Where a step looks, and when it has enough."""

    after_seq: int
    """Everything up to this number has been looked at."""
    last_seq: int
    """The walk ends here."""
    limit: int
    """The largest number of messages."""
    max_bytes: int
    """Payloads, topics and properties up to about this size, one message at least."""


class Step(msgspec.Struct, frozen=True):
    """What one step found."""

    messages: list[Message]
    """Oldest first."""
    reached: int
    """Everything up to this number has been looked at."""
    missed: int = 0
    """Numbers of messages, of any topic, that were deleted before they were looked at: at most."""


def walk(
    history: History, asked: MessageFilter, may_read: Callable[[str], bool], span: Span
) -> Step:
    """Look on until there is something. For worker threads.

    Args:
        history: the journal.
        asked: what a message must be like.
        may_read: asked for each topic.
        span: where to look.

    Raises:
        UnavailableError: the journal is closed.
        sqlite3.Error: it can't be read.
    """
    until = time.monotonic() + STEP_S
    allowed = lru_cache(maxsize=4096)(may_read)
    reached, missed = span.after_seq, 0

    def pass_deleted(to_seq: int) -> None:
        # What retention has deleted by now may have gone before it was read.
        nonlocal missed
        missed += max(0, min(history.bounds()[0] - 1, to_seq) - reached)

    with contextlib.closing(history.forward(asked, span.after_seq, span.last_seq)) as pieces:
        for piece in pieces:
            pass_deleted(piece.last_seq)
            reached = piece.last_seq
            found = [one for one in piece.messages if allowed(one.topic)]
            if found:
                kept = _within(found, span)
                return Step(kept, kept[-1].seq if len(kept) < len(found) else reached, missed)
            if time.monotonic() > until:
                return Step([], reached, missed)
    pass_deleted(span.last_seq)
    return Step([], max(reached, span.last_seq), missed)


def _within(messages: list[Message], span: Span) -> list[Message]:
    size = 0
    for number, message in enumerate(messages[: span.limit]):
        size += content_of(message)
        if size > span.max_bytes and number:
            return messages[:number]
    return messages[: span.limit]
