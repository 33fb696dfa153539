"""Characters around a text that nobody sees and no rule means.

Not for: characters within a text, which are a part of it.
"""

from __future__ import annotations

_INVISIBLE = "\0\ufeff\u200b\u200c\u200d\u2060"
"""NUL, byte order mark and characters without width. Some clients send them at the end of a
payload, and an operator who copies an id from a page gets them without seeing them."""


def bare(text: str) -> str:
    """The text without spaces and invisible characters around it."""
    while (found := text.strip().strip(_INVISIBLE)) != text:
        text = found
    return text
