"""Whether the tests run under Wine, and how much slower it is there."""

from __future__ import annotations

import sys


def _in_wine() -> bool:
    """Wine's ntdll has a function that Windows has not."""
    if sys.platform != "win32":
        return False
    import ctypes

    return hasattr(ctypes.windll.ntdll, "wine_get_version")


IN_WINE = _in_wine()
SLOWNESS = 4 if IN_WINE else 1
"""What time limits of tests are multiplied with: a new process takes seconds in Wine."""
