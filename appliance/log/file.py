"""The log file: at 10 MB it is rotated, and five old files are kept.

Not for: the form of a line (log/lines.py), the writer thread (log/logs.py).
"""

from __future__ import annotations

import logging
from logging.handlers import RotatingFileHandler
from pathlib import Path

from appliance.errors import NoPermissionError, UnavailableError
from appliance.storage.files import long_path_hint

FILE_BYTES = 10 * 1000 * 1000
"""Size at which the log file is rotated."""

_OLD_FILES = 5


class _File(RotatingFileHandler):
    """A log file that counts write errors, because a traceback would be printed over the UI."""

    failures = 0

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802  logging's name
        self.failures += 1

    def doRollover(self) -> None:  # noqa: N802  logging's name
        """Set the file aside, if that can be.

        Windows does not rename a file that another program reads. The log is continued in it then,
        up to twice its size; the next line tries again.
        """
        path = Path(self.baseFilename)
        if self.stream is not None:
            self.stream.close()
            self.stream = None
        try:
            path.replace(self._old(0))
            for number in range(_OLD_FILES - 1, -1, -1):
                if (old := self._old(number)).exists():
                    old.replace(self._old(number + 1))
        except OSError:
            if path.exists() and path.stat().st_size > 2 * FILE_BYTES:
                raise
        self.stream = self._open()

    def _old(self, number: int) -> Path:
        return Path(f"{self.baseFilename}.{number}")


def open_log_file(path: str) -> logging.Handler:
    """Open the file for appending; its folder is made.

    Raises:
        NoPermissionError: this user may not write it.
        UnavailableError: it can't be written for another reason.
    """
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return _File(path, maxBytes=FILE_BYTES, backupCount=_OLD_FILES, encoding="utf-8")
    except PermissionError:
        raise NoPermissionError(
            f"{path}: this user may not write the log file; change the folder's rights or "
            "[service] data_dir"
        ) from None
    except OSError as error:
        raise UnavailableError(
            f"{path}: the log file can't be written: {error.strerror}{long_path_hint(path)}"
        ) from None
