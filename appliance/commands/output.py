"""JSON on standard output, for programs.

Not for: text for people, which is in the code of the terminal.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec


def print_json(value: Any) -> None:
    """Print ``value`` as indented JSON in UTF-8 (RFC 8259, section 8.1).

    Not through the text layer: redirected output is in an old code page on Windows.
    """
    sys.stdout.flush()
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(value)) + b"\n")
    sys.stdout.buffer.flush()
