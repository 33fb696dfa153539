"""How the time of day of the last run goes on, so that a step between two runs is told.

The time of day is the time since the machine's start plus a difference that changes with a step
only. The difference is kept in the data directory. The next run begins with it, finds that the
system's clock shows another time, and follows as it follows a step in its life (``clock.py``).

Only while the machine runs on, and only where the system names that (Linux): after a restart of the
machine nothing tells how long it was off, and the system's clock counts.

Not for: what moves with a step (engine/service.py, tasks/state_store.py).
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import msgspec

from appliance.storage import files

FILE_NAME = "clock.json"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""random(4): another text after each start of the machine."""
_LARGEST_FILE = 64 * 1024


class _Kept(msgspec.Struct, frozen=True, rename="camel"):
    boot_id: str
    ahead_ns: int
    """Time of day minus time since the machine's start."""


def read(data_dir: Path) -> int | None:
    """The difference that the last run kept, in ns; ``None`` if it says nothing of today."""
    boot_id = _boot_id()
    if boot_id is None:
        return None
    try:
        with files.open_to_read(data_dir / FILE_NAME) as file:
            kept = msgspec.json.decode(file.read(_LARGEST_FILE), type=_Kept)
    except (OSError, ValueError, RecursionError):  # none yet, or a power cut: nothing is lost by it
        return None
    return kept.ahead_ns if kept.boot_id == boot_id else None


def write(data_dir: Path, ahead_ns: int) -> None:
    """Keep the difference. For a worker thread; a disk that refuses costs only what it is for."""
    boot_id = _boot_id()
    if boot_id is None:
        return
    path = data_dir / FILE_NAME
    new = path.with_name(f"{path.name}.new")
    with contextlib.suppress(OSError):
        new.write_bytes(msgspec.json.encode(_Kept(boot_id, ahead_ns)))
        new.replace(path)


def _boot_id() -> str | None:
    if sys.platform != "linux":
        return None
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except (OSError, ValueError):
        return None
