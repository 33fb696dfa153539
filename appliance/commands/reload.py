"""``appliance reload``: have a running appliance read its configuration again."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from appliance.config import load
from appliance.errors import EXIT_CONFIG, EXIT_OK
from appliance.ops.control_file import ask


def execute(options: argparse.Namespace) -> int:
    """Ask and tell what came of it; a configuration that is wrong is told before."""
    answer = ask(Path(load(options.config).service.data_dir), "reload")
    sys.stdout.write("".join(f"{line}\n" for line in answer.lines))
    return EXIT_OK if answer.done else EXIT_CONFIG
