"""``appliance export``: messages of the journal as a recorder would have written them.

The journal may be in use: SQLite's readers and its writer do not wait for each other (WAL).
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from appliance.config.reading import load_tables
from appliance.config.tables import RecorderConfig
from appliance.config.values import TopicFilter, WritePath, parse_duration
from appliance.engine import databases
from appliance.errors import EXIT_OK, NoPermissionError, UnavailableError, UsageError
from appliance.journal import FILE_NAME
from appliance.journal.reading import Reading
from appliance.journal.store import Store
from appliance.model import Message
from appliance.mqtt.topics import filter_problem, matches
from appliance.recorders.formats import make_format

_AT_A_TIME = 1000
_BYTES_AT_A_TIME = 8 * 1024 * 1024


def execute(options: argparse.Namespace) -> int:
    """Write the messages; returns the exit code."""
    filters: list[str] = options.topic
    for each in filters:
        problem = filter_problem(each)
        if problem:
            raise UsageError(f"-t {each}: {problem}")
    if options.limit is not None and options.limit < 1:
        raise UsageError(f"--limit {options.limit}: write a number above zero")
    since_ns = _since_ns(options.since)
    config = load_tables(options.config, journal=("sync",))
    path = Path(config.service.data_dir) / FILE_NAME
    if not path.exists():
        raise UnavailableError(
            f"there is no journal in {config.service.data_dir}; the appliance has not run yet with "
            "this configuration"
        )
    store = Store(path, config.journal.sync)
    try:
        databases.check(path.parent)
        messages = _wanted(Reading(store), filters, since_ns, options.limit)
        if options.output == "-":
            count = _write(sys.stdout.buffer, messages, options)
        else:
            with _created(options.output) as file:
                count = _write(file, messages, options)
    except sqlite3.Error as error:
        raise UnavailableError(f"{path}: the journal can't be read: {error}") from None
    finally:
        store.close()
    sys.stderr.write(f"{count} message{'s' * (count != 1)}\n")
    return EXIT_OK


def _since_ns(text: str | None) -> int:
    if text is None:
        return 0
    try:
        return time.time_ns() - int(parse_duration(text) * 1e9)
    except ValueError as error:
        raise UsageError(f"--since {text}: {error}") from None


def _created(name: str) -> BinaryIO:
    try:
        return Path(name).open("xb")
    except FileExistsError:
        raise UsageError(f"{name}: this file exists and stays as it is; name another") from None
    except PermissionError:
        raise NoPermissionError(f"{name}: this user may not write there; name another") from None
    except OSError as error:
        raise UsageError(f"{name}: it can't be written: {error.strerror}") from None


def _wanted(
    journal: Reading, filters: list[str], since_ns: int, limit: int | None
) -> Iterator[Message]:
    after, left = 0, limit
    while True:
        messages = journal.read(after, _AT_A_TIME, _BYTES_AT_A_TIME)
        if not messages:
            return
        for message in messages:
            if message.received_ns < since_ns:
                continue
            if filters and not any(matches(each, message.topic) for each in filters):
                continue
            yield message
            if left is not None:
                left -= 1
                if not left:
                    return
        after = messages[-1].seq


def _write(file: BinaryIO, messages: Iterable[Message], options: argparse.Namespace) -> int:
    form = make_format(
        RecorderConfig(
            topic=TopicFilter("#"),
            path=WritePath(""),
            format=options.format,
            metadata=not options.payload,
        )
    )
    count = 0
    for message in messages:
        file.write(form.separator if count else form.opening(message))
        file.write(form.element(message))
        count += 1
    file.write(form.closing if count else form.empty)
    file.flush()
    return count
