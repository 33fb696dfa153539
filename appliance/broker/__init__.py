"""The broker: listeners, connections, the door to the journal, and amqtt behind it."""

from __future__ import annotations

import contextlib
import importlib
import sys
from types import ModuleType


def _without_yaml() -> None:
    """Import the one module of amqtt that wants yaml, and yaml itself at its first use.

    amqtt reads configuration files with it, which it never does here. Compiling yaml's regular
    expressions takes longer than importing all of amqtt.
    """
    placeholder = ModuleType("yaml")
    vars(placeholder)["__getattr__"] = lambda name: getattr(importlib.import_module("yaml"), name)
    sys.modules["yaml"] = placeholder
    try:
        with contextlib.suppress(ImportError):  # the tests' stand-in for amqtt works without it
            importlib.import_module("amqtt.utils")
    finally:
        del sys.modules["yaml"]


if "yaml" not in sys.modules:
    _without_yaml()
