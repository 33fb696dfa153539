"""``appliance restore``: a backup back into its place, while the appliance does not run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from appliance.config.reading import load_data_dir
from appliance.errors import EXIT_OK
from appliance.ops.backup import restore


def execute(options: argparse.Namespace) -> int:
    """Copy back; returns the exit code."""
    data_dir = load_data_dir(options.config)
    manifest = restore(Path(options.folder), data_dir)
    sys.stdout.write(
        f"{data_dir} has {len(manifest.files)} files of {manifest.taken}; later messages are not"
        " in them, and the tasks of later messages are not started again\n"
    )
    return EXIT_OK
