"""What a bridge subscribes to at its broker: filter by filter, and what became of each.

One filter a packet, one packet at a time: a broker that closes the connection instead of refusing a
filter is understood, and the others go on. Filters of an earlier configuration live on in the
session and are unsubscribed. Not for: sending (connection.py), messages (incoming.py). Times are in
seconds of a clock without steps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence

from appliance.bridge.causes import Cause, Causes, Kind
from appliance.config.tables import BridgeSubscribeConfig
from appliance.engine_api import BridgeSubscriptionState
from appliance.log.sanitize import escape
from appliance.mqtt.client_packets import encode_subscribe, encode_unsubscribe
from appliance.mqtt.packets import SubscribeOptions
from appliance.mqtt.reasons import FAILURE

SUBSCRIBE_ID, UNSUBSCRIBE_ID = 1, 2
"""Packet ids that no PUBLISH of a bridge uses (window.py)."""
_REFUSED_S = 5.0
"""A filter that is refused is asked for again after this time, then after twice as long, up to
``_LEFT_OUT_S``: a cluster that has just lost a node refuses for a moment what it grants then."""
_LEFT_OUT_S = 300.0
_LONGEST_LEFT_OUT_S = 3600.0
_STRIKES = 2
"""A filter at which the connection ended so many times in a row is left out for a while."""


def remote_filter(config: BridgeSubscribeConfig) -> str:
    """The filter as the broker is sent it."""
    return f"$share/{config.share}/{config.topic}" if config.share else str(config.topic)


class _Filter:
    def __init__(self, config: BridgeSubscribeConfig) -> None:
        self.config = config
        self.text = remote_filter(config)
        self.granted: int | None = None
        self.problem = ""
        self.strikes = 0
        self.refusals = 0
        """In a row."""
        self.again_at = 0.0
        self.refusal = ""
        """Why the broker refused it at the last attempt."""


class Subscriptions:
    """The subscriptions of one bridge, over all its connections."""

    def __init__(
        self, configs: Sequence[BridgeSubscribeConfig], version: int, clock: Callable[[], float]
    ) -> None:
        self._filters = [_Filter(each) for each in configs]
        self._version = version
        self._clock = clock
        self._to_unsubscribe: deque[str] = deque()
        self._pending: _Filter | str | None = None
        self.received = [0] * len(configs)
        """Messages since each filter was subscribed to."""
        self.is_refusal_new = False
        """Whether the last refusal was not the same as that of the attempt before."""
        self.share_problem = ""
        """Why nothing comes by shared subscriptions, as long as nothing has come."""

    @property
    def wanted(self) -> dict[str, int]:
        """The options that each filter should have, as they stand in SUBSCRIBE of MQTT 5."""
        return {each.text: self._byte(each) for each in self._filters}

    @property
    def in_session(self) -> dict[str, int]:
        """The filters that the session has, as far as is known, and their options."""
        leaving = [*self._to_unsubscribe]
        if isinstance(self._pending, str):
            leaving.append(self._pending)
        granted = [each for each in self._filters if each.granted is not None]
        return dict.fromkeys(leaving, 0) | {each.text: self._byte(each) for each in granted}

    def begin(self, kept: Collection[str]) -> None:
        """A connection is accepted; ``kept``: the filters that its session has."""
        wanted = {each.text for each in self._filters}
        self._pending = None
        self._to_unsubscribe = deque(each for each in kept if each not in wanted)
        for each in self._filters:
            if each.text not in kept:
                each.granted = None
            elif each.granted is None:
                each.granted, each.problem = each.config.qos, ""

    def next_packet(self) -> bytes | None:
        """The next SUBSCRIBE or UNSUBSCRIBE that is due; ``None`` while there is none."""
        if self._pending is not None:
            return None
        if self._to_unsubscribe:
            self._pending = topic_filter = self._to_unsubscribe.popleft()
            return encode_unsubscribe(UNSUBSCRIBE_ID, (topic_filter,), self._version)
        now = self._clock()
        for number, each in enumerate(self._filters):
            if each.granted is None and now >= each.again_at:
                self._pending = each
                self.received[number] = 0
                return encode_subscribe(SUBSCRIBE_ID, (self._options(each),), self._version)
        return None

    def _options(self, each: _Filter) -> SubscribeOptions:
        return SubscribeOptions(
            topic_filter=each.text,
            qos=each.config.qos,
            # MQTT5-3.8.3-4 forbids both. 3.1.1 has no such option, so that a session of 3.1.1 is
            # subscribed to again once the bridge speaks MQTT 5.
            no_local=self._version == 5 and not each.config.share,
            # Retain As Published stays off: so the flag says "held for new subscribers".
            retain_handling=0 if each.config.retained else 2,
        )

    def _byte(self, each: _Filter) -> int:
        options = self._options(each)
        return options.qos | options.no_local << 2 | options.retain_handling << 4

    @property
    def pending(self) -> str:
        """The filter whose answer is awaited; empty if there is none."""
        pending = self._pending
        return pending if isinstance(pending, str) else "" if pending is None else pending.text

    def answered(self, packet_id: int, code: int | None, reason: str, causes: Causes) -> str | None:
        """A SUBACK or UNSUBACK came.

        Returns:
            Why a filter is refused, for the log; empty if it is not; ``None``: this answer was not
            expected.
        """
        pending = self._pending
        if isinstance(pending, str) and packet_id == UNSUBSCRIBE_ID:
            self._pending = None
            return ""
        if not isinstance(pending, _Filter) or packet_id != SUBSCRIBE_ID or code is None:
            return None
        self._pending = None
        if code < FAILURE:
            pending.granted, pending.problem, pending.strikes = code, "", 0
            pending.refusal, pending.refusals = "", 0
            if code < pending.config.qos:
                pending.problem = (
                    f"granted QoS {code} instead of {pending.config.qos}: messages may be lost"
                )
            return ""
        pending.problem = str(causes.of_code(code, reason))
        self.is_refusal_new = pending.problem != pending.refusal
        pending.refusal = pending.problem
        pending.again_at = self._clock() + min(_REFUSED_S * 2**pending.refusals, _LEFT_OUT_S)
        pending.refusals = min(pending.refusals + 1, 10)
        return f"{escape(pending.text)}: {pending.problem}"

    def lost(self, causes: Causes, *, is_silent: bool) -> Cause | None:
        """The connection ended; returns the cause if a filter is it.

        Args:
            causes: makes the cause.
            is_silent: the broker did not answer, instead of closing.
        """
        pending, self._pending = self._pending, None
        if not isinstance(pending, _Filter):
            return None
        pending.strikes += 1
        shown = causes.said(pending.text)
        did = "did not answer" if is_silent else "closed the connection at"
        cause = Cause(
            Kind.SUBSCRIPTION,
            f"the broker {did} the subscription to {shown}",
            "check `topic` and what the broker permits",
        )
        if pending.strikes >= _STRIKES:
            # The others go on without it.
            wait = min(_LEFT_OUT_S * 2 ** (pending.strikes - _STRIKES), _LONGEST_LEFT_OUT_S)
            pending.again_at = self._clock() + wait
            pending.problem = f"{cause.text}; it is left out for {wait / 60:.0f} minutes"
        return cause

    def _problem_of(self, each: _Filter, received: int) -> str:
        is_silent = bool(each.config.share) and not received
        return each.problem or (self.share_problem if is_silent else "")

    def states(self) -> tuple[BridgeSubscriptionState, ...]:
        """What became of each, for the UI."""
        return tuple(
            BridgeSubscriptionState(
                each.text, each.granted, self._problem_of(each, received), received
            )
            for each, received in zip(self._filters, self.received, strict=True)
        )
