"""The artefacts of a release, built once for all the campaign tests that try them."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that ``packaging/build`` makes of the last commit.

    It is built once a run, whichever worker comes first; ``APPLIANCE_DIST`` names one that is
    built already. It takes minutes, so a test that uses it has the mark ``campaign`` and the mark
    ``timeout(1200)``.
    """
    ready = os.environ.get("APPLIANCE_DIST")
    if ready:
        return Path(ready).resolve()
    if sys.platform != "linux":
        pytest.skip("packages are built on Linux")
    for tool in ("git", "xz", "objdump"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not there, and packaging/build needs it")
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    built, folder = shared / "dist-is-built", shared / "dist"
    with (shared / "dist.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            place = shared / "build"
            place.mkdir(exist_ok=True)
            done = subprocess.run(
                [ROOT / "packaging" / "build", folder],
                env={**os.environ, "TMPDIR": str(place), "PYTHON": sys.executable},
                capture_output=True, text=True, timeout=1100, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
            built.touch()
    return folder
