"""Requests of another process to a running appliance, as a file in its data directory.

Only the appliance's own user and administrators may write there, on every operating system, so no
port and no password is needed. One request at a time; the appliance takes it within a second.
Not for: carrying out a request (ops/supervisor.py), messages (those go over MQTT).
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from appliance.errors import NoPermissionError, UnavailableError
from appliance.ops.health import is_old, read
from appliance.storage import files

_REQUEST = "request.json"
_ANSWER = "answer.json"
_LARGEST_FILE = 64 * 1024
_STEP_S = 0.05

Kind = TypeVar("Kind")
Ask = Literal["reload", "log-level"]


class Request(msgspec.Struct, frozen=True):
    """One request."""

    id: str
    ask: Ask
    level: str = ""


class Answer(msgspec.Struct, frozen=True):
    """The result of a request, in lines for people."""

    id: str
    done: bool
    lines: tuple[str, ...]


def ask(
    data_dir: Path,
    what: Ask,
    *,
    level: str = "",
    timeout_s: float = 15.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Answer:
    """Ask the appliance that uses the directory, and wait for its answer.

    Raises:
        UnavailableError: no appliance runs there, or it does not answer.
        NoPermissionError: this user may not write there.
    """
    found = read(data_dir)
    if found is None or is_old(found, time.time_ns()):
        raise UnavailableError(
            f"No appliance runs with the data directory {data_dir}. The configuration takes"
            " effect at its next start."
        )
    request = Request(secrets.token_hex(8), what, level)
    try:
        _write(data_dir / _REQUEST, msgspec.json.encode(request))
    except PermissionError:
        raise NoPermissionError(
            f"This user may not write into {data_dir}. Ask as the appliance's own user or as an"
            " administrator."
        ) from None
    except OSError as error:
        raise UnavailableError(f"{data_dir} can't be written: {error.strerror}.") from None
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        answer = _read(data_dir / _ANSWER, Answer)
        if answer is not None and answer.id == request.id:
            _remove(data_dir / _ANSWER)
            return answer
        sleep(_STEP_S)
    _remove(data_dir / _REQUEST)
    raise UnavailableError(f"The appliance (pid {found.pid}) has not answered in {timeout_s:g} s.")


def take(data_dir: Path) -> Request | None:
    """The waiting request, or ``None``. The file is removed, also if it is not a request."""
    path = data_dir / _REQUEST
    if not path.exists():
        return None
    request = _read(path, Request)
    _remove(path)
    return request


def answer(data_dir: Path, request: Request, *, done: bool, lines: list[str]) -> None:
    """Answer a request. The process that asked may have ended."""
    with contextlib.suppress(OSError):
        _write(
            data_dir / _ANSWER, msgspec.json.encode(Answer(request.id, done, tuple(lines)))
        )  # fmt: skip


def _write(path: Path, content: bytes) -> None:
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(content)
    files.rename(new, path)


def _read(path: Path, kind: type[Kind]) -> Kind | None:
    try:
        with files.open_to_read(path) as file:
            return msgspec.json.decode(file.read(_LARGEST_FILE), type=kind)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        files.remove(path)
