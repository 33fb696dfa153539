"""Reads the configuration again while the appliance runs, and applies it.

All or nothing: the file is read, checked and compiled before anything changes, and a wrong
configuration changes nothing. config/changes.py says which keys take effect at once; the answer
names the others with the reason. Not for: the users file and certificates, whose changes the broker
notices itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from appliance.broker.access import Terms
from appliance.broker.reauthorize import Enforced
from appliance.config.changes import changes, with_changes_at_once
from appliance.config.files import all_secrets, check_files
from appliance.config.reading import load, recheck
from appliance.config.tables import Config
from appliance.config.upload_topics import upload_advice
from appliance.errors import ApplianceError, ConfigError
from appliance.recorders.plan import Plan
from appliance.tasks.engine import Rules
from appliance.tasks.loops import find_loops

if TYPE_CHECKING:
    from appliance.engine.service import Appliance

_RECORDERS_S = 5.0


class _Prepared(msgspec.Struct, frozen=True):
    """The compiled configuration that is to take effect."""

    config: Config
    terms: Terms
    rules: Rules
    plan: Plan


def reload(appliance: Appliance) -> tuple[bool, list[str]]:
    """Read the file of the running configuration again and apply the changes.

    Returns whether that was done, and the result in lines for people. It reads files, so it must
    not run on the engine's loop. For one thread at a time.
    """
    with appliance.schedules.held():
        return _reload(appliance)


def _reload(appliance: Appliance) -> tuple[bool, list[str]]:
    running = appliance.config
    if not running.file:
        return False, ["this appliance was started without a configuration file"]
    log = appliance.log
    try:
        new = load(running.file)
        if log is not None:
            log.mask(*all_secrets(new))
        if problems := check_files(new):
            raise ConfigError("\n".join(problems))
        prepared = _prepare(appliance, new)
    except ApplianceError as error:
        return False, [
            "the configuration is wrong and nothing is changed:",
            *str(error).split("\n"),
        ]
    found = changes(running, new)
    lines = [f"{running.file} is read again; log_level is {new.service.log_level}"]
    try:
        enforced, is_late = _apply(appliance, prepared)
    except ApplianceError as error:
        return False, [f"the configuration is right, but could not be changed: {error}"]
    if log is not None:
        # Also if it has not changed: ``appliance log-level`` may have changed it.
        log.set_level(new.service.log_level)
    at_once = [each.where for each in found if not each.waits]
    if at_once:
        lines.append(f"changed, and counts now: {', '.join(at_once)}")
    lines += _consequences(enforced)
    if is_late:
        lines.append("[[recorder]] counts once the disk of the recordings answers")
    waits = [f"{each.where} ({each.waits})" for each in found if each.waits]
    if waits:
        lines.append(f"changed, and counts from the next start: {', '.join(waits)}")
    if not found:
        lines.append("nothing has changed")
    lines += (loop.text for loop in find_loops(prepared.config))
    lines += upload_advice(prepared.config)
    return True, lines


def _prepare(appliance: Appliance, new: Config) -> _Prepared:
    """Check and compile. Raises ``ApplianceError`` before any change."""
    config = with_changes_at_once(appliance.config, new)
    try:
        recheck(config)
    except ConfigError as error:
        raise ConfigError(
            "it is right for a start, but what would count now does not go with what waits for"
            f" the next start. Restart the appliance:\n{error}"
        ) from None
    return _Prepared(
        config,
        appliance.terms_of(config),
        appliance.tasks.rules_of(
            config.trigger,
            appliance.schedules.timers(config.timer),
            config.allow,
            config.notify,
            config.outcome,
            stopped_timers=appliance.schedules.stopped(),
            other_appliances=config.has_other_appliances,
            keep_script_logs_s=None if config.qlik is None else config.qlik.keep_script_logs,
        ),
        appliance.recorders.plan(config.recorder),
    )


def _apply(appliance: Appliance, prepared: _Prepared) -> tuple[Enforced | None, bool]:
    """Apply it: first the part that a disk may refuse. Raises ``ApplianceError``."""
    config = prepared.config
    is_done = True
    if config.recorder != appliance.config.recorder:
        appliance.put_modes_right(config)
        is_done = appliance.recorders.take(prepared.plan, appliance.journal.follower, _RECORDERS_S)
        appliance.uploads.take(config.recorder)
    appliance.tasks.take(prepared.rules)
    appliance.journal.bound(config.journal.keep, config.journal.max_size)
    enforced: Enforced | None = appliance.wait_for(lambda: appliance.take(config, prepared.terms))
    return enforced, not is_done


def _consequences(enforced: Enforced | None) -> list[str]:
    if enforced is None:
        return ["there are many sessions: what the rules mean for each is still being looked at"]
    said = []
    if enforced.disconnected:
        said.append(f"clients disconnected: {enforced.disconnected}")
    if enforced.unsubscribed:
        said.append(f"subscriptions ended: {enforced.unsubscribed}")
    return [", ".join(said)] if said else []
