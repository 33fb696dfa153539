"""Writes the states of a request into docs/architecture.md: ``python tests/state_table.py``.

The texts are the docstrings of ``RequestState``. Not for: the states themselves.
"""

from __future__ import annotations

import ast
from pathlib import Path

from appliance.tasks import states
from appliance.tasks.states import RequestState

PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
BEGIN = (
    "<!-- Made by tests/state_table.py from appliance/tasks/states.py; change the texts there. -->"
)
END = "<!-- End of the table of states. -->"


def meanings() -> dict[RequestState, str]:
    """The docstring of each state."""
    tree = ast.parse(Path(states.__file__).read_text(encoding="utf-8"))
    body = next(
        one.body
        for one in tree.body
        if isinstance(one, ast.ClassDef) and one.name == RequestState.__name__
    )
    found = {}
    for member, text in zip(body, body[1:], strict=False):
        if isinstance(member, ast.Assign) and isinstance(member.targets[0], ast.Name):
            assert isinstance(text, ast.Expr), ast.unparse(member)
            assert isinstance(text.value, ast.Constant), ast.unparse(member)
            state = RequestState[member.targets[0].id]
            found[state] = " ".join(str(text.value.value).split())
    return found


def table() -> str:
    """The table as the code has it now."""
    texts = meanings()
    lines = ["| State | Users see | What it means, and what sets it | Next |", "|---|---|---|---|"]
    for state in RequestState:
        shown = ", ".join(f"`{one.value}`" for one in states.SHOWN[state]) or "nothing"
        after = [one.value for one in RequestState if one in states.TRANSITIONS[state]]
        lines.append(
            f"| {state.value} | {shown} | {texts[state]} | {', '.join(after) or 'final'} |"
        )
    return "\n".join(lines)


def page(text: str) -> str:
    """The page with the present table in place of the one that it has."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
