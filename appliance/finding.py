"""What ``appliance check --connect`` found at a server, step by step."""

from __future__ import annotations

import msgspec

from appliance.errors import EXIT_UNAVAILABLE


class Finding(msgspec.Struct, frozen=True):
    """The result of one step."""

    level: str
    """``"ok"``, ``"warn"``, ``"bad"``, or ``"note"`` for what was not tried."""
    text: str
    """A sentence: the finding, and the fix if one is needed. Never a secret."""
    exit_code: int = EXIT_UNAVAILABLE
    """With ``"bad"``: the exit code of a command that ends because of it."""
