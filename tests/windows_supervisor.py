"""Runs on Windows: starts a program with a console of its own, and does to it what it is told.

``windows_supervisor.py ARGUMENTS...`` starts Python with the arguments and ends with its exit code. Each line of standard input is
a command: ``ctrl-c`` and ``ctrl-break`` (as a service wrapper sends them), ``terminate``
(TerminateProcess). At the end of standard input the program is terminated.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from ctypes import wintypes

CTRL_C, CTRL_BREAK = 0, 1
_ALL_ACCESS = 0x1FFFFF

kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
kernel32.OpenProcess.restype = wintypes.HANDLE
kernel32.TerminateProcess.argtypes = [wintypes.HANDLE, wintypes.UINT]
kernel32.GetModuleHandleW.restype = wintypes.HMODULE
kernel32.GetProcAddress.argtypes = [wintypes.HMODULE, ctypes.c_char_p]
kernel32.GetProcAddress.restype = ctypes.c_void_p
kernel32.CreateRemoteThread.argtypes = [
    wintypes.HANDLE,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_void_p,
    ctypes.c_void_p,
    wintypes.DWORD,
    ctypes.c_void_p,
]
kernel32.CreateRemoteThread.restype = wintypes.HANDLE


def checked(result):
    if not result:
        raise ctypes.WinError(ctypes.get_last_error())
    return result


def control(pid: int, event: int) -> None:
    """A control event for all programs of the console that the process ``pid`` has."""
    kernel32.FreeConsole()
    checked(kernel32.AttachConsole(pid))
    checked(kernel32.SetConsoleCtrlHandler(None, True))  # not for this program
    checked(kernel32.GenerateConsoleCtrlEvent(event, 0))


def control_by_thread(pid: int, event: int) -> None:
    """The same for one process: the thread that a console begins in it (Wine sends Ctrl+C only)."""
    base = kernel32.GetModuleHandleW("kernelbase.dll")
    routine = checked(kernel32.GetProcAddress(base, b"CtrlRoutine"))
    process = checked(kernel32.OpenProcess(_ALL_ACCESS, False, pid))
    checked(kernel32.CreateRemoteThread(process, None, 0, routine, event, 0, None))


def is_wine() -> bool:
    return hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")


def main() -> None:
    child = subprocess.Popen(
        [sys.executable, *sys.argv[1:]],
        stdin=subprocess.DEVNULL,
        stdout=sys.stdout,
        stderr=sys.stderr,
        creationflags=subprocess.CREATE_NO_WINDOW,
    )

    def obey() -> None:
        for line in sys.stdin:
            match line.strip():
                case "ctrl-c":
                    control(child.pid, CTRL_C)
                case "ctrl-break" if is_wine():
                    control_by_thread(child.pid, CTRL_BREAK)
                case "ctrl-break":
                    control(child.pid, CTRL_BREAK)
                case "terminate":
                    child.terminate()
        child.terminate()

    threading.Thread(target=obey, daemon=True).start()
    os._exit(child.wait() & 0xFF)  # the thread may still wait for a command


if __name__ == "__main__":
    main()
