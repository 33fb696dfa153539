"""Runs on Windows: holds a file open until standard input ends, and shares it as it is told.

``windows_holder.py FILE SHARE`` prints ``held`` once it has the file. SHARE is what CreateFile lets
others do meanwhile: ``nothing``, ``read``, ``read-write`` or ``all`` (delete and rename too).
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import wintypes

_SHARES = {"nothing": 0, "read": 1, "read-write": 3, "all": 7}
_GENERIC_READ = 0x80000000
_OPEN_EXISTING = 3
_INVALID = wintypes.HANDLE(-1).value

kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
kernel32.CreateFileW.restype = wintypes.HANDLE
handle = kernel32.CreateFileW(
    sys.argv[1], _GENERIC_READ, _SHARES[sys.argv[2]], None, _OPEN_EXISTING, 0, None
)
if handle == _INVALID:
    raise ctypes.WinError(ctypes.get_last_error())
print("held", flush=True)
sys.stdin.read()
