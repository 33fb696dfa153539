"""Lines of text with tones, and how they become strips of a terminal screen.

A ``Line`` is a list of (text, tone) pairs; a tone is a name such as ``"bad"`` that the theme gives
a style. Screens are built of pure functions that return lines, so they can be tested as text.
``strip_of`` is the only way to the terminal: it makes every text printable, foreign text too.
Not for: widgets (widgets/).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from appliance.ui.strips import RowStrip
from appliance.ui.text import cut, printable, width

Line = list[tuple[str, str]]


def text_of(line: Line) -> str:
    """The text of a line without its tones."""
    return "".join(text for text, _ in line)


def line_width(line: Line) -> int:
    """Cells that a line takes."""
    return sum(width(text) for text, _ in line)


def spread(left: Line, right: Line, cells: int) -> Line:
    """``left`` and ``right`` at the two edges of ``cells`` cells; ``left`` is cut if need be."""
    room = cells - line_width(right)
    if room <= 0:
        return left
    left = cut_line(left, room - 1)
    return [*left, (" " * (room - line_width(left)), ""), *right]


def cut_line(line: Line, cells: int) -> Line:
    """``line`` in at most ``cells`` cells."""
    used = 0
    for index, (text, tone) in enumerate(line):
        size = width(text)
        if used + size > cells:
            return [*line[:index], (cut(text, cells - used), tone)]
        used += size
    return line


def rule(title: Line, cells: int, right: Line | None = None) -> Line:
    """A horizontal line with a title in it: ``── Tasks ── 2 running ─────``."""
    ending: Line = [(" ", ""), *right, (" ─", "dim")] if right else []
    safe = [(printable(text), tone) for text, tone in title]  # its width counts here
    start: Line = [("── ", "dim"), *safe, (" ", "dim")]
    start = cut_line(start, max(0, cells - line_width(ending)))
    fill = cells - line_width(start) - line_width(ending)
    return [*start, ("─" * max(0, fill), "dim"), *ending]


def join(parts: Sequence[Line], separator: str) -> Line:
    """Lines one after the other, ``separator`` (dim) between them; empty ones are left out."""
    joined: Line = []
    for part in parts:
        if not part:
            continue
        if joined:
            joined.append((separator, "dim"))
        joined.extend(part)
    return joined


def strip_of(line: Line, cells: int, base: Style, styles: Mapping[str, Style]) -> Strip:
    """A strip of exactly ``cells`` cells."""
    segments: list[Segment] = []
    used = 0
    for text, tone in line:
        safe = printable(text)
        size = width(safe)
        if used + size > cells:
            safe = cut(safe, cells - used)
            size = width(safe)
        if not size:
            continue
        style = styles.get(tone)
        segments.append(Segment(safe, base + style if style is not None else base))
        used += size
        if used >= cells:
            break
    if used < cells:
        segments.append(Segment(" " * (cells - used), base))
    return RowStrip(segments, cells)
