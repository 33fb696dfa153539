"""Completion for bash and zsh and the manual page, made from the command line itself.

Usage: complete.py FOLDER. Written are appliance.bash, _appliance and appliance.1.
Not for: PowerShell, which shtab does not know.
"""

from __future__ import annotations

import sys
from pathlib import Path

import shtab
from argparse_manpage.manpage import Manpage

from appliance import __version__
from appliance.cli import command_parser


def main() -> int:
    folder = Path(sys.argv[1])
    parser = command_parser()
    for shell, name in (("bash", "appliance.bash"), ("zsh", "_appliance")):
        (folder / name).write_text(shtab.complete(parser, shell), "utf-8", newline="\n")
    page = Manpage(parser, format="single-commands-section")  # dated by SOURCE_DATE_EPOCH
    page.source = f"appliance {__version__}"
    page.manual = "Appliance"
    (folder / "appliance.1").write_text(str(page), "utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
