"""Whether the disk of a folder has less free space than ``limits.min_free_disk``.

Not for: what a recorder does then (worker.py), and publishers (engine/disk_floor.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from appliance.storage import files

LOOK_S = 0.25
_ENOUGH = 1.1
"""So much more than the floor must be free until a recorder goes on."""


DEFAULT_BYTES = 200 * 1000 * 1000
_SHARE_OF_DISK = 20
"""A small disk may be filled up to this part of it, or nothing could ever be written to it."""


class Floors:
    """The least free space of each disk. For any thread.

    Args:
        configured: ``limits.min_free_disk``, in bytes; ``None``: the default.
    """

    def __init__(self, configured: Callable[[], int | None]) -> None:
        self._configured = configured
        self._defaults: dict[Path, int] = {}

    def of(self, folder: Path) -> int:
        """The floor for a folder's disk, in bytes. The disk is asked at the first time only."""
        configured = self._configured()
        if configured is not None:
            return configured
        known = self._defaults.get(folder)
        if known is None:
            known = _default(folder)
            self._defaults[folder] = known
        return known


def _default(folder: Path) -> int:
    for each in (folder, *folder.parents):
        try:
            return min(DEFAULT_BYTES, files.disk_bytes(each) // _SHARE_OF_DISK)
        except FileNotFoundError:
            continue
        except OSError:
            break
    return DEFAULT_BYTES


def _no_floor(_: Path) -> int:
    return 0


class FreeSpace:
    """Looks at disks, at each at most four times a second. For any thread.

    Args:
        floor: the least free space of a folder's disk, in bytes; 0: it does not matter.
        measure: the free bytes of a folder's disk. Raises ``OSError``.
    """

    def __init__(
        self,
        floor: Callable[[Path], int] = _no_floor,
        measure: Callable[[Path], int] = files.free_bytes,
    ) -> None:
        self._floor = floor
        self._measure = measure
        self._seen: dict[Path, tuple[float, int]] = {}

    def problem(self, folder: Path, *, is_paused: bool) -> str:
        """Why nothing may be written below a folder now; ``""``: it may.

        Args:
            folder: it need not exist.
            is_paused: whether the recorder pauses already.
        """
        floor = self._floor(folder)
        if not floor:
            return ""
        free = self._free(folder)
        if free is None or free >= floor * (_ENOUGH if is_paused else 1):
            return ""
        return (
            f"paused: only {free // 1_000_000} MB are free on its disk, less than"
            f" limits.min_free_disk ({floor // 1_000_000} MB); the journal keeps its messages"
        )

    def _free(self, folder: Path) -> int | None:
        seen_s, free = self._seen.get(folder, (float("-inf"), 0))
        now_s = time.monotonic()
        if now_s - seen_s < LOOK_S:
            return free
        for each in (folder, *folder.parents):
            try:
                free = self._measure(each)
            except FileNotFoundError:
                continue
            except OSError:  # the write reports it
                return None
            self._seen[folder] = (now_s, free)
            return free
        return None
