"""Which target the configuration of a recorder means.

Not for: what a target is (target.py).
"""

from __future__ import annotations

from pathlib import Path

from appliance.recorders.databases import make_database_target
from appliance.recorders.formats import is_of_parts, make_format
from appliance.recorders.growing_file import GrowingFile
from appliance.recorders.parts import Parts
from appliance.recorders.progress import Progress
from appliance.recorders.state_file import StateFile
from appliance.recorders.target import Context, Target


def make_target(context: Context, stored: Progress) -> Target:
    """The target of a recorder, with the recorder's own row of ``recorders.db``."""
    config = context.config
    if config.database is not None:
        return make_database_target(context, stored)
    if config.mode != "append":
        return StateFile(context, Path(config.path), context.key, stored)
    if is_of_parts(config.format):
        return Parts(context, context.key, stored)
    if is_of_parts(stored.format):  # the parts stay, and another file begins
        stored = Progress("", stored.seq)
    return GrowingFile(
        context.key, Path(config.path), make_format(config), stored, context.clock_ns
    )
