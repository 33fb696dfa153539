"""``appliance attach``: the terminal UI for an appliance that runs already, here or elsewhere."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path

import msgspec

from appliance.commands.mqtt_client import Client
from appliance.commands.run import is_headless
from appliance.commands.target import target_of
from appliance.config import load
from appliance.errors import EXIT_OK, EXIT_SOFTWARE, UsageError

_USUAL_CONFIG = "config.toml"
_REMEMBERED = "ui.json"


def execute(options: argparse.Namespace) -> int:
    """Attach until the operator leaves; returns the exit code."""
    if is_headless(False):
        raise UsageError(
            "there is no terminal to show the appliance on; its log is where it was started, and "
            "its status is published on <name>/status"
        )
    config = _config(options)
    if config is None and options.host is None:
        options.host = "127.0.0.1"
    target = target_of(options, config=config, client="terminal")
    with Client(target):
        """It is within reach and lets us in: this client knows how to say why it would not."""
    # Mistakes are told before the UI's imports.
    from appliance import logs  # noqa: PLC0415
    from appliance.attach.engine import AttachedEngine  # noqa: PLC0415
    from appliance.ui.app import UiEnd, run  # noqa: PLC0415
    from appliance.ui.settings import UiSettings  # noqa: PLC0415
    from appliance.ui_settings import ui_settings  # noqa: PLC0415

    settings = UiSettings() if config is None else ui_settings(load(config))
    folder = state_folder()
    with contextlib.suppress(OSError):  # without it nothing is remembered, and that is all
        folder.mkdir(parents=True, exist_ok=True)
    settings = msgspec.structs.replace(
        settings, remember=folder / _REMEMBERED, exports=Path.cwd() / "exports"
    )
    engine = AttachedEngine(target)
    log = logs.start("info", file=str(folder / "attach.log"))
    try:
        engine.open(target.timeout_s)
        end = run(engine, settings=settings, clock_ns=engine.clock_ns)
    finally:
        engine.close()
        log.close()
    if end is UiEnd.CRASHED:
        sys.stderr.write(f"appliance: the UI failed; {folder / 'attach.log'} says how\n")
        return EXIT_SOFTWARE
    if end is UiEnd.DETACHED:
        sys.stdout.write(f"Detached from {target.shown}; the appliance goes on.\n")
    return EXIT_OK


def _config(options: argparse.Namespace) -> str | None:
    """The configuration that says what the options leave open, if there is one."""
    if options.config is not None:
        return str(options.config)
    if options.host is None and Path(_USUAL_CONFIG).is_file():
        return _USUAL_CONFIG
    return None


def state_folder() -> Path:
    """Where this user's programs keep what they remember, on this system."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Application Support")
    else:
        # The XDG Base Directory Specification: state that is kept between two runs.
        base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "appliance"
