"""Subscriptions of outside clients, and the fan-out of committed messages.

Not for: the SUBSCRIBE packet exchange (connection.py and the session host), access rules
(access.py), the client's queue (outbox.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from appliance.broker.outbox import Outbox
from appliance.journal.message_cost import cost_alone, text_bytes
from appliance.model import Message
from appliance.mqtt.packets import SubscribeOptions
from appliance.mqtt.topics import Matcher, Topics

_DELIVERIES_A_STEP = 200
_BYTES_A_DELIVERY = 16 * 1024
"""So many bytes of payload take as long as one small delivery more."""
_TARGETS_A_STEP = 2000
_MERGED_A_DELIVERY = 10
"""So many overlapping subscriptions of a client are put together in the time of one delivery."""
_MEMBERS_A_DELIVERY = 30
"""So many members of a shared group are asked in the time of one delivery."""


class Subscription:
    """One client's subscription to one topic filter. Compared by identity."""

    __slots__ = ("group", "has_ended", "number", "options", "outbox", "successor")

    def __init__(self, outbox: Outbox, options: SubscribeOptions, number: int) -> None:
        self.outbox = outbox
        self.options = options
        self.number = number
        """Subscriptions are numbered in the order in which they are made."""
        self.has_ended = False
        self.successor: Subscription | None = None
        """What the client has put in its place."""
        self.group: SharedGroup | None = None


class SharedGroup:
    """The members of one shared subscription (MQTT 5, section 4.8.2), taken in turn."""

    __slots__ = ("members", "turn")

    def __init__(self) -> None:
        self.members: list[Subscription] = []
        self.turn = 0

    def choose(self, topic: str) -> Subscription | None:
        """The next member that is connected and reads, else the next one that keeps messages.

        Members that may not have messages of the topic are passed over.
        """
        fallback = None
        for _ in self.members:
            self.turn = (self.turn + 1) % len(self.members)
            member = self.members[self.turn]
            if member.outbox.denied is not None and member.outbox.denied(topic):
                continue
            sink = member.outbox.sink
            if sink is not None and not sink.stalled:
                return member
            if fallback is None and (sink is not None or member.outbox.persistent):
                fallback = member
        return fallback


def split_shared(topic_filter: str) -> tuple[str, str] | None:
    """(share name, filter) of ``$share/NAME/FILTER``; ``None`` if it is not shared.

    Raises:
        ValueError: it begins as a shared subscription and is not a valid one.
    """
    if not topic_filter.startswith("$share/"):
        return None
    parts = topic_filter.split("/", 2)
    if len(parts) < 3 or not parts[1] or not parts[2] or "+" in parts[1] or "#" in parts[1]:
        raise ValueError("a shared subscription is $share/NAME/FILTER")
    return parts[1], parts[2]


_SUBSCRIPTION_BYTES = 500
"""A subscription without its filter, and its nodes of the tree."""


def levels_of(topic_filter: str) -> int:
    """How many levels a topic filter has, which is how many nodes it may need."""
    return topic_filter.count("/") + 1


def _living(target: Subscription) -> Subscription | None:
    """What a subscription is now, after a while in which it may have ended or been replaced."""
    found: Subscription | None = target
    while found is not None and found.has_ended:
        found = found.successor
    return found


def _is_older(target: Subscription | SharedGroup, number: int) -> bool:
    """Whether a subscription was made before the one behind this number."""
    return isinstance(target, SharedGroup) or target.number <= number


def _may_have(target: Subscription | SharedGroup, topic: str) -> bool:
    """Whether rules let a subscriber have messages of a topic; of groups, each member is asked."""
    if isinstance(target, SharedGroup):
        return True
    denied = target.outbox.denied
    return denied is None or not denied(topic)


class Subscriptions:
    """All subscriptions, found by topic."""

    def __init__(self) -> None:
        # Denied topics are left out where the matches of a topic are found and cached, so a
        # delivery pays nothing for them.
        self._matcher: Matcher[Subscription | SharedGroup] = Matcher(_may_have)
        self._by_client: dict[str, dict[str, Subscription]] = {}
        self._levels: dict[str, int] = {}
        self._described: dict[str, tuple[tuple[str, int], ...]] = {}
        """Kept, because each look at all of them would make work for the garbage collector."""
        self._groups: dict[tuple[str, str], SharedGroup] = {}
        self._newest = 0
        self.deliveries = 0
        """Messages that were handed to a client, in all; those of a step count at its end."""
        self.matched_seq = 0
        """The message at which ``fan_out_in_steps`` stopped: its subscribers are known, and a
        later subscription does not get it."""

    def __len__(self) -> int:
        return len(self._matcher)

    def forget_answers(self) -> None:
        """Drop the cache of what matches which topic."""
        self._matcher.forget_matches()

    def of(self, client_id: str) -> tuple[SubscribeOptions, ...]:
        """The subscriptions of one client."""
        return tuple(s.options for s in self._by_client.get(client_id, {}).values())

    def described(self, client_id: str) -> tuple[tuple[str, int], ...]:
        """Topic filter and QoS of each subscription of one client."""
        found = self._described.get(client_id)
        if found is None:
            found = tuple((each.topic_filter, each.qos) for each in self.of(client_id))
            if found:
                self._described[client_id] = found
        return found

    def count(self, client_id: str) -> int:
        """How many subscriptions one client has."""
        return len(self._by_client.get(client_id, ()))

    def levels(self, client_id: str) -> int:
        """How many levels the topic filters of one client have together."""
        return self._levels.get(client_id, 0)

    def cost(self, client_id: str) -> int:
        """About how many bytes the subscriptions of one client cost; takes microseconds."""
        return sum(
            _SUBSCRIPTION_BYTES + text_bytes(each) for each in self._by_client.get(client_id, ())
        )

    def has(self, client_id: str, topic_filter: str) -> bool:
        """Whether the client has subscribed to exactly this filter."""
        return topic_filter in self._by_client.get(client_id, ())

    def qos(self, client_id: str, topic_filter: str) -> int:
        """The QoS at which the client has subscribed to exactly this filter; 0 if it has not."""
        found = self._by_client.get(client_id, {}).get(topic_filter)
        return 0 if found is None else found.options.qos

    def deny(self, outbox: Outbox, denied: Callable[[str], bool] | None) -> None:
        """Let a client's subscriptions spare the topics for which ``denied`` is true."""
        if outbox.denied is not None or denied is not None:
            outbox.denied = denied
            if outbox.client_id in self._by_client:
                self._matcher.forget_matches()

    def add(self, outbox: Outbox, options: SubscribeOptions) -> bool:
        """Subscribe; a subscription to the same filter is replaced (section 3.8.4).

        Returns whether it is new.
        """
        client_id = outbox.client_id
        before = self._by_client.get(client_id, {}).get(options.topic_filter)
        if before is None:
            self._newest += 1
            subscription = Subscription(outbox, options, self._newest)
        else:
            # Messages that are being handed on are not lost (MQTT 5, section 3.8.4).
            subscription = before.successor = Subscription(outbox, options, before.number)
            self.remove(client_id, options.topic_filter)
        self._by_client.setdefault(client_id, {})[options.topic_filter] = subscription
        self._described.pop(client_id, None)
        self._levels[client_id] = self.levels(client_id) + levels_of(options.topic_filter)
        shared = split_shared(options.topic_filter)
        if shared is None:
            self._matcher.add(options.topic_filter, subscription)
        else:
            group = self._groups.get(shared)
            if group is None:
                group = self._groups[shared] = SharedGroup()
                self._matcher.add(shared[1], group)
            group.members.append(subscription)
            subscription.group = group
        return before is None

    def remove(self, client_id: str, topic_filter: str) -> bool:
        """Unsubscribe; returns whether there was such a subscription."""
        mine = self._by_client.get(client_id)
        if mine is None or topic_filter not in mine:
            return False
        subscription = mine.pop(topic_filter)
        subscription.has_ended = True
        self._described.pop(client_id, None)
        self._levels[client_id] -= levels_of(topic_filter)
        if not mine:
            del self._by_client[client_id], self._levels[client_id]
        if subscription.group is None:
            self._matcher.remove(topic_filter, subscription)
        else:
            subscription.group.members.remove(subscription)
            if not subscription.group.members:
                shared = split_shared(topic_filter)
                if shared is not None:
                    del self._groups[shared]
                    self._matcher.remove(shared[1], subscription.group)
        return True

    def forget(self, client_id: str) -> None:
        """Remove all subscriptions of a client."""
        for topic_filter in list(self._by_client.get(client_id, ())):
            self.remove(client_id, topic_filter)

    def fan_out(self, messages: Iterable[Message]) -> int:
        """Hand messages to the clients that subscribed; returns how many deliveries."""
        before = self.deliveries
        for _ in self.fan_out_in_steps(messages):
            pass
        return self.deliveries - before

    def fan_out_in_steps(self, messages: Iterable[Message]) -> Iterator[None]:
        """Hand committed messages to the clients that subscribed.

        A step is short, and subscriptions may come and go between two. A client whose
        subscriptions overlap gets one copy at the highest of their QoS (MQTT 5 section 3.3.4
        allows that; 3.1.1 section 3.3.5 too), with all their identifiers.
        """
        known = self._matcher.known
        deliveries = work = 0
        for message in messages:
            work += 1
            found = known(message.topic)
            if found is None:
                newest = self._newest
                for found in self._matcher.find(message.topic):
                    if found is None:
                        self.matched_seq = message.seq
                        yield
                if newest != self._newest:
                    found = tuple(each for each in found or () if _is_older(each, newest))
            if found:
                count = len(found)
                if self._groups:
                    work += self._members_of(found) // _MEMBERS_A_DELIVERY
                if count == 1:
                    deliveries += self._hand(message, found[0])
                else:
                    weight = count * (1 + len(message.payload) // _BYTES_A_DELIVERY)
                    if weight > _DELIVERIES_A_STEP:
                        self.matched_seq = message.seq
                        yield from self._hand_to_many(message, found)
                    else:
                        deliveries += self._hand_merged(message, found)
                    work += weight
            if work >= _DELIVERIES_A_STEP:
                self.matched_seq = message.seq
                self.deliveries += deliveries
                deliveries = work = 0
                yield
        self.deliveries += deliveries

    @staticmethod
    def _members_of(found: tuple[Subscription | SharedGroup, ...]) -> int:
        """Members of shared groups: each may have to be asked whether it is connected."""
        return sum(len(each.members) for each in found if isinstance(each, SharedGroup))

    def _hand_to_many(
        self, message: Message, found: tuple[Subscription | SharedGroup, ...]
    ) -> Iterator[None]:
        """``_hand_merged`` in steps, of which the later ones spare what has ended meanwhile."""
        of_clients: dict[Outbox, list[Subscription]] = {}
        for begin in range(0, len(found), _TARGETS_A_STEP):
            for target in found[begin : begin + _TARGETS_A_STEP]:
                if isinstance(target, SharedGroup):
                    self.deliveries += self._hand(message, target)
                else:
                    of_clients.setdefault(target.outbox, []).append(target)
            yield
        weight = 1 + len(message.payload) // _BYTES_A_DELIVERY
        work = 0
        for targets in of_clients.values():
            live = tuple(filter(None, map(_living, targets)))
            if live:
                self.deliveries += self._hand_merged(message, live)
            work += weight + len(targets) // _MERGED_A_DELIVERY
            if work >= _DELIVERIES_A_STEP:
                work = 0
                yield

    def _hand(self, message: Message, target: Subscription | SharedGroup) -> int:
        chosen = target.choose(message.topic) if isinstance(target, SharedGroup) else target
        if chosen is None:
            return 0
        options = chosen.options
        if options.no_local and chosen.outbox.client_id == message.client_id:
            return 0
        try:
            chosen.outbox.deliver(
                message,
                min(message.qos, options.qos),
                retain=message.retain and options.retain_as_published,
                identifiers=() if options.identifier is None else (options.identifier,),
            )
        except Exception as error:  # noqa: BLE001 - the next client gets its copy
            chosen.outbox.failed(error)
        return 1

    def _hand_merged(self, message: Message, found: tuple[Subscription | SharedGroup, ...]) -> int:
        merged: dict[Outbox, tuple[int, bool, list[int] | tuple[()]]] = {}
        deliveries = 0
        for target in found:
            if isinstance(target, SharedGroup):
                deliveries += self._hand(message, target)
                continue
            options = target.options
            if options.no_local and target.outbox.client_id == message.client_id:
                continue
            qos, retain, identifiers = merged.get(target.outbox, (0, False, ()))
            if options.identifier is not None:
                identifiers = identifiers or []
                identifiers.append(options.identifier)
            merged[target.outbox] = (
                max(qos, options.qos),
                retain or options.retain_as_published,
                identifiers,
            )
        for outbox, (qos, retain, identifiers) in merged.items():
            try:
                outbox.deliver(
                    message,
                    min(message.qos, qos),
                    retain=message.retain and retain,
                    identifiers=tuple(identifiers),
                )
            except Exception as error:  # noqa: BLE001 - as in ``_hand``
                outbox.failed(error)
        return deliveries + len(merged)


class Retained:
    """The last retained message of each topic (section 3.3.1.3), bounded in number and bytes."""

    def __init__(self, limit: int, max_bytes: int) -> None:
        self._limit = limit
        self._max_bytes = max_bytes
        self._messages: Topics[Message] = Topics()
        self._sizes: dict[str, int] = {}
        """Bytes that it costs, of what is kept or, once it is committed, will be."""
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    def bound(self, limit: int, max_bytes: int) -> None:
        """Let other bounds count; what is beyond them stays until it is replaced or removed."""
        self._limit = limit
        self._max_bytes = max_bytes

    def make_room(self, message: Message) -> bool:
        """Whether a message that will be kept stays within the bounds; counts it from now on."""
        size = cost_alone(message) if message.payload else 0
        before = self._sizes.get(message.topic)
        if size:
            if before is None and len(self._sizes) >= self._limit:
                return False
            grows = size - (before or 0)
            if grows > 0 and self._bytes + grows > self._max_bytes:
                return False
        self._note(message.topic, size)
        return True

    def expects(self, topic: str) -> bool:
        """Whether a message of this topic is kept, or will be once it is committed."""
        return topic in self._sizes

    def _note(self, topic: str, size: int) -> None:
        self._bytes += size - self._sizes.pop(topic, 0)
        if size:
            self._sizes[topic] = size

    def keep(self, message: Message) -> None:
        """Keep it in place of the topic's last one; an empty payload removes (MQTT-3.3.1-10)."""
        topic = message.topic
        if message.payload:
            self._messages.put(topic, message)
            if topic not in self._sizes:  # it comes from the last run, or will be removed at once
                self._note(topic, cost_alone(message))
        else:
            self._messages.remove(topic)
            self._note(topic, 0)

    def topics(self) -> list[str]:
        """The topics with a retained message. May be called from any thread."""
        return list(self._sizes)

    def get(self, topic: str) -> Message | None:
        """The retained message of one topic."""
        return self._messages.get(topic)

    def search(self, topic_filter: str, until_seq: int) -> Iterator[Message | None]:
        """Retained messages that a new subscription to this filter gets, found in short steps.

        Gives ``None`` for a step without a message. A message behind ``until_seq`` is left out:
        it is handed to the subscription as a new one.
        """
        for message in self._messages.search(topic_filter):
            yield None if message is None or message.seq > until_seq else message
