"""Which tests a system can't run, and why. The reasons are counted by scripts/test-windows."""

from __future__ import annotations

import os
import sys

import pytest


def _in_wine() -> bool:
    """Whether Windows is played by Wine: its ntdll has a function of that name."""
    if sys.platform != "win32":
        return False
    import ctypes

    return hasattr(ctypes.windll.ntdll, "wine_get_version")


IN_WINE = _in_wine()


def _reason(item: pytest.Item) -> str | None:
    if sys.platform == "win32" and (mark := item.get_closest_marker("posix")):
        return f"not on Windows: {mark.args[0]}"
    if IN_WINE and (mark := item.get_closest_marker("not_in_wine")):
        return f"not in Wine: {mark.args[0]}"
    if item.get_closest_marker("windows") and "WINDOWS_PYTHON" not in os.environ:
        return "scripts/test-windows makes the Windows Python that this needs"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if reason := _reason(item):
            item.add_marker(pytest.mark.skip(reason=reason))
