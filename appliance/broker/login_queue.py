"""The order in which passwords are checked: a fair queue in front of the few worker threads.

A check takes 25 to 40 ms of one core, so clients with wrong passwords could keep all others
waiting. Each pair of user and address has its own line here. The lines take turns, those with few
failures first.

In the line of a pair that failed, the newest comes first, and each fourth turn is the oldest's. The
right password may stand among many wrong ones there, and nothing but its check can tell: guessers
that wait for their answers are then overtaken, and guessers that leave early make the oldest login
an honest one. Not for: the check itself (users.py), the answer to a failure (login_failures.py).
"""

from __future__ import annotations

import asyncio
import collections
import secrets
from collections.abc import Callable

import msgspec

from appliance.broker.recent_failures import RecentFailures

_WAITING = 512
"""Logins that wait in all."""
_WAITING_OF_ORIGIN = 300
_WAITING_OF_FAILING_PAIR = 128
"""Two or three seconds' work."""
_REMEMBERED_PAIRS = 4096
_PATIENCE_S = 3.4
"""A wrong password is to be answered within four seconds, also one of a pair without failures."""
_OLDEST_FIRST_EACH = 4
"""Each fourth turn is for the login that has waited longest, so that no line waits for ever."""


class Pair(msgspec.Struct, frozen=True):
    """What has a line of its own."""

    user: str | None
    """``None``: all names that are in no users file."""
    origin: str
    """``origin_of`` of the client's address."""


class QueueFullError(Exception):
    """Too many logins wait, or this one has waited too long."""


class _Waiting(msgspec.Struct, eq=False):
    arrived: int
    turn: asyncio.Future[None]


class LoginQueue:
    """Gives ``slots`` logins at a time their turn. Engine's loop only."""

    def __init__(self, slots: int, clock: Callable[[], float]) -> None:
        self._free = slots
        self._lines: dict[Pair, collections.deque[_Waiting]] = {}
        """The line that was served last is the last one."""
        self._waiting = 0
        self._waiting_of: collections.Counter[str] = collections.Counter()
        self._arrivals = 0
        self._turns = 0
        self._failures: RecentFailures[Pair] = RecentFailures(clock)
        self._good: dict[Pair, None] = {}

    def __len__(self) -> int:
        return self._waiting

    async def wait_turn(self, pair: Pair) -> bool:
        """Wait for a slot, which ``release`` gives back; returns whether there was a wait.

        Raises:
            QueueFullError: no slot can be had in time.
        """
        if self._free:
            self._free -= 1
            return False
        self._make_room(pair)
        loop = asyncio.get_running_loop()
        waiting = _Waiting(self._arrivals, loop.create_future())
        self._arrivals += 1
        self._lines.setdefault(pair, collections.deque()).append(waiting)
        self._note(pair, 1)
        timer = loop.call_later(_PATIENCE_S, _give_up, waiting.turn)
        try:
            await waiting.turn
        except asyncio.CancelledError:
            # The client has gone; its turn may have come at the same moment.
            turn = waiting.turn
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.release()
            raise
        finally:
            timer.cancel()
            self._leave(pair, waiting)
        return True

    def release(self) -> None:
        """Give a slot back: the next login has its turn."""
        while (found := self._next()) is not None:
            pair, waiting = found
            self._leave(pair, waiting)
            if not waiting.turn.done():
                waiting.turn.set_result(None)
                return
        self._free += 1

    def failed(self, pair: Pair) -> None:
        """A login of the pair had a wrong password."""
        self._failures.note(pair)

    def succeeded(self, pair: Pair) -> None:
        """A login of the pair had the right password."""
        self._good.pop(pair, None)
        while len(self._good) >= _REMEMBERED_PAIRS:
            del self._good[next(iter(self._good))]
        self._good[pair] = None

    def _rank(self, pair: Pair) -> tuple[int, bool, bool]:
        # A pair that signed in before still ranks behind one without failures: an address may be
        # that of a gateway, with a guesser behind it.
        return self._failures.of(pair).bit_length(), pair.user is None, pair not in self._good

    def _next(self) -> tuple[Pair, _Waiting] | None:
        if not self._lines:
            return None
        self._turns += 1
        if self._turns % _OLDEST_FIRST_EACH:
            pair = min(self._lines, key=self._rank)
            return pair, self._lines[pair][-1 if self._failures.of(pair) else 0]
        pair = min(self._lines, key=lambda each: self._lines[each][0].arrived)
        return pair, self._lines[pair][0]

    def _make_room(self, pair: Pair) -> None:
        """See that one more may wait: a failing pair's line is short, the longest line gives way.

        Raises:
            QueueFullError: the pair itself has too many.
        """
        line = self._lines.get(pair, ())
        if len(line) >= _WAITING_OF_FAILING_PAIR and self._failures.of(pair):
            self._refuse_one(pair)
        elif self._waiting_of[pair.origin] >= _WAITING_OF_ORIGIN:
            self._shorten([each for each in self._lines if each.origin == pair.origin], pair)
        elif self._waiting >= _WAITING:
            self._shorten(list(self._lines), pair)

    def _shorten(self, pairs: list[Pair], newcomer: Pair) -> None:
        than = len(self._lines.get(newcomer, ()))
        longest = max(pairs, key=lambda each: (len(self._lines[each]), self._rank(each)))
        if len(self._lines[longest]) <= than + 1 and not self._failures.of(longest):
            # No line is long: a name that is in no users file gives way.
            longest = max(pairs, key=self._rank)
            if self._rank(longest) <= self._rank(newcomer):
                raise QueueFullError
        self._refuse_one(longest)

    def _refuse_one(self, pair: Pair) -> None:
        line = self._lines[pair]
        # Among guessers an honest login may stand anywhere; no place is to be the bad one.
        at = secrets.randbelow(len(line)) if self._failures.of(pair) else -1
        refused = line[at]
        self._leave(pair, refused)
        _give_up(refused.turn)

    def _leave(self, pair: Pair, waiting: _Waiting) -> None:
        line = self._lines.get(pair)
        if line is None or waiting not in line:
            return
        line.remove(waiting)
        del self._lines[pair]
        if line:
            self._lines[pair] = line
        self._note(pair, -1)

    def _note(self, pair: Pair, change: int) -> None:
        self._waiting += change
        self._waiting_of[pair.origin] += change
        if not self._waiting_of[pair.origin]:
            del self._waiting_of[pair.origin]


def _give_up(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_exception(QueueFullError())
