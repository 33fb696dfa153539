"""Pack a folder into a zip file, the same bytes each time.

Usage: archive.py FOLDER FILE.zip. Not for: systems with GNU tar.
"""

from __future__ import annotations

import os
import sys
import time
import zipfile
from pathlib import Path


def pack(folder: Path, target: Path, at: int) -> None:
    """Write ``target`` with everything in ``folder``, below its name; ``at`` is the time, Unix."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for path in sorted(each for each in folder.rglob("*") if each.is_file()):
            name = path.relative_to(folder.parent).as_posix()
            entry = zipfile.ZipInfo(name, time.gmtime(at)[:6])
            entry.external_attr = (0o755 if os.access(path, os.X_OK) else 0o644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(entry, path.read_bytes())


if __name__ == "__main__":
    pack(Path(sys.argv[1]), Path(sys.argv[2]), int(os.environ["SOURCE_DATE_EPOCH"]))
