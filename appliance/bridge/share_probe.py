"""Whether a broker hands on what it grants: a test of its shared subscriptions.

Many brokers take ``$share/GROUP/FILTER`` for the name of a topic: they grant it and deliver none of
its messages. So the bridge subscribes to a topic of its own in the same way, in a group of its own,
publishes on that topic, and sees whether the message comes back. The names are the same at each
start, so that a session that outlives the connection never gathers such filters.

Not for: the subscriptions themselves (subscriptions.py) or sending (connection.py). Times are in
seconds of a clock without steps.
"""

from __future__ import annotations

import enum
import secrets
from collections.abc import Callable, Sequence

from appliance.bridge.subscriptions import SUBSCRIBE_ID, UNSUBSCRIBE_ID
from appliance.config.tables import BridgeSubscribeConfig
from appliance.log.sanitize import escape
from appliance.mqtt.client_packets import encode_subscribe, encode_unsubscribe
from appliance.mqtt.packets import SubscribeOptions, encode_publish
from appliance.mqtt.reasons import FAILURE
from appliance.mqtt.topics import matches

_RIGHT_AFTER_S = 3.0
_STRIKES = 2
"""The connection has to end so often right after a test before the test is held to be the cause."""
_UNKNOWN = "it can't be tested whether this broker shares messages: "
NOT_AVAILABLE = (
    "the broker says that it has no shared subscriptions: remove `share`, and every appliance gets "
    "every message (docs/scaling.md)"
)


class _Stage(enum.Enum):
    IDLE = "there is nothing to do"
    DUE = "the test is to begin"
    ASKED = "the SUBSCRIBE has no answer yet"
    SENT = "the message may come back"
    OVER = "the subscription of the test is to end"
    LEAVING = "the UNSUBSCRIBE has no answer yet"


class ShareProbe:
    """The test of one bridge, once on each connection. Engine's loop only."""

    def __init__(
        self,
        subscriptions: Sequence[BridgeSubscribeConfig],
        *,
        name: str,
        service_name: str,
        installation: str,
        version: int,
        wait_s: float,
        clock: Callable[[], float],
    ) -> None:
        """Nothing is sent.

        Args:
            subscriptions: those of the bridge.
            name: the bridge's.
            service_name: the appliance's, which its topics begin with.
            installation: tells this appliance from others of the same names.
            version: of MQTT, 4 or 5.
            wait_s: how long the message may take.
            clock: the present time.
        """
        groups = [each.share for each in subscriptions if each.share]
        self.topic = f"{service_name}/probe/{name}-{installation}"
        """On which the test publishes, at the broker."""
        self._filter = f"$share/{groups[0]}-{installation}/{self.topic}" if groups else ""
        self._covering = next(
            (
                one.topic
                for one in subscriptions
                if not one.share and matches(one.topic, self.topic)
            ),
            "",
        )
        self._version = version
        self._wait_s = wait_s
        self._clock = clock
        self._stage = _Stage.IDLE
        self._sent_at = 0.0
        self._nonce = b""
        self._strikes = 0
        self._is_begun = False
        self.problem = ""
        """Why nothing may come by shared subscriptions, for people; empty if they work, or as long
        as nothing is known."""

    @property
    def is_tested(self) -> bool:
        """Whether the present connection has been tested, and nothing is left of the test."""
        return self._is_begun and self._stage is _Stage.IDLE

    @property
    def is_asked(self) -> bool:
        """Whether the next SUBACK or UNSUBACK is the test's."""
        return self._stage in (_Stage.ASKED, _Stage.LEAVING)

    def begin(self, *, is_available: bool) -> None:
        """A connection is accepted; ``is_available``: the broker says that it has such."""
        self._stage = _Stage.IDLE
        self._is_begun = True
        if not self._filter or self._strikes >= _STRIKES:
            return
        if not is_available:
            self.problem = NOT_AVAILABLE
        elif self._covering:
            self.problem = (
                f"{_UNKNOWN}the filter {escape(self._covering)} brings the test message, too"
            )
        else:
            self._stage = _Stage.DUE

    def next_packet(self) -> bytes | None:
        """The SUBSCRIBE or UNSUBSCRIBE that is due, once the bridge's own are done."""
        if self._stage is _Stage.DUE:
            self._stage = _Stage.ASKED
            self._sent_at = self._clock()
            wanted = SubscribeOptions(topic_filter=self._filter, qos=0, retain_handling=2)
            return encode_subscribe(SUBSCRIBE_ID, (wanted,), self._version)
        if self._stage is _Stage.OVER:
            self._stage = _Stage.LEAVING
            return encode_unsubscribe(UNSUBSCRIBE_ID, (self._filter,), self._version)
        return None

    def answered(self, code: int | None) -> bytes | None:
        """The answer to the packet came; returns the PUBLISH that is to be sent, if any."""
        if self._stage is not _Stage.ASKED or code is None:
            self._stage = _Stage.IDLE
            return None
        if code >= FAILURE:
            self._stage = _Stage.IDLE
            self.problem = f"{_UNKNOWN}it refuses the subscription {escape(self._filter)}"
            return None
        self._stage = _Stage.SENT
        self._sent_at = self._clock()
        self._nonce = secrets.token_hex(8).encode()
        # MQTT 5 has its list of properties, an empty one, in front of the payload.
        payload = b"\0" + self._nonce if self._version == 5 else self._nonce
        return encode_publish(
            self.topic.encode(), payload, 0, retain=False, duplicate=False, packet_id=0
        )

    def came(self, payload: bytes) -> None:
        """A message came on the topic of the test."""
        if self._stage is _Stage.SENT and payload == self._nonce:
            self._stage = _Stage.OVER
            self._strikes = 0
            self.problem = ""

    def is_late(self) -> bool:
        """Whether the message has just been found missing. Call several times a second."""
        if self._stage is not _Stage.SENT or self._clock() - self._sent_at < self._wait_s:
            return False
        self._stage = _Stage.OVER
        self.problem = (
            "granted, but nothing is delivered: a test message to such a subscription did not come "
            f"back in {self._wait_s:g} s. The broker takes $share for a topic, or does not permit "
            f"to publish on {escape(self.topic)} (docs/scaling.md)"
        )
        return True

    def lost(self, *, by_broker: bool) -> None:
        """The connection is over. A broker that ends it at each test is not tested any more."""
        is_at_it = self._stage in (_Stage.ASKED, _Stage.SENT)
        self._stage = _Stage.IDLE
        if is_at_it and by_broker and self._clock() - self._sent_at < _RIGHT_AFTER_S:
            self._strikes += 1
            if self._strikes >= _STRIKES:
                self.problem = f"{_UNKNOWN}it closes the connection at the test"
