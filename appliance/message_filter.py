"""What a search asks of messages, as data: made by the UI and by commands, sent by terminals.

Not for: whether a message passes (matching.py), the text that an operator types
(ui/filter_text.py), what a message led to (tasks).
"""

from __future__ import annotations

from functools import lru_cache

import msgspec


class Name(msgspec.Struct, frozen=True):
    """What a name must be: a part of it in any case, with ``*`` for any characters; or the whole.

    A screen that shows what belongs to a client, rule or task asks for the whole name.
    """

    text: str
    exact: bool = False

    def takes(self, name: str) -> bool:
        """Whether a name is meant."""
        if self.exact:
            return name == self.text
        if "*" not in self.text:
            return _folded(self.text) in name.casefold()
        return _fits(_parts(self.text), name.casefold())


@lru_cache(maxsize=256)
def _folded(text: str) -> str:
    return text.casefold()


@lru_cache(maxsize=256)
def _parts(text: str) -> tuple[str, ...]:
    """Only ``*`` stands for something else: client ids have brackets and question marks."""
    return tuple(text.casefold().split("*"))


def _fits(parts: tuple[str, ...], name: str) -> bool:
    """Whether a name has the parts in their order, the first and the last at its ends.

    The time grows with the name's length, whatever the parts are: a terminal may send both.
    """
    first, *inner, last = parts
    end = len(name) - len(last)
    if end < len(first) or not (name.startswith(first) and name.endswith(last)):
        return False
    at = len(first)
    for part in inner:
        at = name.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True


class MessageFilter(msgspec.Struct, frozen=True):
    """What a message must be like. ``topics`` are alternatives; all else must hold together."""

    topics: tuple[str, ...] = ()
    """Topic filters."""
    not_topics: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    """Each is in the topic, the client id or the payload, in any case."""
    not_texts: tuple[str, ...] = ()
    clients: tuple[Name, ...] = ()
    not_clients: tuple[Name, ...] = ()
    users: tuple[Name, ...] = ()
    not_users: tuple[Name, ...] = ()
    since_ns: int | None = None
    """Received at this time (ns since 1970) or later."""
    until_ns: int | None = None
    """Received before this time."""
    without_own: str = ""
    """What the appliance itself published on topics that begin so is left out; empty: nothing."""

    with_outcome: bool = False
    """Only messages that started something or should have, of those that the engine remembers."""


EVERYTHING = MessageFilter()
