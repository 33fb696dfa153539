"""The licences of everything that a frozen program carries, as one text.

Usage: licences.py FOLDER FILE. FOLDER has the frozen program. Not for: deciding whether a licence
will do.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from contents import Part, parts

_RULE = "=" * 78


def text(carried: Iterable[Part]) -> str:
    """Name, version and licence of each part, then its licence texts."""
    lines = ["The appliance's program carries these, each under its own licence."]
    for part in carried:
        title = " ".join(filter(None, (part.name, part.version)))
        lines += ["", _RULE, f"{title}: {part.licence}", _RULE, "\n\n".join(part.texts)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(text(parts(Path(sys.argv[1]))), "utf-8", newline="\n")
