"""``appliance acknowledge``: an operator knows a problem, or what a start found lost."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import sys

from appliance.config.reading import load_data_dir
from appliance.errors import EXIT_OK, EXIT_UNAVAILABLE, UsageError
from appliance.log.sanitize import escape
from appliance.ops.control_file import Ask, ask


def execute(options: argparse.Namespace) -> int:
    """Ask the appliance and print its answer."""
    what: Ask = "acknowledge"
    if options.list:
        what = "acknowledge-list"
    elif options.take_back:
        what = "unacknowledge"
        if not options.names:
            raise UsageError("--take-back needs a name. appliance acknowledge --list has them.")
    answer = ask(
        load_data_dir(options.config),
        what,
        names=tuple(_plain(name) for name in options.names),
        note=_plain(options.note),
        by=_operator(),
    )
    sys.stdout.write("".join(f"{escape(line)}\n" for line in answer.lines))
    return EXIT_OK if answer.done else EXIT_UNAVAILABLE


def _operator() -> str:
    """Who asks, as the log names them."""
    with contextlib.suppress(OSError, KeyError, ImportError):  # no such user, no pwd module
        return f"{_plain(getpass.getuser())} by appliance acknowledge"
    return "appliance acknowledge"


def _plain(text: str) -> str:
    """An argument that can be sent: one that is no UTF-8 has parts that can't."""
    return text.encode("utf-8", "replace").decode()
