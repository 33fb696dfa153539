"""The users file: names and hashed passwords, one user a line, changed while the appliance runs.

Not for: what a user may do (broker/access.py), delays after wrong passwords (broker/), the command
line (commands/user.py). A line is ``name:hash``, the hash in argon2's own text form; empty lines
and lines that begin with ``#`` are kept as they are.
"""

from __future__ import annotations

import contextlib
import hmac
import itertools
import logging
import os
import secrets
import stat
import sys
import tempfile
import threading
from collections import OrderedDict
from pathlib import Path

import argon2
from argon2.exceptions import InvalidHashError, VerificationError

from appliance.errors import ConfigError, NoPermissionError, UsageError
from appliance.storage import files

LOG = logging.getLogger("appliance.broker.users")

# OWASP's smallest recommended cost for argon2id (Password Storage Cheat Sheet: 19 MiB, two passes,
# one lane). It takes 25 to 40 ms on one core: when a thousand machines reconnect at once after a
# restart, two cores are through with them in about 20 s, and the cache below serves the next time.
_HASHER = argon2.PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)

_CACHED = 4096
"""Successful checks that are remembered, and failed ones; 100 bytes each."""

_REVISIONS = itertools.count(1)
_LARGEST_FILE = 64 * 1024 * 1024
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
        self._hashes: dict[str, str] = {}
        self._seen: tuple[int, int, int] | None = None
        self._complained: str = ""
        self._revision = 0
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

    def _recall(self, name: str, password: bytes) -> tuple[bool | None, str | None, bytes]:
        """Whether the password is known, the user's hash, and the key of what is remembered."""
        expected, key = self._look_up(name, password)
        if expected is not None and self._is_remembered(self._good, key, expected):
            return True, expected, key
        if self._is_remembered(self._bad, key, expected or ""):
            return False, expected, key
        return None, expected, key

    def _look_up(self, name: str, password: bytes) -> tuple[str | None, bytes]:
        """A user's hash as the file has it now, and under what the check is remembered."""
        self.refresh()
        with self._lock:
            expected = self._hashes.get(name)
        key = hmac.digest(self._key, name.encode(errors="replace") + b"\0" + password, "sha256")
        return expected, key

    def reload_if_changed(self) -> bool:
        """Read the file again if it is not the one that was read last; tells whether it was.

        Raises ``ConfigError`` or ``NoPermissionError``; the users known so far stay, also when
        the file has vanished, because a file that was removed by mistake must not open the door.
        """
        signature = self._signature()
        with self._lock:
            if signature == self._seen:
                return False
            if signature is None:
                gone = f"{self.path}: the users file is gone; its users stay valid until a restart"
                raise ConfigError(gone)
        hashes = _users(_read(self.path), self.path)
        with self._lock:
            self._hashes, self._seen, self._complained = hashes, signature, ""
            self._revision = next(_REVISIONS)
        return True

    def refresh(self) -> int:
        """``reload_if_changed`` for a running appliance: a problem is logged once.

        Returns the number of what was read last, so that a caller sees a change that another
        caller noticed. No two files, and no two contents of one, have the same.
        """
        try:
            self.reload_if_changed()
        except (ConfigError, NoPermissionError) as error:
            self._complain(str(error))
        return self._revision

    def mark(self, name: str) -> bytes | None:
        """What changes when the user's password does; ``None`` if there is no such user.

        It tells nothing of the password, and is the same for the same line in another file.
        """
        with self._lock:
            encoded = self._hashes.get(name)
        return None if encoded is None else _mark_of(encoded)

    @property
    def exists(self) -> bool:
        """Whether there is or was a file: then no client may come in without a password."""
        if self._seen is None:
            with contextlib.suppress(ConfigError, NoPermissionError):
                self.reload_if_changed()
                return self._seen is not None
        return True

    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        with self._lock:
            return tuple(sorted(self._hashes))

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
        lines = _read(self.path) if self.path.exists() else []
        present = _users(lines, self.path)
        if name in present:
            lines = [line if _name_in(each) == name else each for each in lines]
        else:
            lines.append(line)
        self._write(lines)
        return name not in present

    def remove(self, name: str) -> bool:
        """Take a user out of the file; tells whether there was one. Raises as ``add`` does."""
        lines = _read(self.path) if self.path.exists() else []
        if name not in _users(lines, self.path):
            return False
        self._write([each for each in lines if _name_in(each) != name])
        return True

    def _write(self, lines: list[str]) -> None:
        try:
            _replace(self.path, "".join(f"{line}\n" for line in lines))
        except PermissionError:
            raise NoPermissionError(
                f"{self.path}: this user may not write it; run as the user who owns it"
            ) from None
        except OSError as error:
            raise ConfigError(f"{self.path}: it can't be written: {error.strerror}") from None
        self.reload_if_changed()

    def _signature(self) -> tuple[int, int, int] | None:
        """What differs when the file was written or replaced; ``None`` if there is none."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise NoPermissionError(
                f"{self.path}: the users file is out of reach: {error.strerror}"
            ) from None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _complain(self, text: str) -> None:
        """Log a problem with the file once, not for every client that connects."""
        with self._lock:
            if self._complained == text:
                return
            self._complained = text
        LOG.error("%s; the users read before stay valid", text)

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


def _read(path: Path) -> list[str]:
    try:
        with files.open_to_read(path) as file:
            data = file.read(_LARGEST_FILE + 1)
    except PermissionError:
        raise NoPermissionError(
            f"{path}: this user may not read the users file; change its rights or owner"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: the users file can't be read: {error.strerror}") from None
    if len(data) > _LARGEST_FILE:
        raise ConfigError(f"{path}: longer than 64 MiB, so this is no users file; name another")
    try:
        return data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}, line {line}: not UTF-8 text; save the file as UTF-8") from None


def _replace(path: Path, text: str) -> None:
    """Put a file in the place of another so that a reader sees the old or the new, never half.

    A new file is for its owner alone (mode 0600); an existing one keeps its owner and group and
    loses what rights the rest of the world had. Windows has no modes: there, the folder's rights
    count.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        before = path.stat()
    except FileNotFoundError:
        before = None
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
            file.flush()
            files.sync_file(file.fileno())
        if before is not None and sys.platform != "win32":
            with contextlib.suppress(PermissionError):  # only root may give files away
                os.chown(temporary, before.st_uid, before.st_gid)
            Path(temporary).chmod(stat.S_IMODE(before.st_mode) & 0o660)
        files.rename(Path(temporary), path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    files.sync_directory(path.parent)
