"""What an upload remembers in ``recorders.db``: parts that wait, and the step that is under way.

The step is a row of the positions, with a key of its own. So the end of a step and the state of its
part change in one transaction. Not for: sending (uploads.py), parts themselves (part_store.py).
"""

from __future__ import annotations

import msgspec

from appliance.recorders.part_store import Part
from appliance.recorders.progress import Progress, ProgressStore, put_positions
from appliance.recorders.target import KEY_MARK

_PREFIX = "$upload/"
"""No file of a recorder has such a key: these are paths."""
_FORMAT = "upload"
_BEHIND_MARK = chr(ord(KEY_MARK) + 1)


class Step(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file on its way."""

    path: str
    """The file's name in ``recorders.db``."""
    begun_ns: int
    """When the first attempt began, ns since 1970."""
    payload: str = ""
    """The message that tells of the upload: the file is in the tenant."""
    stamp: str = ""
    """Of a file that changes: which state of it."""


class UploadMemory(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is remembered of one recorder's uploads."""

    step: Step | None = None
    floor: int = 0
    """The journal's newest message before ``Step.payload`` was published."""
    uploaded: int = 0
    """Files since the uploads began."""
    last_ns: int = 0
    """When the last upload ended; 0: there was none."""
    last_file: str = ""
    """Its name in the tenant."""
    stamps: dict[str, str] = {}
    """Of files that change: the states that are in the tenant, by their names, the newest last."""


class UploadStore:
    """The uploads of one recorder. For any thread."""

    def __init__(self, store: ProgressStore, recorder: str) -> None:
        """``recorder``: the key of the recorder's main position."""
        self._store = store
        self._recorder = recorder
        self._key = f"{_PREFIX}{recorder}"

    def load(self) -> UploadMemory:
        """What was saved last; a damaged row is as good as none: a file may be sent again.

        Raises:
            sqlite3.Error: it can't be read.
        """
        found = self._store.position(self._key)
        if found is not None and found.format == _FORMAT:
            try:
                return msgspec.json.decode(found.memory, type=UploadMemory)
            except (ValueError, RecursionError):
                pass
        return UploadMemory()

    def save(self, memory: UploadMemory) -> None:
        """On the disk when this returns.

        Raises:
            sqlite3.Error: nothing was stored.
        """
        self._store.save([self._row(memory)], durable=True)

    def end(self, memory: UploadMemory, path: str, state: str, now_ns: int) -> None:
        """Save, and give a part its state, in one transaction on the disk.

        Args:
            memory: is saved.
            path: of the part.
            state: ``uploaded`` or ``refused``.
            now_ns: ns since 1970.

        Raises:
            sqlite3.Error: nothing was stored.
        """
        key, progress = self._row(memory)
        with self._store.changing(durable=True) as connection:
            connection.execute(
                "UPDATE part SET state = ?, uploaded_ns = ? WHERE path = ?", (state, now_ns, path)
            )
            put_positions(connection, [(key, progress)])

    def waiting(self) -> Part | None:
        """The oldest part that is not uploaded. One that is still to be compressed is not closed.

        Raises:
            sqlite3.Error: it can't be read.
        """
        names = ", ".join(Part.__struct_fields__)
        with self._store.reading() as connection:
            row = connection.execute(
                f"SELECT {names} FROM part"  # noqa: S608 - our names
                " WHERE recorder = ? AND state = 'closed' ORDER BY last_seq LIMIT 1",
                (self._recorder,),
            ).fetchone()
        if row is None:
            return None
        return msgspec.convert(dict(zip(Part.__struct_fields__, row, strict=True)), Part)

    def backlog(self) -> tuple[int, int]:
        """How many parts wait, and their bytes.

        Raises:
            sqlite3.Error: they can't be counted.
        """
        with self._store.reading() as connection:
            count, size = connection.execute(
                "SELECT count(*), total(bytes) FROM part WHERE recorder = ? AND state = 'closed'",
                (self._recorder,),
            ).fetchone()
        return count, int(size)

    def positions(self) -> list[tuple[str, int, int]]:
        """The rows of the recorder's files: key, last message looked at, messages recorded.

        Raises:
            sqlite3.Error: they can't be read.
        """
        with self._store.reading() as connection:
            return connection.execute(
                "SELECT key, seq, count FROM recording WHERE key = ? OR (key > ? AND key < ?)",
                (self._recorder, f"{self._recorder}{KEY_MARK}", f"{self._recorder}{_BEHIND_MARK}"),
            ).fetchall()

    def _row(self, memory: UploadMemory) -> tuple[str, Progress]:
        text = msgspec.json.encode(memory).decode()
        return self._key, Progress(_FORMAT, memory.floor, count=memory.uploaded, memory=text)
