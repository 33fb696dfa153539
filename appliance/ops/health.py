"""The health of the appliance, in one word and part by part, for programs that monitor it.

The running appliance writes it to a file in its data directory every few seconds. ``appliance
health`` reads that file in another process: an old file means that the engine hangs or has ended.
Not for: numbers over time (ops/metrics.py), the operator's view (ui).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from appliance.engine_api import Health, Snapshot
from appliance.storage import files

FILE_NAME = "health.json"
WRITE_EVERY_S = 5
OLD_AFTER_S = 20.0
"""A report older than this is not trusted: three writes were missed."""

_LARGEST_FILE = 1024 * 1024


class Part(msgspec.Struct, frozen=True):
    """One part's condition."""

    name: str
    level: str
    """``"ok"``, ``"warn"``, ``"bad"`` or ``"off"``."""
    text: str = ""


class Report(msgspec.Struct, frozen=True, rename="camel"):
    """The answer of ``appliance health --json`` and ``/healthz``.

    ``status`` is ``"bad"`` if messages can't be accepted or a thread of the task engine fails. It
    is ``"warn"`` if another part has a problem, because a restart does not fix a Qlik server that
    is down. Else it is ``"ok"``.
    """

    status: str
    name: str
    version: str
    pid: int
    started_ns: int
    taken_ns: int
    parts: tuple[Part, ...]
    messages_in: int = 0
    messages_out: int = 0
    clients: int = 0
    log_level: str = ""

    @property
    def is_bad(self) -> bool:
        return self.status == "bad"


def report(snapshot: Snapshot) -> Report:
    """The report of a snapshot."""
    needed = [
        *(Part(f"listener {each.name}", *_of(each.health)) for each in snapshot.listeners),
        Part("journal", *_of(snapshot.journal.health)),
        Part("tasks", *_of(snapshot.qlik.engine or Health("ok"))),
    ]
    others = [
        *([] if snapshot.memory is None else [Part("memory", *_of(snapshot.memory))]),
        Part("qlik", *_of(snapshot.qlik.health)),
        *(Part(f"recorder {each.path}", *_of(each.health)) for each in snapshot.recorders),
        *(
            Part(f"timer {each.name}", "bad", each.detail)
            for each in snapshot.timers
            if each.is_alarm
        ),
    ]
    if any(part.level == "bad" for part in needed):
        status = "bad"
    elif any(part.level in ("warn", "bad") for part in (*needed, *others)):
        status = "warn"
    else:
        status = "ok"
    return Report(
        status=status,
        name=snapshot.name,
        version=snapshot.version,
        pid=os.getpid(),
        started_ns=snapshot.started_ns,
        taken_ns=snapshot.taken_ns,
        parts=(*needed, *others),
        messages_in=snapshot.messages_in,
        messages_out=snapshot.messages_out,
        clients=snapshot.clients_connected,
    )


def _of(health: Health) -> tuple[str, str]:
    return health.level, health.text


def write(data_dir: Path, found: Report) -> bool:
    """Write the report atomically; returns whether that was possible.

    It is not synced to the disk: after a power cut the report is worthless.
    """
    path = data_dir / FILE_NAME
    new = path.with_name(f"{path.name}.new")
    try:
        new.write_bytes(msgspec.json.encode(found))
        new.replace(path)
    except OSError:  # a full disk, or on Windows a reader at this very moment; the next one follows
        return False
    return True


def read(data_dir: Path) -> Report | None:
    """The last report, or ``None`` if there is none or it can't be read."""
    try:
        with files.open_to_read(data_dir / FILE_NAME) as file:
            return msgspec.json.decode(file.read(_LARGEST_FILE), type=Report)
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None


def is_old(found: Report, now_ns: int) -> bool:
    """Whether the appliance that wrote it hangs or has ended (a clock set back means neither)."""
    return now_ns - found.taken_ns > OLD_AFTER_S * 1_000_000_000


def remove(data_dir: Path) -> None:
    """Remove the report at an ordered stop."""
    with contextlib.suppress(OSError):
        files.remove(data_dir / FILE_NAME)
