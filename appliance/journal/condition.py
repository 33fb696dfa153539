"""The journal's condition: what its disk, its size and its slow readers mean for the operator.

Not for: committing or deleting; this module only judges and says it, in the log and as health.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from appliance.engine_api import Health
from appliance.journal.follower import Follower
from appliance.journal.retention import OVERRUN, Step, used_bytes
from appliance.storage import files

OnHealth = Callable[[str, str], None]

LOW_SPACE_BYTES = 500 * 1000**2
"""Free space below which the journal warns, before the disk is full."""

_log = logging.getLogger(__name__)


class Condition:
    """Health, size and free space. Changed by the writer's thread only, read by any."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.health = Health("off", "not started")
        self.size_bytes = 0
        self.free_bytes = 0
        self.removed_to = 0
        """Last sequence number that retention deleted although a follower needed it."""
        self.forced_removals = 0
        """How many steps of retention had to do that."""
        self.on_health: OnHealth | None = None
        self._path = path
        self.max_bytes = max_bytes
        self._failing: str | None = None
        self._concern: Health | None = None

    def failing(self, text: str | None) -> None:
        """The disk refuses, for this reason; ``None``: it works again."""
        if text == self._failing:
            return
        if text is None:
            _log.warning("The journal %s is written again", self._path)
        else:
            _log.error(
                "The journal %s can't be written: %s. Nothing is acknowledged until it can be;"
                " it is tried again by itself",
                self._path,
                text,
            )
        self._failing = text
        self.judge()

    def look_at_disk(self, connection: sqlite3.Connection) -> None:
        """Take the journal's size and the free space.

        Raises:
            sqlite3.Error: the database can't be read.
        """
        self.size_bytes = used_bytes(connection)
        try:
            self.free_bytes = files.free_bytes(self._path.parent)
        except OSError as error:
            _log.warning("Free space of %s can't be read: %s", self._path.parent, error.strerror)

    def after_retention(self, step: Step, followers: Sequence[Follower], last_seq: int) -> None:
        """Judge what a step of retention did, or could not do for the sake of a slow follower."""
        slowest = min(followers, key=lambda follower: follower.advanced, default=None)
        behind = last_seq - slowest.advanced if slowest else 0
        if step.forced and slowest:
            self.removed_to = step.removed_to
            self.forced_removals += 1
            self._concern = Health(
                "bad", f"too big: messages deleted that {slowest.name} needs ({behind} behind)"
            )
            _log.error(
                "The journal %s is more than %d %% of max_size: messages up to %d were deleted"
                " although %s had not read them. Find out why it is slow, or raise max_size in"
                " [journal]",
                self._path,
                OVERRUN * 100,
                step.removed_to,
                slowest.name,
            )
        elif slowest and slowest.advanced < self.removed_to:
            pass  # the loss stays visible until that follower has got over it
        elif step.held_back and slowest and self.size_bytes > self.max_bytes:
            text = f"bigger than max_size: {slowest.name} is {behind} behind"
            self._concern = Health("warn", text)
        elif not step.more:
            self._concern = None
        self.judge()

    def judge(self) -> None:
        """Settle the health from all that is known, and tell about a change."""
        if self._failing is not None:
            health = Health("bad", self._failing)
        elif self._concern is not None:
            health = self._concern
        elif self.free_bytes < LOW_SPACE_BYTES:
            health = Health("warn", f"only {self.free_bytes // 1000**2} MB free on the disk")
        else:
            health = Health("ok")
        if health != self.health:
            self.health = health
            if self.on_health is not None:
                self.on_health(health.level, health.text)
