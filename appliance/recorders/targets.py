"""Which target the configuration of a recorder means.

Not for: what a target is (target.py).
"""

from __future__ import annotations

from pathlib import Path

from appliance.config.recorder_paths import template_of
from appliance.errors import ConfigError
from appliance.recorders.closed_files import ClosedFiles, WithClosedFiles
from appliance.recorders.compression import missing_package
from appliance.recorders.databases import make_database_target
from appliance.recorders.formats import is_of_parts, make_format
from appliance.recorders.growing_file import GrowingFile
from appliance.recorders.growing_files import SERIES, GrowingFiles
from appliance.recorders.parts import Parts
from appliance.recorders.progress import Progress
from appliance.recorders.spread import MAX_OPEN, MAX_OPEN_PARTS, MAX_PATHS, Spread
from appliance.recorders.state_file import StateFile
from appliance.recorders.target import Context, Target


def make_target(context: Context, stored: Progress) -> Target:
    """The target of a recorder, with the recorder's own row of ``recorders.db``.

    Raises:
        ConfigError: a package that it needs is not installed, or the path can't be taken.
    """
    config = context.config
    if config.database is not None:
        return make_database_target(context, stored)
    if missing := missing_package(config.compression):
        raise ConfigError(missing)
    try:
        template = template_of(config, str(context.data_dir))
    except ValueError as error:
        raise ConfigError(f"[[recorder]] `path` {config.path}: {error}") from None
    if template is not None:
        has_parts = is_of_parts(config.format) and config.mode == "append"
        most = MAX_OPEN_PARTS if has_parts else MAX_OPEN
        return Spread(context, stored, template, _of_path, max_open=most, max_paths=MAX_PATHS)
    path = Path(config.path)
    is_series = is_of_parts(config.format) or config.rotate is not None
    if config.mode == "append" and is_series:
        closed = ClosedFiles(context)
        return WithClosedFiles(_of_path(context, stored, context.key, path, closed), closed)
    if config.mode == "append":
        if is_of_parts(stored.format) or stored.format.startswith(SERIES):
            stored = Progress("", stored.seq)  # its files stay, and another one begins
        return GrowingFile(context.key, path, make_format(config), stored, context.clock_ns)
    return StateFile(context, path, context.key, stored)


def _of_path(
    context: Context, stored: Progress, key: str, path: Path, closed: ClosedFiles
) -> Target:
    """The target of a path, maybe one of many that a recorder has."""
    if context.config.mode != "append":
        return StateFile(context, path, key, stored)
    if is_of_parts(context.config.format):
        return Parts(context, key, stored, closed)
    return GrowingFiles(context, stored, key, path, closed)
