"""``quick_appliance.py`` that kills itself at a step of a bridge's way: ``STEP=name:passage``.

The steps of a message that comes in: received, entered, committed, queued, sent, proven, noted; of
one that goes out: out, confirmed, placed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from quick_appliance import LIMITS, WAITS

from appliance.bridge.account import Account
from appliance.bridge.connection import BridgeConnection
from appliance.bridge.exchange import Exchange
from appliance.bridge.incoming import Incoming
from appliance.bridge.outgoing import Outgoing
from appliance.cli import main
from appliance.tasks.engine import TaskEngine

STEPS: dict[str, tuple[type, str, bool]] = {
    "received": (Incoming, "_take", False),
    "entered": (Incoming, "enter", True),
    "committed": (BridgeConnection, "queue", False),
    "queued": (BridgeConnection, "queue", True),
    "sent": (BridgeConnection, "flush", True),
    "proven": (Exchange, "pinged", True),
    "noted": (Account, "look", True),
    "out": (Outgoing, "_send", True),
    "confirmed": (Exchange, "acknowledged", False),
    "placed": (Exchange, "_save_cursor", True),
}
"""Class, method, and whether the step is behind the call."""


def die() -> None:
    if sys.platform == "win32":
        os._exit(137)
    os.kill(os.getpid(), signal.SIGKILL)


def dies_at(kind: type, method: str, passage: int, *, behind: bool) -> None:
    usual: Callable[..., Any] = getattr(kind, method)
    passed = 0

    def call(self: Any, *arguments: Any, **more: Any) -> Any:
        nonlocal passed
        is_one = kind is not Incoming or method != "enter" or bool(self._messages)
        passed += is_one
        if passed == passage and not behind:
            die()
        found = usual(self, *arguments, **more)
        if passed == passage and is_one:
            die()
        return found

    setattr(kind, method, call)


if __name__ == "__main__":
    assert TaskEngine.__init__.__kwdefaults__ is not None
    TaskEngine.__init__.__kwdefaults__.update(WAITS, limits=LIMITS)
    if step := os.environ.get("STEP"):
        name, _, number = step.partition(":")
        kind, method, behind = STEPS[name]
        dies_at(kind, method, int(number), behind=behind)
    sys.exit(main())
