"""The filter language: ``plant/+/state !heartbeat client:plc-07 state:failed since:10m``.

Words are split at blanks; quotes keep blanks together, and a quote between them is doubled:
``"2"" pipe"``. Several topic filters are alternatives,
everything else must hold together. Not for: where the messages come from (live_feed.py, search).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import msgspec

from appliance.engine_api import Mark
from appliance.model import Execution, ExecutionState, Message
from appliance.mqtt import topics
from appliance.ui import symbols

_WORD = re.compile(r'(!?)((?:[a-z]+:)?)("(?:[^"]|"")*"?|\S+)')
_TIMES = "30s, 10m, 2h, 1d, 14:03 or 2026-11-22T14:03"
_KEYS = ("topic", "client", "task", "state", "since", "until")
_AGO = re.compile(r"(\d+)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_GROUPS = {
    "bad": frozenset(state for state in ExecutionState if state.is_bad),
    "open": frozenset(state for state in ExecutionState if not state.is_final),
    "any": frozenset(ExecutionState),
}


class FilterError(ValueError):
    """A filter that can't be read; the text says which word and what is possible instead."""


class Filter(msgspec.Struct, frozen=True):
    """A parsed filter, or one that a screen made (``for_client`` and its siblings).

    ``source`` is what the operator typed, or would type.
    """

    source: str = ""
    topics: tuple[str, ...] = ()
    not_topics: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    not_texts: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()
    not_clients: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    states: frozenset[ExecutionState] = frozenset()
    since_ns: int = 0
    until_ns: int = 0
    """0: no end."""

    @property
    def is_empty(self) -> bool:
        return not self.source

    @property
    def needs_marks(self) -> bool:
        """Whether it asks what a message led to, which may change after the message came."""
        return bool(self.tasks or self.states)

    def takes(self, message: Message) -> bool:
        """Whether a message passes, apart from what it led to."""
        if not self.takes_time(message.received_ns):
            return False
        topic = message.topic
        if self.topics and not _matches_any(self.topics, topic):
            return False
        if self.not_topics and _matches_any(self.not_topics, topic):
            return False
        if (self.clients or self.not_clients) and not self.takes_client(message.client_id):
            return False
        if not (self.texts or self.not_texts):
            return True
        look = _Haystack(topic, message.client_id, message.payload)
        return all(look.has(one) for one in self.texts) and not any(
            look.has(one) for one in self.not_texts
        )

    def takes_time(self, at_ns: int) -> bool:
        """Whether a moment lies within since: and until:."""
        return at_ns >= self.since_ns and (not self.until_ns or at_ns < self.until_ns)

    def takes_client(self, client_id: str) -> bool:
        """Whether a client id passes client: and !client:."""
        name = client_id.casefold()
        return all(_like(one, name) for one in self.clients) and not any(
            _like(one, name) for one in self.not_clients
        )

    def takes_mark(self, mark: Mark | None, task: str) -> bool:
        """Whether what a message led to passes; ``task`` is the task's name and id."""
        if mark is None:
            return not self.needs_marks
        if self.states and mark.state not in self.states:
            return False
        name = task.casefold()
        return all(one in name for one in self.tasks)

    def takes_text(self, *fields: str) -> bool:
        """Whether the words hold for a row of any list."""
        text = "\n".join(fields).casefold()
        return all(one in text for one in self.texts) and not any(
            one in text for one in self.not_texts
        )

    def takes_execution(self, execution: Execution) -> bool:
        """The same filter for a row in the list of executions."""
        cause = execution.cause
        name = f"{execution.task_name}\n{execution.task_id}".casefold()
        return (
            self.takes_time(execution.requested_ns)
            and (not self.states or execution.state in self.states)
            and all(one in name for one in self.tasks)
            and (not self.topics or any(topics.matches(one, cause.topic) for one in self.topics))
            and not any(topics.matches(one, cause.topic) for one in self.not_topics)
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


class _Haystack:
    """A message to look for words in; the payload is decoded only for words beyond ASCII."""

    __slots__ = ("_decoded", "_head", "_lower", "_payload")

    def __init__(self, topic: str, client_id: str, payload: bytes) -> None:
        self._head = _folded_head(topic, client_id)
        self._payload = payload
        self._lower: bytes | None = None
        self._decoded: str | None = None

    def has(self, word: str) -> bool:
        """Whether a casefolded word is in topic, client id or payload."""
        if word in self._head:
            return True
        if word.isascii():
            if self._lower is None:
                self._lower = self._payload.lower()
            return word.encode() in self._lower
        if self._decoded is None:
            self._decoded = self._payload.decode("utf-8", "replace").casefold()
        return word in self._decoded


@lru_cache(maxsize=4096)
def _folded_head(topic: str, client_id: str) -> str:
    return f"{topic}\n{client_id}".casefold()


@lru_cache(maxsize=8192)
def _matches_any(topic_filters: tuple[str, ...], topic: str) -> bool:
    return any(topics.matches(one, topic) for one in topic_filters)


def _like(pattern: str, name: str) -> bool:
    if "*" not in pattern:
        return pattern in name
    return _pattern(pattern).fullmatch(name) is not None


@lru_cache(maxsize=256)
def _pattern(text: str) -> re.Pattern[str]:
    """Only ``*`` stands for something else: client ids have brackets and question marks."""
    return re.compile(".*".join(map(re.escape, re.split(r"\*+", text))), re.DOTALL)


def for_client(client_id: str) -> Filter:
    """The filter for what a client sends."""
    if not client_id:
        return EMPTY
    return Filter(f"client:{_quoted(client_id)}", clients=(client_id.casefold(),))


def for_topic(topic: str, *, below: bool) -> Filter:
    """The filter for a topic, or for it and all topics ``below`` it."""
    wanted = f"{topic}/#" if below else topic
    return Filter(f"topic:{_quoted(wanted)}", topics=(wanted,)) if wanted else EMPTY


def for_text(text: str) -> Filter:
    """The filter for what has a text in it, be it a word of the filter language."""
    return Filter(_quoted(text), texts=(text.casefold(),)) if text else EMPTY


def _quoted(text: str) -> str:
    doubled = text.replace('"', '""')
    return f'"{doubled}"'


def _unquoted(body: str) -> str:
    """The text between quotes; the last quote may be missing, since it is typed last."""
    inner = body[1:]
    ended = (len(inner) - len(inner.rstrip('"'))) % 2 == 1
    return (inner[:-1] if ended else inner).replace('""', '"')


def parse(source: str, now_ns: int, *, utc: bool = False) -> Filter:
    """Read a filter; ``now_ns`` and ``utc`` give ``since:`` its meaning.

    Raises ``FilterError``.
    """
    found: dict[str, list[str]] = {}
    states: set[ExecutionState] = set()
    bounds = {"since": 0, "until": 0}
    for negative, prefix, body in _WORD.findall(source):
        quoted = body.startswith('"')
        word = _unquoted(body) if quoted else body
        key = prefix[:-1]
        if key and key not in _KEYS:
            key, word = "", prefix + word  # a text with a colon in it, JSON for example
        if not word:
            continue
        if not (key or quoted) and word.endswith(":") and word[:-1] in _KEYS:
            what = f"a time: {_TIMES}" if word in ("since:", "until:") else "something behind it"
            raise FilterError(f"{word} wants {what}")
        name = {"topic": "topics", "client": "clients", "task": "tasks"}.get(key) or _kind(
            word, quoted=quoted
        )
        if key == "state":
            states |= _states(word)
        elif key in bounds:
            bounds[key] = _bound(key, word, now_ns, utc=utc)
        elif name == "topics" and (problem := topics.filter_problem(word)):
            raise FilterError(f"{word!r} is not a topic filter: {problem}")
        elif negative and name == "tasks":
            raise FilterError("task: can't be excluded; leave it out or use !text")
        else:
            plain = word if name == "topics" else word.casefold()
            found.setdefault(("not_" if negative else "") + name, []).append(plain)
        if negative and key in ("state", *bounds):
            raise FilterError(f"{key}: can't be excluded; say which {key} is wanted")
    return Filter(
        source=source.strip(),
        states=frozenset(states),
        since_ns=bounds["since"],
        until_ns=bounds["until"],
        **{name: tuple(words) for name, words in found.items()},
    )


def _kind(word: str, *, quoted: bool) -> str:
    """Wildcards that stand as whole levels make a topic filter; a plain topic is text."""
    if quoted:
        return "texts"
    levels = word.split("/")
    return "topics" if "#" in levels or "+" in levels else "texts"


def _states(word: str) -> frozenset[ExecutionState]:
    name = word.casefold()
    if name in _GROUPS:
        return _GROUPS[name]
    exact = frozenset(
        state for state in ExecutionState if name in (state.value, symbols.word(state))
    )
    found = exact or frozenset(
        state
        for state in ExecutionState
        if state.value.startswith(name) or symbols.word(state).startswith(name)
    )
    if not found:
        known = ", ".join([*_GROUPS, *(state.value for state in ExecutionState)])
        raise FilterError(f"state:{word} is not known; there are: {known}")
    return found


def _bound(key: str, word: str, now_ns: int, *, utc: bool) -> int:
    try:
        if ago := _AGO.fullmatch(word):
            return max(0, now_ns - int(ago[1]) * _SECONDS[ago[2]] * 10**9)
        return moment(word, now_ns, utc=utc)
    except (ValueError, OverflowError, OSError):  # the last two: years that the platform lacks
        raise FilterError(f"{key}:{word} is not a time; write {_TIMES}") from None


def moment(word: str, now_ns: int, *, utc: bool) -> int:
    """Nanoseconds of ``14:03``, ``14:03:21``, ``2026-11-22`` or ``2026-11-22T14:03``.

    A time of day is the last one before now. Raises ``ValueError``.
    """
    zone = UTC if utc else None
    now = datetime.fromtimestamp(now_ns / 1e9, tz=UTC).astimezone(zone)
    if re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", word):
        clock = datetime.strptime(word.zfill(5), "%H:%M:%S" if word.count(":") == 2 else "%H:%M")  # noqa: DTZ007 - a time of day has no zone
        found = now.replace(
            hour=clock.hour, minute=clock.minute, second=clock.second, microsecond=0
        )
        if found > now:
            found -= timedelta(days=1)
    else:
        found = datetime.fromisoformat(word.replace("_", "T"))
        if found.tzinfo is None:
            found = found.replace(tzinfo=UTC) if utc else found.astimezone()
    return max(0, int(found.timestamp()) * 10**9)
