"""The connection of a terminal: a thread that connects, receives and reconnects; requests.

Not for: what frames mean (mirror.py), MQTT (mqtt/client.py).
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import msgspec

from appliance.errors import ApplianceError, NoPermissionError, UnavailableError
from appliance.mqtt.client import Client, Target
from appliance.remote import protocol
from appliance.remote.mirror import Mirror
from appliance.remote.topics import reply_topic, request_topic, state_topic

_KEEPALIVE_S = 15
_FASTEST_RETRY_S = 1.0
_SLOWEST_RETRY_S = 15.0
_CLOSE_S = 2.0
_ANSWER_S = 30.0
_MAX_WAITING = 64
_LARGEST_PACKET = protocol.LARGEST_ANSWER + 128 * 1024
"""Bytes: an answer, or a frame, with its topic."""

T = TypeVar("T")


class Link:
    """One terminal's connection to an appliance. Its methods are safe from any thread."""

    def __init__(self, target: Target, mirror: Mirror) -> None:
        self._target = target
        self._mirror = mirror
        self._numbers = itertools.count(1)
        self._attach_number = 0
        self._waiting: dict[int, Future[protocol.Answer]] = {}
        self._lock = threading.Lock()
        self._connected = threading.Event()
        self._ready: Future[None] = Future()
        """Done with the first state, or with the error that came before it."""
        self._closing = threading.Event()
        self._retry_s = _FASTEST_RETRY_S
        self._lost_at: float | None = None
        self._trouble = ""
        self._role = ""
        self._answers = msgspec.msgpack.Decoder(protocol.Answer)
        self._client = self._make_client()
        self._thread = threading.Thread(target=self._run, name="attached terminal", daemon=True)

    def _make_client(self) -> Client:
        return Client(self._target, keepalive_s=_KEEPALIVE_S, largest_packet=_LARGEST_PACKET)

    @property
    def role(self) -> str:
        """``"operator"`` or ``"viewer"``; empty before the appliance has answered."""
        return self._role

    @property
    def trouble(self) -> str:
        """The present fault of the connection, for the operator; empty if there is none."""
        lost_at = self._lost_at
        if lost_at is None:
            return ""
        ago = max(0, round(time.monotonic() - lost_at))
        return f"lost {ago} s ago, trying again: {self._trouble}"

    # --- life ---------------------------------------------------------------------------------

    def open(self, timeout_s: float) -> None:
        """Connect; returns when the first state has arrived.

        Raises:
            NoPermissionError: the user may not attach.
            UnavailableError: the appliance is out of reach, or another program answers.
        """
        self._thread.start()
        self._connected.wait()  # the client has its own time-outs
        try:
            self._ready.result(timeout_s)
        except TimeoutError:
            raise UnavailableError(
                f"{self._target.shown} did not send its state within {timeout_s:g} s; is it an "
                "appliance of this version, and not another broker? A slow line takes longer: "
                "see --timeout."
            ) from None

    def close(self) -> None:
        """Detach."""
        self._closing.set()
        self._client.disconnect()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_S)
        self._fail_waiting("The terminal has detached.")

    # --- requests -----------------------------------------------------------------------------

    def request(
        self, operation: protocol.AnyOperation, kind: Callable[[bytes], T] | None = None
    ) -> T:
        """Send an operation and wait for its answer, which ``kind`` decodes.

        Raises:
            ApplianceError: the engine's own refusal, or the connection failed meanwhile.
        """
        answer: Future[protocol.Answer] = Future()
        with self._lock:
            if len(self._waiting) >= _MAX_WAITING:
                raise UnavailableError("Too many requests are waiting for the appliance already.")
            number = next(self._numbers)
            self._waiting[number] = answer
        try:
            self._send_request(number, operation)
            found = answer.result(_ANSWER_S)
        except TimeoutError:
            raise UnavailableError(
                f"{self._target.shown} did not answer within {_ANSWER_S:g} s. {_unknown(operation)}"
            ) from None
        finally:
            with self._lock:
                self._waiting.pop(number, None)
        if found.error:
            raise protocol.error_of(found)
        value: Any = None if kind is None else kind(bytes(found.value))
        return value  # type: ignore[no-any-return] # without a decoder the value is not used

    def _send_request(self, number: int, operation: protocol.AnyOperation) -> None:
        if self._lost_at is None:
            with contextlib.suppress(UnavailableError):
                self._send(number, operation)
                return
        raise UnavailableError(
            f"There is no connection to {self._target.shown} now; nothing was sent."
        )

    def _send(self, number: int, operation: protocol.AnyOperation) -> None:
        payload = msgspec.json.encode(protocol.Request(number, operation))
        self._client.send(request_topic(self._target.client_id), payload)

    def attach_again(self) -> None:
        """Begin again with the first frame: one was lost, or the server forgot this terminal."""
        if self._lost_at is None:
            with contextlib.suppress(UnavailableError):  # the link's thread sees it, too
                self._attach()

    def _attach(self) -> None:
        self._mirror.begin()
        seq, engine_ns, log = self._mirror.resume
        self._attach_number = next(self._numbers)
        self._send(self._attach_number, protocol.Attach(protocol.PROTOCOL, seq, engine_ns, log))

    def _fail_waiting(self, text: str) -> None:
        with self._lock:
            waiting, self._waiting = list(self._waiting.items()), {}
        for number, answer in waiting:
            answer.set_result(protocol.Answer(number, error=text, kind="UnavailableError"))

    # --- the link's thread --------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            try:
                with self._client:
                    self._subscribe()
                    self._connected.set()
                    self._attach()
                    while not self._closing.is_set():
                        self._take(*self._client.receive())
            except ApplianceError as error:
                self._note_loss(error)
            finally:
                self._connected.set()
            if self._closing.wait(self._retry_s):
                return
            self._retry_s = min(2 * self._retry_s, _SLOWEST_RETRY_S)
            self._client = self._make_client()

    def _subscribe(self) -> None:
        mine = self._target.client_id
        try:
            self._client.subscribe(state_topic(mine), reply_topic(mine))
        except NoPermissionError:
            who = self._target.username or "Somebody without a name"
            raise NoPermissionError(
                f"{who} may not attach to {self._target.shown}: name the user in the appliance's "
                "configuration, in [access] operators or viewers, and sign in with -u NAME"
            ) from None

    def _note_loss(self, error: ApplianceError) -> None:
        """Before the first state an error ends the link; later the link tries again."""
        if self._closing.is_set():
            return
        self._trouble = str(error)
        self._lost_at = self._lost_at or time.monotonic()
        if not self._ready.done():
            self._closing.set()
            self._ready.set_exception(error)
        self._fail_waiting(
            f"The connection to {self._target.shown} was lost before the answer came; whether it "
            "was done is not known."
        )

    def _take(self, topic: str, payload: bytes) -> None:
        try:
            if topic == reply_topic(self._target.client_id):
                self._take_answer(payload)
            else:
                self._take_frame(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise UnavailableError(f"what it sends can't be read: {error}") from None

    def _take_answer(self, payload: bytes) -> None:
        answer = self._answers.decode(payload)
        if answer.number == self._attach_number:
            if answer.error:
                raise protocol.error_of(answer)
            self._role = msgspec.msgpack.decode(answer.value, type=str)
        with self._lock:
            waiting = self._waiting.pop(answer.number, None)
        if waiting is not None:
            waiting.set_result(answer)

    def _take_frame(self, payload: bytes) -> None:
        number = self._mirror.apply(payload)
        if not number:
            return
        self._send(0, protocol.Seen(number))
        self._lost_at = None
        self._retry_s = _FASTEST_RETRY_S
        if self._mirror.is_complete and not self._ready.done():
            self._ready.set_result(None)


def _unknown(operation: protocol.AnyOperation) -> str:
    return "Whether it was done is not known; see the log." if operation.is_action else "Try again."
