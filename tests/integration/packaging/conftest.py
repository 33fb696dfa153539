"""The artefacts of a release, built once for all the campaign tests that try them."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from release_workflow import BUILD, ROOT, end_step, stand_in, start_step, steps


@pytest.fixture(scope="session")
def two_builds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two folders that the release workflow's step makes of the last commit, both at once.

    They are built once a run, whichever worker comes first; ``APPLIANCE_DIST`` names one that is
    built already. It takes minutes, so a test that uses it has the mark ``campaign`` and the mark
    ``timeout(1200)``.
    """
    ready = os.environ.get("APPLIANCE_DIST")
    if ready:
        return Path(ready).resolve(), Path(ready).resolve()
    if sys.platform != "linux":
        pytest.skip("packages are built on Linux")
    for tool in ("git", "xz", "objdump"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not there, and packaging/build needs it")
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    built, folders = shared / "dist-is-built", (shared / "first", shared / "second")
    with (shared / "dist.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            _build(shared, folders)
            built.touch()
    return folders[0] / "dist", folders[1] / "dist"


def _build(shared: Path, checkouts: tuple[Path, Path]) -> None:
    stand_in(shared / "bin", "uv", f"echo {sys.executable}")
    (shared / "build").mkdir(exist_ok=True)
    running = []
    try:
        for folder in checkouts:
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run(["git", "clone", "-q", ROOT, folder], check=True, timeout=120)
            log = folder.with_suffix(".log")
            place = str(shared / "build")
            running.append(start_step(steps()[BUILD], folder, log, shared / "bin", TMPDIR=place))
        for process, folder in zip(running, checkouts, strict=True):
            code = process.wait(1500)
            assert code == 0, folder.with_suffix(".log").read_text("utf-8", "replace")[-3000:]
    finally:
        for process in running:
            end_step(process)


@pytest.fixture(scope="session")
def dist(two_builds: tuple[Path, Path]) -> Path:
    """The folder with the artefacts of the last commit."""
    return two_builds[0]
