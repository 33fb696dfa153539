"""How the appliance fares, in one word and part by part, for programs that watch it.

The running appliance writes it to a file in its data directory every few seconds; ``appliance
health``, in another process, reads that file: one that has grown old means that the engine stands
still or is gone. Not for: numbers over time (ops/metrics.py), what an operator sees (ui).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from appliance.engine_api import Health, Snapshot

FILE_NAME = "health.json"
WRITE_EVERY_S = 5
OLD_AFTER_S = 20.0
"""A report older than this is not believed: three writings were missed."""

_LARGEST_FILE = 1024 * 1024


class Part(msgspec.Struct, frozen=True):
    """One part's condition."""

    name: str
    level: str
    """``"ok"``, ``"warn"``, ``"bad"`` or ``"off"``."""
    text: str = ""


class Report(msgspec.Struct, frozen=True, rename="camel"):
    """What ``appliance health --json`` and ``/healthz`` give.

    ``status`` is ``"bad"`` when messages can't be accepted or a thread of the task engine fails,
    ``"warn"`` when something else is not as it should be (a restart would not mend a Qlik server
    that is down), else ``"ok"``.
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
    """Judge a snapshot."""
    needed = [
        *(Part(f"listener {each.name}", *_of(each.health)) for each in snapshot.listeners),
        Part("journal", *_of(snapshot.journal.health)),
        Part("tasks", *_of(snapshot.qlik.engine or Health("ok"))),
    ]
    others = [
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
    """Write the report in one step; returns whether that was possible.

    Not synced to the disk: after a power cut nobody wants to know how things were before it.
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
    """The last report, or ``None`` where there is none that can be read."""
    try:
        with (data_dir / FILE_NAME).open("rb") as file:
            return msgspec.json.decode(file.read(_LARGEST_FILE), type=Report)
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None


def is_old(found: Report, now_ns: int) -> bool:
    """Whether the appliance that wrote it stands still or is gone (a clock set back is neither)."""
    return now_ns - found.taken_ns > OLD_AFTER_S * 1_000_000_000


def remove(data_dir: Path) -> None:
    """Take the report away at an ordered end."""
    with contextlib.suppress(OSError):
        (data_dir / FILE_NAME).unlink()
