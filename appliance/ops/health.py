"""The health of the appliance, in one word and part by part, for programs that monitor it.

The running appliance writes it to a file in its data directory every few seconds. ``appliance
health`` reads that file in another process: an old file means that the engine hangs or has ended.
The system's clock may have been set between the two, so a report has its time by two clocks.
Not for: numbers over time (ops/metrics.py), the operator's view (ui).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from appliance.clock import since_boot_ns
from appliance.engine_api import Snapshot
from appliance.problems import acknowledged, acknowledgement_text, parts
from appliance.storage import files

FILE_NAME = "health.json"
WRITE_EVERY_S = 5
MAX_ACKNOWLEDGED = 20
"""Acknowledged problems in a report, the newest."""
OLD_AFTER_S = 20.0
"""A report older than this is not trusted: three writes were missed."""

_LOOK_EVERY_S = 0.1

_LARGEST_FILE = 1024 * 1024


class Part(msgspec.Struct, frozen=True):
    """One part's condition."""

    name: str
    level: str
    """``"ok"``, ``"warn"``, ``"bad"`` or ``"off"``."""
    text: str = ""


class Report(msgspec.Struct, frozen=True, rename="camel"):
    """The answer of ``appliance health --json`` and ``/healthz``.

    ``status`` is ``"bad"`` if messages can't be accepted, a thread of the task engine fails, or a
    loss waits for an operator. It is ``"warn"`` if another part has a problem, because a restart
    does not fix a Qlik server that is down. Else it is ``"ok"``.
    """

    status: str
    name: str
    version: str
    pid: int
    started_ns: int
    taken_ns: int
    """By the time of day, in ns since 1970."""
    parts: tuple[Part, ...]
    messages_in: int = 0
    messages_out: int = 0
    clients: int = 0
    log_level: str = ""
    since_boot_ns: int = 0
    """When it was made, by the time since the machine's start, which is never set."""
    acknowledged: tuple[str, ...] = ()
    """Problems that operators know, and that are left out for that: who, when, note and text."""
    is_accepting: bool = True
    """Whether messages are accepted, although ``status`` may be bad for a loss."""

    @property
    def is_bad(self) -> bool:
        return self.status == "bad"


def report(snapshot: Snapshot) -> Report:
    """The report of a snapshot; ``problems.parts`` decides what is wrong."""
    found = parts(snapshot)
    is_accepting = not any(part.level == "bad" for part in found if part.is_needed)
    if snapshot.data is not None or not is_accepting:
        status = "bad"
    elif any(part.level in ("warn", "bad") for part in found):
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
        parts=tuple(Part(part.name, part.level, part.text) for part in found),
        is_accepting=is_accepting,
        messages_in=snapshot.messages_in,
        messages_out=snapshot.messages_out,
        clients=snapshot.clients_connected,
        since_boot_ns=since_boot_ns(),
        acknowledged=tuple(map(acknowledgement_text, acknowledged(snapshot)[:MAX_ACKNOWLEDGED])),
    )


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


class Found(NamedTuple):
    """The last report, and for how many seconds the appliance has been silent since."""

    report: Report
    silent_s: float

    @property
    def is_old(self) -> bool:
        """Whether the appliance that wrote it hangs or has ended."""
        return self.silent_s > OLD_AFTER_S


def look(
    data_dir: Path,
    now_ns: Callable[[], int] = time.time_ns,
    steady_ns: Callable[[], int] = since_boot_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> Found | None:
    """The last report and its age; ``None`` if there is none or it can't be read.

    The two clocks differ about its age after the system's clock was set, and where the report is
    another machine's or from before a restart of the machine. Then the next report decides: it is
    waited for, as long as the last one may be a recent one.

    Args:
        data_dir: the appliance's data directory.
        now_ns: the time of day.
        steady_ns: the time since the machine's start.
        sleep: waits for so many seconds.
    """
    first = read(data_dir)
    if first is None:
        return None
    by_day_s = (now_ns() - first.taken_ns) / 1e9
    if not first.since_boot_ns:  # an earlier release wrote it
        return Found(first, max(0.0, by_day_s))
    steady_s = (steady_ns() - first.since_boot_ns) / 1e9
    if _is_recent(by_day_s) == _is_recent(steady_s):
        return Found(first, max(0.0, steady_s) or abs(by_day_s))
    silent_s = min(abs(by_day_s), abs(steady_s))
    while silent_s <= OLD_AFTER_S:
        sleep(_LOOK_EVERY_S)
        silent_s += _LOOK_EVERY_S
        found = read(data_dir)
        if found is None:  # it has stopped in order meanwhile
            return None
        if (found.pid, found.since_boot_ns) != (first.pid, first.since_boot_ns):
            return Found(found, 0.0)
    return Found(first, silent_s)


def _is_recent(age_s: float) -> bool:
    return abs(age_s) <= OLD_AFTER_S


def remove(data_dir: Path) -> None:
    """Remove the report at an ordered stop."""
    with contextlib.suppress(OSError):
        files.remove(data_dir / FILE_NAME)
