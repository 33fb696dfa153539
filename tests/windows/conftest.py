"""Stories of the whole program on Windows: each test here has the mark, and needs a Windows Python."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from windows_process import DEADLINE_S, spawn


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = pytest.mark.skip(
        reason="WINDOWS_PYTHON does not name a Windows Python (scripts/test-windows makes one)"
    )
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("windows")
            item.add_marker(pytest.mark.timeout(400))
            if not os.environ.get("WINDOWS_PYTHON"):
                item.add_marker(missing)


@pytest.fixture(scope="session", autouse=True)
def _windows_is_up() -> Iterator[None]:
    """A program that waits: without one, Wine stops after each test and starts anew for the next."""
    if not os.environ.get("WINDOWS_PYTHON"):
        yield
        return
    with spawn("-c", "import sys; print('up', flush=True); sys.stdin.read()") as waiting:
        assert waiting.stdout.readline().strip() == "up"
        yield
        waiting.stdin.close()
        waiting.wait(DEADLINE_S)
