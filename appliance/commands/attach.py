"""``appliance attach``: the terminal UI for an appliance that runs already, here or elsewhere."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path

import msgspec

from appliance.commands.target import config_of, target_of
from appliance.config.reading import load_tables
from appliance.errors import EXIT_OK, UsageError

_REMEMBERED = "ui.json"
_NO_TERMINAL = (
    "there is no terminal to show the appliance on; what it does is in its log, and its status is "
    "published on <name>/status"
)


def execute(options: argparse.Namespace) -> int:
    """Attach until the operator leaves; returns the exit code."""
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        raise UsageError(_NO_TERMINAL)
    config = config_of(options)
    target = target_of(options, config=config, client="terminal")
    if options.password_stdin:
        _turn_to_terminal()
    if not sys.stdin.isatty():
        raise UsageError(_NO_TERMINAL)
    # Mistakes in the options are reported before these imports.
    from appliance.log import logs  # noqa: PLC0415
    from appliance.process.run import say_at_end  # noqa: PLC0415
    from appliance.process.ui_settings import ui_settings  # noqa: PLC0415
    from appliance.remote.client_engine import AttachedEngine  # noqa: PLC0415
    from appliance.ui.app import UiEnd  # noqa: PLC0415
    from appliance.ui.session import run_ui  # noqa: PLC0415
    from appliance.ui.settings import UiSettings  # noqa: PLC0415

    settings = UiSettings() if config is None else ui_settings(load_tables(config, ui=()))
    folder = state_folder()
    with contextlib.suppress(OSError):  # without the folder, only settings and log are lost
        folder.mkdir(parents=True, exist_ok=True)
    settings = msgspec.structs.replace(
        settings, remember=folder / _REMEMBERED, exports=Path.cwd() / "exports"
    )
    engine = AttachedEngine(target)
    log = logs.start("info", file=str(folder / "attach.log"))
    try:
        engine.open(target.timeout_s)
        end = run_ui(engine, settings=settings, clock_ns=engine.clock_ns, say=say_at_end)
    finally:
        engine.close()
        log.close()
    if end is UiEnd.DETACHED:
        sys.stdout.write(f"Detached from {target.shown}; the appliance continues.\n")
    return EXIT_OK


def _turn_to_terminal() -> None:
    """Read keys from the terminal, after the password was read from the input.

    Raises ``UsageError`` if there is no terminal or the system can't do that.
    """
    if sys.platform == "win32":  # there a pipe can't be replaced by the console's input
        raise UsageError("--password-stdin needs the input that the keys come from; type it")
    try:
        terminal = os.open("/dev/tty", os.O_RDWR)
    except OSError:
        raise UsageError(_NO_TERMINAL) from None
    os.dup2(terminal, 0)
    os.close(terminal)


def state_folder() -> Path:
    """The folder for the state of this user's programs on this system."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Application Support")
    else:
        # The XDG Base Directory Specification: state that persists between runs.
        base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "appliance"
