"""What a recorder writes to: one growing file, a series of files, or a table of a database.

The thread of the recorders gives a target its messages in order, each once, and stores the target's
positions. After a crash the target gets every message behind ``durable_cursor`` again.
Not for: choosing the messages (recorders.py), which target a configuration means (targets.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from appliance.config.tables import RecorderConfig
from appliance.counters import Counter
from appliance.model import Message
from appliance.recorders.part_store import PartStore
from appliance.recorders.progress import Progress, ProgressStore

Later = Callable[[int], Iterator[list[Message]]]
"""The journal's messages of the recorder behind a number, in order, oldest chunk first, up to the
newest. It reads the disk. Raises ``UnavailableError`` and ``sqlite3.Error`` as the journal does."""

LOST = "lost"
"""``Progress.format`` of a database recorder whose row was lost: its table says how far it came.
Where the table has nothing of this data directory, it is a new recorder: it begins behind the
journal's newest message."""


KEY_MARK = "\x1f"
"""Divides the name of a row for one of several paths of a recorder: its key, the period, the path.
No file name has it."""


def _never() -> bool:
    return False


class Context(msgspec.Struct, frozen=True):
    """What a target knows of its surroundings."""

    config: RecorderConfig
    key: str
    """Of the recorder's own row in ``recorders.db``."""
    name: str
    """Of the recorder, for texts and topics."""
    data_dir: Path
    store: ProgressStore
    parts: PartStore
    clock_ns: Callable[[], int]
    """The time of day, ns since 1970."""
    installation: Callable[[], str]
    """The text that tells this data directory from every other one (``installation`` there). It
    reads the disk. Raises ``UnavailableError``."""
    count: Callable[[Counter], None]
    """Counts one event. Any thread."""
    last_seq: Callable[[], int]
    """The journal's newest message. Any thread."""
    is_stopping: Callable[[], bool]
    """Whether the appliance stops or the recorder is taken out: a long wait should end."""
    has_one_topic: bool = False
    """Whether the path can have messages of one topic only, although the filter has wildcards."""
    age_clock_ns: Callable[[], int] | None = None
    """The time of day for what is removed for its age, if it is another one: a clock that may be
    wrong is not followed yet."""
    is_pressed: Callable[[], bool] = _never
    """Whether the journal gets too big because of what it keeps for the recorder. Any thread."""


class Unsaved(msgspec.Struct):
    """Positions that are not in ``recorders.db`` yet."""

    rows: Sequence[tuple[str, Progress]] = ()
    """Keys and positions; the recorder's own row is among them if it has changed."""
    is_urgent: bool = False
    """Whether they say more than which messages were looked at: they are stored after this batch.
    Else once a second."""
    is_durable: bool = False
    """Whether they must be on the disk before anything else is written: files that begin."""


class Figures(msgspec.Struct, frozen=True):
    """What is shown of a target."""

    recorded: int = 0
    """Messages since the recording began."""
    size_bytes: int = 0
    """Of the file, or of all closed files and the open one."""
    files: int = 1
    """Closed and open ones; 0: a table."""
    details: Mapping[str, str] = {}
    """Further lines for the UI, name and value."""


class Target(Protocol):
    """Where the messages of one recorder go. For one thread at a time.

    A target is made with the recorder's own row of ``recorders.db`` (``format`` is ``""`` for a
    recorder that begins behind message ``seq``). Every method but ``figures`` may wait for its disk
    or server. What a method raises is shown in the recorder's health, and the recorder tries again
    a second later, from ``cursor`` on; a defect does no more than that. Messages are then those
    behind ``cursor``: a target that lost what it had taken sets ``cursor`` back.
    """

    @property
    def note(self) -> str:
        """What the recorder's health warns of; ``""``: nothing."""
        ...

    @property
    def cursor(self) -> int:
        """The last message that was taken, whether it belongs to the recorder or not."""
        ...

    @property
    def durable_cursor(self) -> int:
        """The message up to which the journal is not needed any more; at most ``cursor``.

        The rows in ``recorders.db`` say so, and what they stand for is on the disk or in the
        database.
        """
        ...

    def open(self, later: Later) -> None:
        """Begin, or continue however the last run ended. Called again after an error.

        Raises:
            OSError, sqlite3.Error, ApplianceError: not possible now; try again.
        """
        ...

    def append(self, messages: Sequence[Message], seq: int) -> None:
        """Take messages.

        Args:
            messages: at least one, all behind ``cursor``.
            seq: the journal's number up to which every message was processed, at least that of the
                last message.

        Raises:
            OSError, sqlite3.Error, ApplianceError: ``cursor`` says what was taken; try again.
        """
        ...

    def skip(self, seq: int) -> None:
        """Note that no message up to ``seq`` belongs to this recorder."""
        ...

    def tick(self, now_ns: int) -> None:
        """Do what time demands: close a file, remove old ones. At least once a second.

        Raises:
            OSError, sqlite3.Error, ApplianceError: try again.
        """
        ...

    def finish(self) -> None:
        """Bring what is open to an end: an ordered stop, or the recorder is taken out.

        Raises:
            OSError, sqlite3.Error, ApplianceError: the next start repairs what is left.
        """
        ...

    def unsaved(self) -> Unsaved:
        """Positions to be stored, each behind what it stands for. No disk."""
        ...

    def saved(self, rows: Sequence[tuple[str, Progress]]) -> None:
        """These rows of ``unsaved`` are stored now."""
        ...

    def figures(self) -> Figures:
        """What is shown. Any thread, no disk."""
        ...


def key_of(path: Path, data_dir: Path) -> str:
    """The name of a file in ``recorders.db``.

    Below the data directory, which may be moved, the path within it; elsewhere the whole path.
    """
    if path.is_relative_to(data_dir):
        return path.relative_to(data_dir).as_posix()
    return str(path)


def path_of(key: str, data_dir: Path) -> Path:
    """The file of a name in ``recorders.db``; of one of several paths, what follows the marks."""
    return data_dir / key.rpartition(KEY_MARK)[2]
