"""Regular expressions of rules, in time that grows with the text and not with its tricks.

They are RE2's (https://github.com/google/re2/wiki/Syntax): no look-around and no references back to
a group, and so no text that makes a match take for ever. RE2 lets other threads run meanwhile. The
library is loaded only if a rule has a regular expression.

Not for: which text is looked at (conditions.py).
"""

from __future__ import annotations

import re
import warnings
from typing import Any

MAX_PATTERN = 1000
"""Characters of a regular expression."""
MAX_PROGRAM = 4000
"""Steps of a compiled expression. With ``MAX_TEXT`` it bounds a match to about a second, which only
an expression takes that repeats an ambiguous part hundreds of times."""
MAX_TEXT = 16 * 1024
"""Characters of a text that is looked at; a longer one does not match."""


class PatternError(Exception):
    """A text is no regular expression, or one that costs too much; ``str()`` says what and why."""


class Pattern:
    """One compiled regular expression."""

    def __init__(self, text: str) -> None:
        """Compile; raises ``PatternError``."""
        self.text = text
        if len(text) > MAX_PATTERN:
            raise PatternError(f"it has {len(text)} characters; at most {MAX_PATTERN} are allowed")
        try:
            import re2  # noqa: PLC0415  see the top of the module
        except ImportError:
            raise PatternError(
                "this installation has no regular expressions; run: pip install google-re2"
            ) from None
        options = re2.Options()
        options.log_errors = False
        try:
            self._compiled: Any = re2.compile(text, options)
        except re2.error as error:
            raise PatternError(_problem(text, error)) from None
        if self._compiled.programsize > MAX_PROGRAM:
            raise PatternError(
                f"it has {self._compiled.programsize} steps when compiled; at most {MAX_PROGRAM} "
                "are allowed: repeat fewer times"
            )

    def is_in(self, text: str) -> bool:
        """Whether it matches anywhere in a text of at most ``MAX_TEXT`` characters."""
        return len(text) <= MAX_TEXT and self._compiled.search(text) is not None


def _problem(text: str, error: Exception) -> str:
    """RE2's reason, with the place that Python's own compiler finds, else that of RE2's excerpt."""
    told = error.args[0] if error.args else str(error)
    told = told.decode(errors="replace") if isinstance(told, bytes) else str(told)
    reason, _, excerpt = told.partition(": ")
    if reason.startswith("pattern too large"):
        return "it is too large when compiled: repeat fewer times"
    at = text.find(excerpt) if excerpt else -1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Python may read in another way one day
            re.compile(text)
    except re.error as same:
        at = same.pos if same.pos is not None else at
    except (RecursionError, OverflowError):
        pass
    place = f" at character {at + 1}" if at >= 0 else ""
    return f"{reason}{place}" + (f" ({excerpt})" if excerpt and excerpt != text else "")
