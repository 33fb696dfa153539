"""Completion for four shells and the manual page, made from the command line itself.

Usage: complete.py FOLDER. Written are appliance.bash, _appliance (zsh), appliance.fish,
appliance.ps1 and appliance.1. Not for: putting them where a shell looks (the packages do).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import shtab
from argparse_manpage.manpage import Manpage

from appliance import __version__
from appliance.cli import command_parser

_SHELLS = {
    "bash": "appliance.bash",
    "zsh": "_appliance",
    "fish": "appliance.fish",
    "powershell": "appliance.ps1",
}
_PATHS = {"FILE": shtab.FILE, "DIR": shtab.DIRECTORY}


def main() -> int:
    folder = Path(sys.argv[1])
    parser = command_parser()
    _name_files(parser)
    for shell, name in _SHELLS.items():
        (folder / name).write_text(shtab.complete(parser, shell), "utf-8", newline="\n")
    page = Manpage(parser, format="single-commands-section")  # dated by SOURCE_DATE_EPOCH
    page.source = f"appliance {__version__}"
    page.manual = "Appliance"
    page.description = "MQTT broker that starts Qlik Sense tasks"  # what apropos(1) shows
    (folder / "appliance.1").write_text(str(page), "utf-8", newline="\n")
    return 0


def _name_files(parser: argparse.ArgumentParser) -> None:
    """Say which options take files and folders, by what the help calls them."""
    for action in parser._actions:  # noqa: SLF001  argparse has no public way to its options
        if isinstance(action.metavar, str) and action.metavar in _PATHS:
            action.complete = _PATHS[action.metavar]  # type: ignore[attr-defined]  # shtab's way
        subcommands = action.choices if isinstance(action.choices, dict) else {}
        for child in subcommands.values():
            _name_files(child)


if __name__ == "__main__":
    sys.exit(main())
