"""The texts that a page of the documentation quotes, and those of the source."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import appliance


def quoted(page: str) -> list[str]:
    """The texts between quotes outside code, but for titles of this page."""
    text = re.sub(r"```.*?```", "", page, flags=re.DOTALL)
    text = re.sub(r"`[^`]*`", "", text)
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    return sorted(set(re.findall(r'"([^"\n]+)"', text)) - set(titles))


@cache
def texts() -> list[str]:
    """Every text of the source; a part that is filled in later is a line break."""
    found = []
    for path in Path(appliance.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"%[sdg]", "\n", node.value).lower())
            elif isinstance(node, ast.JoinedStr):
                parts = [
                    part.value if isinstance(part, ast.Constant) else "\n" for part in node.values
                ]
                found.append("".join(parts).lower())
    return found
