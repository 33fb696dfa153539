"""One thing that people are told: which state changes are worth it.

Not for: whom it is told (notices.py), in which words (notice_texts.py).
"""

from __future__ import annotations

import msgspec

from appliance.config.tables import NoticeKind
from appliance.model import Execution, ExecutionState
from appliance.tasks.records import Record


class Notice(msgspec.Struct, frozen=True):
    """One thing that people are told."""

    kind: NoticeKind
    execution: Execution
    awaits_log: bool = False
    """The end of its script log is asked for; a ``LogKnown`` follows."""
    otherwise: NoticeKind | None = None
    """What it is for a table that does not list ``kind``."""

    def kind_for(self, listed: frozenset[NoticeKind]) -> NoticeKind | None:
        """As which of the listed kinds it is told; ``None``: as none."""
        if self.kind in listed:
            return self.kind
        return self.otherwise if self.otherwise in listed else None


class LogKnown(msgspec.Struct, frozen=True):
    """A run that failed now has the last lines of its script log, or the reason why not."""

    execution: Execution


def notice_of(record: Record, execution: Execution) -> Notice | LogKnown | None:
    """What a state change is worth to people, if anything."""
    if execution.log_tail or execution.log_problem:
        return LogKnown(execution)  # That it failed was told already.
    match execution.state:
        case ExecutionState.LOST:
            return Notice("lost", execution)
        case ExecutionState.ABORTED:
            return Notice("aborted", execution)
        case ExecutionState.SUCCEEDED if record.recovered:
            return Notice("recovered", execution, otherwise="succeeded")
        case ExecutionState.SUCCEEDED:
            return Notice("succeeded", execution)
    if execution.state.is_bad:
        return Notice("failed", execution, awaits_log=record.log_wanted)
    return None
