"""Removes secrets from texts of a Qlik server, before they are shown, logged or published.

Details of an execution and script logs may hold connection strings (docs/qlik.md, "Masking"). The
rule is to mask too much rather than too little: after the name of a secret, everything up to the
end of the value as a connection string, JSON, a URL or SQL would have it. Not for: our own secrets,
which are ``config.Secret`` and never become text.
"""

from __future__ import annotations

import re
from functools import cache

MASK = "***"
_LINE_LIMIT = 2000
_PIECE = 2048
_KEY_BEGIN, _KEY_END = "PRIVATE KEY-----", "-----END"
_TEXT_LIMIT = 100_000
"""Far more characters than are shown, so that text cut off before masking is never shown."""

_NAMES = (
    r"pass(?:word|wd|phrase)|pwd|secret|token|api[-_ ]?key|access[-_ ]?key|account[-_ ]?key"
    r"|shared[-_ ]?key|private[-_ ]?key|credentials?|client[-_ ]?assertion|authorization|\bsig\b"
)
# name = value in connection strings, JSON and INI: quoted, in braces (ODBC), or up to the next
# semicolon, quote or line end. A value may hold blanks and commas, so these do not end it. Every
# repetition that could be tried from many places is bounded: a hostile line costs linear time.
_ASSIGNED = (
    (
        rf"(?P<name>(?:{_NAMES})[\w-]{{0,40}}[\"']{{0,2}}\s*(?:=|:|:=|=>)\s*)"
        r"(?P<value>\"(?:[^\"\\\r\n]|\\.|\"\")*\"?|'(?:[^'\\\r\n]|\\.|'')*'?|\{[^}\r\n]*\}?|[^;\"'\r\n]+)"
    ),
    re.IGNORECASE,
)
_SPOKEN = (
    (
        r"(?P<name>\b(?:password|passwd|pwd|secret|passphrase)\s+(?:is\s+|was\s+|for\s+\S+\s+is\s+)?)"
        r"(?P<value>\"[^\"]*\"?|'[^']*'?|(?<=is )\S+|(?<=was )\S+)"
    ),
    re.IGNORECASE,
)
_IDENTIFIED = (r"(?P<name>\bIDENTIFIED\s+BY\s+)(?P<value>\"[^\"]*\"?|'[^']*'?|\S+)", re.IGNORECASE)
_SCHEME = (
    r"(?P<name>\b(?:Bearer|Basic|Negotiate|NTLM)\s+)(?P<value>[\w.~+/=-]{8,})",
    re.IGNORECASE,
)
_JWT = (r"(?P<name>)(?P<value>\beyJ[\w-]{4,600}\.[\w-]+(?:\.[\w-]*)?)", re.NOFLAG)
_URL = (
    r"(?P<name>\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"']*:)(?P<value>[^\s/\"']*)(?=@)",
    re.IGNORECASE,
)
_KEY_BLOCK = (
    r"(?P<name>-----BEGIN [A-Z ]*PRIVATE KEY-----)(?P<value>.*?)(?=-----END|\Z)",
    re.DOTALL,
)
_ALL = (_KEY_BLOCK, _URL, _ASSIGNED, _SPOKEN, _IDENTIFIED, _SCHEME, _JWT)


_MARKS = (
    *("pass", "pwd", "secret", "token", "key", "credential", "assertion", "authorization", "sig"),
    *("identified", "bearer", "basic", "negotiate", "ntlm", "eyj", "://"),
)
"""A text without any of these needs no masking."""


def _is_harmless(text: str) -> bool:
    """A quick look, for what servers say most of the time: the patterns take 25 times as long."""
    if not text.isascii():  # Other letters may count as these (a long s).
        return False
    small = text.lower()
    return not any(mark in small for mark in _MARKS)


@cache
def _patterns() -> tuple[re.Pattern[str], ...]:
    """Compiled for the first text: that takes ten milliseconds, which a start would wait for."""
    return tuple(re.compile(*each) for each in _ALL)


def mask(text: str) -> str:
    """The text with ``***`` in place of what looks like a secret."""
    if _is_harmless(text):
        return text
    for pattern in _patterns():
        text = pattern.sub(_masked, text)
    return text


def mask_line(text: str) -> str:
    """One line or a short text, masked, and at most 2000 characters long."""
    return _cut(mask(text[:_TEXT_LIMIT]))


def mask_last_lines(text: str, lines: int) -> list[str]:
    """The last lines of a text, masked, each at most 2000 characters long.

    The text is masked as a whole, because a secret may go over several lines (keys).
    """
    return last_lines(mask(text), lines)


def last_lines(masked: str, lines: int) -> list[str]:
    """The last lines of a text that is masked, each at most 2000 characters long."""
    return [_cut(line) for line in masked.splitlines()[-lines:]] if lines > 0 else []


def mask_log(text: str) -> str:
    """A long text, masked, with all of its lines.

    It is masked in pieces, because a pattern keeps the interpreter until it is through. A piece
    ends only behind a line that has nothing to do with a secret, and never within a key.
    """
    found: list[str] = []
    piece: list[str] = []
    length, is_in_key = 0, False
    for line in text.splitlines(keepends=True):
        piece.append(line)
        length += len(line)
        is_in_key = _KEY_END not in line if is_in_key else _KEY_BEGIN in line
        if length >= _PIECE and not is_in_key and (_ends_here(line) or length >= _TEXT_LIMIT):
            found.append(mask("".join(piece)))
            piece, length = [], 0
    return "".join((*found, mask("".join(piece))))


def _ends_here(line: str) -> bool:
    """Whether nothing in a line may belong to a secret in the next one. No URL goes over lines."""
    return _is_harmless(line.replace("://", ""))


def _cut(masked: str) -> str:
    # After masking: a cut between a secret and what gives it away would leave it bare.
    return masked if len(masked) <= _LINE_LIMIT else masked[: _LINE_LIMIT - 1] + "…"


def _masked(match: re.Match[str]) -> str:
    name, value = match.group("name"), match.group("value")
    if value[:1] in {'"', "'"}:
        closing = value[0] if len(value) > 1 and value[-1] == value[0] else ""
        return f"{name}{value[0]}{MASK}{closing}"
    return name + MASK
