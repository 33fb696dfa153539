"""What is done about the moment at which a request leaves.

Not for: its answer.
"""

from __future__ import annotations

from collections.abc import Callable


class Departure:
    """Whoever makes a call may hold it back when it is ready, and hear that it has left.

    This one does neither.
    """

    def before(self, push: Callable[[], None]) -> None:
        """All is ready: return when it may leave.

        What is raised here is raised to the caller, and nothing leaves.

        Args:
            push: sends as much as can be sent without any waiting, and never raises. It may be
                called once it may leave, in any thread, but not any more once this has returned
                or raised. It need not be called: what is left leaves anyway.
        """

    def after(self) -> None:
        """It has left, or is about to where that can't be told. Must not raise.

        May take a while: the server has its time for the answer anyway.
        """


AT_ONCE = Departure()
