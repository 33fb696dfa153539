"""A recorder whose position is lost: where it goes on, and what is said of it.

Not for: comparing the file with the messages (locate.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from appliance.config.recorder_paths import template_of
from appliance.model import Message
from appliance.mqtt.topics import Matcher
from appliance.recorders.formats import is_of_parts, make_format
from appliance.recorders.locate import locate
from appliance.recorders.lost_series import LostSeries
from appliance.recorders.part_store import PartStore
from appliance.recorders.progress import Progress
from appliance.recorders.recorder import Recorder
from appliance.recorders.target import LOST


class Messages(Protocol):
    """What is asked of the journal."""

    def back_from(self, before_seq: int) -> Iterator[list[Message]]: ...

    def seq_at(self, time_ns: int) -> int: ...


def find_series(
    recorder: Recorder,
    routes: Matcher[Recorder],
    *,
    data_dir: Path,
    parts: PartStore,
    last_seq: int,
    journal: Messages,
    present: Mapping[str, Progress],
) -> tuple[dict[str, Progress], str, bool] | None:
    """Find where a recorder of many files goes on; ``None``: it is none.

    Returns the rows of ``recorders.db``, and as ``find_position``.

    Raises:
        UnavailableError, sqlite3.Error: the journal or the database can't be used.
    """
    config = recorder.config
    if config.database is not None or config.mode != "append":
        return None
    try:
        template = template_of(config, str(data_dir))
    except ValueError:  # making the target says it
        return None
    if template is None and config.rotate is None and not is_of_parts(config.format):
        return None

    def newest_first() -> Iterator[Message]:
        for chunk in journal.back_from(last_seq + 1):
            yield from (each for each in chunk if recorder in routes.match(each.topic))

    series = LostSeries(
        config,
        recorder.key,
        data_dir,
        template=template,
        parts=parts,
        last_seq=last_seq,
    )
    return series.find(newest_first, journal.seq_at, present)


def find_position(
    recorder: Recorder, routes: Matcher[Recorder], last_seq: int, journal: Messages
) -> tuple[Progress, str, bool]:
    """Find where a recording goes on.

    Returns the position, a sentence about it, and whether something may be missing or twice.

    Raises:
        UnavailableError, sqlite3.Error: the journal can't be read.
    """
    if recorder.config.database is not None:
        told = f"The position of recorder {recorder.name} was lost: its table tells it"
        return Progress(LOST, 0), told, False
    path = Path(recorder.config.path)
    if recorder.config.mode != "append":
        told = (
            f"The rows of {path} were lost: they are made again from the messages that the journal"
            " still has, and the present file is set aside"
        )
        return Progress("", max(0, journal.seq_at(0) - 1)), told, True
    file_format = make_format(recorder.config)
    what = f"The position of the recording {path} was lost"

    def newest_first() -> Iterator[Message]:
        for chunk in journal.back_from(last_seq + 1):
            ours = [one for one in chunk if recorder in routes.match(one.topic)]
            yield from file_format.with_rows(ours)

    try:
        size = path.stat().st_size
        written_ns = path.stat().st_mtime_ns
        place = None
        if size > len(file_format.empty):
            place = locate(path, file_format, newest_first(), last_seq)
    except FileNotFoundError:
        return (
            Progress("", last_seq),
            (
                f"{what}, and the file is gone: it begins anew behind message {last_seq}."
                " Earlier ones can be had with appliance export."
            ),
            True,
        )
    except OSError as error:
        return (
            Progress("", last_seq),
            (
                f"{what}, and the file can't be read ({error.strerror or error}): it goes on behind"
                f" message {last_seq}."
            ),
            True,
        )
    if place is not None:
        progress = place.progress
        told = f"{what}. By its end it goes on behind message {progress.seq}"
        if place.doubtful is not None:
            first, last = place.doubtful
            told += (
                f"; messages {first} to {last} look like earlier ones, so it can't be told which of"
                " them are in it: they count as recorded"
            )
        return progress, f"{told}.", place.doubtful is not None
    # What came after the last write is not in it.
    behind = min(last_seq, max(0, journal.seq_at(written_ns) - 1))
    if size <= len(file_format.empty):
        told = f"{what}. The file is empty and goes on behind message {behind}."
        return Progress("", behind), told, False
    return (
        Progress("", behind),
        (
            f"{what}, and its end is none that the journal's messages give: the file is set aside"
            f" and a new one begins behind message {behind}. Whether messages up to there"
            " are in the file that was set aside can't be told."
        ),
        True,
    )
