"""Signing in from a browser: the appliance decides, and wrong passwords are answered ever later.

Not for: sessions (sessions.py), the page (pages.py).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable

import msgspec

from appliance.broker.access import origin_of
from appliance.broker.login_failures import LoginFailures
from appliance.errors import ApplianceError, NoPermissionError
from appliance.mqtt.client import Target
from appliance.remote.client_engine import AttachedEngine
from appliance.secret import Secret

_LOG = logging.getLogger(__name__)

_AT_ONE_TIME = 4
_WAITING = 32
LONGEST_NAME = 256
LONGEST_PASSWORD = 1024


class RefusedError(Exception):
    """The browser is not signed in; the text is for its page, ``status`` for HTTP."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class SignIn:
    """Tries names and passwords at the appliance of ``target``. For one loop.

    ``only_here``: whether nobody but users of this machine can reach the page. For the appliance,
    each browser is this machine. So where others can, it must be an appliance that has users.
    """

    def __init__(
        self,
        target: Target,
        *,
        only_here: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._target = target
        self._only_here = only_here
        self._failures = LoginFailures(clock)
        self._turns = asyncio.Semaphore(_AT_ONE_TIME)
        self._waiting = 0
        self._clock = clock

    async def check(self, name: str, password: str, address: str) -> None:
        """Attach as this user, and detach.

        Args:
            name: as it was typed; empty: no user, where the appliance asks for none.
            password: as it was typed.
            address: of the browser.

        Raises:
            RefusedError: it is not let in.
        """
        began_s = self._clock()
        if len(name) > LONGEST_NAME or len(password) > LONGEST_PASSWORD:
            raise RefusedError(400, "Name or password is too long.")
        try:
            await self._in_turn(name, password)
        except NoPermissionError:
            origin = origin_of(address)
            _LOG.warning("web: %.60r was not let in from %s", name, address)
            wait_s = self._failures.delay_s(origin) - (self._clock() - began_s)
            await self._failures.hold(origin, wait_s)
            raise RefusedError(
                403, "Name or password is wrong, or the user is no operator or viewer."
            ) from None
        except ApplianceError as error:
            _LOG.warning("web: the appliance is out of reach: %s", error)
            raise RefusedError(503, "The appliance does not answer.") from None

    async def _in_turn(self, name: str, password: str) -> None:
        if self._waiting >= _WAITING:
            raise RefusedError(503, "Too many people sign in at this moment. Try again.")
        self._waiting += 1
        try:
            async with self._turns:
                await asyncio.to_thread(self._attach, name, password)
        finally:
            self._waiting -= 1

    def _attach(self, name: str, password: str) -> None:
        engine = AttachedEngine(user_target(self._target, name or None, Secret(password)))
        try:
            engine.open(self._target.timeout_s)
            if not (self._only_here or engine.snapshot().users):
                raise RefusedError(
                    403,
                    "This appliance has no users file, so everybody who reaches this page would be "
                    "an operator. Give it users: appliance user add NAME.",
                )
        finally:
            engine.close()


def user_target(target: Target, username: str | None, password: Secret | None) -> Target:
    """The target for a user; without a name, without a password."""
    return msgspec.structs.replace(
        target,
        username=username,
        password=None if username is None else password,
        client_id=f"terminal-web-{secrets.token_hex(4)}",
    )
