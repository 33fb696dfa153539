"""The appliance, with Ctrl+Break delivered as Microsoft's C runtime delivers it.

Wine's C runtime has no SIGBREAK: this raises it in the thread of the console's event, as the real
one does. On Windows proper nothing is added.
"""

from __future__ import annotations

import ctypes
import signal
import sys
from ctypes import wintypes

from appliance.__main__ import main

_CTRL_BREAK = 1


@ctypes.WINFUNCTYPE(wintypes.BOOL, wintypes.DWORD)
def _on_event(event: int) -> bool:
    if event == _CTRL_BREAK:
        signal.raise_signal(signal.SIGBREAK)
        return True
    return False


if hasattr(ctypes.WinDLL("ntdll"), "wine_get_version"):
    ctypes.WinDLL("kernel32").SetConsoleCtrlHandler(_on_event, True)
sys.exit(main())
