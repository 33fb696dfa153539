"""Who else on this machine may read the files: by default nobody but their owner.

The process begins with umask 077 (``__main__``); ``[service] umask`` may let others read. Windows
has no modes: there, a file inherits the access list of its folder. Not for: the process's user.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

OWNER_ONLY = 0o077


def begin() -> None:
    """Keep what the process creates from now on to its owner, until a configuration is read."""
    os.umask(OWNER_ONLY)


def apply(umask: int, data_dir: Path, files: Iterable[Path] = ()) -> int:
    """Use a umask, and take from the files in ``data_dir``, and from others, what it forbids.

    Links are not followed, and files of other users stay. Returns how many files were changed.
    """
    os.umask(umask)
    if sys.platform == "win32":
        return 0
    inside = (Path(folder, name) for folder, _, names in os.walk(data_dir) for name in names)
    return sum(_put_right(path, umask) for path in (*inside, *files))


def _put_right(path: Path, umask: int) -> bool:
    # A file may vanish meanwhile, or be another user's.
    with contextlib.suppress(OSError):
        status = path.lstat()
        mode = stat.S_IMODE(status.st_mode)
        if stat.S_ISREG(status.st_mode) and mode & umask:
            path.chmod(mode & ~umask)
            return True
    return False


def readable_by_others(path: Path) -> bool:
    """Whether users outside the file's group may read it; ``False`` if it can't be told."""
    if sys.platform == "win32":
        return False
    with contextlib.suppress(OSError):
        return bool(path.stat().st_mode & stat.S_IROTH)
    return False
