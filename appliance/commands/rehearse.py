"""``appliance rehearse``: what the rules would have started, by the messages of the journal.

Nothing is started and nothing is written; the appliance may be running. Not for: what would have
happened (tasks/rehearsal.py), the text about it (rehearsal_text.py).
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from appliance.commands import rehearsal_text
from appliance.commands.journal_range import journal_in, time_of
from appliance.commands.meter import Meter
from appliance.commands.output import print_json
from appliance.commands.rehearsal_text import Rehearsed
from appliance.config.reading import load, load_tables
from appliance.config.tables import Config
from appliance.engine import databases
from appliance.errors import EXIT_OK, ApplianceError, ConfigError, UnavailableError, UsageError
from appliance.journal.search import History
from appliance.message_filter import MessageFilter
from appliance.model import Task
from appliance.qlik import deadlines
from appliance.qlik.connect import connect
from appliance.tasks import past
from appliance.tasks.rehearsal import Rehearsal, Setting
from appliance.tasks.rehearsed import really

_SERVER_S = 15.0
"""How long the server may take for its lists."""


def execute(options: argparse.Namespace) -> int:
    """Rehearse; returns the exit code."""
    now_ns = time.time_ns()
    since_ns = time_of("--since", options.since, now_ns)
    until_ns = time_of("--until", options.until, now_ns) or now_ns
    assert since_ns is not None
    if since_ns >= until_ns:
        raise UsageError(
            f"--since {options.since} is not before {'--until' if options.until else 'now'}, so no"
            " message fits; see what you wrote"
        )
    if options.top < 1:
        raise UsageError(f"--top {options.top}: write a number above zero")
    config = load(options.config)
    data_dir = _data_dir(options.against, config)
    with journal_in(data_dir, config.journal.sync) as history, _quiet():
        found = _rehearse(options, config, data_dir, history, (since_ns, until_ns))
    if options.json:
        print_json(rehearsal_text.body(found))
    else:
        for line in rehearsal_text.lines(found, options.top, is_terminal=sys.stdout.isatty()):
            sys.stdout.write(f"{line}\n")
    return EXIT_OK


def _data_dir(against: str | None, config: Config) -> Path:
    """The data directory whose journal is read: the configuration's, or the one that is named.

    ``against`` is the running appliance's configuration, or its data directory itself.
    """
    if against is None:
        return Path(config.service.data_dir)
    if Path(against).is_dir():
        return Path(against)
    if not Path(against).exists():
        raise ConfigError(f"--against {against}: there is no such file or folder")
    return Path(load_tables(against, service=("data_dir",)).service.data_dir)


def _rehearse(
    options: argparse.Namespace,
    config: Config,
    data_dir: Path,
    history: History,
    stretch: tuple[int, int],
) -> Rehearsed:
    since_ns, until_ns = stretch
    today_ns = _midnight_ns(until_ns)
    path = data_dir / databases.TASKS
    try:
        happened = past.read(path, since_ns, until_ns)
    except sqlite3.Error as error:
        raise UnavailableError(f"{path}: the task database can't be read: {error}") from None
    tasks = _tasks(config, happened, is_offline=options.offline)
    qlik = config.qlik
    setting = Setting(
        service_name=config.service.name,
        triggers=config.trigger,
        allow=config.allow,
        outcomes=config.outcome,
        has_server=qlik is not None,
        max_concurrent=4 if qlik is None else qlik.max_concurrent,
        max_running=None if qlik is None else qlik.max_running,
    )
    rehearsal = Rehearsal(setting, tasks, happened, since_ns, today_ns=today_ns)
    first, last = history.bounds()
    began, ended = history.times()
    asked = MessageFilter(
        topics=tuple({rule.topic for rule in rehearsal.triggers.rules}),
        since_ns=since_ns,
        until_ns=until_ns,
    )
    meter = Meter(sys.stderr)
    if asked.topics:
        for piece in history.concerning(rehearsal.triggers.concern, asked, last):
            rehearsal.take(piece.messages)
            if meter.is_due:
                share = (piece.last_seq - first + 1) / max(1, last - first + 1)
                meter.show(f"{rehearsal.tally.total.starts:,} starts", share)
    rehearsal.finish(until_ns)
    meter.clear()
    return Rehearsed(
        since_ns=since_ns,
        until_ns=until_ns,
        journal=(began, ended),
        rules=[rule.name for rule in rehearsal.triggers.rules],
        matched=rehearsal.matched,
        unmet=rehearsal.unmet,
        would=rehearsal.tally,
        did=really(happened, since_ns, until_ns, today_ns=today_ns) if path.exists() else None,
        known_since_ns=happened.known_since_ns,
        waiting=rehearsal.waiting,
        catalogue=tasks.source,
        assumed=sorted(rehearsal_text.name_of(one) for one in rehearsal.assumed),
        guessed=sorted(map(rehearsal.name_of, rehearsal.guessed)),
    )


def _midnight_ns(at_ns: int) -> int:
    """When the day of a time began here."""
    day = time.localtime((at_ns - 1) / 1e9)
    return int(time.mktime((day.tm_year, day.tm_mon, day.tm_mday, 0, 0, 0, 0, 0, -1))) * 10**9


class _Tasks(msgspec.Struct):
    """Tasks to hold selectors against."""

    listed: Sequence[Task]
    kept: Sequence[Task]
    is_complete: bool
    source: str
    """Where they come from, for people."""

    def tasks(self) -> Sequence[Task]:
        return self.listed

    def apps(self) -> Sequence[Task]:
        return self.kept


def _tasks(config: Config, happened: past.Past, *, is_offline: bool) -> _Tasks:
    """The server's tasks, or those that ``tasks.db`` knows where it can't be asked."""
    known = tuple(happened.tasks.values())
    if config.qlik is None:
        return _Tasks(known, (), False, "those that tasks.db knows (there is no [qlik])")
    if is_offline or config.qlik.edition == "simulated":
        why = "--offline" if is_offline else "the Qlik server is simulated within the appliance"
        return _Tasks(known, (), False, f"those that tasks.db knows ({why})")
    try:
        server = connect(config.qlik)
        try:
            with deadlines.within(_SERVER_S):
                listed = [
                    msgspec.structs.replace(task, id=task.id.lower()) for task in server.tasks()
                ]
                kept = server.apps() if _names_app(config) else ()
        finally:
            server.close()
    except ApplianceError as error:  # a missing certificate, too: the rules are rehearsed
        return _Tasks(known, (), False, f"those that tasks.db knows (the server: {error})")
    return _Tasks(listed, kept, True, f"the {len(listed):,} tasks of {server.label}")


def _names_app(config: Config) -> bool:
    """Whether a rule or a payload may name an app without a task."""
    return any(
        rule.task == "payload" or (isinstance(rule.task, dict) and "app" in rule.task)
        for rule in config.trigger
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the log lines of what only seems to happen from standard error."""
    logger = logging.getLogger("appliance.tasks")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
