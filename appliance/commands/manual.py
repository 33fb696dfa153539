"""``appliance manual``: the manual page, which is the help of all commands in roff.

Not for: putting it where ``man`` looks (the packages do that, docs/installing.md says how).
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import sys
from collections.abc import Callable, Iterator

from appliance import __version__
from appliance.errors import EXIT_OK

_WIDTH = "78"
"""Columns of the help's lines: ``man`` keeps them as they are, in a terminal of 80."""

_SIGNS = {"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"}
"""Signs that roff would change or act on."""


def execute(options: argparse.Namespace) -> int:
    """Print the page; returns the exit code."""
    sys.stdout.flush()
    sys.stdout.buffer.write(page(options.command_parser).encode())
    sys.stdout.buffer.flush()
    return EXIT_OK


def page(command_parser: Callable[[], argparse.ArgumentParser]) -> str:
    """The page of a command line in the macros of man(7), dated by ``SOURCE_DATE_EPOCH``."""
    os.environ["COLUMNS"] = _WIDTH  # argparse has no other way to a width
    parser = command_parser()
    seconds = os.environ.get("SOURCE_DATE_EPOCH")
    day = dt.datetime.fromtimestamp(int(seconds), dt.UTC) if seconds else dt.datetime.now(dt.UTC)
    lines = [
        f'.TH APPLIANCE 1 "{day:%Y-%m-%d}" "appliance {__version__}" "Appliance"',
        ".SH NAME",
        r"appliance \- MQTT broker that starts Qlik Sense tasks",
        ".SH DESCRIPTION",
        *_preformatted(parser.format_help()),
    ]
    for name, child in _commands(parser):
        lines += [f".SH {_escaped(name.upper())}", *_preformatted(child.format_help())]
    return "\n".join(lines) + "\n"


def _commands(
    parser: argparse.ArgumentParser, before: str = ""
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:  # noqa: SLF001  argparse has no public way to its commands
        if isinstance(action.choices, dict):
            for name, child in action.choices.items():
                yield f"{before}{name}", child
                yield from _commands(child, f"{before}{name} ")


def _preformatted(text: str) -> Iterator[str]:
    yield ".nf"
    for line in text.rstrip().splitlines():
        escaped = _escaped(line)
        yield rf"\&{escaped}" if escaped[:1] in (".", "'") else escaped
    yield ".fi"


def _escaped(text: str) -> str:
    """Plain text for roff (groff_char(7)), so that it can be copied from the page."""
    return "".join(_SIGNS.get(sign, sign) for sign in text)
