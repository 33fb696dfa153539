"""Which messages of the journal a command is about: its options as a filter, the journal opened.

Not for: finding them (journal/search.py), what a command does with them.
"""

from __future__ import annotations

import argparse
import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from appliance.config.reading import load_tables
from appliance.config.values import parse_moment
from appliance.engine import databases
from appliance.errors import UnavailableError, UsageError
from appliance.journal import FILE_NAME
from appliance.journal.search import History, opened
from appliance.message_filter import MessageFilter, Name
from appliance.mqtt.topics import filter_problem


class JournalRange(msgspec.Struct, frozen=True):
    """What the options ask for."""

    asked: MessageFilter
    after_seq: int = 0
    """Only messages with larger numbers."""


def range_of(options: argparse.Namespace) -> JournalRange:
    """The range that ``-t``, ``--client``, ``--since``, ``--until`` and ``--after`` mean.

    Raises:
        UsageError: one of them is wrong; the text says how to write it.
    """
    for each in options.topic:
        if problem := filter_problem(each):
            raise UsageError(f"-t {each}: {problem}")
    if options.after < 0:
        raise UsageError(f"--after {options.after}: write the number of a message")
    now_ns = time.time_ns()
    since_ns = time_of("--since", options.since, now_ns)
    until_ns = time_of("--until", options.until, now_ns)
    if since_ns is not None and until_ns is not None and since_ns >= until_ns:
        raise UsageError("--since is not before --until, so no message fits; see what you wrote")
    return JournalRange(
        MessageFilter(
            topics=tuple(options.topic),
            clients=tuple(Name(each) for each in options.client),
            since_ns=since_ns,
            until_ns=until_ns,
        ),
        options.after,
    )


def time_of(option: str, text: str | None, now_ns: int) -> int | None:
    """A time in ns since 1970, as ``parse_moment`` reads it.

    Raises:
        UsageError: the text is none.
    """
    if text is None:
        return None
    try:
        return parse_moment(text, now_ns)
    except ValueError as error:
        raise UsageError(f"{option} {text}: {error}") from None


@contextlib.contextmanager
def journal_of(config: str) -> Iterator[History]:
    """The journal of a configuration. The appliance may be running.

    Raises:
        UnavailableError: there is none, or it can't be read; also from within the block.
        ConfigError: another version wrote it, or the configuration is wrong.
    """
    loaded = load_tables(config, journal=("sync",))
    with journal_in(Path(loaded.service.data_dir), loaded.journal.sync) as history:
        yield history


@contextlib.contextmanager
def journal_in(data_dir: Path, sync: Literal["always", "os"]) -> Iterator[History]:
    """The journal of a data directory; raises as ``journal_of`` does."""
    path = data_dir / FILE_NAME
    if not path.exists():
        raise UnavailableError(
            f"there is no journal in {data_dir}; the appliance has not run yet with this "
            "configuration"
        )
    databases.check(data_dir)
    try:
        with opened(data_dir, sync) as history:
            yield history
    except sqlite3.Error as error:
        raise UnavailableError(f"{path}: the journal can't be read: {error}") from None
