"""Operators acknowledge problems here; those whose problems are gone are forgotten.

Not for: what is a problem (appliance/problems.py), keeping it (tasks/acknowledgements.py).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence

from appliance.engine.losses import Losses
from appliance.engine_api import Acknowledgement, Snapshot
from appliance.errors import NotNotedError, UnavailableError, UsageError
from appliance.problems import LOSS, Identity, Problem, may_stand, problems, standing_in
from appliance.tasks.acknowledgements import Acknowledgements

logger = logging.getLogger("appliance.operator")

MAX_NOTE = 500
"""Characters."""
_MAX_TEXT = 500


class Attention:
    """The acknowledgements of one appliance. Its methods may wait for the disk."""

    def __init__(
        self,
        acknowledgements: Acknowledgements,
        snapshot: Callable[[], Snapshot],
        *,
        losses: Losses,
        failing: Callable[[], Mapping[str, int]],
    ) -> None:
        """``failing``: all executions that made tasks count as failing, by the tasks' ids."""
        self._kept = acknowledgements
        self._snapshot = snapshot
        self._of_starts = losses
        self._failing = failing
        self._gone: set[Identity] = set()

    def acknowledge(
        self, kind: str, name: str, occurrence: str, note: str, by: str
    ) -> Acknowledgement:
        """An operator knows a problem. Raises ``ApplianceError``; nothing is acknowledged then."""
        note = _plain(note)
        if len(note) > MAX_NOTE:
            raise UsageError(f"A note has at most {MAX_NOTE} characters.")
        snapshot = self._snapshot()
        present = [one for one in problems(snapshot) if (one.kind, one.name) == (kind, name)]
        found = next((one for one in present if one.occurrence == occurrence), None)
        if found is None and present:
            raise UsageError("It has happened again meanwhile. See to that first.")
        if found is None or not kind:
            raise UsageError("That is no problem any more, or it is acknowledged already.")
        return self._note(found, note, by, snapshot.taken_ns)

    def acknowledge_losses(self, note: str, by: str) -> Sequence[str]:
        """An operator knows what a start found lost; returns that. Raises ``ApplianceError``."""
        now_ns = self._snapshot().taken_ns
        losses = self._losses()
        if losses:
            text = " ".join(losses)[:_MAX_TEXT]
            made = Acknowledgement(
                LOSS, "data", str(now_ns), by, now_ns, _plain(note), text, "data"
            )
            with contextlib.suppress(NotNotedError):  # the losses themselves have been noted
                self._kept.note(made)
        return losses

    def _note(self, problem: Problem, note: str, by: str, now_ns: int) -> Acknowledgement:
        if problem.kind == LOSS:
            self._losses()
        made = Acknowledgement(
            problem.kind,
            problem.name,
            problem.occurrence,
            by,
            now_ns,
            note,
            problem.text[:_MAX_TEXT],
            problem.title or problem.name,
        )
        self._kept.note(made)
        logger.warning("%s acknowledges: %s%s", by, made.text, f" ({note})" if note else "")
        return made

    def take_back(self, kind: str, name: str, by: str) -> None:
        """Show a problem again. Raises ``ApplianceError``."""
        if kind == LOSS:
            raise UsageError("A loss that is acknowledged is not kept any more; the log has it.")
        if not self._kept.remove(kind, name):
            raise UsageError("That is not acknowledged.")
        logger.info("%s takes back the acknowledgement of %s %s", by, kind, name)

    def forget_gone(self) -> None:
        """Forget acknowledgements whose problems are gone or happened again. One thread only."""
        kept = self._kept.listed()
        if not kept:
            return
        snapshot = self._snapshot()
        standing, failing = standing_in(snapshot), self._failing()
        gone = set()
        for one in kept:
            if one.kind == "task":  # all of them are known here
                stands = str(failing.get(one.name)) == one.occurrence
            else:
                stands = may_stand(one, standing, snapshot)
            if not stands:
                gone.add((one.kind, one.name, one.occurrence))
        # Twice, since a bridge is not there for a moment while its configuration changes.
        if certain := gone & self._gone:
            self._kept.forget([(kind, name) for kind, name, _ in certain])
        self._gone = gone

    def _losses(self) -> Sequence[str]:
        try:
            return self._of_starts.acknowledge()
        except OSError as error:
            raise UnavailableError(
                f"That can't be written to the data directory: {error.strerror or error}."
            ) from None


def _plain(note: str) -> str:
    """A note that can be stored: a terminal or an argument may give half a character."""
    return note.strip().encode("utf-8", "replace").decode()
