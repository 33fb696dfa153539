"""Characters around a text that nobody sees and no rule means.

Not for: characters within a text, which are a part of it.
"""

from __future__ import annotations

_INVISIBLE = "\0\ufeff\u200b\u200c\u200d\u2060"
"""NUL, byte order mark and characters without width. Some clients send them at the end of a
payload, and an operator who copies an id from a page gets them without seeing them."""
_SPACES = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007"
    "\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
"""What ``str.isspace`` calls a space. Both kinds may stand in turns, and a payload may be long, so
they are taken away in one go."""
_AROUND = _SPACES + _INVISIBLE


def bare(text: str) -> str:
    """The text without spaces and invisible characters around it."""
    return text.strip(_AROUND)
