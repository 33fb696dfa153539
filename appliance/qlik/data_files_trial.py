"""Tries where recorders would upload their files, step by step; nothing is sent there.

``appliance check --connect`` shows the result. Not for: the connection itself (diagnosis.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from appliance.config.tables import Config, RecorderConfig, UploadConfig
from appliance.errors import EXIT_CONFIG, EXIT_NO_PERMISSION, ApplianceError
from appliance.finding import Finding
from appliance.qlik.cloud_errors import NO_FILE_RIGHT
from appliance.qlik.connect import data_files
from appliance.qlik.data_files import DataFiles, Limits, Place

_COMPRESSED = {"gzip": ".gz", "zstd": ".zst"}
_FULL = 0.9


def try_uploads(config: Config, *, clock: Callable[[], int] = time.time_ns) -> list[Finding]:
    """What would keep uploads from going; empty without uploads, or where there is no tenant.

    Takes at most a few times ``[qlik] timeout`` for each space. Raises nothing that is expected.
    """
    recorders = [one for one in config.recorder if one.upload is not None]
    if not recorders or config.qlik is None or config.qlik.edition != "cloud":
        return []
    try:
        client = data_files(config.qlik, clock=clock)
    except ApplianceError as error:
        return [Finding("bad", str(error), error.exit_code)]
    try:
        return list(_steps(client, recorders))
    finally:
        client.close()


def _steps(client: DataFiles, recorders: list[RecorderConfig]) -> Iterator[Finding]:
    try:
        limits = client.limits()
    except ApplianceError as error:
        yield Finding("bad", f"The limits of data files can't be read. {error}", error.exit_code)
        return
    if limits.max_all and limits.used > _FULL * limits.max_all:
        yield Finding(
            "warn",
            f"The data files of the user of [qlik] take {limits.used} of {limits.max_all} bytes."
            " Delete some in Qlik Cloud.",
        )
    places: dict[str, Place | ApplianceError] = {}
    for recorder in recorders:
        upload = recorder.upload
        assert upload is not None
        if upload.space not in places:
            try:
                places[upload.space] = client.place(upload.space)
            except ApplianceError as error:
                places[upload.space] = error
        yield from _of_recorder(client, recorder, upload, places[upload.space], limits)


def _of_recorder(
    client: DataFiles,
    recorder: RecorderConfig,
    upload: UploadConfig,
    place: Place | ApplianceError,
    limits: Limits,
) -> Iterator[Finding]:
    name = f'The uploads of recorder "{recorder.used_name}"'
    if isinstance(place, ApplianceError):
        yield Finding("bad", f"{name} can't go. {place}", place.exit_code)
        return
    if place.is_read_only:
        roles = ", ".join(place.roles)
        text = f"{name} can't go: the user has only {roles} in {place.shown}. {NO_FILE_RIGHT}."
        yield Finding("bad", text, EXIT_NO_PERMISSION)
        return
    file = Path(recorder.path).name + _COMPRESSED.get(recorder.compression, "")
    size = 0 if recorder.rotate is None else int(recorder.rotate.size or 0)
    problem = limits.name_problem(file) or limits.size_problem(size)
    if problem:
        yield Finding("bad", f"{name} would be refused. {problem}", EXIT_CONFIG)
        return
    folder = upload.folder.strip("/")
    try:
        count = sum(1 for _ in client.files(place, folder))
    except ApplianceError as error:
        yield Finding("bad", f"{name} can't be looked for. {error}", error.exit_code)
        return
    where = f"{place.shown}, folder {folder}" if folder else place.shown
    yield Finding("ok", f"{name} go to {where}, which has {count} files now.")
