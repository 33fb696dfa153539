"""Who else on this machine may read the files: by default nobody but their owner.

The process begins with umask 077 (``__main__``); ``[service] umask`` may let others read. Windows
has no modes: there, a file inherits the access list of its folder. Not for: the process's user.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

OWNER_ONLY = 0o077
_WRITE = stat.S_IWGRP | stat.S_IWOTH


def begin() -> None:
    """Keep what the process creates from now on to its owner, until a configuration is read."""
    os.umask(OWNER_ONLY)


def apply(umask: int, data_dir: Path, files: Iterable[Path] = ()) -> int:
    """Use a umask, and take from the files in ``data_dir``, and from others, what it forbids.

    From ``data_dir`` and its folders the right to write is taken: who has it can replace files and
    leave requests to the appliance there. Links are not followed, and files of other users stay.
    Returns how many files and folders were changed.
    """
    os.umask(umask)
    if sys.platform == "win32":
        return 0
    changed = 0
    for folder, _, names in os.walk(data_dir):
        changed += _put_right(Path(folder), umask & _WRITE, stat.S_ISDIR)
        changed += sum(_put_right(Path(folder, name), umask, stat.S_ISREG) for name in names)
    return changed + sum(_put_right(path, umask, stat.S_ISREG) for path in files)


def _put_right(path: Path, forbidden: int, is_kind: Callable[[int], bool]) -> bool:
    # A file may vanish meanwhile, or be another user's.
    with contextlib.suppress(OSError):
        status = path.lstat()
        mode = stat.S_IMODE(status.st_mode)
        if is_kind(status.st_mode) and mode & forbidden:
            path.chmod(mode & ~forbidden)
            return True
    return False


def readable_by_others(path: Path) -> bool:
    """Whether users outside the file's group may read it; ``False`` if it can't be told."""
    return _others_may(path, stat.S_IROTH)


def writable_by_others(path: Path) -> bool:
    """Whether users outside the file's group may change it; ``False`` if it can't be told."""
    return _others_may(path, stat.S_IWOTH)


def _others_may(path: Path, right: int) -> bool:
    if sys.platform == "win32":
        return False
    with contextlib.suppress(OSError):
        return bool(path.stat().st_mode & right)
    return False
