"""The connection of a terminal: MQTT with reconnecting, requests that wait for their answer.

paho-mqtt runs it in a thread of its own. Not for: what frames mean (mirror.py), the texts for a
first connection that fails (mqtt/client.py, which commands/attach.py uses then).
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import msgspec
from paho.mqtt.client import Client, ConnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from appliance import errors
from appliance.errors import ApplianceError, NoPermissionError, UnavailableError
from appliance.mqtt.client import Target
from appliance.remote import protocol
from appliance.remote.mirror import Mirror
from appliance.remote.topics import reply_topic, request_topic, state_topic

_KEEPALIVE_S = 15
_SLOWEST_RETRY_S = 15
_ANSWER_S = 30.0
_MAX_WAITING = 64
_NOT_AUTHORIZED = 0x87
"""MQTT 5, section 3.9.3."""

T = TypeVar("T")


class Link:
    """One terminal's connection to an appliance. Its methods are safe from any thread."""

    def __init__(self, target: Target, mirror: Mirror) -> None:
        self._target = target
        self._mirror = mirror
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Future[protocol.Answer]] = {}
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._refusal: ApplianceError | None = None
        self._closing = False
        self._lost_at: float | None = None
        self._trouble = ""
        self._role = ""
        self.was_connected = False
        """Whether the broker has ever accepted the connection."""
        self._answers = msgspec.msgpack.Decoder(protocol.Answer)
        self._client = self._make_client()

    def _make_client(self) -> Client:
        target = self._target
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=target.client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
        )
        if target.username is not None:
            password = None if target.password is None else target.password.reveal()
            client.username_pw_set(target.username, password)
        if target.tls is not None:
            client.tls_set_context(target.tls)
        client.connect_timeout = target.timeout_s
        client.reconnect_delay_set(1, _SLOWEST_RETRY_S)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        return client

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
        target = self._target
        try:
            self._client.connect(target.host, target.port, _KEEPALIVE_S, clean_start=True)
        except (OSError, ValueError) as error:
            raise UnavailableError(f"{target.shown} is out of reach: {error}") from None
        self._client.loop_start()
        ready = self._ready.wait(timeout_s)
        if self._refusal is not None:
            raise self._refusal
        if not ready:
            raise UnavailableError(
                f"{target.shown} did not send its state within {timeout_s:g} s; is it an appliance "
                "of this version, and not another broker?"
            )

    def close(self) -> None:
        """Detach."""
        self._closing = True
        self._client.disconnect()
        self._client.loop_stop()
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
            if not self._send(protocol.Request(number, operation)):
                raise UnavailableError(
                    f"There is no connection to {self._target.shown} now; nothing was sent."
                )
            found = answer.result(_ANSWER_S)
        except TimeoutError:
            raise UnavailableError(
                f"{self._target.shown} did not answer within {_ANSWER_S:g} s. {_unknown(operation)}"
            ) from None
        finally:
            with self._lock:
                self._waiting.pop(number, None)
        if found.error:
            raise _error(found)
        value: Any = None if kind is None else kind(bytes(found.value))
        return value  # type: ignore[no-any-return] # without a decoder the value is not used

    def _send(self, request: protocol.Request) -> bool:
        if self._lost_at is not None or not self._client.is_connected():
            return False
        topic = request_topic(self._target.client_id)
        return self._client.publish(topic, msgspec.json.encode(request), qos=0).rc == 0

    def _fail_waiting(self, text: str) -> None:
        with self._lock:
            waiting, self._waiting = list(self._waiting.items()), {}
        for number, answer in waiting:
            answer.set_result(protocol.Answer(number, error=text, kind="UnavailableError"))

    # --- paho's thread ------------------------------------------------------------------------

    def _on_connect(
        self,
        client: Client,
        _data: object,
        _flags: ConnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self._fail(NoPermissionError(f"{self._target.shown} refused: {reason.getName()}"))
            return
        self.was_connected = True
        mine = self._target.client_id
        client.subscribe([(state_topic(mine), 0), (reply_topic(mine), 0)])

    def _on_subscribe(
        self,
        _client: Client,
        _data: object,
        _packet_id: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        refused = [one for one in reasons if one.is_failure]
        if refused:
            who = self._target.username or "Somebody without a name"
            self._fail(
                NoPermissionError(
                    f"{who} may not attach to {self._target.shown}: name the user in the "
                    "appliance's configuration, in [access] operators or viewers, and sign in "
                    "with -u NAME"
                )
                if refused[0].value == _NOT_AUTHORIZED
                else UnavailableError(f"{self._target.shown} refused: {refused[0].getName()}")
            )
            return
        self._attach()

    def attach_again(self) -> None:
        """Begin again with the first frame: one was lost, or the server forgot this terminal."""
        if self._lost_at is None and self._client.is_connected():
            self._attach()

    def _attach(self) -> None:
        self._mirror.begin()
        seq, engine_ns, log = self._mirror.resume
        attach = protocol.Attach(protocol.PROTOCOL, seq, engine_ns, log)
        number = next(self._numbers)
        answer: Future[protocol.Answer] = Future()
        answer.add_done_callback(self._attached)
        with self._lock:
            self._waiting[number] = answer
        payload = msgspec.json.encode(protocol.Request(number, attach))
        self._client.publish(request_topic(self._target.client_id), payload, qos=0)

    def _attached(self, answer: Future[protocol.Answer]) -> None:
        said = answer.result()
        if said.error:
            self._fail(_error(said))
        else:
            self._role = msgspec.msgpack.decode(said.value, type=str)

    def _fail(self, error: ApplianceError) -> None:
        """Note a fault. Before the first state it ends ``open``; later the link tries again."""
        self._trouble = str(error)
        if not self._ready.is_set():
            self._refusal = error
            self._ready.set()
        elif self._lost_at is None:
            self._lost_at = time.monotonic()

    def _on_disconnect(
        self,
        _client: Client,
        _data: object,
        _flags: object,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if self._closing:
            return
        if self._lost_at is None:
            self._lost_at = time.monotonic()
            self._trouble = reason.getName()
        self._fail_waiting(
            f"The connection to {self._target.shown} was lost before the answer came; whether it "
            "was done is not known."
        )

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        try:
            if message.topic == reply_topic(self._target.client_id):
                self._take_answer(bytes(message.payload))
            else:
                self._take_frame(bytes(message.payload))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self._fail(UnavailableError(f"what it sends can't be read: {error}"))

    def _take_answer(self, payload: bytes) -> None:
        answer = self._answers.decode(payload)
        with self._lock:
            waiting = self._waiting.pop(answer.number, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def _take_frame(self, payload: bytes) -> None:
        number = self._mirror.apply(payload)
        if not number:
            return
        self._client.publish(
            request_topic(self._target.client_id),
            msgspec.json.encode(protocol.Request(0, protocol.Seen(number))),
            qos=0,
        )
        self._lost_at = None
        if self._mirror.is_complete:
            self._ready.set()


def _unknown(operation: protocol.AnyOperation) -> str:
    return "Whether it was done is not known; see the log." if operation.is_action else "Try again."


def _error(answer: protocol.Answer) -> ApplianceError:
    """The engine's error as it was raised there, or ``ApplianceError`` for an unknown class."""
    kind = getattr(errors, answer.kind, ApplianceError)
    if not (isinstance(kind, type) and issubclass(kind, ApplianceError)):
        kind = ApplianceError
    return kind(answer.error)
