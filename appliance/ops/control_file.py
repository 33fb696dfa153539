"""Requests of other processes to a running appliance, as files in its data directory.

Only the appliance's own user and administrators may write there, on every operating system, so no
port and no password is needed. Each request and each answer is a file of its own, so processes
that ask at the same moment are all answered; the appliance takes requests within a second.
Not for: carrying out a request (ops/supervisor.py), messages (those go over MQTT).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import sys
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from appliance.errors import NoPermissionError, UnavailableError
from appliance.ops.health import look
from appliance.ops.listed_sessions import ListedSession
from appliance.storage import files

PREFIXES = ("request-", "answer-")
"""What the names of these files begin with."""
_REQUEST, _ANSWER = PREFIXES
_MOST_AT_ONCE = 64
"""So many requests are taken in one look; further ones wait for the next."""
_LARGEST_REQUEST = 64 * 1024
_LARGEST_ANSWER = 64 * 1024 * 1024
"""A list of sessions may be long."""
_STEP_S = 0.05

Kind = TypeVar("Kind")
Ask = Literal[
    "reload",
    "log-level",
    "acknowledge",
    "acknowledge-list",
    "unacknowledge",
    "session-list",
    "session-end",
]


class Request(msgspec.Struct, frozen=True):
    """One request."""

    id: str
    ask: Ask
    level: str = ""
    client_id: str = ""
    """The client whose session is to end, or that the list goes on behind."""
    names: tuple[str, ...] = ()
    """Problems, as a person calls them."""
    note: str = ""
    by: str = ""
    """Who asks, for the log."""


class Answer(msgspec.Struct, frozen=True):
    """The result of a request, in lines for people."""

    id: str
    done: bool
    lines: tuple[str, ...]
    sessions: tuple[ListedSession, ...] = ()
    more: bool = False
    """Whether further sessions follow the last one."""


def ask(
    data_dir: Path,
    what: Ask,
    *,
    level: str = "",
    client_id: str = "",
    names: tuple[str, ...] = (),
    note: str = "",
    by: str = "",
    timeout_s: float = 15.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Answer:
    """Ask the appliance that uses the directory, and wait for its answer.

    Raises:
        UnavailableError: no appliance runs there, or it does not answer.
        NoPermissionError: this user may not write there.
    """
    found = look(data_dir)
    if found is None or found.is_old:
        meanwhile = (
            "Sessions are listed and ended while it runs."
            if what in ("session-list", "session-end")
            else "The configuration takes effect at its next start."
        )
        raise UnavailableError(f"No appliance runs with the data directory {data_dir}. {meanwhile}")
    request = Request(secrets.token_hex(8), what, level, client_id, names, note, by)
    question, reply = _file(data_dir, _REQUEST, request.id), _file(data_dir, _ANSWER, request.id)
    try:
        _write(question, msgspec.json.encode(request))
    except PermissionError:
        raise NoPermissionError(
            f"This user may not write into {data_dir}. Ask as the appliance's own user or as an"
            " administrator."
        ) from None
    except OSError as error:
        raise UnavailableError(f"{data_dir} can't be written: {error.strerror}.") from None
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        answer = _read(reply, Answer, _LARGEST_ANSWER)
        if answer is not None and answer.id == request.id:
            _remove(reply)
            return answer
        sleep(_STEP_S)
    _remove(question)
    raise UnavailableError(
        f"The appliance (pid {found.report.pid}) has not answered in {timeout_s:g} s."
    )


def take(data_dir: Path) -> list[Request]:
    """The waiting requests, oldest first. Their files are removed, also what is no request."""
    found: list[tuple[int, Request]] = []
    for path in itertools.islice(data_dir.glob(f"{_REQUEST}*.json"), _MOST_AT_ONCE):
        try:
            written_ns = path.stat().st_mtime_ns
        except OSError:  # its process has given up
            continue
        request = _read(path, Request, _LARGEST_REQUEST)
        _remove(path)
        # The answer's file is named after it, so an id that is not one of ours is not followed.
        if request is not None and path == _file(data_dir, _REQUEST, request.id):
            found.append((written_ns, request))
    return [request for _, request in sorted(found, key=lambda each: each[0])]


def remove_old(data_dir: Path, earlier: AbstractSet[Path]) -> set[Path]:
    """Remove what processes that have ended left behind, by no clock: that may have been set.

    ``earlier`` is what an earlier call returned. Its files have been there since; what is found
    now and stays is returned.
    """
    found = {path for prefix in PREFIXES for path in data_dir.glob(f"{prefix}*")}
    for path in found & earlier:
        with contextlib.suppress(OSError):
            files.remove(path)
    return found - earlier


def answer(data_dir: Path, found: Answer) -> None:
    """Answer a request. The process that asked may have ended."""
    with contextlib.suppress(OSError):
        _write(_file(data_dir, _ANSWER, found.id), msgspec.json.encode(found))


def _file(data_dir: Path, prefix: str, request_id: str) -> Path:
    return data_dir / f"{prefix}{request_id}.json"


def _write(path: Path, content: bytes) -> None:
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(content)
    if sys.platform != "win32" and os.geteuid() == 0:
        # An administrator asks an appliance that runs as another user, which has to read it.
        owner = path.parent.stat()
        os.chown(new, owner.st_uid, owner.st_gid)
    files.rename(new, path)


def _read(path: Path, kind: type[Kind], largest: int) -> Kind | None:
    try:
        with files.open_to_read(path) as file:
            return msgspec.json.decode(file.read(largest), type=kind)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        files.remove(path)
