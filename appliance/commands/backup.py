"""``appliance backup``: a whole copy of the data directory, also while the appliance runs."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from appliance.config.reading import load
from appliance.config.values import format_size
from appliance.errors import EXIT_OK
from appliance.ops.backup import backup


def execute(options: argparse.Namespace) -> int:
    """Copy; returns the exit code."""
    config = load(options.config)
    data_dir = Path(config.service.data_dir)
    manifest = backup(data_dir, Path(options.folder))
    size = format_size(sum(each.size for each in manifest.files))
    sys.stdout.write(f"{options.folder} has {len(manifest.files)} files, {size}\n")
    for recorder in config.recorder:
        if not Path(os.path.abspath(recorder.path)).is_relative_to(os.path.abspath(data_dir)):  # noqa: PTH100  links are not followed
            sys.stdout.write(f"not in it, since it lies elsewhere: {recorder.path}\n")
    sys.stdout.write("not in it: the configuration, certificates and users\n")
    return EXIT_OK
