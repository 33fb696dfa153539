"""Tokens of users, for HTTP: a file beside the users file, one token a line.

A token is 256 random bits, so nobody can guess it, and nobody can find it from its SHA-256: a slow
hash as for passwords, which people choose, would only make each request slow. The file has the
hash alone. A line is ``user:hash:end:created:expires:label``: the hash in hexadecimal, the token's
last four characters, days as ``2026-11-29`` (``-``: never). Lines that begin with ``#`` are kept.

Not for: passwords (users.py), the command (commands/tokens.py), MQTT: a token is no password.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import re
import secrets
from pathlib import Path

import msgspec

from appliance.broker.watched_file import WatchedFile
from appliance.config.key_files import tokens_file
from appliance.errors import ConfigError, UsageError

LOG = logging.getLogger("appliance.broker.tokens")

PREFIX = "apl_"
"""How a token begins, so that people and scanners of secrets know one."""
MOST = 20
"""Tokens of one user."""
_SHOWN = 4
_LONGEST_LABEL = 64
_HASH = re.compile("[0-9a-f]{64}")
_NEVER = "-"
_FIELDS = 6


class Token(msgspec.Struct, frozen=True):
    """What is known of a token."""

    user: str
    hash: str
    end: str
    """The token's last characters."""
    created: dt.date
    expires: dt.date | None
    """The last day on which it counts (UTC)."""
    label: str

    def counts(self, now_s: float) -> bool:
        """Whether it counts at a time, in seconds since 1970."""
        return self.expires is None or self.expires >= _day(now_s)

    def line(self) -> str:
        """Its line in the file."""
        expires = _NEVER if self.expires is None else self.expires.isoformat()
        parts = (self.user, self.hash, self.end, self.created.isoformat(), expires, self.label)
        return ":".join(parts)


class Tokens:
    """The tokens of the users of one file. Every method may be called from any thread."""

    def __init__(self, users_file: Path) -> None:
        self.file = WatchedFile(
            tokens_file(users_file),
            "file of tokens",
            _tokens,
            log=LOG,
            content="tokens",
            may_vanish=True,
            like=users_file,
        )

    def find(self, token: str) -> Token | None:
        """What is known of a token; ``None`` if there is no such token. Reads no file."""
        return self.file.content.get(_hash_of(token))

    def of(self, user: str | None = None) -> list[Token]:
        """The tokens of a user, or all, as the file has them now."""
        found = _tokens(self.file.lines(), self.file.path).values()
        return [token for token in found if user is None or token.user == user]

    def add(self, user: str, label: str, now_s: float, days: int | None) -> str:
        """Make a token that counts for so many days, or for ever, and return it.

        Tokens of the user that have expired are removed.

        Raises:
            UsageError: the label is no label or taken, or the user has too many tokens.
            ConfigError, NoPermissionError: the file can't be read or written.
        """
        if wrong := label_problem(label):
            raise UsageError(f"label {label!r}: {wrong}")
        kept = [token for token in self.of(user) if token.counts(now_s)]
        if any(token.label == label for token in kept):
            raise UsageError(f"{user} has a token {label!r}; choose another label, or remove it")
        if len(kept) >= MOST:
            raise UsageError(f"{user} has {MOST} tokens; remove one first")
        made = PREFIX + secrets.token_urlsafe(32)
        created = _day(now_s)
        expires = None if days is None else created + dt.timedelta(days=days)
        token = Token(user, _hash_of(made), made[-_SHOWN:], created, expires, label)
        hashes = {each.hash for each in kept}
        lines = [
            line
            for line in self.file.lines()
            if _user_in(line) != user or line.strip().split(":")[1] in hashes
        ]
        self.file.write([*lines, token.line()])
        return made

    def remove(self, user: str, label: str) -> bool:
        """Remove a token; returns whether there was one. Raises as ``add`` does."""
        gone = {token.hash for token in self.of(user) if token.label == label}
        if gone:
            self._without(user, gone)
        return bool(gone)

    def remove_all(self, user: str) -> None:
        """Remove a user's tokens. Raises as ``add`` does."""
        if gone := {token.hash for token in self.of(user)}:
            self._without(user, gone)

    def _without(self, user: str, hashes: set[str]) -> None:
        self.file.write(
            [
                line
                for line in self.file.lines()
                if _user_in(line) != user or line.strip().split(":")[1] not in hashes
            ]
        )


def label_problem(label: str) -> str | None:
    """Say why a text can't be a token's label, or ``None`` if it can."""
    if not 0 < len(label) <= _LONGEST_LABEL:
        return f"a label has 1 to {_LONGEST_LABEL} characters"
    if not label.isprintable() or label != label.strip():
        return "a label has visible characters, and no blanks at its ends"
    return None


def _hash_of(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _day(now_s: float) -> dt.date:
    return dt.datetime.fromtimestamp(now_s, dt.UTC).date()


def _user_in(line: str) -> str | None:
    stripped = line.strip()
    return None if not stripped or stripped.startswith("#") else stripped.partition(":")[0]


def _tokens(lines: list[str], path: Path) -> dict[str, Token]:
    """Hash to token. A line is never repeated in an error: it may hold a token."""
    found: dict[str, Token] = {}
    for number, line in enumerate(lines, 1):
        if _user_in(line) is None:
            continue
        token = _token_in(line.strip())
        if token is None:
            raise ConfigError(
                f"{path}, line {number}: this is no token's line; remove it, and make tokens with"
                ' "appliance user token add NAME --label LABEL"'
            )
        found[token.hash] = token
    return found


def _token_in(line: str) -> Token | None:
    parts = line.split(":", _FIELDS - 1)
    if len(parts) != _FIELDS:
        return None
    user, digest, end, created, expires, label = parts
    if not user or not _HASH.fullmatch(digest) or len(end) != _SHOWN or label_problem(label):
        return None
    try:
        last = None if expires == _NEVER else dt.date.fromisoformat(expires)
        return Token(user, digest, end, dt.date.fromisoformat(created), last, label)
    except ValueError:
        return None
