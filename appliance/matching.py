"""Whether a message is what a filter asks for: one answer for the live view and every search.

Not for: the filter as data (message_filter.py), finding messages in the journal
(journal/search.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

from appliance.message_filter import MessageFilter, Name
from appliance.model import Message, is_own
from appliance.mqtt import topics

UPLOADS = "recorders"
"""The level of topics of messages that tell of uploads, behind ``<service.name>/``."""


class Asked(Protocol):
    """The fields of a filter that concern topic, sender and content."""

    @property
    def topics(self) -> tuple[str, ...]: ...
    @property
    def not_topics(self) -> tuple[str, ...]: ...
    @property
    def texts(self) -> tuple[str, ...]: ...
    @property
    def not_texts(self) -> tuple[str, ...]: ...
    @property
    def clients(self) -> tuple[Name, ...]: ...
    @property
    def not_clients(self) -> tuple[Name, ...]: ...
    @property
    def users(self) -> tuple[Name, ...]: ...
    @property
    def not_users(self) -> tuple[Name, ...]: ...


def takes(asked: Asked, message: Message) -> bool:
    """Whether a message passes, apart from its time and from what it led to."""
    topic = message.topic
    if asked.topics and not matches_any(asked.topics, topic):
        return False
    if asked.not_topics and matches_any(asked.not_topics, topic):
        return False
    if (asked.clients or asked.not_clients) and not takes_name(
        asked.clients, asked.not_clients, message.client_id
    ):
        return False
    if (asked.users or asked.not_users) and not takes_name(
        asked.users, asked.not_users, message.username or ""
    ):
        return False
    if not (asked.texts or asked.not_texts):
        return True
    look = _Haystack(topic, message.client_id, message.payload)
    return all(look.has(folded(one)) for one in asked.texts) and not any(
        look.has(folded(one)) for one in asked.not_texts
    )


def select(asked: MessageFilter, messages: Sequence[Message]) -> list[Message]:
    """The messages that pass, their time included. ``without_own`` is left to ``is_own_news``."""
    since_ns, until_ns = asked.since_ns, asked.until_ns
    if since_ns is not None:
        messages = [one for one in messages if one.received_ns >= since_ns]
    if until_ns is not None:
        messages = [one for one in messages if one.received_ns < until_ns]
    if asked.topics or asked.not_topics:
        # One answer a topic: a chunk has few of them.
        wanted, unwanted = asked.topics, asked.not_topics
        good = {
            topic
            for topic in {one.topic for one in messages}
            if (not wanted or matches_any(wanted, topic)) and not matches_any(unwanted, topic)
        }
        messages = [one for one in messages if one.topic in good]
    if asked.clients or asked.not_clients:
        senders = {
            client
            for client in {one.client_id for one in messages}
            if takes_name(asked.clients, asked.not_clients, client)
        }
        messages = [one for one in messages if one.client_id in senders]
    if asked.users or asked.not_users or asked.texts or asked.not_texts:
        messages = [one for one in messages if takes(asked, one)]
    return list(messages)


def is_own_news(message: Message, prefix: str) -> bool:
    """Whether it is the appliance's status or an outcome. ``prefix``: ``<service.name>/``.

    A message that tells of an upload is neither: only its row shows the file and the reload. The
    panels already show the others. In a list they would crowd out messages from clients, with a
    filter too: they have the names of tasks, topics and clients in them. So a list leaves them out,
    unless the operator wants them shown (``o``) or the filter asks for them (``names_own``).
    """
    if not (is_own(message.client_id) and message.topic.startswith(prefix)):
        return False
    return not message.topic.startswith(f"{prefix}{UPLOADS}/")


class _Haystack:
    """A message to look for words in; a payload is decoded only if it has more than ASCII."""

    __slots__ = ("_folded", "_head", "_payload")

    def __init__(self, topic: str, client_id: str, payload: bytes) -> None:
        self._head = _folded_head(topic, client_id)
        self._payload = payload
        self._folded: str | None = None

    def has(self, word: str) -> bool:
        """Whether a casefolded word is in topic, client id or payload."""
        if word in self._head:
            return True
        if self._folded is None:
            payload = self._payload
            if payload.isascii():
                self._folded = payload.lower().decode("ascii")
            else:
                # The Kelvin sign is a k in another case, and one letter may be two in another.
                self._folded = payload.decode("utf-8", "replace").casefold()
        return word in self._folded


@lru_cache(maxsize=4096)
def _folded_head(topic: str, client_id: str) -> str:
    return f"{topic}\n{client_id}".casefold()


@lru_cache(maxsize=256)
def folded(text: str) -> str:
    """A text in the case in which texts are compared."""
    return text.casefold()


@lru_cache(maxsize=8192)
def matches_any(topic_filters: tuple[str, ...], topic: str) -> bool:
    """Whether one of the topic filters matches."""
    return any(topics.matches(one, topic) for one in topic_filters)


def takes_name(wanted: tuple[Name, ...], unwanted: tuple[Name, ...], name: str) -> bool:
    """Whether a name is what all of ``wanted`` and none of ``unwanted`` mean."""
    return all(one.takes(name) for one in wanted) and not any(one.takes(name) for one in unwanted)
