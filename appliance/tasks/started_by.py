"""Which messages started a task, or should have: read from ``tasks.db`` for a command.

The appliance may be running. Not for: the newest ones, which a running engine has in memory
(views.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec

from appliance.message_filter import Name
from appliance.model import ExecutionState
from appliance.storage.sqlite import connect_read_only
from appliance.tasks.records import Record

_decode = msgspec.msgpack.Decoder(Record).decode


def messages(
    path: Path, states: Collection[ExecutionState] = (), tasks: Sequence[Name] = ()
) -> list[int]:
    """The sequence numbers of the messages, ascending. A damaged row is left out.

    Args:
        path: the database; if there is none, no message started anything.
        states: only those whose start is in one of these states now; empty: in any.
        tasks: only those that started a task whose name or id all of these mean.

    Raises:
        sqlite3.Error: it can't be read.
    """
    if not path.exists():
        return []
    found: set[int] = set()
    with contextlib.closing(connect_read_only(path)) as connection:
        good = set()
        for number, body in connection.execute("SELECT id, record FROM executions"):
            with contextlib.suppress(ValueError, TypeError):
                if _passes(_decode(body), states, tasks):
                    good.add(number)
        for seq, execution, state in connection.execute(
            "SELECT seq, execution, state FROM answers"
        ):
            # Without an execution, the message was rejected or skipped, and no task is known.
            passes = (
                execution in good if execution else not tasks and (not states or state in states)
            )
            if passes and isinstance(seq, int):
                found.add(seq)
    return sorted(found)


def _passes(record: Record, states: Collection[ExecutionState], tasks: Sequence[Name]) -> bool:
    execution = record.execution
    return (not states or execution.state in states) and all(
        one.takes(execution.task_name) or one.takes(execution.task_id) for one in tasks
    )
