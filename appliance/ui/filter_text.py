"""Filters as text: ``plant/+/state !heartbeat client:plc-07 state:failed since:10m``.

``parse`` reads what an operator types, ``text_of`` shows any filter as text that ``parse`` reads as
the same filter. Words are split at blanks. Quotes keep any text together as one word, and a quote
between them is doubled: ``"2"" pipe"``. ``:`` asks for a part of a name, ``=`` for the whole.
Not for: what a filter means for a row (filters.py).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, time

from appliance.message_filter import Name
from appliance.model import ExecutionState
from appliance.mqtt import topics
from appliance.time_of_day import last_time
from appliance.ui import symbols
from appliance.ui.filters import GROUPS, Filter, FilterError, Moment

_NAMES = {"client": "clients", "user": "users", "task": "tasks", "rule": "rules"}
"""Words for names, and their fields."""

_BOUNDS = ("since", "until")
WORDS = ("topic", "text", *_NAMES, "state", *_BOUNDS)
"""What a list may be asked for; a page that can't answer some of them names the others."""

_KEYS = ("topic", *_NAMES, "state", *_BOUNDS)
_NOT_EXCLUDED = frozenset(("task", "rule", "state", *_BOUNDS))
_WORD = re.compile(
    rf"""(!?)((?:(?:{"|".join(_KEYS)}):|(?:{"|".join(_NAMES)})=)?)("(?:[^"]|"")*"?|\S+)"""
)
_TIMES = "30s, 10m, 2h, 1d, 14:03 or 2026-11-22T14:03"
_AGO = re.compile(r"(\d+)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SECOND_NS = 1_000_000_000


# --- from text -----------------------------------------------------------------------------------


def parse(
    source: str,
    now_ns: int,
    *,
    utc: bool = False,
    words: Collection[str] = WORDS,
    where: str = "here",
) -> Filter:
    """Read a filter.

    Args:
        source: what was typed.
        now_ns: the time that ``since:10m`` counts from, in nanoseconds since 1970.
        utc: whether a time of day is one of UTC.
        words: what can be asked for, of ``WORDS``.
        where: the list that is asked, for an error.

    Raises:
        FilterError: a word can't be read, or the list can't be asked for it.
    """
    found: dict[str, list[str | Name]] = {}
    states: set[ExecutionState] = set()
    bounds: dict[str, Moment] = {}
    for negative, prefix, body in _WORD.findall(source):
        quoted = body.startswith('"')
        word = _unquoted(body) if quoted else body
        key, exact = prefix[:-1], prefix.endswith("=")
        if not (word or exact):
            continue
        if not (key or quoted) and word[:-1] in _KEYS and word[-1] == ":":
            what = f"a time: {_TIMES}" if word[:-1] in _BOUNDS else "something behind it"
            raise FilterError(f"{word} wants {what}")
        kind = key or _kind(word, quoted=quoted)
        if kind not in words:
            raise FilterError(_not_here(kind, words, where))
        if negative and kind in _NOT_EXCLUDED:
            raise FilterError(_not_excluded(kind))
        if kind == "state":
            states |= _states(word)
        elif kind in _BOUNDS:
            bounds[kind] = _bound(kind, word, now_ns, utc=utc)
        elif kind == "topic" and (problem := topics.filter_problem(word)):
            raise FilterError(f"{word!r} is not a topic filter: {problem}")
        else:
            name = f"{'not_' if negative else ''}{_NAMES.get(kind, f'{kind}s')}"
            value = Name(word, exact) if kind in _NAMES else word
            found.setdefault(name, []).append(value)
    fields: dict[str, object] = {name: tuple(values) for name, values in found.items()}
    return Filter(states=frozenset(states), **bounds, **fields)  # type: ignore[arg-type]


def _kind(word: str, *, quoted: bool) -> str:
    """Wildcards that stand as whole levels make a topic filter; a plain topic is text."""
    if quoted:
        return "text"
    levels = word.split("/")
    return "topic" if "#" in levels or "+" in levels else "text"


def _unquoted(body: str) -> str:
    """The text between quotes; the last quote may be missing, since it is typed last."""
    inner = body[1:]
    ended = (len(inner) - len(inner.rstrip('"'))) % 2 == 1
    return (inner[:-1] if ended else inner).replace('""', '"')


def _not_here(kind: str, words: Collection[str], where: str) -> str:
    what = "a topic filter" if kind == "topic" else f"{kind}:"
    known = ", ".join("text" if one == "text" else f"{one}:" for one in WORDS if one in words)
    hint = "; for that text, put quotes around it" if kind == "topic" and "text" in words else ""
    return f"{what} can't be asked for {where}; there are: {known}{hint}"


def _not_excluded(kind: str) -> str:
    if kind in ("task", "rule"):
        return f"{kind}: can't be excluded; leave it out or use !text"
    return f"{kind}: can't be excluded; say which {kind} is wanted"


def _states(word: str) -> frozenset[ExecutionState]:
    name = word.casefold()
    if name in GROUPS:
        return GROUPS[name]
    exact = frozenset(
        state for state in ExecutionState if name in (state.value, symbols.word(state))
    )
    found = exact or frozenset(
        state
        for state in ExecutionState
        if state.value.startswith(name) or symbols.word(state).startswith(name)
    )
    if not found:
        known = ", ".join([*GROUPS, *(state.value for state in ExecutionState)])
        raise FilterError(f"state:{word} is not known; there are: {known}")
    return found


def _bound(key: str, word: str, now_ns: int, *, utc: bool) -> Moment:
    try:
        if ago := _AGO.fullmatch(word):
            return Moment(now_ns - int(ago[1]) * _SECONDS[ago[2]] * _SECOND_NS, word)
        return Moment(moment(word, now_ns, utc=utc), word)
    except (ValueError, OverflowError, OSError):  # the last two: years that the platform lacks
        raise FilterError(f"{key}:{word} is not a time; write {_TIMES}") from None


def moment(word: str, now_ns: int, *, utc: bool) -> int:
    """Nanoseconds of ``14:03``, ``14:03:21``, ``2026-11-22`` or ``2026-11-22T14:03``.

    A time of day is the last one before now. Raises ``ValueError``.
    """
    if (wanted := time_of_day(word, utc=utc)) is not None:
        return int(last_time(wanted, now_ns / _SECOND_NS)) * _SECOND_NS
    found = datetime.fromisoformat(word.replace("_", "T"))
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC) if utc else found.astimezone()
    return int(found.timestamp()) * _SECOND_NS


def time_of_day(word: str, *, utc: bool) -> time | None:
    """``14:03`` or ``14:03:21``; ``None`` for another form. Raises ``ValueError``."""
    if re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", word, re.ASCII) is None:
        return None
    hours, _, rest = word.partition(":")
    return time.fromisoformat(f"{hours:0>2}:{rest}").replace(tzinfo=UTC if utc else None)


# --- to text -------------------------------------------------------------------------------------


def text_of(wanted: Filter) -> str:
    """The filter as an operator would type it; ``parse`` reads it as the same filter."""
    return " ".join(_pieces(wanted))


def _pieces(wanted: Filter) -> Iterator[str]:
    for sign, topic_filters in (("", wanted.topics), ("!", wanted.not_topics)):
        for one in topic_filters:
            bare = _is_bare(one) and _kind(one, quoted=False) == "topic"
            yield f"{sign}{one}" if bare else f"{sign}topic:{_quoted_if_needed(one)}"
    for sign, texts in (("", wanted.texts), ("!", wanted.not_texts)):
        for one in texts:
            bare = _is_bare(one) and _kind(one, quoted=False) == "text"
            yield f"{sign}{one}" if bare else f"{sign}{_quoted(one)}"
    for key, field in _NAMES.items():
        for sign, names in (
            ("", getattr(wanted, field)),
            ("!", getattr(wanted, f"not_{field}", ())),
        ):
            for name in names:
                yield f"{sign}{key}{'=' if name.exact else ':'}{_quoted_if_needed(name.text)}"
    yield from (f"state:{one}" for one in _state_words(wanted.states))
    for key in _BOUNDS:
        bound: Moment | None = getattr(wanted, key)
        if bound is not None:
            yield f"{key}:{_quoted_if_needed(bound.typed)}"


def _state_words(states: frozenset[ExecutionState]) -> list[str]:
    for name, group in GROUPS.items():
        if states == group:
            return [name]
    return [state.value for state in ExecutionState if state in states]


def _is_bare(word: str) -> bool:
    """Whether a word without quotes is read as this word and nothing else."""
    ends_like_a_key = word[-1] == ":" and word[:-1] in _KEYS
    return _WORD.findall(word) == [("", "", word)] and word[0] != '"' and not ends_like_a_key


def _quoted_if_needed(word: str) -> str:
    """A word behind a key needs quotes for blanks, and where it begins with a quote."""
    return word if re.fullmatch(r'[^\s"]\S*', word) else _quoted(word)


def _quoted(text: str) -> str:
    doubled = text.replace('"', '""')
    return f'"{doubled}"'
