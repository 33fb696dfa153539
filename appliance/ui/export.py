"""Writes the rows of a list to a file, one JSON object a line.

Not for: recordings, or the whole journal (``appliance export``).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from appliance.engine_api import Engine
from appliance.errors import NoPermissionError
from appliance.model import Message
from appliance.ui import payload


def _plain(item: Any) -> dict[str, Any]:
    if isinstance(item, Message):
        text = payload.decode(item.payload, cut=False)
        body = {"payload": text} if text is not None else {"payload_hex": item.payload.hex()}
        return {
            "seq": item.seq,
            "received_ns": item.received_ns,
            "topic": item.topic,
            **body,
            "qos": item.qos,
            "retain": item.retain,
            "client_id": item.client_id,
            "address": item.address,
        }
    return dict(msgspec.structs.asdict(item))


def write(engine: Engine, what: str, items: Sequence[Any], folder: Path, now_ns: int) -> Path:
    """Write ``items`` under ``folder``; returns the file. Blocks; for a worker thread.

    Messages whose payload the live view cut are read whole from the journal.
    Raises ``NoPermissionError`` if the file can't be written.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_ns // 10**9))
    path = folder / f"{what}-{stamp}.jsonl"
    encode = msgspec.json.Encoder().encode
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for item in items:
                whole = item
                if isinstance(item, Message) and engine.full_size(item.seq) is not None:
                    whole = engine.message(item.seq) or item
                file.write(encode(_plain(whole)) + b"\n")
    except OSError as error:
        raise NoPermissionError(
            f"{path} can't be written: {error.strerror}. Make room or allow the appliance to "
            "write there."
        ) from error
    return path
