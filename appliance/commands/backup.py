"""``appliance backup``: a whole copy of the data directory, also while the appliance runs."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from appliance.config.reading import load_data_dir, load_tables
from appliance.config.values import format_size
from appliance.errors import EXIT_OK, ConfigError
from appliance.ops.backup import backup


def execute(options: argparse.Namespace) -> int:
    """Copy; returns the exit code."""
    data_dir = load_data_dir(options.config)
    manifest = backup(data_dir, Path(options.folder))
    size = format_size(sum(each.size for each in manifest.files))
    sys.stdout.write(f"{options.folder} has {len(manifest.files)} files, {size}\n")
    try:
        recorders = load_tables(options.config, recorder=()).recorder
    except ConfigError as error:  # the copy is there, whatever the table says
        sys.stderr.write(f"which recordings lie elsewhere is not known: {error}\n")
        recorders = ()
    for recorder in recorders:
        if not Path(os.path.abspath(recorder.path)).is_relative_to(os.path.abspath(data_dir)):  # noqa: PTH100  links are not followed
            sys.stdout.write(f"not in it, since it lies elsewhere: {recorder.path}\n")
    sys.stdout.write("not in it: the configuration, certificates and users\n")
    return EXIT_OK
