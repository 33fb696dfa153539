"""A large file on its way into a tenant's data files: temporary contents, sent piece by piece.

Source: qlik.dev, "Temporary contents", and the tus protocol 1.0.0 (tus.io), which that names. A
piece that got lost is continued where the tenant says, so a weak line costs a piece and not the
file. A tenant without the pieces gets the whole file in one call. Not for: data files
(data_files.py).
"""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from typing import BinaryIO
from urllib.parse import urlsplit

from appliance.qlik import bodies
from appliance.qlik.cloud_api import CloudApi
from appliance.qlik.cloud_errors import error_of, expect_success
from appliance.qlik.failures import unexpected_error
from appliance.qlik.server import QlikError, RetryPolicy
from appliance.qlik.transport import Reply

PIECE = 50 * 1024 * 1024
"""Bytes of one call; what a tenant takes at most is not documented."""
_PATH = "/api/v1/temp-contents"
_PIECES = f"{_PATH}/files"
_KEPT_S = "86400"
"""How long a tenant keeps what is not a data file yet: the call that makes it one may be late."""
_TUS = {"Tus-Resumable": "1.0.0"}
_NOT_THERE = frozenset({404, 405, 501})
_MOST_FAILURES = 3
"""Calls in a row that fail without progress."""
_PAUSE_S = 2.0


def send(
    api: CloudApi,
    name: str,
    file: BinaryIO,
    size: int,
) -> str:
    """Send a file; returns the id of the temporary content.

    Args:
        api: calls the tenant.
        name: of the file, without a folder.
        file: is read from where it stands.
        size: its bytes.

    Raises:
        QlikError: it is not there as a whole; try again from the beginning.
        OSError: the file can't be read.
    """
    start = file.tell()
    metadata = base64.b64encode(name.encode()).decode()
    made = api.send(
        "POST",
        _PIECES,
        headers={**_TUS, "Upload-Length": str(size), "Upload-Metadata": f"filename {metadata}"},
    )
    if made.status in _NOT_THERE:
        return _send_whole(api, name, file, size)
    expect_success(made)
    path, found = _location(made)
    _send_pieces(api, path or f"{_PIECES}/{found}", file, start, size)
    return found


def _send_whole(api: CloudApi, name: str, file: BinaryIO, size: int) -> str:
    reply = api.send(
        "POST",
        _PATH,
        params={"filename": name, "ttl": _KEPT_S},
        body=bodies.octets(file, size),
    )
    expect_success(reply)
    return _location(reply)[1]


def _send_pieces(
    api: CloudApi,
    path: str,
    file: BinaryIO,
    start: int,
    size: int,
) -> None:
    offset, failures = 0, 0
    while offset < size:
        file.seek(start + offset)
        length = min(PIECE, size - offset)
        try:
            reply = api.send(
                "PATCH",
                path,
                headers={**_TUS, "Upload-Offset": str(offset)},
                body=bodies.octets(file, length, "application/offset+octet-stream"),
            )
            if reply.status >= 300 or reply.is_sign_in:
                raise error_of(reply)
            sent = _offset(reply, offset + length)
        except QlikError as error:
            failures += 1
            if error.retry is RetryPolicy.NEVER or failures > _MOST_FAILURES:
                raise
            time.sleep(_PAUSE_S if error.retry_after_s is None else min(error.retry_after_s, 60.0))
            sent = _offset(_look(api, path), offset)
        if sent > offset:
            failures = 0
        offset = sent


def _look(api: CloudApi, path: str) -> Reply:
    reply = api.send("HEAD", path, headers=_TUS)
    expect_success(reply)
    return reply


def _offset(reply: Reply, otherwise: int) -> int:
    given = reply.headers.get("upload-offset", "")
    return int(given) if given.isdecimal() and len(given) < 16 else otherwise


def _location(reply: Reply) -> tuple[str, str]:
    """The path (empty: it is on no path of the tenant's interface) and the id in it."""
    headers: Mapping[str, str] = reply.headers
    try:
        path = urlsplit(headers.get("location", "")).path.rstrip("/")
    except ValueError:
        path = ""
    found = path.rpartition("/")[2]
    if not found:
        raise unexpected_error(reply.where, "no location")
    return (path if path.startswith("/api/") else ""), found
