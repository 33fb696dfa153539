"""Writes the rows of a list to a file, one JSON object a line.

Not for: recordings, or the whole journal (``appliance export``).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from appliance.engine_api import Engine, Mark
from appliance.errors import NoPermissionError
from appliance.model import Execution, Message
from appliance.ui import payload

_NANOSECONDS = "_ns"
"""How the names of times end."""


def _plain(item: Any, mark: Mark | None = None, run: Execution | None = None) -> dict[str, Any]:
    """A row as it is written; of a message, with what it led to."""
    if isinstance(item, Message):
        text = payload.decode(item.payload, cut=False)
        body = {"payload": text} if text is not None else {"payload_hex": item.payload.hex()}
        row = {
            "seq": item.seq,
            "received_ns": item.received_ns,
            "topic": item.topic,
            **body,
            "qos": item.qos,
            "retain": item.retain,
            "client_id": item.client_id,
            "address": item.address,
        }
        if mark is not None:
            row["outcome"] = _outcome(mark, run)
    else:
        row = msgspec.to_builtins(item)
    dated: dict[str, Any] = _with_dates(row)
    return dated


def _outcome(mark: Mark, run: Execution | None) -> dict[str, Any]:
    found: dict[str, Any] = {"state": mark.state.value, "label": mark.label, "starts": mark.count}
    if run is not None:
        found |= {
            "execution": run.id,
            "task_id": run.task_id,
            "task_name": run.task_name,
            "started_ns": run.started_ns,
            "ended_ns": run.ended_ns,
            "reason": run.reason,
        }
    return found


def _with_dates(value: Any) -> Any:
    """The value with a date (ISO 8601, UTC) beside each time: ``at`` beside ``at_ns``."""
    if isinstance(value, list | tuple):
        return [_with_dates(each) for each in value]
    if not isinstance(value, dict):
        return value
    row: dict[str, Any] = {}
    for name, each in value.items():
        if name.endswith(_NANOSECONDS):
            row[name.removesuffix(_NANOSECONDS)] = None if each is None else _date(each)
        row[name] = _with_dates(each)
    return row


def _date(at_ns: int) -> str | None:
    """``2026-11-18T12:08:39.000000000Z``; ``None`` for a time that no calendar has."""
    try:
        moment = datetime.fromtimestamp(at_ns // 10**9, UTC)
    except (OverflowError, OSError, ValueError):
        return None
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{at_ns % 10**9:09d}Z"


def write(engine: Engine, what: str, items: Sequence[Any], folder: Path, now_ns: int) -> Path:
    """Write ``items`` under ``folder``; returns the file. Blocks; for a worker thread.

    Messages whose payload the live view cut are read whole from the journal. Each has what it led
    to, if it led to anything.
    Raises ``NoPermissionError`` if the file can't be written.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_ns // 10**9))
    path = folder / f"{what}-{stamp}.jsonl"
    encode = msgspec.json.Encoder().encode
    marks = engine.marks([item.seq for item in items if isinstance(item, Message)])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for item in items:
                whole = item
                if isinstance(item, Message) and engine.full_size(item.seq) is not None:
                    whole = engine.message(item.seq) or item
                mark = marks.get(item.seq) if isinstance(item, Message) else None
                run = engine.execution(mark.execution) if mark and mark.execution else None
                file.write(encode(_plain(whole, mark, run)) + b"\n")
    except OSError as error:
        raise NoPermissionError(
            f"{path} can't be written: {error.strerror}. Make room or allow the appliance to "
            "write there."
        ) from error
    return path
