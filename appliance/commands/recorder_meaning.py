"""What a ``[[recorder]]`` means in plain words, and a look at its database.

Not for: the rules about its keys (config/recorder_checks.py).
"""

from __future__ import annotations

from collections.abc import Iterator

from appliance.config.database_url import target_text
from appliance.config.tables import Config, KeepConfig, RecorderConfig, RotateConfig
from appliance.config.values import format_duration, format_size
from appliance.errors import ApplianceError
from appliance.finding import Finding

_SERIES = frozenset({"parquet", "qvd"})


def recorder_meaning(recorder: RecorderConfig) -> str:
    """One line: what is recorded, where, in which form, and what becomes of its files."""
    form = "" if recorder.database is not None else f" as {recorder.format}"
    more = " with time, topic and client" if recorder.metadata else ""
    parts = [f"{recorder.topic} to {target_text(recorder)}{form}{more}", *_content(recorder)]
    if recorder.rotate is not None:
        parts.append(f"a new file {_rotation(recorder.rotate)}")
    elif recorder.format in _SERIES and recorder.mode == "append" and recorder.database is None:
        parts.append("a new file every 5m at the latest")
    if recorder.compression != "none":
        parts.append(f"closed files compressed by {recorder.compression}")
    if recorder.keep is not None:
        parts.append(f"closed files kept {_retention(recorder.keep)}")
    if recorder.upload is not None:
        place = f"space {recorder.upload.space}" if recorder.upload.space else "the personal space"
        folder = f", folder {recorder.upload.folder}" if recorder.upload.folder else ""
        how = ", each in the place of the one before" if recorder.upload.replace else ""
        return f"{', '.join(parts)}; its files go to Qlik Cloud, {place}{folder}{how}"
    return ", ".join(parts)


def _content(recorder: RecorderConfig) -> Iterator[str]:
    if recorder.mode != "append":
        of = f"value of {recorder.key}" if recorder.key else "topic"
        what = "the last message" if recorder.mode == "latest" else "all fields in one object"
        yield f"{what} of each {of}"
    if recorder.flatten:
        yield "a row for each element of a list"
    if recorder.fields:
        yield f"fields {', '.join(recorder.fields)}"
    if recorder.time_field:
        yield f"time in {recorder.time_field}"


def _rotation(rotate: RotateConfig) -> str:
    bounds = []
    if rotate.size is not None:
        bounds.append(f"at {format_size(rotate.size)}")
    if rotate.every is not None:
        bounds.append(f"every {format_duration(rotate.every)}")
    if rotate.messages is not None:
        bounds.append(f"every {rotate.messages:,} messages")
    return " or ".join(bounds)


def _retention(keep: KeepConfig) -> str:
    bounds = []
    if keep.age is not None:
        bounds.append(f"for {format_duration(keep.age)}")
    if keep.size is not None:
        bounds.append(f"up to {format_size(keep.size)}")
    if keep.files is not None:
        bounds.append(f"up to {keep.files:,} files")
    return " and ".join(bounds)


def try_databases(config: Config) -> list[Finding]:
    """Connect to the database of each recorder that has one. Nothing is changed there."""
    # SQLAlchemy takes its time.
    from appliance.recorders.databases import try_database  # noqa: PLC0415

    found = []
    for recorder in config.recorder:
        if recorder.database is None:
            continue
        try:
            found.append(Finding("ok", f"recorder {recorder.name}: {try_database(recorder)}"))
        except ApplianceError as error:
            text = f"recorder {recorder.name}: {error}"
            found.append(Finding("bad", text, exit_code=error.exit_code))
    return found
