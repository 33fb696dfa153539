"""``appliance demo``: hands over to the demo, which brings its own configuration."""

from __future__ import annotations

import argparse

from appliance.commands.run import is_headless, run_for_s


def execute(options: argparse.Namespace) -> int:
    """Run the demo; returns the exit code."""
    seconds = run_for_s(options.run_for)
    # Mistakes are reported before the broker's imports, which take a second.
    from appliance import demo  # noqa: PLC0415

    return demo.main(
        headless=is_headless(options.headless),
        run_for_s=seconds,
        data_dir=options.data_dir,
        qlik=options.qlik,
    )
