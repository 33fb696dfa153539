"""What tunes the threads of the process, in one place: each number with its reason and a figure.

All threads share the interpreter's lock, so these numbers say how long one thread may keep the
others waiting, and how much work one turn of a thread takes. Figures were measured with
CPython 3.11 on two shared cores. Not for: limits of memory or of data, which stand in their rooms.
"""

from __future__ import annotations

import gc
import sys

SWITCH_INTERVAL_S = 0.001
"""How long a thread may keep the interpreter while others want it. Python's 5 ms would be added to
the way of a message each time that the UI draws: beside one thread that computes, on a busy
machine, a sleeping thread woke up 12 ms late in the median with 5 ms, and 7 ms late with 1 ms."""

GARBAGE_THRESHOLDS = (5_000, 10, 10)
"""New objects before they are looked through (``gc.set_threshold``). A frame of the UI makes a
thousand objects and forgets as many. With Python's 700 each frame would have such a look, which
stops all threads."""

WAKE_FOR_UNREAD = 4_096
"""Messages. A follower that waits for messages of its topics sleeps through all others, but not
through more than so many: a quarter of what the journal keeps in memory (16,384), so that nothing
has to be read from the disk."""

CROWD = 100
"""Messages a commit. So many come together only when publishers wait for the engine: a client that
is never slowed down brings one or two."""

RECORD_EVERY_S = 0.05
"""Seconds from the first message of a batch to its recording: one write and one sync for all
messages of that time, at most twenty of each a second. In quiet the file is written when the start
of a task is on its way: PUBLISH to POST took 2.6 ms in the median with it, and 2.8 ms when the
recorders wrote at once and paused afterwards."""

RECORD_SHARE_IN_A_CROWD = 1 / 24
"""Share of the time in which the recorders work while publishers wait for the engine. Ten clients
that send as fast as they can got 268,000 acknowledgements a second with it, and 191,000 with a
half. Recording catches up when the crowd is gone; a follower that is too far behind for the
journal's size does not wait (``Follower.may_lag``)."""

RECORD_SHARE_OF_BACKLOG = 1 / 2
"""Share of the time in which the recorders work off a backlog while messages come and no publisher
waits. When none comes they work without a rest."""

RECORD_LONGEST_REST_S = 1.0
"""Seconds that the recorders rest at most between two batches while no publisher waits."""

PUBLISHED_TOGETHER = 50
"""Outcomes in one commit of the journal. A queue of 20,000 took two minutes with a commit each."""

NOTED_TOGETHER = 50
"""Reports of a poll in one change of the task engine: it bounds how long the change holds the
state store's lock. Fifty rows are written in 0.22 ms, five hundred in 2.4 ms."""


def begin_start() -> None:
    """Before the parts of the appliance are made.

    What a start makes stays: to look for garbage among it would be a tenth of the start.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.disable()


def end_start() -> None:
    """Once the appliance serves: let garbage be collected, but not looked for in what is there.

    The one collection takes 25 ms, so it comes after what others wait for.
    """
    gc.enable()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)
