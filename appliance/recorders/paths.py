"""The file that a message belongs to, for a recorder whose path has placeholders.

Clients choose topics, so their text is data from outside. Each value becomes a piece of a name that

- is no way out of the folder: no separator, no ``..``, no control character, no drive or stream;
- is a name on Linux, Windows and macOS alike: none of Windows' devices, no dot or blank at an end;
- differs from that of every other value, also where a file system ignores letter case or how
  Unicode composes a character;
- is not too long.

Letters, digits and ``-_.=@,()`` stay as they are. Everything else is written as ``%2f``, the bytes
of UTF-8. The levels of a whole topic are joined by ``+``, which no topic has. Capitals are told
from small letters by a number at the end: ``Line1`` becomes ``Line1~1``, where the bits of the
hexadecimal number say which letters are capitals, from the first on. A long value is cut off and
ends with ``~~`` and a digest of all of it.
Not for: which paths a configuration may have (config/path_placeholders.py).
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

from appliance.config.path_placeholders import OF_TOPIC, Name, PathTemplate, Placeholder

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.=@,() ")
_LEVEL_JOINT = "+"
_ENDS = ". "
"""Windows drops these at the end of a name; at the beginning a dot hides a file."""
_EMPTY = "%"
_OTHERS = "~others"
"""The text of no value: none begins so."""
_HOURS = {"date": 24, "hour": 1}
"""How long the text of a placeholder stays the same."""
_DIGEST_BYTES = 16
_CACHED = 4096

# learn.microsoft.com "Naming Files, Paths, and Namespaces": with any ending, too.
_DEVICES = frozenset(
    (
        "con",
        "prn",
        "aux",
        "nul",
        "conin$",
        "conout$",
        *(f"{port}{number}" for port in ("com", "lpt") for number in "0123456789¹²³"),
    )
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR_NS = 3_600_000_000_000


class PathMaker:
    """Makes paths of a template.

    Args:
        template: the path.
        levels: the numbers of the named levels of the recorder's topic.
    """

    def __init__(self, template: PathTemplate, levels: Mapping[str, int]) -> None:
        self._folder = Path(template.folder)
        self._names = template.names
        self._levels = levels
        self._unit = 0
        for name in template.names:
            for each in name.placeholders:
                if each.name in _HOURS:
                    self._unit = min(self._unit or _HOURS[each.name], _HOURS[each.name])
        self._unit_ns = self._unit * _HOUR_NS
        self._made = lru_cache(maxsize=_CACHED)(self._make)
        self._made_of_others = lru_cache(maxsize=16)(lambda period: self._path(None, period))

    def period(self, received_ns: int) -> int:
        """The hour (since 1970) from which on the path of that time stays the same; 0 if always."""
        return received_ns // self._unit_ns * self._unit if self._unit else 0

    def path(self, topic: str, period: int) -> Path:
        """The file of messages on this topic that were received in this period."""
        return self._made(topic, period)

    def is_of_one_topic(self, path: Path, topic_filter: str) -> bool:
        """Whether a path that this made can have messages of one topic only."""
        if any(_OTHERS in part for part in path.parts):
            return False
        shown = {each.name for name in self._names for each in name.placeholders}
        wildcards = {n for n, level in enumerate(topic_filter.split("/")) if level in {"+", "#"}}
        return OF_TOPIC in shown or wildcards <= {
            number for name, number in self._levels.items() if name in shown
        }

    def path_of_others(self, period: int) -> Path:
        """A file that no topic has."""
        return self._made_of_others(period)

    def _make(self, topic: str, period: int) -> Path:
        levels = topic.split("/")
        values = {name: levels[n] if n < len(levels) else "" for name, n in self._levels.items()}
        return self._path({**values, OF_TOPIC: topic}, period)

    def _path(self, values: Mapping[str, str] | None, period: int) -> Path:
        moment = _EPOCH + timedelta(hours=period)
        times = {"date": f"{moment:%Y-%m-%d}", "hour": f"{moment:%H}"}
        path = self._folder
        for name in self._names:
            path /= _name(name, values, times)
        return path


def _name(name: Name, values: Mapping[str, str] | None, times: Mapping[str, str]) -> str:
    made = _joined(name, values, times, escape_first=False)
    if is_device(made):
        return _joined(name, values, times, escape_first=True)
    return made


def _joined(
    name: Name, values: Mapping[str, str] | None, times: Mapping[str, str], *, escape_first: bool
) -> str:
    made = []
    for piece in name.pieces:
        if not isinstance(piece, Placeholder):
            made.append(piece)
        elif not piece.is_value:
            made.append(times[piece.name])
        elif values is None:
            made.append(_OTHERS)
        else:
            made.append(
                safe(
                    values[piece.name],
                    name.longest_value,
                    escaped=name.separators,
                    escape_first=escape_first,
                )
            )
            escape_first = False
    return "".join(made)


def is_device(name: str) -> bool:
    """Whether Windows opens a device instead of a file of this name."""
    return name.split(".", 1)[0].rstrip().casefold() in _DEVICES


def safe(value: str, longest: int, *, escaped: str = "", escape_first: bool = False) -> str:
    """The text of a value in a name: another one for every value, and not empty.

    Args:
        value: a level of a topic, or several with ``/`` between them.
        longest: bytes of the text, at least 40.
        escaped: characters that it must not have.
        escape_first: write the first character as its bytes whatever it is.
    """
    if not value:
        return _EMPTY
    kept = _kept(value)
    made: list[str] = []
    capitals = cased = 0
    last = len(value) - 1
    for n, character in enumerate(value):
        if character == "/" and _LEVEL_JOINT not in escaped:
            made.append(_LEVEL_JOINT)
            continue
        is_end = n in (0, last) and character in _ENDS
        if character not in kept or character in escaped or is_end or (escape_first and n == 0):
            made.extend(f"%{byte:02x}" for byte in character.encode())
            continue
        if character.casefold() != character:
            capitals |= 1 << cased
        cased += character.upper() != character or character.casefold() != character
        made.append(character)
    text = "".join(made)
    if capitals:
        text = f"{text}~{capitals:x}"
    if len(text.encode()) <= longest:
        return text
    digest = hashlib.blake2b(value.encode(), digest_size=_DIGEST_BYTES).hexdigest()
    end = f"~~{digest}"
    return text.encode()[: longest - len(end)].decode(errors="ignore") + end


def _kept(value: str) -> frozenset[str]:
    """The characters of a value that stay as they are."""
    found = {each for each in set(value) if each.casefold() in _PLAIN and each.isascii()}
    foreign = {each for each in set(value) if not each.isascii() and _is_plain_letter(each)}
    # Two letters may be another way to write a third one.
    if foreign and unicodedata.is_normalized("NFC", value):
        found |= foreign
    return frozenset(found)


@lru_cache(maxsize=_CACHED)
def _is_plain_letter(character: str) -> bool:
    """Whether a letter is the same on every file system, but for its case, and in every Python."""
    small = character.casefold()
    if len(small) != 1 or len(small.upper()) != 1 or small.upper().casefold() != small:
        return False
    if character not in (small, small.upper()):
        return False
    # Unicode 3.2 is the version that every Python has.
    letters = all(unicodedata.ucd_3_2_0.category(each)[0] == "L" for each in (small, character))
    return letters and all(unicodedata.normalize("NFKC", c) == c for c in (small, character))
