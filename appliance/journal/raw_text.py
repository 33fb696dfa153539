"""Whether stored bytes can hold what is searched: looked at before messages are made of them.

The answer "no" is certain, the answer "maybe" is not. Texts and names are compared casefolded
(matching.py), so bytes that become another letter, or several, have to be thought of: the Kelvin
sign is a k, and the German ß is ss. Not for: whether a message has the text.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import product

from appliance.message_filter import MessageFilter

_MOST_FORMS = 4
_LONGEST = 40
"""Characters of a text that are thought of: more of them would not leave out more bytes."""
_SHORTEST = 4
"""Characters that leave out enough, if there are so many."""
_ASCII = re.compile(r"[\x00-\x7f]+")
_LAST_FOLDED = 0x1FFFF
"""No character behind it has another case."""
_REPLACED = "\ufffd"
"""Stands for bytes that are no text, so any bytes may be one."""


class RawText:
    """What bytes must hold for one text to be in them."""

    def __init__(self, text: str) -> None:
        """``text``: what is looked for; in any case."""
        word = text.casefold()
        anchor = _anchor(word)
        self._lower: bytes | None = None
        """In lower case, if it is ASCII."""
        self._forms: tuple[bytes, ...] = ()
        """Else all its forms."""
        self._others: tuple[bytes, ...] = ()
        """Characters that become a part of it."""
        self.is_blind = not anchor
        """Whether all bytes may hold it."""
        if anchor.isascii():
            self._lower = anchor.encode()
        else:
            self._forms = tuple(
                "".join(form).encode() for form in product(*(_same(one) for one in anchor))
            )
        if anchor:
            self._others = _becoming_part_of(anchor)

    def may_be_in(self, body: bytes, lower: bytes) -> bool:
        """Whether the text may be in these bytes; ``lower``: ``body.lower()``."""
        if self.is_blind:
            return True
        if self._lower is not None and self._lower in lower:
            return True
        return any(one in body for one in self._forms) or any(one in body for one in self._others)


class RawSearch:
    """What the bytes of a chunk must hold for a message in it to pass a filter."""

    def __init__(self, asked: MessageFilter) -> None:
        names = [max(one.text.split("*"), key=len) for one in (*asked.clients, *asked.users)]
        self._texts = [RawText(each) for each in (*asked.texts, *names) if each]
        self._topics = [_literal(each) for each in asked.topics]
        """One of them must be there; empty: any topic will do."""
        if not all(self._topics):
            self._topics = []
        self.is_blind = not self._topics and all(one.is_blind for one in self._texts)
        """Whether all bytes may hold such a message."""

    def may_be_in(self, body: bytes) -> bool:
        """Whether such a message may be in these bytes."""
        if self._topics and not any(one in body for one in self._topics):
            return False
        if not self._texts:
            return True
        lower = body.lower()
        return all(one.may_be_in(body, lower) for one in self._texts)


def _literal(topic_filter: str) -> bytes:
    """The longest text that each matching topic has."""
    # ``plant/#`` matches ``plant`` too.
    parts = topic_filter.removesuffix("#").removesuffix("/").split("+")
    return max(parts, key=len).encode()


@lru_cache(maxsize=256)
def _anchor(word: str) -> str:
    """The part of a word to look for; empty if there is none.

    Each character that may become a part of it has to be looked for as well, so a part without any
    is better than a long one.
    """
    # Topic and client id stand apart in the bytes, and bytes that are no text stand for others.
    parts = word.replace(_REPLACED, "\n").split("\n")
    runs: list[str] = [run for part in parts for run in _ASCII.findall(part[:_LONGEST])]
    best = max(runs, key=len, default="")
    if len(best) > 1:
        length = min(len(best), _SHORTEST)
        pieces = {
            run[start:end]
            for run in runs
            for start in range(len(run))
            for end in range(start + length, len(run) + 1)
        }
        return min(sorted(pieces), key=lambda one: (len(_becoming_part_of(one)), -len(one)))
    for part in parts:
        for length in (3, 2, 1):
            for start in range(len(part) - length + 1):
                piece = part[start : start + length]
                forms = 1
                for letter in piece:
                    forms *= len(_same(letter))
                if not piece.isascii() and forms <= _MOST_FORMS:
                    return piece
    return best


@lru_cache(maxsize=1)
def _folds() -> dict[str, tuple[str, ...]]:
    """All characters whose casefolded form is another text, by that text."""
    found: dict[str, list[str]] = {}
    for code in range(_LAST_FOLDED + 1):
        letter = chr(code)
        other = letter.casefold()
        if other != letter:
            found.setdefault(other, []).append(letter)
    return {text: tuple(letters) for text, letters in found.items()}


def _same(letter: str) -> tuple[str, ...]:
    """The characters that become a letter alone, with itself."""
    return (letter, *_folds().get(letter, ()))


@lru_cache(maxsize=1024)
def _becoming_part_of(anchor: str) -> tuple[bytes, ...]:
    """Characters that are no form of one letter, and that may have become a part of the anchor."""
    found = []
    for text, letters in _folds().items():
        if len(text) == 1 and not (anchor.isascii() and text in anchor):
            continue
        if text in anchor or anchor in text or _overlap(text, anchor) or _overlap(anchor, text):
            found += [letter.encode() for letter in letters if not letter.isascii()]
    return tuple(found)


def _overlap(first: str, second: str) -> bool:
    """Whether the end of one text is the beginning of another."""
    return any(second.startswith(first[at:]) for at in range(1, len(first)))
