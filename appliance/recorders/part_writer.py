"""What writes a complete file of rows: one class a format of files that can't be appended to.

Not for: when a part ends, what it is called, and how it is published (parts.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Protocol

from appliance.recorders.table import Column, Table


class PartWriter(Protocol):
    """Writes one file after the other: ``begin``, ``write`` as often as needed, ``close``.

    After an error the part is lost: ``abandon`` it and begin another.
    """

    kind: ClassVar[str]
    """As in ``[[recorder]] format``, and the ending of the file's name."""

    @property
    def size(self) -> int:
        """About how many bytes the file would have if it were closed now; 0: none is open."""
        ...

    def begin(self, file: Path, columns: tuple[Column, ...]) -> None:
        """Begin a file; one of that name is replaced.

        Raises:
            OSError: it can't be made.
        """
        ...

    def takes(self, columns: tuple[Column, ...]) -> bool:
        """Whether rows of these columns can go into the open file. If not, close it first."""
        ...

    def write(self, table: Table) -> None:
        """Add rows; their columns are some that the file ``takes``.

        Raises:
            OSError: the disk is full or fails.
        """
        ...

    def close(self, first_seq: int = 0, last_seq: int = 0) -> None:
        """Complete the file, which then has the numbers of its first and last message in it.

        The caller forces the file to the disk.

        Raises:
            OSError: as for ``write``.
        """
        ...

    def abandon(self) -> None:
        """Forget the open file, if there is one. It is incomplete; the caller removes it."""
        ...
