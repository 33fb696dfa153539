"""Stories of the whole program on Windows: each test here has the mark, and needs a Windows Python."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


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
