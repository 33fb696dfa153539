"""What is held for a maintenance window: everything, a task, a trigger, a timer, a client.

A hold ends at its time, or when somebody releases it. What it holds of the task engine waits (or is
dropped, if that was asked for); what a held client may not do is the broker's business. The module
works on times that it is given, without clock, threads or disk.

Not for: what becomes of a request that is held (dispatcher.py), or whether the name of what is to
be held exists (holding.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from appliance.engine_api import HELD, HOLD_KINDS, HoldState, who
from appliance.model import Cause
from appliance.tasks.payloads import Rejection

KIND = "hold"
"""Of the rows in ``tasks.db`` (kept.py)."""
MAX_HOLDS = 1000
"""Holds at a time; a further one is refused."""
MAX_BYTES = 512 * 1024
"""Of names and reasons of all holds; a further one is refused. Each snapshot has all of them."""
_FOR_EVER = 1 << 63

Asker = tuple[str, str]
"""What asked for a start: ``("trigger", NAME)``, ``("timer", NAME)``, or ``("", "")`` for a person,
a program over HTTP or a chain."""


class Hold(msgspec.Struct, frozen=True):
    """One thing that is held. New fields have a default: rows of earlier versions stay readable."""

    kind: str
    """One of ``HOLD_KINDS``."""
    name: str
    """The task's id, the name of the trigger or timer, the client id; empty for everything."""
    until_ns: int | None
    """When it ends by itself; ``None``: never."""
    reason: str
    by: str
    since_ns: int
    drop: bool = False
    """Whether what comes meanwhile is dropped; it waits else."""
    title: str = ""
    """A task's name."""

    @property
    def key(self) -> tuple[str, str]:
        return self.kind, self.name

    @property
    def shown(self) -> str:
        """What is held, in words: ``everything``, ``task Reload Sales``."""
        if self.kind == "everything":
            return self.kind
        return f"{self.kind} {self.title or self.name}"

    @property
    def sentence(self) -> str:
        """Why a request waits."""
        reason = f": {self.reason}" if self.reason else ""
        return f"{HELD}by {who(self.by)} ({self.shown}){reason}."

    @property
    def rejection(self) -> Rejection:
        """What is said of a start that is dropped."""
        return Rejection(
            "held",
            f"{self.sentence} What asks for a start meanwhile is dropped.",
            harmless=True,
            is_answered=True,
        )

    @property
    def size(self) -> int:
        """Bytes of its texts."""
        return sum(len(one.encode()) for one in (self.name, self.title, self.reason, self.by))

    @property
    def ends_ns(self) -> int:
        """When it ends, in a form that can be compared."""
        return _FOR_EVER if self.until_ns is None else self.until_ns

    def is_active(self, now: int) -> bool:
        return now < self.ends_ns

    def state(self, waiting: int) -> HoldState:
        """What users see of it; ``waiting`` starts wait for its end."""
        return HoldState(
            self.kind,
            self.name,
            self.until_ns,
            self.reason,
            self.by,
            self.since_ns,
            self.drop,
            self.title,
            waiting,
        )


class TooManyHoldsError(Exception):
    """There are ``MAX_HOLDS`` already, or their texts have ``MAX_BYTES``."""


def asker_of(cause: Cause) -> Asker:
    """The rule or timer that asks for a start."""
    if cause.kind == "message":
        return "trigger", cause.rule
    return ("timer", cause.rule) if cause.kind == "timer" else ("", "")


class Holds:
    """All holds, by what they hold. Changed under the state store's lock; any thread may ask."""

    def __init__(self) -> None:
        self._holds: dict[tuple[str, str], Hold] = {}

    def __len__(self) -> int:
        return len(self._holds)

    def all(self) -> list[Hold]:
        """All, in the order in which they were made."""
        return list(self._holds.values())

    def get(self, kind: str, name: str) -> Hold | None:
        """The hold of one thing, also one whose time is over and that is still to be ended."""
        return self._holds.get((kind, name))

    def put(self, hold: Hold) -> Hold:
        """Hold something, or hold it anew: its beginning stays. Returns what is held now.

        Raises ``TooManyHoldsError``.
        """
        before = self._holds.get(hold.key)
        if before is not None:
            hold = msgspec.structs.replace(hold, since_ns=before.since_ns)
        elif len(self._holds) >= MAX_HOLDS:
            raise TooManyHoldsError
        others = sum(one.size for one in self._holds.values() if one is not before)
        if others + hold.size > MAX_BYTES:
            raise TooManyHoldsError
        # A new dictionary, because other threads look into the present one.
        self._holds = {**self._holds, hold.key: hold}
        return hold

    def remove(self, kind: str, name: str) -> Hold | None:
        """End a hold; returns it, ``None`` if there is none."""
        found = self._holds.get((kind, name))
        if found is not None:
            self._holds = {key: one for key, one in self._holds.items() if one is not found}
        return found

    def take_ended(self, now: int) -> list[Hold]:
        """Remove and return the holds whose time is over."""
        ended = [one for one in self._holds.values() if not one.is_active(now)]
        if ended:
            self._holds = {key: one for key, one in self._holds.items() if one.is_active(now)}
        return ended

    def shift(self, step_ns: int) -> list[Hold]:
        """The clock was set by this: holds began at the same moment, and end by the clock.

        Returns all.
        """
        shift = msgspec.structs.replace
        self._holds = {
            key: shift(one, since_ns=one.since_ns + step_ns) for key, one in self._holds.items()
        }
        return self.all()

    def next_end(self) -> int | None:
        """When ``take_ended`` has something to return at the earliest; ``None``: never."""
        return min(
            (one.until_ns for one in self._holds.values() if one.until_ns is not None), default=None
        )

    def of_request(self, task_id: str, askers: Iterable[Asker], now: int) -> Hold | None:
        """The hold that keeps a request waiting longest, ``None`` if nothing holds it.

        ``task_id`` is empty while the task is not known. A request that several rules and timers
        asked for waits for one of these only if each of them is held, until the first of them ends.
        """
        found = [self._active("everything", "", now), self._active("task", task_id, now)]
        of_askers = [self._active(*asker, now) for asker in askers]
        if of_askers and None not in of_askers:
            found.append(min(filter(None, of_askers), key=lambda one: one.ends_ns))
        return max(filter(None, found), key=lambda one: one.ends_ns, default=None)

    def dropping(self, task_id: str, asker: Asker, asked: int, now: int) -> Hold | None:
        """The hold by which a start is dropped that was asked for then, while it was held."""
        found = (
            self._active("everything", "", now),
            self._active("task", task_id, now),
            self._active(*asker, now),
        )
        return next(
            (one for one in found if one is not None and one.drop and one.since_ns <= asked), None
        )

    def of_timer(self, name: str, now: int) -> Hold | None:
        """The hold of a timer."""
        return self._active("timer", name, now)

    def of_client(self, client_id: str, now: int) -> Hold | None:
        """The hold of a client. Cheap where nothing is held."""
        return self._active("client", client_id, now)

    def _active(self, kind: str, name: str, now: int) -> Hold | None:
        found = self._holds.get((kind, name))
        return found if found is not None and found.is_active(now) else None


def row_name(kind: str, name: str) -> str:
    """The name of a hold's row."""
    return f"{kind}:{name}"


encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Hold).decode


def decode(rows: Mapping[str, bytes]) -> tuple[list[Hold], list[str]]:
    """The holds that were kept, oldest first, and the names of rows that can't be read."""
    found: list[Hold] = []
    left_out: list[str] = []
    for name, body in rows.items():
        try:
            hold = _decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            left_out.append(name)
            continue
        if hold.kind in HOLD_KINDS and row_name(*hold.key) == name:
            found.append(hold)
        else:
            left_out.append(name)
    return sorted(found, key=lambda one: one.since_ns), left_out
