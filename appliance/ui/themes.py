"""The themes of the UI, and the style of each tone in a theme.

A tone always comes with a sign or a word, so a screen without colour (NO_COLOR) says the same.
Not for: the tone of a state (symbols.py).
"""

from __future__ import annotations

from dataclasses import replace

from rich.style import Style
from textual.color import Color
from textual.theme import BUILTIN_THEMES, Theme

DARK = Theme(
    name="appliance-dark",
    primary="#5fa8d3",
    secondary="#3d6f8f",
    accent="#e0b050",
    foreground="#d8dee6",
    background="#101418",
    surface="#161b21",
    panel="#1e252d",
    success="#6cc38a",
    warning="#e8b339",
    error="#f2707a",
    dark=True,
)
LIGHT = Theme(
    name="appliance-light",
    primary="#1b6ca8",
    secondary="#3d7fae",
    accent="#8a5a00",
    foreground="#1c2329",
    background="#fbfcfd",
    surface="#f2f4f6",
    panel="#e4e8ec",
    success="#1f7a3d",
    warning="#8f5b00",
    error="#b3202c",
    dark=False,
)
CONTRAST = Theme(
    name="appliance-contrast",
    primary="#66ccff",
    secondary="#66ccff",
    accent="#ffff66",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#262626",
    success="#66ff66",
    warning="#ffcc00",
    error="#ff8080",
    dark=True,
)
SIXTEEN = replace(
    BUILTIN_THEMES["ansi-dark"],
    name="appliance-16",
    primary="ansi_cyan",
    accent="ansi_magenta",
)
"""The terminal's own sixteen colours: RGB would be turned into few of them, most into the same."""

THEMES = (DARK, LIGHT, CONTRAST, SIXTEEN)
DEFAULT = DARK.name
NO_COLOR_THEME = "ansi-dark"
"""Textual's theme of the terminal's own colours; its NO_COLOR filter then leaves none at all."""

HIDDEN = frozenset({"ansi-dark", "ansi-light", "textual-dark", "textual-light"})
"""Themes of Textual that are not offered: its own two, and ANSI colours, for which there is
``SIXTEEN``."""

FEW_COLORS = frozenset({"standard", "windows"})
"""Rich's names of the terminals with sixteen colours."""

_PLAIN = {
    "": Style(),
    "dim": Style(dim=True),
    "ok": Style(),
    "warn": Style(bold=True),
    "bad": Style(bold=True),
    "info": Style(),
    "run": Style(bold=True),
    "head": Style(bold=True),
    "accent": Style(bold=True),
    "strong": Style(bold=True),
    "key": Style(bold=True),
    "mark": Style(reverse=True),
    "cursor": Style(reverse=True),
}


_SIXTEEN = _PLAIN | {
    "ok": Style(color="green"),
    "warn": Style(color="yellow", bold=True),
    "bad": Style(color="red", bold=True),
    "info": Style(color="cyan"),
    "run": Style(color="cyan", bold=True),
    "accent": Style(color="magenta", bold=True),
    "key": Style(color="magenta", bold=True),
}


def styles(
    variables: dict[str, str], *, ansi: bool = False, no_color: bool = False
) -> dict[str, Style]:
    """The style of every tone.

    ``variables`` are those of Textual's theme; ``ansi``: the terminal's own sixteen colours.
    """
    if no_color:
        return _PLAIN
    if ansi:
        return _SIXTEEN
    foreground = Color.parse(variables["foreground"])
    background = Color.parse(variables["background"])
    dim = background.blend(foreground, 0.58, 1.0)

    def fore(name: str, *, bold: bool = False) -> Style:
        return Style(color=Color.parse(variables[name]).rich_color, bold=bold or None)

    return {
        "": Style(),
        "dim": Style(color=dim.rich_color),
        "ok": fore("success"),
        "warn": fore("warning"),
        "bad": fore("error", bold=True),
        "info": fore("primary"),
        "run": fore("primary", bold=True),
        "head": Style(color=dim.rich_color, bold=True),
        "accent": fore("accent"),
        "strong": Style(bold=True),
        "key": fore("accent", bold=True),
        "mark": Style(reverse=True),
        "cursor": Style(bgcolor=Color.parse(variables["panel"]).rich_color, bold=True),
    }
