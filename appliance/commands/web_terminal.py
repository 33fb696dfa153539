"""The terminal of one browser, a process that ``appliance web`` starts: never by hand.

The first line of its input says what to attach to and as whom; what follows there, and all of its
output, are textual-serve's packets. Not for: the web server (web/).
"""

from __future__ import annotations

import argparse
import os
import sys

import msgspec

from appliance.commands.target import target_of
from appliance.config.reading import load_tables
from appliance.errors import EXIT_OK, ApplianceError
from appliance.log import logs
from appliance.process.ui_settings import ui_settings
from appliance.remote.client_engine import AttachedEngine
from appliance.secret import Secret
from appliance.ui.session import run_ui
from appliance.ui.settings import UiSettings
from appliance.web.sign_in import user_target

_LONGEST_LINE = 64 * 1024


class Start(msgspec.Struct, frozen=True):
    """The first line, as JSON."""

    host: str | None
    port: int | None
    tls: bool
    ca_file: str | None
    certfile: str | None
    keyfile: str | None
    timeout: str
    config: str | None
    username: str | None
    password: str | None
    client_id: str = ""


def main() -> int:
    """Attach until the person leaves or the browser goes; returns the exit code."""
    start = msgspec.json.decode(_first_line(), type=Start)
    log = logs.start("warning", stream=sys.stderr)
    password = None if start.password is None else Secret(start.password)
    if password is not None:
        log.mask(password)
    options = argparse.Namespace(**msgspec.structs.asdict(start))
    options.username = options.password = None
    try:
        target = target_of(options, config=start.config, client="terminal-web")
        engine = AttachedEngine(user_target(target, start.username, password))
        settings = UiSettings()
        if start.config is not None:
            settings = ui_settings(load_tables(start.config, ui=()))
        settings = msgspec.structs.replace(settings, remember=None, in_browser=True)
        try:
            engine.open(target.timeout_s)
            run_ui(engine, settings=settings, clock_ns=engine.clock_ns, say=_nothing)
        finally:
            engine.close()
    except ApplianceError as error:
        sys.stderr.write(f"appliance web: a terminal could not be opened: {error}\n")
        return error.exit_code
    finally:
        log.close()
    return EXIT_OK


def _first_line() -> bytes:
    """Byte by byte, since what follows is for the UI."""
    line = bytearray()
    while len(line) < _LONGEST_LINE and (byte := os.read(0, 1)) not in {b"", b"\n"}:
        line += byte
    return bytes(line)


def _nothing(_text: str) -> None:
    """The output is for packets."""


if __name__ == "__main__":
    sys.exit(main())
