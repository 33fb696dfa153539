"""JSON on standard output, for programs.

Not for: text for people, which is in the code of the terminal.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from appliance.log.sanitize import escape_json


def print_json(value: Any) -> None:
    """Print ``value`` as indented JSON in UTF-8 (RFC 8259, section 8.1).

    Characters that a terminal acts on are written as JSON escapes them, for a pipe as well: the
    value stays the same. Not through the text layer: redirected output is in an old code page on
    Windows.
    """
    text = msgspec.json.format(msgspec.json.encode(value)).decode("utf-8", "replace")
    sys.stdout.flush()
    sys.stdout.buffer.write(escape_json(text).encode() + b"\n")
    sys.stdout.buffer.flush()
