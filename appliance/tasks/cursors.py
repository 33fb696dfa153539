"""The sequence numbers on the way of a message, by name, and the order that they keep.

The journal numbers its messages 1, 2, 3, ... Each step on the way remembers how far it has come as
one such number. From the last step to the first:

advanced (``Follower.advanced``)
    The consumer has told the journal that retention may delete the messages up to here.
durable (``Cursors.durable``)
    ``tasks.db`` says that the messages up to here were dealt with: the next process begins behind.
taken (``Cursors.taken``)
    The consumer has decided, in memory, what the messages up to here lead to.
read (``Follower.position``)
    The follower has given the consumer the messages up to here.
committed (``Journal.last_seq``)
    The newest message that is on disk. The journal's writer sets it after each commit.
reserved (``SequenceReservation.limit``)
    A file beside the database says that no message has a greater number; the writer sees to that.
numbered (``Journal.newest_seq``)
    The number given last. The engine's loop gives it to a message that comes in.

``advanced <= durable <= taken <= read <= committed``, and neither ``reserved`` nor ``numbered`` is
below ``committed``. The first part is asserted here, the second in ``Journal.committed``. Two more
numbers do not move along:

earlier (``Dispatcher.earlier_seq``)
    The newest message when this process began. A call for it or an earlier message may have been
    made without a note, so the planner has a worker look at the server first.
removed (``Journal.removed_to``)
    Retention had to delete messages up to here although a follower had not read them. ``read``
    leaps over them.
"""

from __future__ import annotations

from appliance.journal.follower import Follower


class Cursors:
    """The task engine's cursors.

    The state store's lock guards ``durable``; the consumer's thread alone sets ``taken``.
    """

    __slots__ = ("_place", "durable", "taken")

    def __init__(self) -> None:
        self.taken = 0
        self.durable = 0
        self._place: Follower | None = None

    def begin(self, seq: int) -> None:
        """Set both cursors to ``seq``, which ``tasks.db`` has. Before ``follow``."""
        self.taken = self.durable = seq

    def follow(self, place: Follower) -> None:
        """From now on the chain reaches from ``tasks.db`` into the journal."""
        self._place = place

    def are_in_order(self) -> bool:
        """Whether the chain holds; from any thread that sees ``durable`` and ``taken`` settled.

        For assertions. A cursor that another thread moves meanwhile only grows, and the chain is
        read from its small end.
        """
        place = self._place
        if place is None:
            return self.durable <= self.taken
        chain = [place.advanced, self.durable, self.taken, place.position, place.last_seq]
        return chain == sorted(chain)

    def __repr__(self) -> str:
        place = self._place
        journal = (
            ""
            if place is None
            else (f", advanced={place.advanced}, read={place.position}, committed={place.last_seq}")
        )
        return f"Cursors(durable={self.durable}, taken={self.taken}{journal})"
