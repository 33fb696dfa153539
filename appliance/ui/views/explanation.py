"""The lines of an explanation: first what comes of the message, then each thing looked at.

Not for: the words (explanation_text.py).
"""

from __future__ import annotations

from appliance.engine_api import Explanation
from appliance.ui import formats
from appliance.ui.explanation_text import FIELD_CELLS, Row, conclusions, has_prospect, past, rows
from appliance.ui.lines import Line, rule
from appliance.ui.text import cut, printable, words_in

_SIGNS = {"ok": ("✓", "ok"), "waits": ("◌", "info"), "stops": ("✗", "bad")}
_EFFECTS = {
    "start": ("▶", "ok"),
    "wait": ("◌", "info"),
    "merge": ("»", "info"),
    "nothing": ("✗", "bad"),
}
_MAX_RULE_CELLS = 60


def lines(explanation: Explanation, cells: int, *, utc: bool) -> list[Line]:
    """The whole explanation."""

    def at(time_ns: int) -> str:
        return formats.time_of_day(time_ns, utc=utc)

    found: list[Line] = []
    if explanation.seq:
        found += [[(f" {row}", "strong")] for row in words_in(past(explanation), cells - 2)]
    said = conclusions(explanation, at) if has_prospect(explanation) else []
    if explanation.seq and said:
        found.append([(" If it came again now:", "dim")])
    for effect, text in said:
        sign, tone = _EFFECTS[effect]
        first, *others = words_in(text, cells - 4)
        found.append([(f" {sign} ", tone), (first, "strong")])
        found += [[(f"   {row}", "")] for row in others]
    found.append([])
    for row in rows(explanation, at):
        found += _lines_of(row, cells)
    return found


def _lines_of(row: Row, cells: int) -> list[Line]:
    if row.kind == "rule":
        name = cut(printable(row.field), _MAX_RULE_CELLS)
        return [[], rule([("Trigger ", "head"), (name, "strong")], cells, [(row.text, "dim")])]
    margin = " " * (1 + 2 * row.indent)
    if row.kind == "start":
        sign, tone = _EFFECTS[row.text]
        return [[(f"{margin}{sign} ", tone), (row.field, "strong")]]
    if row.kind == "text":
        return [[], *([(f"{margin}{one}", "dim")] for one in words_in(row.text, cells - 3))]
    sign, tone = _SIGNS[row.kind]
    room = cells - len(margin) - FIELD_CELLS - 4
    first, *others = words_in(row.text, room)
    text_tone = "" if row.kind == "ok" else tone
    field = row.field.ljust(FIELD_CELLS)
    return [
        [(f"{margin}{sign} ", tone), (f"{field} ", "dim"), (first, text_tone)],
        *([(" " * (len(margin) + FIELD_CELLS + 3) + one, text_tone)] for one in others),
    ]
