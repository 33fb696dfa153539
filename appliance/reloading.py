"""The configuration read again while the appliance runs: what counts at once, what waits.

A configuration that is wrong changes nothing. What would cut connections, move the journal or
change rules under requests that are on their way waits for a restart, and it is said that it does.
Not for: the users file, whose changes the broker notices by itself.
"""

from __future__ import annotations

import msgspec

from appliance.config import Config, all_secrets, check_files, load
from appliance.errors import ApplianceError
from appliance.logs import Log

_AT_ONCE = frozenset({"log_level"})
"""Keys of ``[service]`` that count at once."""


def reload(running: Config, log: Log | None) -> tuple[bool, list[str]]:
    """Read the running configuration's file again and apply what can be.

    Returns whether it is valid, and in lines for people what came of it. Reads files, so not on
    the engine's loop.
    """
    if not running.file:
        return False, ["this appliance was started without a configuration file"]
    try:
        new = load(running.file)
    except ApplianceError as error:
        return False, [
            "the configuration is wrong and nothing is changed:",
            *str(error).split("\n"),
        ]
    if problems := check_files(new):
        return False, ["the configuration is wrong and nothing is changed:", *problems]
    if log is not None:
        log.mask(*all_secrets(new))
        log.set_level(new.service.log_level)
    waits = list(_waits(running, new))
    lines = [f"{running.file} is read again; log_level is {new.service.log_level}"]
    if waits:
        lines.append(f"changed, and counts from the next start: {', '.join(waits)}")
    return True, lines


def _waits(running: Config, new: Config) -> list[str]:
    found = []
    for field in msgspec.structs.fields(Config):
        before, after = getattr(running, field.name), getattr(new, field.name)
        if before == after:
            continue
        if field.name == "service":
            found += [
                f"[service] {key}"
                for key in before.__struct_fields__
                if key not in _AT_ONCE and getattr(before, key) != getattr(after, key)
            ]
        elif isinstance(field.default, tuple):
            found.append(f"[[{field.name}]]")
        else:
            found.append(f"[{field.name}]")
    return found
