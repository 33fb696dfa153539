"""Completion for four shells and the manual page, as the program itself prints them.

Usage: complete.py FOLDER. Written are appliance.bash, _appliance (zsh), appliance.fish,
appliance.ps1 and appliance.1. Not for: putting them where a shell looks (the packages do).
"""

from __future__ import annotations

import sys
from pathlib import Path

from appliance.cli import command_parser
from appliance.commands.completion import script
from appliance.commands.manual import page

_SHELLS = {
    "bash": "appliance.bash",
    "zsh": "_appliance",
    "fish": "appliance.fish",
    "powershell": "appliance.ps1",
}


def main() -> int:
    folder = Path(sys.argv[1])
    for shell, name in _SHELLS.items():
        (folder / name).write_text(script(command_parser(), shell), "utf-8", newline="\n")
    (folder / "appliance.1").write_text(page(command_parser), "utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
