"""Rules about the topics of bridges: prefixes, filters that overlap, messages in a circle.

Not for: the rest of ``[[bridge]]`` (bridge_checks.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import NamedTuple

from appliance.config.problems import shown
from appliance.config.tables import BridgeConfig, BridgePublishConfig, BridgeSubscribeConfig
from appliance.config.values import is_loopback
from appliance.mqtt.overlap import literal_head, moved, overlap
from appliance.mqtt.topics import MAX_TOPIC_BYTES, reserved_problem

_MOST_FILTERS = 100
"""Of one bridge in one direction. Every message of the journal is compared with those that go out,
and all of them are compared with each other below."""


class BridgeFilter(NamedTuple):
    """A topic filter of a bridge, as the other broker sees it."""

    path: str
    """``subscribe[2]``."""
    remote: str
    is_shared: bool = False


def topic_problems(bridge: BridgeConfig, service_name: str) -> Iterator[tuple[str, str]]:
    """Each problem with a bridge's topics: a key, and a text with what is wrong and the fix."""
    for direction, filters in (("subscribe", bridge.subscribe), ("publish", bridge.publish)):
        if len(filters) > _MOST_FILTERS:
            text = (
                f"there are {len(filters)} filters, and a bridge has at most {_MOST_FILTERS}; use "
                "wider ones (+ and #), or several bridges"
            )
            yield direction, text
            return
    for number, subscribe in enumerate(bridge.subscribe, 1):
        yield from _subscribe(subscribe, f"subscribe[{number}]", service_name)
    for number, publish in enumerate(bridge.publish, 1):
        yield from _publish(publish, f"publish[{number}]")
    taken = incoming(bridge)
    for place, other in enumerate(taken):
        one = next((each for each in taken[:place] if overlap(each.remote, other.remote)), None)
        if one is not None:
            text = (
                f"value {shown(other.remote)}: it overlaps {shown(one.remote)} ({one.path}), and "
                "some brokers send a message that fits both twice; write filters that don't "
                "overlap, or one for both"
            )
            yield f"{other.path}.topic", text


def _subscribe(
    subscribe: BridgeSubscribeConfig, path: str, service_name: str
) -> Iterator[tuple[str, str]]:
    topic = subscribe.topic
    if not topic:  # reported by the decoder
        return
    if topic.startswith("$share/"):
        _, group, *rest = topic.split("/", 2)
        text = (
            f"value {shown(topic)}: the group is a key of its own; write topic = "
            f"{shown(rest[0] if rest else 'plant/#')} and "
            f"share = {shown(group or 'appliances')}"
        )
        yield f"{path}.topic", text
        return
    if subscribe.share and (set("/+#") & set(subscribe.share) or not subscribe.share.isprintable()):
        text = (
            f"value {shown(subscribe.share)}: a group's name has no /, + or # and no invisible "
            'characters; write for example "appliances"'
        )
        yield f"{path}.share", text
    problems = list(_prefixes(topic, subscribe.remove_prefix, subscribe.local_prefix, "local"))
    yield from ((f"{path}.{key}", text) for key, text in problems)
    if problems:
        return
    local = moved(topic, subscribe.remove_prefix, subscribe.local_prefix)
    reserved = reserved_problem(local, service_name)
    if reserved is not None:
        key = "local_prefix" if subscribe.local_prefix else "topic"
        written = subscribe.local_prefix or topic
        text = (
            f"value {shown(written)}: here the topics would be {shown(local)}. "
            f"{reserved[0].upper()}{reserved[1:].partition(';')[0]}; write a `local_prefix` that "
            'leads elsewhere, for example "other/"'
        )
        yield f"{path}.{key}", text


def _publish(publish: BridgePublishConfig, path: str) -> Iterator[tuple[str, str]]:
    if publish.topic.startswith("$"):
        text = (
            f"value {shown(publish.topic)}: no message here has a topic that begins with $; write "
            'for example "appliance/tasks/#"'
        )
        yield f"{path}.topic", text
    elif publish.topic:
        for key, text in _prefixes(
            publish.topic, publish.remove_prefix, publish.remote_prefix, "remote"
        ):
            yield f"{path}.{key}", text


def _prefixes(topic: str, remove: str, put: str, side: str) -> Iterator[tuple[str, str]]:
    """What is wrong with the prefixes of a filter. ``side`` is ``"local"`` or ``"remote"``."""
    for key, prefix in (("remove_prefix", remove), (f"{side}_prefix", put)):
        if "+" in prefix or "#" in prefix:
            text = "a prefix is plain text, without wildcards (+ and #); remove them"
        elif "\0" in prefix:
            text = "the null character is not allowed; remove it"
        elif len(prefix.encode("utf-8", "surrogatepass")) > MAX_TOPIC_BYTES:
            text = "it is longer than a topic may be; write a shorter one"
        else:
            continue
        yield key, f"value {shown(prefix)}: {text}"
        return
    head = literal_head(topic)
    if not head.startswith(remove):
        is_possible = remove.startswith(head) and head != topic
        yield (
            "remove_prefix",
            f"value {shown(remove)}: "
            + (
                f"not every topic of {shown(topic)} begins with it"
                if is_possible
                else f"no topic of {shown(topic)} begins with it"
            )
            + f"; write the beginning of the filter{f', {shown(head)}' if head else ''}, or a "
            "filter that begins with it",
        )
    elif not moved(topic, remove, put):
        text = (
            f"value {shown(remove)}: it is the whole topic, and nothing would be left; add "
            f"`{side}_prefix`, or remove less"
        )
        yield "remove_prefix", text


def incoming(bridge: BridgeConfig) -> list[BridgeFilter]:
    """The filters that a bridge subscribes to."""
    return [
        BridgeFilter(f"subscribe[{number}]", each.topic, bool(each.share))
        for number, each in enumerate(bridge.subscribe[:_MOST_FILTERS], 1)
        if each.topic and not each.topic.startswith("$share/")
    ]


def _outgoing(bridge: BridgeConfig) -> list[BridgeFilter]:
    return [
        BridgeFilter(
            f"publish[{number}]", moved(each.topic, each.remove_prefix, each.remote_prefix)
        )
        for number, each in enumerate(bridge.publish[:_MOST_FILTERS], 1)
        if each.topic and literal_head(each.topic).startswith(each.remove_prefix)
    ]


def is_same_host(one: BridgeConfig, other: BridgeConfig) -> bool:
    """Whether two bridges connect to the same machine, as far as the configuration tells."""
    return bool(one.host) and _host_key(one.host) == _host_key(other.host)


def _host_key(host: str) -> str:
    return "localhost" if is_loopback(host) else host.lower().rstrip(".")


def same_broker(one: BridgeConfig, other: BridgeConfig) -> bool:
    """Whether two bridges connect to the same address, as far as the configuration tells."""
    return one is other or (is_same_host(one, other) and one.used_port == other.used_port)


def circles(bridges: Sequence[BridgeConfig]) -> Iterator[tuple[int, str, str]]:
    """What a bridge would send out, and the same or another one bring in again.

    Each is the number of the bridge, a key, and a text with what is wrong and the fix.
    With MQTT 5 the connection asks for no messages of its own (no-local), and each message names
    the appliances that it passed. MQTT 3.1.1 has neither.
    """
    numbered = list(enumerate(bridges, 1))
    pairs = [*((each, each) for each in numbered), *permutations(numbered, 2)]
    for (number, out), (other, into) in pairs:
        if out.version == into.version == "5" or not same_broker(out, into):
            continue
        for sent, taken in crossing(out, into):
            written = out.publish[int(sent.path[8:-1]) - 1].topic
            there = "" if sent.remote == written else f" (there {shown(sent.remote)})"
            whose = taken.path if out is into else f"[[bridge]] {other} {taken.path}"
            text = (
                f"value {shown(written)}{there}: it overlaps {shown(taken.remote)} ({whose}), so "
                "what goes out would come in again. Write filters or prefixes that keep the two "
                f"apart{_both_5(out, into)}"
            )
            yield number, f"{sent.path}.topic", text


def crossing(out: BridgeConfig, into: BridgeConfig) -> Iterator[tuple[BridgeFilter, BridgeFilter]]:
    """What ``out`` sends and ``into`` takes, if both were at one broker: once for each it sends."""
    all_taken = incoming(into)
    for sent in _outgoing(out):
        for taken in all_taken:
            if overlap(sent.remote, taken.remote):
                yield sent, taken
                break


def _both_5(out: BridgeConfig, into: BridgeConfig) -> str:
    of_both = " of both bridges" if out is not into else ""
    return f', or set version = "5"{of_both}, which recognises such messages'
