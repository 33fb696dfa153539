"""Which tests a system can't run, and why. The reasons are counted by scripts/test-windows."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import hypothesis
import pytest
from wine import IN_WINE

# No test promises a time for one example; a busy machine would fail it by chance.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

# Where the environment forbids compiled modules, each worker and each appliance that a test starts
# would compile all of them again: a third of what the tests cost.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A shell that runs the tests in the background has them, and each program that they start, ignore
# Ctrl+C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _umask_as_before() -> Iterator[None]:
    """An appliance in this process sets it, and later tests make files for other accounts."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


def _reason(item: pytest.Item) -> str | None:
    if sys.platform == "win32" and (mark := item.get_closest_marker("posix")):
        return f"not on Windows: {mark.args[0]}"
    if IN_WINE and (mark := item.get_closest_marker("not_in_wine")):
        return f"not in Wine: {mark.args[0]}"
    if item.get_closest_marker("windows") and "WINDOWS_PYTHON" not in os.environ:
        return "scripts/test-windows makes the Windows Python that this needs"
    return None


def pytest_make_parametrize_id(val: object) -> str | None:
    """A short name: pytest puts it into the environment, which on Windows takes 32767 characters."""
    if isinstance(val, str | bytes) and len(val) > 200:
        return f"{len(val)} of {val[:1]!r}"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if reason := _reason(item):
            item.add_marker(pytest.mark.skip(reason=reason))
