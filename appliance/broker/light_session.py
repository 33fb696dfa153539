"""amqtt's session without its state machine.

Not for: what the appliance keeps of a session (sessions.py).
"""

from __future__ import annotations

from amqtt.session import Session


class _States:
    """What amqtt asks of a session's state machine, without the machine.

    Upstream builds one from the ``transitions`` package for each session, which costs 24 KB of
    memory and more than a millisecond: half of what a connection costs in all.
    """

    __slots__ = ("_session", "state")

    def __init__(self, session: Session) -> None:
        self._session = session
        self.state = "new"

    def is_connected(self) -> bool:
        return self.state == "connected"

    def is_disconnected(self) -> bool:
        return self.state == "disconnected"

    def is_new(self) -> bool:
        return self.state == "new"

    def connect(self) -> None:
        if self.state == "connected":
            raise ValueError("the session is connected already")
        self.state = "connected"
        self._session._on_enter_connected()  # noqa: SLF001 - pinned

    def disconnect(self) -> None:
        self.state = "disconnected"
        self._session._on_enter_disconnected()  # noqa: SLF001 - pinned


class LightSession(Session):
    """amqtt's session with ``_States``."""

    def _init_states(self) -> None:
        self.transitions = _States(self)
