"""What Wine 8 does otherwise than Windows, corrected for the tests.

``_locking`` of a locked byte: Windows sets ``errno`` to ``EACCES``; Wine leaves it 0 (its
dlls/msvcrt/file.c; the function's page at Microsoft lists the errors).
"""

import errno
import msvcrt

_locking = msvcrt.locking


def locking(descriptor: int, mode: int, size: int) -> None:
    try:
        _locking(descriptor, mode, size)
    except OSError as error:
        if error.errno:
            raise
        raise PermissionError(errno.EACCES, "Permission denied") from None


msvcrt.locking = locking
