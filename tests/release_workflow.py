"""The release workflow's steps, and a way to run one as GitHub does. Not for: what they promise."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
WORKFLOW = ROOT / ".github" / "workflows" / "release.yml"
FLOW = yaml.safe_load(WORKFLOW.read_text("utf-8"))
BUILD = "PYTHON=$(uv python find 3.13) packaging/build dist"
"""The step that makes the artefacts, on Linux."""


def steps() -> dict[str, str]:
    """The script of each step that has one, by the step's name or the script itself."""
    return {
        step.get("name", step["run"]): step["run"]
        for job in FLOW["jobs"].values()
        for step in job["steps"]
        if "run" in step
    }


def start_step(script: str, folder: Path, log: Path, *tools: Path, **env: str) -> subprocess.Popen:
    """Start a step as GitHub does (``bash -e``), redirected, with a code page that lacks letters.

    ``tools`` are folders with stand-ins for programs. The output goes to ``log``.
    """
    path = [*map(str, tools), os.environ["PATH"], "/usr/sbin"]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "APPLIANCE"))}
    code_page = {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0", "LC_ALL": "C"}
    with log.open("wb") as out:
        return subprocess.Popen(
            ["bash", "-e", "-c", script],
            cwd=folder, env=kept | code_page | {"PATH": ":".join(path)} | env,
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip


def end_step(running: subprocess.Popen) -> None:
    """End what a step has started, if it still runs; its scripts clean up."""
    if running.poll() is None:
        os.killpg(running.pid, signal.SIGTERM)
        running.wait(60)


def run_step(script: str, folder: Path, log: Path, *tools: Path) -> int:
    """Run a step to its end (twenty minutes at most) and return its exit code."""
    running = start_step(script, folder, log, *tools)
    try:
        return running.wait(1200)
    finally:
        end_step(running)


def stand_in(folder: Path, name: str, script: str) -> None:
    """A program of that name in ``folder``, instead of one that the machine may lack."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
