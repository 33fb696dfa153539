"""Placeholders in a recorder's path: what stands where, and which paths can't be taken.

``recordings/{date}/{line}_{sensor}.jsonl``: a file for each day, line and sensor. Braces around
anything that is no name (``{1}``) are part of the path.
Not for: the path of a message (recorders/paths.py).
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from pathlib import PurePath

import msgspec

from appliance.config.placeholders import has_names, split_at_names, unknown_name

OF_TIME = ("date", "hour")
"""Placeholders whose text does not come from a client. It always has the same length."""
OF_TOPIC = "topic"

LONGEST_NAME = 180
"""Bytes of a name that an expanded path has: 255 of file systems, less what is added to it (numbers
of messages, ``.before-TIME``, ``.part``, ``.gz``)."""
_LONGEST_WINDOWS_PATH = 259 - 64
"""The whole path on Windows, less the same."""
SHORTEST_VALUE = 40
"""Bytes that a value needs at least, because a long one ends with a digest of 34."""

_SEPARATORS = re.compile(r"[-_.+=,@ ()\[\]&!;']")
"""Characters of which one must stand between two values in a name; values there do without it."""


class Placeholder(msgspec.Struct, frozen=True):
    """What is replaced: ``date``, ``hour``, ``topic`` or the name of a level."""

    name: str

    @property
    def is_value(self) -> bool:
        """Whether its text comes from a client."""
        return self.name not in OF_TIME


class Name(msgspec.Struct, frozen=True):
    """One folder's or file's name with placeholders."""

    pieces: tuple[str | Placeholder, ...]
    separators: str = ""
    """Characters that stand between values and that no value may therefore have."""
    longest_value: int = LONGEST_NAME
    """Bytes that the text of a value may have."""

    @property
    def placeholders(self) -> list[Placeholder]:
        return [each for each in self.pieces if isinstance(each, Placeholder)]

    @property
    def has_value(self) -> bool:
        return any(each.is_value for each in self.placeholders)


class PathTemplate(msgspec.Struct, frozen=True):
    """A path with placeholders."""

    folder: str
    """The folder that every file is in; absolute, without a placeholder."""
    names: tuple[Name, ...]
    """What follows: folders, and at the end the file."""

    @property
    def is_timed(self) -> bool:
        """Whether another file begins as time passes."""
        return any(not each.is_value for name in self.names for each in name.placeholders)

    @property
    def has_value(self) -> bool:
        """Whether there is a file for each topic, or for each value of levels."""
        return any(name.has_value for name in self.names)


def has_placeholders(path: str, data_dir: str) -> bool:
    """Whether a recorder's path (absolute) has a placeholder, known or not."""
    return has_names(_split(path, data_dir)[1])


def read_template(path: str, data_dir: str, levels: Collection[str]) -> PathTemplate:
    """Take a path with placeholders apart.

    Args:
        path: absolute.
        data_dir: absolute; braces in it are no placeholders.
        levels: the names of the levels of the recorder's topic.

    Raises:
        ValueError: the path can't be taken; the text says why and what to do.
    """
    folder, rest = _split(path, data_dir)
    parts = PurePath(rest).parts
    first = next((n for n, part in enumerate(parts) if has_names(part)), len(parts))
    # Links are not followed here, so that the folder is the one that was written.
    folder = os.path.normpath(PurePath(folder, *parts[:first]))
    names = [_read_name(part, levels) for part in parts[first:]]
    if ".." in parts[first:]:
        raise ValueError('".." after a placeholder could lead out of its folder; leave it out')
    names = _limited(folder, names)
    template = PathTemplate(folder, tuple(names))
    if template.has_value and _is_at_or_above(folder, data_dir):
        where = next(n for n, name in enumerate(names) if name.has_value)
        if where == 0 or _normal(folder) != _normal(data_dir):
            raise ValueError(
                "a topic could name a file of the appliance itself there; begin with a folder of"
                ' the recordings\' own, for example "recordings/{topic}.jsonl"'
            )
    return template


def may_be_same(one: PathTemplate | str, other: PathTemplate | str) -> bool:
    """Whether a file of one path could be a file of the other one, or a folder that it needs.

    Both are absolute. A path without placeholders is given as it is. Letter case is ignored. In
    doubt, yes.
    """
    return all(map(_may_match, _patterns(one), _patterns(other)))


def _split(path: str, data_dir: str) -> tuple[str, str]:
    """What can have no placeholder, and the rest."""
    pure, folder = PurePath(path), PurePath(data_dir)
    if pure != folder and pure.is_relative_to(folder):
        return str(folder), str(pure.relative_to(folder))
    return pure.anchor, str(pure.relative_to(pure.anchor)) if pure.anchor else path


def _read_name(text: str, levels: Collection[str]) -> Name:
    pieces: list[str | Placeholder] = []
    for piece in split_at_names(text):
        if isinstance(piece, str):
            pieces.append(piece)
            continue
        known = (*OF_TIME, OF_TOPIC, *levels)
        if piece[1] not in known:
            advice = f"A level of `topic` becomes one by its name in braces: plant/{{{piece[1]}}}/#"
            those_are = "those of this recorder are"
            raise ValueError(unknown_name(piece[1], known, those_are, advice))
        pieces.append(Placeholder(piece[1]))
    return Name(tuple(pieces), _separators(pieces))


def _separators(pieces: Sequence[str | Placeholder]) -> str:
    """One character from between each two values. Without one, ``1`` and ``11`` could be swapped.

    Raises:
        ValueError: there is none.
    """
    found: list[str] = []
    literal: str | None = None
    before = ""
    for piece in pieces:
        if isinstance(piece, str):
            literal = None if literal is None else literal + piece
        elif piece.is_value:
            if literal is not None:
                separator = _SEPARATORS.search(literal)
                if separator is None:
                    raise ValueError(
                        f"between {{{before}}} and {{{piece.name}}} stands nothing that divides"
                        f" them, so two topics could share a file; write {{{before}}}_"
                        f"{{{piece.name}}}"
                    )
                found.append(separator[0])
            literal, before = "", piece.name
    return "".join(dict.fromkeys(found))


def _limited(folder: str, names: Sequence[Name]) -> list[Name]:
    """The names with the length that their values may have.

    Raises:
        ValueError: there is too little room.
    """
    room = LONGEST_NAME * len(names)
    if os.name == "nt":
        room = _LONGEST_WINDOWS_PATH - len(folder) - len(names)
    fixed = [sum(_length(piece) for piece in name.pieces) for name in names]
    counts = [sum(each.is_value for each in name.placeholders) for name in names]
    values = max(1, sum(counts))
    each = (room - sum(fixed)) // values
    limited = []
    for name, length, count in zip(names, fixed, counts, strict=True):
        longest = min(each, (LONGEST_NAME - length) // max(1, count))
        if count and longest < SHORTEST_VALUE:
            raise ValueError(
                "the path leaves too little room for its placeholders; use shorter names or fewer"
                " placeholders"
            )
        limited.append(Name(name.pieces, name.separators, longest))
    return limited


def _length(piece: str | Placeholder) -> int:
    if isinstance(piece, Placeholder):
        return 0 if piece.is_value else len("2026-11-29")
    return len(piece.encode())


def _is_at_or_above(folder: str, data_dir: str) -> bool:
    return PurePath(_normal(data_dir)).is_relative_to(PurePath(_normal(folder)))


def _normal(path: str) -> str:
    return os.path.normcase(path).casefold()


_ANY = ""
"""Any text, in a pattern."""


def _patterns(path: PathTemplate | str) -> list[list[str]]:
    """The names of a path, each as characters and ``_ANY``."""
    if isinstance(path, str):
        return [list(part) for part in PurePath(_normal(path)).parts]
    patterns = _patterns(path.folder)
    for name in path.names:
        pattern: list[str] = []
        for piece in name.pieces:
            pattern.extend([_ANY] if isinstance(piece, Placeholder) else _normal(piece))
        patterns.append(pattern)
    return patterns


def _may_match(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether a text fits both patterns."""
    # Row by row: reachable[j] says whether the present beginning of ``one`` and other[:j] can be
    # the same text.
    reachable = [True]
    for each in other:
        reachable.append(reachable[-1] and each == _ANY)
    for mine in one:
        row = [reachable[0] and mine == _ANY]
        for j, theirs in enumerate(other):
            skip = (mine == _ANY and reachable[j + 1]) or (theirs == _ANY and row[j])
            row.append(skip or (reachable[j] and (mine == theirs or _ANY in (mine, theirs))))
        reachable = row
    return reachable[-1]
