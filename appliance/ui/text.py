"""Foreign text made safe for a screen, and cut to a number of terminal cells.

Topics, payloads and client ids are foreign text. Shown as they are, they could move the cursor
(ANSI escapes), turn the line around (bidi controls), hide text (zero-width characters) or push a
column out of line (wide characters, piles of combining marks). ``printable`` replaces such
characters by stand-ins of one cell. It drops only variation selectors and skin tones: they carry no
text, and terminals disagree about their width.
Not for: colours, layout, payload formats (payload.py).
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from rich.cells import cell_len, get_character_cell_size

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
ELLIPSIS = "…"

_MAX_COMBINING = 2
"""Marks kept on one character: real writing needs two, piles of marks cover other lines."""

# Invisible although Unicode calls them letters or symbols: Hangul fillers, blank Braille.
_INVISIBLE = frozenset({0x115F, 0x1160, 0x3164, 0xFFA0, 0x2800})
_DROPPED = (
    frozenset(range(0xFE00, 0xFE10)) | frozenset(range(0x1F3FB, 0x1F400)) | frozenset({0x034F})
)
# Two regional indicators make one flag on some terminals and two letters on others.
_REGIONAL_FIRST, _REGIONAL_LAST = 0x1F1E6, 0x1F1FF


class _Table(dict[int, str | None]):
    """A ``str.translate`` table that works out a character when it is first met."""

    def __missing__(self, code: int) -> str | None:
        value = _stand_in(code)
        self[code] = value
        return value


def _stand_in(code: int) -> str | None:
    if code < 0x20:
        return chr(0x2400 + code)  # the control pictures: ␀ … ␛ … ␟
    if code == 0x7F:
        return "\N{SYMBOL FOR DELETE}"
    if code in _DROPPED:
        return None
    if code in _INVISIBLE:
        return REPLACEMENT
    if _REGIONAL_FIRST <= code <= _REGIONAL_LAST:
        return chr(ord("A") + code - _REGIONAL_FIRST)
    category = unicodedata.category(chr(code))
    if category == "Zs":
        return " "
    if category in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}:
        return REPLACEMENT
    return chr(code)


_TABLE = _Table()

_CONSOLE_FONT = dict(zip("✓✗▶▷◌↻‖●◆▾▸▌⏎…▼▁▂▃▅▆▇▏▎▍▋▊▉", "√x►>°@║•♦▼►▌┘~▼__▄▄██▌▌▌███", strict=True))
"""Signs that the font of the Linux console lacks, and what stands for them there: the characters of
code page 437, which each of its fonts has."""


def use_console_font(*, on: bool) -> None:
    """Show the signs of the UI with what the font of the Linux console has, or as they are."""
    if on != has_console_font():
        _TABLE.clear()
        _made_printable.cache_clear()
    if on:
        _TABLE.update({ord(sign): shown for sign, shown in _CONSOLE_FONT.items()})


def has_console_font() -> bool:
    """Whether signs are shown with what the font of the Linux console has."""
    return _TABLE.get(ord("✓")) == _CONSOLE_FONT["✓"]


def printable(text: str) -> str:
    """Return ``text`` as one line that is safe to write to a terminal."""
    if text.isascii() and text.isprintable():
        return text
    return _made_printable(text)


@lru_cache(maxsize=4096)
def _made_printable(text: str) -> str:
    return _thin_marks(text.translate(_TABLE))


def for_clipboard(text: str) -> str:
    """``text`` as it may be pasted into a terminal: line breaks and tabs, no other commands.

    What is pasted counts as typed, and an escape sequence in it could end the bracketed paste.
    """
    text = text.replace("\r\n", "\n")
    return "".join(
        chr(0x2400 + ord(one)) if one < " " and one not in "\n\t"
        else REPLACEMENT if "\x7f" <= one <= "\x9f"
        else one
        for one in text
    )  # fmt: skip


def _thin_marks(text: str) -> str:
    if text.isascii():
        return text
    kept: list[str] = []
    run = 0
    for character in text:
        if unicodedata.category(character) in {"Mn", "Me", "Mc"}:
            run += 1
            if not kept or run > _MAX_COMBINING:
                if run == _MAX_COMBINING + 1 or not kept:
                    kept.append(REPLACEMENT)
                continue
        else:
            run = 0
        kept.append(character)
    return "".join(kept)


def width(text: str) -> int:
    """Cells that ``text`` takes on a terminal."""
    return len(text) if text.isascii() else cell_len(text)


def cut(text: str, cells: int) -> str:
    """Return ``text`` in at most ``cells`` cells; what was cut off at the end shows as ``…``."""
    if cells <= 0:
        return ""
    if width(text) <= cells:
        return text
    if text.isascii():
        return text[: cells - 1] + ELLIPSIS
    return _take(text, cells - 1) + ELLIPSIS


def cut_start(text: str, cells: int) -> str:
    """Like ``cut``, but the beginning goes: the end of a topic says more than its start."""
    if cells <= 0:
        return ""
    if width(text) <= cells:
        return text
    if text.isascii():
        return ELLIPSIS + text[len(text) - cells + 1 :]
    kept: list[str] = []
    used = 1
    for character in reversed(text):
        used += get_character_cell_size(character)
        if used > cells:
            break
        kept.append(character)
    # A combining mark without its base character would sit on the ellipsis.
    while kept and get_character_cell_size(kept[-1]) == 0:
        kept.pop()
    return ELLIPSIS + "".join(reversed(kept))


def _take(text: str, cells: int) -> str:
    used = 0
    for index, character in enumerate(text):
        used += get_character_cell_size(character)
        if used > cells:
            return text[:index]
    return text


def fit(text: str, cells: int) -> str:
    """Return ``text`` in exactly ``cells`` cells: cut, or filled with blanks at the end."""
    text = cut(text, cells)
    return text + " " * (cells - width(text))


def fit_right(text: str, cells: int) -> str:
    """Return ``text`` in exactly ``cells`` cells, against the right edge."""
    text = cut(text, cells)
    return " " * (cells - width(text)) + text


def wrap(text: str, cells: int) -> list[str]:
    """Break ``text`` (printable already) into pieces of at most ``cells`` cells, losing nothing."""
    cells = max(2, cells)  # a wide character needs two
    if width(text) <= cells:
        return [text]
    pieces: list[str] = []
    rest = text
    while rest:
        piece = rest[:cells] if rest.isascii() else _take(rest, cells)
        pieces.append(piece)
        rest = rest[len(piece) :]
    return pieces


def words_in(text: str, cells: int) -> list[str]:
    """Rows of at most ``cells`` cells, broken at blanks, and within a word where it must be."""
    cells = max(2, cells)
    rows = [""]
    for word in printable(text).split(" "):
        row = f"{rows[-1]} {word}" if rows[-1] else word
        if width(row) <= cells:
            rows[-1] = row
        elif width(word) <= cells:
            rows.append(word)
        else:
            pieces = wrap(word, cells)
            rows += pieces if rows[-1] else []
            if not rows[0]:
                rows = pieces
    return rows


def first_line(text: str) -> str:
    """The first line of a reason; the detail has them all."""
    return printable(text.strip().split("\n", 1)[0])
