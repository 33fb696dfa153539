"""The help of a page: its keys, the mouse, the filter language, every sign.

All of it comes from the tables that the UI works by: keys.py, filter_forms.py, symbols.py. Nothing
is cut: a text that is too long for its column goes on in the next line.
Not for: the keys of the footer (page_frame.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import groupby, zip_longest

from appliance.ui import filter_forms, keys, symbols
from appliance.ui.lines import Line, line_width
from appliance.ui.text import fit, words_in

_UNTITLED = (keys.OWN, keys.REPEAT, keys.SORTED, keys.CONFIGURED)
"""Scopes of one key, which stands in the block before."""

_KEY_CELLS = 13
_COLUMN_CELLS = 37
_FORM_CELLS = 15
_SIGN_CELLS = 4

MOUSE = (
    ("click", "a row: choose it; twice: its detail"),
    ("click", "a screen, a key of the last line, the title of a column"),
    ("wheel", "rows up, down"),
)
"""What the mouse does, everywhere."""


def lines(
    scopes: Sequence[str],
    chosen: Mapping[str, tuple[str, ...]],
    words: Collection[str],
    cells: int,
) -> list[Line]:
    """The help in ``cells`` cells.

    ``chosen``: keys of the configuration; ``words``: what the page's filter can be asked for.
    """
    blocks: list[list[Line]] = []
    for scope in dict.fromkeys([*scopes, keys.EVERYWHERE]):
        entries = keys.of(scope)
        if not entries:
            continue
        if scope in _UNTITLED and blocks:
            *block, _empty = blocks.pop()
        else:
            block = [[(scope, "head")]]
        for text, group in groupby(entries, key=lambda key: key.help):
            shown = [keys.shown(one) for key in group for one in keys.keys_of(key, chosen)]
            block += _entry(" ".join(shown), "key", text, _KEY_CELLS, _COLUMN_CELLS - 1)
        blocks.append([*block, []])
    blocks.append([[("Mouse", "head")], *_entries(MOUSE, "key", _KEY_CELLS, _COLUMN_CELLS - 1), []])
    found = _in_columns(blocks, max(1, cells // _COLUMN_CELLS))
    if keys.LISTS in scopes:
        found += [[], *_language(words, cells)]
    return [
        *found,
        [],
        *_legend(cells),
        [],
        [
            (
                "Keys are set in [ui.keys] of the configuration, the theme in [ui] or by ^p.",
                "dim",
            )
        ],
    ]


def _entry(left: str, tone: str, text: str, left_cells: int, cells: int) -> list[Line]:
    """One entry; both its parts go on below themselves."""
    heads = words_in(left, left_cells - 1)
    texts = words_in(text, cells - left_cells)
    return [
        [(fit(head, left_cells), tone), (words, "")]
        for head, words in zip_longest(heads, texts, fillvalue="")
    ]


def _entries(
    pairs: Sequence[tuple[str, str]], tone: str, left_cells: int, cells: int
) -> list[Line]:
    return [line for left, text in pairs for line in _entry(left, tone, text, left_cells, cells)]


def _language(words: Collection[str], cells: int) -> list[Line]:
    forms = [(form.example, form.meaning) for form in filter_forms.of(words)]
    found: list[Line] = [
        [("Filter", "head"), ("   words with blanks between them; all must hold", "dim")],
        *_entries(forms, "accent", _FORM_CELLS, cells),
    ]
    if "state" in words:
        found += _entry("state:", "accent", ", ".join(filter_forms.STATES), _FORM_CELLS, cells)
    return found


def _legend(cells: int) -> list[Line]:
    entries = [
        _entry(sign, tone, meaning, _SIGN_CELLS, _COLUMN_CELLS - 1)
        for sign, tone, meaning in symbols.LEGEND
    ]
    return [[("Signs", "head")], *_in_columns(entries, max(1, cells // _COLUMN_CELLS))]


def _in_columns(blocks: list[list[Line]], count: int) -> list[Line]:
    stacks: list[list[Line]] = [[] for _ in range(count)]
    for block in blocks:
        min(stacks, key=len).extend(block)
    lines: list[Line] = []
    for index in range(max(len(stack) for stack in stacks)):
        line: Line = []
        for stack in stacks:
            cell = stack[index] if index < len(stack) else []
            line += cell
            if stack is not stacks[-1]:
                line.append((" " * (_COLUMN_CELLS - line_width(cell)), ""))
        lines.append(line)
    while lines and not any(text.strip() for text, _ in lines[-1]):
        lines.pop()
    return lines
