"""How much memory this process has in use, as the operating system counts it.

Not for: what is done about it (memory_ceiling.py).
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path

if sys.platform == "win32":

    class _Counters(ctypes.Structure):
        """``PROCESS_MEMORY_COUNTERS``."""

        _fields_ = (
            ("cb", ctypes.c_uint32),
            ("PageFaultCount", ctypes.c_uint32),
            ("PeakWorkingSetSize", ctypes.c_size_t),
            ("WorkingSetSize", ctypes.c_size_t),
            ("QuotaPeakPagedPoolUsage", ctypes.c_size_t),
            ("QuotaPagedPoolUsage", ctypes.c_size_t),
            ("QuotaPeakNonPagedPoolUsage", ctypes.c_size_t),
            ("QuotaNonPagedPoolUsage", ctypes.c_size_t),
            ("PagefileUsage", ctypes.c_size_t),
            ("PeakPagefileUsage", ctypes.c_size_t),
        )

    def _measure() -> int:
        found = _Counters(cb=ctypes.sizeof(_Counters))
        kernel = ctypes.windll.kernel32
        kernel.GetCurrentProcess.restype = ctypes.c_void_p
        kernel.K32GetProcessMemoryInfo.argtypes = (
            ctypes.c_void_p,
            ctypes.POINTER(_Counters),
            ctypes.c_uint32,
        )
        process = kernel.GetCurrentProcess()
        if not kernel.K32GetProcessMemoryInfo(process, ctypes.byref(found), found.cb):
            return 0
        return int(found.WorkingSetSize)

elif sys.platform == "darwin":

    class _TaskInfo(ctypes.Structure):
        """``struct proc_taskinfo`` of ``sys/proc_info.h``."""

        _fields_ = (
            ("virtual_size", ctypes.c_uint64),
            ("resident_size", ctypes.c_uint64),
            ("times", ctypes.c_uint64 * 4),
            ("counts", ctypes.c_int32 * 12),
        )

    _PROC_PIDTASKINFO = 4

    def _measure() -> int:
        found = _TaskInfo()
        size = ctypes.sizeof(found)
        library = ctypes.CDLL("/usr/lib/libproc.dylib")
        library.proc_pidinfo.argtypes = (
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_uint64,
            ctypes.c_void_p,
            ctypes.c_int,
        )
        given = library.proc_pidinfo(os.getpid(), _PROC_PIDTASKINFO, 0, ctypes.byref(found), size)
        return int(found.resident_size) if given == size else 0

else:
    _STATM = Path("/proc/self/statm")
    _PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

    def _measure() -> int:
        # The second field: resident pages (proc_pid_statm(5)).
        return int(_STATM.read_bytes().split()[1]) * _PAGE_BYTES


def resident_bytes() -> int:
    """The memory of this process in bytes; 0 if the system does not tell. Takes microseconds."""
    try:
        return _measure()
    except (OSError, ValueError, IndexError, AttributeError):
        return 0


def return_free_memory() -> None:
    """Give memory that is free in this process back to the system, where glibc keeps it.

    Takes up to some ten milliseconds without the interpreter's lock: not on the engine's loop.
    """
    if sys.platform == "linux":
        try:
            trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
        except (OSError, AttributeError):  # another C library
            return
        trim(0)
