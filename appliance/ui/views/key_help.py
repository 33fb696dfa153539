"""The help: the table of keys in columns.

Not for: the keys of the footer (page_frame.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from appliance.ui import keys
from appliance.ui.lines import Line
from appliance.ui.text import fit

_UNTITLED = (keys.OWN, keys.REPEAT, keys.SORTED)
"""Scopes of one key, which stands in the block before."""

_KEY_CELLS = 13
_COLUMN_CELLS = 38


def lines(scopes: Sequence[str], chosen: Mapping[str, tuple[str, ...]], cells: int) -> list[Line]:
    """The keys of a page's scopes and of every page, in columns, and the signs of the states."""
    blocks: list[list[Line]] = []
    for scope in dict.fromkeys([*scopes, keys.EVERYWHERE]):
        entries = keys.of(scope)
        if not entries:
            continue
        if scope in _UNTITLED:
            *block, _empty = blocks.pop()
        else:
            block = [[(scope, "head")]]
        for text, group in groupby(entries, key=lambda key: key.help):
            shown = [keys.shown(one) for key in group for one in keys.keys_of(key, chosen)]
            block.append([(fit(" ".join(shown), _KEY_CELLS), "key"), (fit(text, 24), "")])
        blocks.append([*block, []])
    return [*_in_columns(blocks, max(1, cells // _COLUMN_CELLS)), *_LEGEND]


def _in_columns(blocks: list[list[Line]], count: int) -> list[Line]:
    stacks: list[list[Line]] = [[] for _ in range(count)]
    for block in blocks:
        min(stacks, key=len).extend(block)
    lines: list[Line] = []
    for index in range(max(len(stack) for stack in stacks)):
        line: Line = []
        for stack in stacks:
            cell = stack[index] if index < len(stack) else []
            used = sum(len(text) for text, _ in cell)
            line += [*cell, (" " * max(1, _COLUMN_CELLS - used), "")]
        lines.append(line)
    while lines and not any(text.strip() for text, _ in lines[-1]):
        lines.pop()
    return lines


_SIGNS = (
    ("✓", "ok", "done"),
    ("✗", "bad", "failed"),
    ("▶", "run", "running"),
    ("▷", "info", "starting"),
    ("◌", "info", "waiting"),
    ("↻", "warn", "retry"),
    ("»", "dim", "skipped"),
    ("‖", "warn", "paused"),
)
_LEGEND: list[Line] = [
    [],
    [part for sign, tone, word in _SIGNS for part in ((sign, tone), (f" {word} ", "dim"))],
    [("Keys are set in the configuration, [ui.keys]. NO_COLOR is honoured.", "dim")],
]
