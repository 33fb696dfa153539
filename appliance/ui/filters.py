"""The filter of a list: an object with a field for each thing that can be asked for.

Screens make one, hand it to one another, and ask it about a message, an execution or another row.
Several topic filters are alternatives, everything else must hold together.
Not for: the text that an operator types (filter_text.py), the source of the messages (live_feed.py,
search.py).
"""

from __future__ import annotations

import msgspec

from appliance import matching
from appliance.engine_api import Mark
from appliance.message_filter import MessageFilter, Name
from appliance.model import Execution, ExecutionState, Message, is_own
from appliance.ui import symbols

GROUPS = {
    "bad": frozenset(state for state in ExecutionState if state.is_bad),
    "open": frozenset(state for state in ExecutionState if not state.is_final),
    "any": frozenset(ExecutionState),
}
"""States that have one name in a filter."""


class FilterError(ValueError):
    """A filter that can't be read; the text says which word and what is possible instead."""


class Moment(msgspec.Struct, frozen=True):
    """A point in time, in nanoseconds since 1970, and what the operator wrote for it: ``10m``."""

    at_ns: int
    typed: str


class Filter(msgspec.Struct, frozen=True):
    """What a row must be like to be shown. The fields are in the order of their text."""

    topics: tuple[str, ...] = ()
    not_topics: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    not_texts: tuple[str, ...] = ()
    clients: tuple[Name, ...] = ()
    not_clients: tuple[Name, ...] = ()
    users: tuple[Name, ...] = ()
    not_users: tuple[Name, ...] = ()
    tasks: tuple[Name, ...] = ()
    rules: tuple[Name, ...] = ()
    """Triggers and timers."""
    states: frozenset[ExecutionState] = frozenset()
    since: Moment | None = None
    until: Moment | None = None

    @property
    def is_empty(self) -> bool:
        return self == EMPTY

    @property
    def needs_marks(self) -> bool:
        """Whether it asks what a message led to, which may change after the message came."""
        return bool(self.tasks or self.rules or self.states)

    def names_own(self, service: str) -> bool:
        """Whether it asks for messages that the appliance ``service`` itself publishes.

        Without that, status and outcomes, which have the names of all tasks in them, would be
        among the finds of nearly every search.
        """
        own = f"{service}/"
        return (
            self.needs_marks
            or any(one.startswith((own, "$")) for one in self.topics)
            or any(is_own(one.text) for one in self.clients)
        )

    def takes(self, message: Message) -> bool:
        """Whether a message passes, apart from what it led to."""
        return self.takes_time(message.received_ns) and matching.takes(self, message)

    def for_journal(self, without_own: str = "") -> MessageFilter:
        """The same for a search in the journal, apart from what a message led to.

        ``without_own``: as in ``MessageFilter``.
        """
        return MessageFilter(
            topics=self.topics,
            not_topics=self.not_topics,
            texts=self.texts,
            not_texts=self.not_texts,
            clients=self.clients,
            not_clients=self.not_clients,
            users=self.users,
            not_users=self.not_users,
            since_ns=None if self.since is None else self.since.at_ns,
            until_ns=None if self.until is None else self.until.at_ns,
            without_own=without_own,
            with_outcome=self.needs_marks,
        )

    def takes_time(self, at_ns: int) -> bool:
        """Whether a moment lies within since: and until:."""
        return (self.since is None or at_ns >= self.since.at_ns) and (
            self.until is None or at_ns < self.until.at_ns
        )

    def takes_topic(self, topic: str) -> bool:
        """Whether a topic passes the topic filters."""
        return not (
            (self.topics and not matching.matches_any(self.topics, topic))
            or (self.not_topics and matching.matches_any(self.not_topics, topic))
        )

    def takes_client(self, client_id: str) -> bool:
        """Whether a client id passes client: and !client:."""
        return matching.takes_name(self.clients, self.not_clients, client_id)

    def takes_user(self, username: str) -> bool:
        """Whether a user's name passes user: and !user:."""
        return matching.takes_name(self.users, self.not_users, username)

    def takes_mark(self, mark: Mark | None, execution: Execution | None) -> bool:
        """Whether what a message led to passes; ``execution``: the first that it started."""
        if mark is None:
            return not self.needs_marks
        if self.states and mark.state not in self.states:
            return False
        if execution is None:
            return not (self.tasks or self.rules)
        return self._takes_task(execution)

    def _takes_task(self, execution: Execution) -> bool:
        return all(
            one.takes(execution.task_name) or one.takes(execution.task_id) for one in self.tasks
        ) and all(one.takes(execution.cause.rule) for one in self.rules)

    def takes_text(self, *fields: str) -> bool:
        """Whether the words hold for a row of any list."""
        if not (self.texts or self.not_texts):
            return True
        text = "\n".join(fields).casefold()
        return all(matching.folded(one) in text for one in self.texts) and not any(
            matching.folded(one) in text for one in self.not_texts
        )

    def takes_execution(self, execution: Execution) -> bool:
        """The same filter for a row in the list of executions."""
        cause = execution.cause
        return (
            self.takes_time(execution.requested_ns)
            and (not self.states or execution.state in self.states)
            and self._takes_task(execution)
            and self.takes_topic(cause.topic)
            and self.takes_client(cause.client_id)
            and self.takes_text(
                execution.task_name,
                execution.task_id,
                cause.topic,
                cause.client_id,
                cause.rule,
                execution.reason,
                execution.state.value,
                symbols.word(execution.state),
            )
        )


EMPTY = Filter()


def for_client(client_id: str) -> Filter:
    """The filter for what a client sends."""
    return Filter(clients=(Name(client_id, exact=True),)) if client_id else EMPTY


def for_rule(name: str) -> Filter:
    """The filter for the executions that a trigger or timer asked for."""
    return Filter(rules=(Name(name, exact=True),)) if name else EMPTY


def for_task(name_or_id: str) -> Filter:
    """The filter for a task's executions, and for the messages that started it."""
    return Filter(tasks=(Name(name_or_id, exact=True),)) if name_or_id else EMPTY


def for_topic(topic: str, *, below: bool) -> Filter:
    """The filter for a topic, or for it and all topics ``below`` it."""
    wanted = f"{topic}/#" if below else topic
    return Filter(topics=(wanted,)) if wanted else EMPTY
