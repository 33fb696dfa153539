"""``appliance reload``: have a running appliance read its configuration again."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from appliance.config.reading import load
from appliance.errors import EXIT_CONFIG, EXIT_OK
from appliance.ops.control_file import ask


def execute(options: argparse.Namespace) -> int:
    """Ask the appliance and print its answer; a wrong configuration is an error before that."""
    answer = ask(Path(load(options.config).service.data_dir), "reload")
    sys.stdout.write("".join(f"{line}\n" for line in answer.lines))
    return EXIT_OK if answer.done else EXIT_CONFIG
