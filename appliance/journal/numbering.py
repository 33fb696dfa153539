"""Where a start goes on numbering, and what it says if the journal ends too early.

The recorders and the task engine keep the number of the last message that they have read. If the
journal ends before it, messages were lost: the file was deleted or damaged, its log is gone, or it
came from a backup. Numbers go on above every number that may have been used.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Found:
    """What a start found."""

    last_seq: int
    """The newest message in the database, 0 if it has none."""
    reached: int
    """The newest message that a recording or the task engine has read."""
    reserved: int
    """No number above this one was used; 0 if that is not known."""
    is_new: bool
    """There was no database that could be used."""
    was_damaged: bool
    """A damaged database was set aside."""

    @property
    def lacks_messages(self) -> bool:
        """Whether messages were lost."""
        return (
            self.was_damaged or self.reached > self.last_seq or (self.is_new and self.reserved > 0)
        )

    @property
    def next_after(self) -> int:
        """The next message gets the number after this one."""
        used = self.reserved if self.lacks_messages else 0
        return max(self.last_seq, self.reached, used)

    @property
    def text(self) -> str:
        """Which messages are missing; empty if that is said elsewhere, or if none are."""
        if self.reached > self.last_seq:
            first = self.last_seq + 1
            which = (
                f"message {first} is"
                if first == self.reached
                else f"messages {first} to {self.reached} are"
            )
            return (
                f"The journal ends at message {self.last_seq}, but recordings or tasks have read"
                f" message {self.reached}: {which} missing in the journal, and maybe later ones."
                f" New messages have numbers above {self.next_after}."
            )
        if self.is_new and self.reserved and not self.was_damaged:
            return (
                "The journal was deleted, and an empty one is begun: messages, retained messages"
                " and the sessions of clients are gone. New messages have numbers above"
                f" {self.next_after}."
            )
        return ""
