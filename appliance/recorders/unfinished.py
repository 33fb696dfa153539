"""The end of a recording after a crash: whether it is the recorder's own interrupted write.

After ``kill -9`` the end is a beginning of what the recorder was to write. After a power cut it is
that sector by sector: a sector has the new bytes, or those from before one of the last writes, or
nothing (blanks, NUL), in any mixture, because the disk orders its writes as it likes.
Not for: putting the file right (recording.py).
"""

from __future__ import annotations

from appliance.recorders.writes import common

SECTOR_BYTES = 512
"""The smallest unit that any disk writes as one."""

_NOTHING = b" \0"
_LINE_ENDS = b"\r\n"


def is_own(found: bytes, expected: bytes, start: int, ends: tuple[bytes, ...]) -> bool:
    """Whether the bytes at a file's end are an interrupted write, or several.

    Args:
        found: the bytes after the last write that is known to be complete.
        expected: what was to be written there, without the file's closing bracket.
        start: offset of ``found`` in the file.
        ends: closing brackets that may follow the written part.
    """
    endings = [end.strip(_NOTHING + _LINE_ENDS) for end in ends]
    offset = 0
    while offset < len(found):
        end = offset + SECTOR_BYTES - (start + offset) % SECTOR_BYTES
        sector = found[offset:end]
        rest = sector[common(sector, expected[offset:end]) :]
        rest = rest.strip(_NOTHING + _LINE_ENDS)
        if rest and not any(rest in ending for ending in endings):
            return False
        offset = end
    return True
