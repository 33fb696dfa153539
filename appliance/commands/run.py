"""``appliance run``: the configuration, its files, then the service until it ends."""

from __future__ import annotations

import argparse
import os
import sys

from appliance.config.files import check_files
from appliance.config.reading import load
from appliance.config.tables import Config
from appliance.config.values import parse_duration
from appliance.errors import ConfigError, UsageError


def execute(options: argparse.Namespace) -> int:
    """Run until stopped; returns the exit code."""
    seconds = run_for_s(options.run_for)
    config = load(options.config)
    require_files(config)
    # Mistakes are reported before the broker's imports, which take a second.
    from appliance.process import run  # noqa: PLC0415

    return run.main(config, headless=is_headless(options.headless), run_for_s=seconds)


def require_files(config: Config) -> None:
    """Raise ``ConfigError`` if a file that the configuration names can't be read."""
    problems = check_files(config)
    if problems:
        raise ConfigError("\n".join(problems))


def is_headless(wanted: bool) -> bool:
    """Whether to run without the UI: the option is given, or there is no terminal for it."""
    if wanted or os.environ.get("TERM") == "dumb":
        return True
    return not (sys.stdin.isatty() and sys.stdout.isatty())


def run_for_s(text: str | None) -> float | None:
    """The ``--run-for`` option in seconds. Raises ``UsageError``."""
    if text is None:
        return None
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise UsageError(f"--run-for {text}: {error}") from None
    if seconds <= 0:
        raise UsageError(f"--run-for {text}: write a time above zero")
    return seconds
