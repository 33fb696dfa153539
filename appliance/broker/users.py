"""The users file: names and hashed passwords, one user a line, changed while the appliance runs.

Not for: what a user may do (broker/access.py), delays after wrong passwords (broker/), the command
line (commands/user.py). A line is ``name:hash``, the hash in argon2's own text form; empty lines
and lines that begin with ``#`` are kept as they are.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import os
import secrets
import threading
from collections import OrderedDict
from pathlib import Path

import argon2
from argon2.exceptions import InvalidHashError, VerificationError

from appliance.broker.tokens import Tokens
from appliance.broker.watched_file import WatchedFile
from appliance.errors import ConfigError, NoPermissionError, UsageError

LOG = logging.getLogger("appliance.broker.users")

# OWASP's smallest recommended cost for argon2id (Password Storage Cheat Sheet: 19 MiB, two passes,
# one lane). It takes 25 to 40 ms on one core: when a thousand machines reconnect at once after a
# restart, two cores are through with them in about 20 s, and the cache below serves the next time.
_HASHER = argon2.PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)

_CACHED = 4096
"""Successful checks that are remembered, and failed ones; 100 bytes each."""

_LONGEST_NAME = 64
_LONGEST_PASSWORD = 65535
"""Bytes. MQTT's limit for the password field (MQTT 3.1.1, section 3.1.3.5)."""

_MARKS = frozenset("_.-@")
_MARK_KEY = secrets.token_bytes(32)


class Users:
    """The users of one file. Every method may be called from any thread.

    A file that does not exist is one without users. Raises ``ConfigError`` for a line that is not
    a user and ``NoPermissionError`` for a file that may not be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._file = WatchedFile(
            self.path, "users file", _users, log=LOG, content="users", may_vanish=False
        )
        self.tokens = Tokens(self.path)
        self._key = secrets.token_bytes(32)
        self._good: OrderedDict[bytes, str] = OrderedDict()
        self._bad: OrderedDict[bytes, str] = OrderedDict()
        """The hash that a wrong password was compared with; empty for an unknown name, so that the
        time does not tell which names exist."""
        self._nobody: str | None = None
        self.reload_if_changed()

    def verify(self, name: str, password: bytes) -> bool:
        """Whether ``password`` is that of ``name``. Blocks for 25 to 40 ms: call it off the loop.

        The file is looked at first, so a removed user is out at once. An unknown name costs as
        much time as a wrong password, so that the time does not tell which names exist.
        """
        is_right, expected, key = self._recall(name, password)
        if is_right is not None:
            return is_right
        try:
            _HASHER.verify(expected or self._hash_of_nobody(), password)
        except (VerificationError, InvalidHashError, UnicodeEncodeError):  # a damaged line
            self._remember(self._bad, key, expected or "")
            return False
        if expected is None:
            return False
        self._remember(self._good, key, expected)
        return True

    def recall(self, name: str, password: bytes) -> tuple[bool | None, bytes | None]:
        """What ``verify`` would say if that is known already; ``None``: call it.

        The second value is the user's mark if the password is right. Reads the file if it has
        changed, so call it off the loop.
        """
        is_right, expected, _key = self._recall(name, password)
        return is_right, _mark_of(expected) if is_right and expected else None

    def remembered(self, name: str, password: bytes) -> bytes | None:
        """The user's mark if the password is known to be right. Reads no file."""
        expected = self._file.content.get(name)
        key = self._key_of(name, password)
        if expected is None or not self._is_remembered(self._good, key, expected):
            return None
        return _mark_of(expected)

    def _recall(self, name: str, password: bytes) -> tuple[bool | None, str | None, bytes]:
        """Whether the password is known, the user's hash, and the key of what is remembered."""
        self.refresh()
        expected = self._file.content.get(name)
        key = self._key_of(name, password)
        if expected is not None and self._is_remembered(self._good, key, expected):
            return True, expected, key
        if self._is_remembered(self._bad, key, expected or ""):
            return False, expected, key
        return None, expected, key

    def _key_of(self, name: str, password: bytes) -> bytes:
        """Under what a check is remembered."""
        return hmac.digest(self._key, name.encode(errors="replace") + b"\0" + password, "sha256")

    def reload_if_changed(self) -> bool:
        """Read the files again if they are not those that were read last; tells if the users were.

        Raises ``ConfigError`` or ``NoPermissionError``; the users known so far stay, also when
        the file has vanished, because a file that was removed by mistake must not open the door.
        """
        has_changed = self._file.reload_if_changed()
        self.tokens.file.reload_if_changed()
        return has_changed

    def refresh(self) -> int:
        """``reload_if_changed`` for a running appliance: a problem is logged once.

        Returns the number of the users that were read last, so that a caller sees a change that
        another caller noticed. No two files, and no two contents of one, have the same.
        """
        self.tokens.file.refresh()
        return self._file.refresh()

    def token_user(self, token: str, now_s: float) -> str | None:
        """The user whose token this is, if it counts at ``now_s`` (seconds since 1970)."""
        found = self.tokens.find(token)
        if found is None or not found.counts(now_s) or found.user not in self._file.content:
            return None
        return found.user

    def mark(self, name: str) -> bytes | None:
        """What changes when the user's password does; ``None`` if there is no such user.

        It tells nothing of the password, and is the same for the same line in another file.
        """
        encoded = self._file.content.get(name)
        return None if encoded is None else _mark_of(encoded)

    @property
    def exists(self) -> bool:
        """Whether there is or was a file: then no client may come in without a password."""
        if not self._file.was_read:
            with contextlib.suppress(ConfigError, NoPermissionError):
                self._file.reload_if_changed()
                return self._file.was_read
        return True

    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        return tuple(sorted(self._file.content))

    def add(self, name: str, password: bytes) -> bool:
        """Write a user into the file; tells whether the user is new (else: a new password).

        Raises ``UsageError`` for a name or password that can't be, ``ConfigError`` or
        ``NoPermissionError`` when the file can't be written.
        """
        problem = name_problem(name)
        if problem:
            raise UsageError(f"user {name!r}: {problem}")
        if not password or len(password) > _LONGEST_PASSWORD:
            raise UsageError(f"user {name}: a password has 1 to {_LONGEST_PASSWORD} bytes")
        line = f"{name}:{_HASHER.hash(password)}"
        lines = self._file.lines()
        present = _users(lines, self.path)
        if name in present:
            lines = [line if _name_in(each) == name else each for each in lines]
        else:
            lines.append(line)
        self._file.write(lines)
        return name not in present

    def remove(self, name: str) -> bool:
        """Take a user and its tokens out; tells whether there was one. Raises as ``add`` does."""
        lines = self._file.lines()
        if name not in _users(lines, self.path):
            return False
        self.tokens.remove_all(name)
        self._file.write([each for each in lines if _name_in(each) != name])
        return True

    def _is_remembered(self, checks: OrderedDict[bytes, str], key: bytes, expected: str) -> bool:
        with self._lock:
            if checks.get(key) != expected:
                return False
            checks.move_to_end(key)
            return True

    def _remember(self, checks: OrderedDict[bytes, str], key: bytes, expected: str) -> None:
        with self._lock:
            checks[key] = expected
            if len(checks) > _CACHED:
                checks.popitem(last=False)

    def _hash_of_nobody(self) -> str:
        # Two threads may both make it the first time; either is as good.
        if self._nobody is None:
            self._nobody = _HASHER.hash(secrets.token_bytes(32))
        return self._nobody


def _mark_of(encoded: str) -> bytes:
    return hmac.digest(_MARK_KEY, encoded.encode(), "sha256")


def name_problem(name: str) -> str | None:
    """Say why ``name`` can't be a user's name, or ``None`` if it can.

    A name may stand in topic filters (``%u``), in log lines and in the users file, so it has
    nothing that means something there.
    """
    if not name:
        return "a name has at least one character"
    if len(name) > _LONGEST_NAME:
        return f"a name has at most {_LONGEST_NAME} characters"
    wrong = sorted({each for each in name if not (each.isalnum() or each in _MARKS)})
    if wrong:
        return f"a name has letters, digits and _ . - @ only, not {''.join(wrong)!r}"
    if not (name[0].isalnum() or name[0] == "_"):
        return "a name begins with a letter, a digit or _"
    return None


def _name_in(line: str) -> str | None:
    stripped = line.strip()
    if not stripped or stripped.startswith("#"):
        return None
    return stripped.partition(":")[0].strip()


def _users(lines: list[str], path: Path) -> dict[str, str]:
    """Name to hash. Lines are never repeated in an error: someone may have typed a password."""
    found: dict[str, str] = {}
    fix = 'remove the line and write the user with "appliance user add NAME"'
    for number, line in enumerate(lines, 1):
        name = _name_in(line)
        if name is None:
            continue
        where = f"{path}, line {number}"
        _, colon, encoded = line.strip().partition(":")
        if not colon:
            raise ConfigError(f"{where}: a line is name:hash, and this one has no colon; {fix}")
        problem = name_problem(name)
        if problem:
            raise ConfigError(f"{where}: {problem}; {fix}")
        if name in found:
            raise ConfigError(f"{where}: the user {name} stands here a second time; remove a line")
        encoded = encoded.strip()
        try:
            parameters = argon2.extract_parameters(encoded)
        except InvalidHashError:
            parameters = None
        if parameters is None or parameters.type is not argon2.Type.ID:
            raise ConfigError(f"{where}: what follows {name}: is no argon2id hash; {fix}")
        found[name] = encoded
    return found
