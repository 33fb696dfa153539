"""``appliance completion``: what a shell needs to complete the command line, made from its parser.

Not for: putting it where a shell looks (the packages do that, docs/installing.md says how).
"""

from __future__ import annotations

import argparse
import sys

import shtab

from appliance.errors import EXIT_OK

_PATHS = {"FILE": shtab.FILE, "PATH": shtab.FILE, "DIR": shtab.DIRECTORY}


def execute(options: argparse.Namespace) -> int:
    """Print the script; returns the exit code."""
    # Not through the text layer, which on Windows writes line ends that no shell wants.
    sys.stdout.flush()
    sys.stdout.buffer.write(script(options.command_parser(), options.shell).encode())
    sys.stdout.buffer.flush()
    return EXIT_OK


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The completion script of a command line for one of ``cli.SHELLS``."""
    _name_files(parser)
    return shtab.complete(parser, shell)


def _name_files(parser: argparse.ArgumentParser) -> None:
    """Say which options take files and folders, by what the help calls them."""
    for action in parser._actions:  # noqa: SLF001  argparse has no public way to its options
        if isinstance(action.metavar, str) and action.metavar in _PATHS:
            action.complete = _PATHS[action.metavar]  # type: ignore[attr-defined]  # shtab's way
        subcommands = action.choices if isinstance(action.choices, dict) else {}
        for child in subcommands.values():
            _name_files(child)
