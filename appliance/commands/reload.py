"""``appliance reload``: have a running appliance read its configuration again."""

from __future__ import annotations

import argparse
import sys

from appliance.config.reading import load_data_dir
from appliance.errors import EXIT_CONFIG, EXIT_OK
from appliance.ops.control_file import ask


def execute(options: argparse.Namespace) -> int:
    """Ask the appliance, which reads the file itself, and print its answer."""
    answer = ask(load_data_dir(options.config), "reload")
    sys.stdout.write("".join(f"{line}\n" for line in answer.lines))
    return EXIT_OK if answer.done else EXIT_CONFIG
