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
from appliance.broker.login_queue import LoginQueue, Pair, QueueFullError
from appliance.broker.sparse_log import SparseLogs
from appliance.errors import ApplianceError, NoPermissionError
from appliance.mqtt.client import Target
from appliance.remote.client_engine import AttachedEngine
from appliance.secret import Secret

_LOG = logging.getLogger(__name__)
_STRANGERS = SparseLogs(_LOG)

_AT_ONE_TIME = 4
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
        self._queue = LoginQueue(_AT_ONE_TIME, clock)
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
        # A line for each address: with one for each name, a guesser of names would have many.
        pair = Pair(None, origin_of(address))
        try:
            await self._in_turn(pair, name, password)
        except NoPermissionError:
            _STRANGERS.log(
                pair.origin,
                logging.WARNING,
                "web: %.60r was not let in from %s",
                name,
                address,
            )
            wait_s = self._failures.delay_s(pair.origin) - (self._clock() - began_s)
            await self._failures.hold(pair.origin, wait_s)
            raise RefusedError(
                403, "Name or password is wrong, or the user is no operator or viewer."
            ) from None
        except ApplianceError as error:
            _LOG.warning("web: the appliance is out of reach: %s", error)
            raise RefusedError(503, "The appliance does not answer.") from None

    async def _in_turn(self, pair: Pair, name: str, password: str) -> None:
        # Who guesses waits for longest, so that others are let in meanwhile.
        try:
            await self._queue.wait_turn(pair)
        except QueueFullError:
            raise RefusedError(503, "Too many people sign in at this moment. Try again.") from None
        try:
            await asyncio.to_thread(self._attach, name, password)
        except NoPermissionError:
            self._queue.failed(pair)
            raise
        else:
            self._queue.succeeded(pair)
        finally:
            self._queue.release()

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
