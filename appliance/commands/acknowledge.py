"""``appliance acknowledge``: an operator knows what a start found lost."""

from __future__ import annotations

import argparse
import sys

from appliance.config.reading import load_data_dir
from appliance.errors import EXIT_OK, EXIT_UNAVAILABLE
from appliance.ops.control_file import ask


def execute(options: argparse.Namespace) -> int:
    """Ask the appliance and print its answer."""
    answer = ask(load_data_dir(options.config), "acknowledge")
    sys.stdout.write("".join(f"{line}\n" for line in answer.lines))
    return EXIT_OK if answer.done else EXIT_UNAVAILABLE
