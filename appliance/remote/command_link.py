"""A command's connection to a running appliance: requests one after the other, and no frames.

Not for: terminals, which get frames (link.py); connecting again, which the command decides.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from appliance.errors import NoPermissionError, UnavailableError
from appliance.mqtt.client import Client, Target
from appliance.remote import protocol
from appliance.remote.topics import reply_topic, request_topic

_KEEPALIVE_S = 15
_ANSWER_S = 60.0
"""An action may wait for the Qlik server, whose calls have a limit of 30 s."""
_LARGEST_PACKET = protocol.LARGEST_ANSWER + 128 * 1024

T = TypeVar("T")


class ConnectionLostError(UnavailableError):
    """The connection ended, or no answer came: what was sent may have been carried out."""


class CommandLink:
    """One connection. For one thread; ``open`` again after ``ConnectionLostError``."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._numbers = itertools.count(1)
        self._answers = msgspec.msgpack.Decoder(protocol.Answer)
        self._client: Client | None = None

    def open(self) -> None:
        """Connect.

        Raises:
            NoPermissionError: the user may not attach.
            UnavailableError: the appliance is out of reach, or another program answers.
        """
        self.close()
        client = Client(self._target, keepalive_s=_KEEPALIVE_S, largest_packet=_LARGEST_PACKET)
        self._client = client.__enter__()
        try:
            client.subscribe(reply_topic(self._target.client_id))
        except NoPermissionError:
            user = self._target.username or "Somebody without a name"
            raise NoPermissionError(
                f"{user} may not act at {self._target.shown}: name the user in the appliance's "
                "configuration, in [access] operators, and sign in with -u NAME"
            ) from None
        self.request(protocol.Attach(protocol.PROTOCOL, frames=False))

    def close(self) -> None:
        """End the connection, if there is one."""
        if self._client is not None:
            client, self._client = self._client, None
            client.__exit__(None, None, None)

    def request(
        self,
        operation: protocol.AnyOperation,
        kind: Callable[[bytes], T] | None = None,
        within_s: float = _ANSWER_S,
    ) -> T:
        """Send an operation and wait for its answer, which ``kind`` decodes.

        Raises:
            ConnectionLostError: the connection ended or was not there.
            ApplianceError: the appliance's own refusal.
        """
        if self._client is None:
            raise ConnectionLostError(f"there is no connection to {self._target.shown}")
        number = next(self._numbers)
        try:
            payload = msgspec.json.encode(protocol.Request(number, operation))
            self._client.send(request_topic(self._target.client_id), payload)
            answer = self._answer_to(number, within_s)
        except (UnavailableError, NoPermissionError) as error:
            # The broker ended the connection, whatever it names as its reason.
            raise ConnectionLostError(str(error)) from None
        except TimeoutError:
            raise ConnectionLostError(
                f"{self._target.shown} did not answer within {within_s:.0f} s; is it an appliance "
                "of this version?"
            ) from None
        if answer.error:
            raise protocol.error_of(answer)
        value: Any = None if kind is None else kind(bytes(answer.value))
        return value  # type: ignore[no-any-return] # without a decoder the value is not used

    def _answer_to(self, number: int, within_s: float) -> protocol.Answer:
        assert self._client is not None
        end = time.monotonic() + within_s
        while True:
            _topic, payload = self._client.receive(end - time.monotonic())
            try:
                answer = self._answers.decode(payload)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise UnavailableError(
                    f"what {self._target.shown} sends can't be read: {error}"
                ) from None
            if answer.number == number:
                return answer
