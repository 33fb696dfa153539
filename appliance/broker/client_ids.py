"""Which client ids a user may choose: the patterns of ``[access] client_ids``.

A session belongs to the user who began it, so a user who takes another's client id first keeps the
other from its session. Patterns with the user's name in them leave each user ids of its own.
Not for: whose session it is (session_binding.py), topics (access.py).
"""

from __future__ import annotations

import re
import secrets

_USER = "%u"
_ASSIGNED = re.compile("auto-[0-9a-f]{16}")


def assign_client_id() -> str:
    """A client id for a client that gives none."""
    return f"auto-{secrets.token_hex(8)}"


def looks_assigned(client_id: str) -> bool:
    """Whether it has the form of the ids that the broker assigns."""
    return _ASSIGNED.fullmatch(client_id) is not None


class ClientIds:
    """Patterns: ``*`` stands for any characters, ``%u`` for the user's name, all else for itself.

    What is in a name stands for itself too. A client without a name fits no pattern with ``%u``.
    Without any pattern, every client id is allowed.
    """

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._patterns = patterns

    def allow(self, username: str | None, client_id: str) -> bool:
        """Whether the user may choose this client id."""
        return not self._patterns or any(
            _fits(_pieces(pattern, username), client_id)
            for pattern in self._patterns
            if username or _USER not in pattern
        )


def _pieces(pattern: str, username: str | None) -> list[str]:
    """What stands between the ``*`` of a pattern, with the name in place."""
    return [piece.replace(_USER, username or "") for piece in pattern.split("*")]


def _fits(pieces: list[str], client_id: str) -> bool:
    if len(pieces) == 1:
        return client_id == pieces[0]
    first, *middle, last = pieces
    position, end = len(first), len(client_id) - len(last)
    if position > end or not client_id.startswith(first) or not client_id.endswith(last):
        return False
    for piece in middle:
        position = client_id.find(piece, position, end)
        if position < 0:
            return False
        position += len(piece)
    return True
