"""Which texts a sign-in to Qlik can carry: header values, tokens, passwords on one line.

A text that no HTTP header takes fails at every request, and the library's error shows it. So it is
refused before the first request. Not for: reading the files that hold secrets (files.py).
"""

from __future__ import annotations

from typing import Literal

SecretKind = Literal["token", "line", "text"]
"""``token``: no blanks, ASCII (RFC 6750, section 2.1). ``line``: one line. ``text``: anything."""

TOKEN_KEYS = frozenset({"jwt", "api_key"})


def secret_problem(text: str, kind: SecretKind) -> str | None:
    """What is wrong with a secret, and what to do, or ``None``. Nothing of it is shown."""
    if kind == "text":
        return None
    if "\n" in text or "\r" in text:
        return "the secret has a line break in it; write it on one line"
    if _has_controls(text):
        return "the secret has a control character in it; write it again"
    if kind == "token" and any(character.isspace() for character in text):
        return "the secret has a blank in it, and a token has none; write the token alone"
    if kind == "token" and not text.isascii():
        return "the secret has a character that no token has (not ASCII); copy it again"
    return None


def header_value_problem(text: str) -> str | None:
    """Why no HTTP header can carry ``text`` as its value, and what to do, or ``None``.

    Source: RFC 9110, section 5.5; Python's ``http.client`` sends a value as Latin-1.
    """
    if "\n" in text or "\r" in text:
        return "it has a line break in it, which no HTTP header can carry; write it on one line"
    if _has_controls(text):
        return "it has a control character in it, which no HTTP header can carry; remove it"
    if text != text.strip():
        return "it has a blank at its beginning or end, which an HTTP header loses; remove it"
    try:
        text.encode("latin-1")
    except UnicodeEncodeError as error:
        return (
            f"an HTTP header can't carry the character {ascii(text[error.start])[1:-1]} (not "
            "Latin-1); use a name without it, or sign in with `jwt_file` or `ntlm`"
        )
    return None


def _has_controls(text: str) -> bool:
    return any(character < " " or "\x7f" <= character <= "\x9f" for character in text)
