"""The packages in a system that is booted: what systemd makes of the unit and the scripts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
IMPOSSIBLE = 69
"""The exit code of ``boot-check`` where no system can be booted."""


@pytest.mark.campaign
@pytest.mark.timeout(2400)
@pytest.mark.skipif(sys.platform != "linux", reason="systemd is a part of Linux")
def test_the_packages_hold_in_a_booted_system(request: pytest.FixtureRequest) -> None:
    """Start, reload, credentials, watchdog, kill, upgrade, removal: ``packaging/booted-checks``."""
    if os.geteuid() != 0:
        pytest.skip("to boot a system needs root")
    dist = request.getfixturevalue("dist")  # after what may skip: it takes minutes
    deb, rpm = (next(dist.glob(f"*.{kind}")) for kind in ("deb", "rpm"))
    done = subprocess.run(
        [ROOT / "packaging" / "boot-check", deb, rpm],
        capture_output=True, text=True, timeout=900, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode == IMPOSSIBLE:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert re.search(r"^\d+ checks hold, in \d+ s$", done.stdout, re.MULTILINE)
