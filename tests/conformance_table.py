"""Writes docs/conformance.md from the tests: ``python tests/conformance_table.py``.

A test names the statements that it is about with ``broker_rig.states``; its docstring says in our
own words what is promised. Not for: judging whether the tests pass, which is the test run's part.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from conformance_statements import ALL, WITHOUT_TEST

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "conformance.md"
MODULES = (
    "connect",
    "malformed",
    "messages",
    "mqtt5",
    "packets_out",
    "websocket",
    "limits",
    "durability",
    "guard",
)

_loaded: dict[str, ModuleType] = {}

HEAD = """# Conformance with MQTT 3.1.1 and MQTT 5

This page lists the statements of the two standards about servers that a client can observe, with
the test of each over real sockets. `MQTT-...` are the numbers of the
[OASIS standard MQTT 3.1.1](https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/mqtt-v3.1.1.html),
`MQTT5-...` those of [MQTT 5](https://docs.oasis-open.org/mqtt/mqtt/v5.0/mqtt-v5.0.html). A test for
both versions runs once with each version.

`pytest tests/integration/broker` runs all of these tests. "holds" means that the test passes; it
covers the case that its promise describes. "partly" means that a deviation of the statement is
known. `python tests/conformance_table.py` writes this page, and a test compares the page with the
tests. Every numbered statement of the two standards is either in the table of statements or named
below it with the reason why it has no test.

## Known deviations

| Statements | What the appliance does |
|---|---|
"""

DEVIATIONS = (
    (
        (),
        "Topics and topic filters longer than limits.max_topic_length or with more levels than"
        " limits.max_topic_levels are refused: 1024 bytes and 30 levels, if not configured.",
    ),
)
"""Statements that do not hold in every case, and what the appliance does instead."""

CHOICES = """
## Choices

Where the standards leave a choice, the appliance

- refuses MQTT 3.1 (`MQIsdp`) with the code for an unacceptable protocol version, unless the
  listener has `allow_mqtt31 = true`. A client of MQTT 3.1 that may not subscribe to a filter is
  disconnected, because SUBACK of 3.1 can't refuse;
- ends the connection of a 3.1.1 client that publishes where it may not, because 3.1.1 has no other
  way to refuse, and answers an MQTT 5 client with reason 0x87 at QoS 1 and 2;
- drops and counts what clients publish to topics that begin with `$`, as other brokers do: MQTT 5
  clients get reason 0x87 at QoS 1 and 2, 3.1.1 clients an ordinary acknowledgement. A will on such
  a topic is not published;
- lets no client publish to the appliance's own topics;
- refuses a client id that has a session of another user (reason 0x85, in 3.1.1 return code 2): the
  session may be neither taken over nor resumed nor ended by a clean start;
- refuses a user name of more than 1024 bytes (reason 0x86, in 3.1.1 return code 4), and a will for
  which the wills of all clients leave no room (reason 0x97, in 3.1.1 return code 3);
- sends a message to overlapping subscriptions once, at the highest of their QoS;
- drops the oldest message when a client's queue is full, and counts it;
- publishes the wills of clients that were connected at a stop or a crash after the restart, when
  `will_grace` of `[service]` has passed, and drops the will if its client is back by then; the delay
  of a will goes on over an ordered stop and begins again after a kill;
- checks the topic of a will again when it publishes the will, because the rules may have changed
  since CONNECT;
- does not send the unacknowledged messages of a shared subscription to another member after a
  restart.

## Statements

| Promise | Statements | Test | Result |
|---|---|---|---|
"""

DEFECTS = (
    (
        "2000 acknowledged messages, then DISCONNECT: most are never delivered",
        "durability",
        "test_disconnect_behind_the_last_publish",
    ),
    (
        "CONNECT, PUBLISH and DISCONNECT in one segment: nothing is delivered",
        "connect",
        "test_everything_in_one_segment",
    ),
    (
        "Stopped in a burst: thousands acknowledged, three seen",
        "durability",
        "test_terminate_in_a_burst",
    ),
    ("Killed in a burst: acknowledged messages are lost", "durability", "test_kill_in_a_burst"),
    (
        "A wrong password kicks another client and wipes its session",
        "limits",
        "test_failed_login_touches_nobody",
    ),
    (
        "A newcomer without subscriptions gets other clients' retained messages",
        "messages",
        "test_newcomer_gets_nothing_of_others",
    ),
    ("Keepalive is not enforced", "connect", "test_keepalive"),
    ("A connection without CONNECT stays open forever", "connect", "test_connect_in_time"),
    ("A PUBLISH of 200 MB is read into memory", "connect", "test_too_large_from_the_header"),
    (
        "After a PUBLISH to a $ topic every message of that client is acknowledged and dropped",
        "messages",
        "test_dollar_topics",
    ),
    (
        "A wildcard in a topic makes payload bytes be read as packets",
        "messages",
        "test_invalid_topics",
    ),
    (
        "MQTT 5 clients get an answer that they can't decode",
        "mqtt5",
        "test_connack_says_what_is_offered",
    ),
    ("A thousand failed logins leave 36 MB behind", "limits", "test_failed_logins_leave_nothing"),
    (
        "The same client id with a clean session does not end the older connection",
        "connect",
        "test_take_over",
    ),
    (
        "A message that a subscriber does not acknowledge is dropped after 5 s",
        "messages",
        "test_redelivery",
    ),
    ("Published at QoS 0, delivered at QoS 1", "messages", "test_effective_qos"),
    ("SUBSCRIBE again with another QoS is ignored", "messages", "test_subscription_replaced"),
    ("A subscriber that does not read takes unbounded memory", "limits", "test_stalled_subscriber"),
    (
        "Persistent sessions of named users end a second after they leave",
        "messages",
        "test_persistent_session",
    ),
    ("A login delays all clients for a quarter of a second", "limits", "test_login_stalls_nobody"),
    ("An IPv6 address can't be listened on", "clients", "test_mosquitto_clients"),
    (
        "Connections beyond the limit wait instead of being refused",
        "limits",
        "test_too_many_connections",
    ),
    ("Malformed packets are tolerated", "messages", "test_packet_id_0"),
    (
        "A mute connection holds up the stop on Python 3.12",
        "limits",
        "test_stop_with_mute_connections",
    ),
    (
        "Binary messages for clients that are away are lost at a restart",
        "durability",
        "test_restart",
    ),
)
"""Defects that were seen of stock amqtt 0.12.1, and the test that the appliance does not have them."""

WITHOUT_TEST_HEAD = """
## Statements without a test

| Why | Statements |
|---|---|
"""

DEFECTS_HEAD = """
## Defects of stock amqtt that the appliance does not have

These defects of amqtt 0.12.1 are the reason why only sessions are hosted in amqtt:

| Defect | Test |
|---|---|
"""


def load(name: str) -> ModuleType:
    """Import a test module by its path."""
    if name in _loaded:
        return _loaded[name]
    path = ROOT / "tests" / "integration" / "broker" / f"test_{name}.py"
    spec = importlib.util.spec_from_file_location(f"conformance_{name}", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    _loaded[name] = module
    return module


def _tests() -> Iterator[tuple[str, str, Callable[..., object], tuple[str, ...]]]:
    """(module, name, test, statements) of each test that names statements."""
    for name in MODULES:
        for key, value in vars(load(name)).items():
            if key.startswith("test_") and (statements := getattr(value, "statements", None)):
                yield name, key, value, statements


def problems() -> list[str]:
    """Statements that do not exist, that no test names, or that are said to have none and have."""
    named = {number for *_, statements in _tests() for number in statements}
    without = {number for numbers in WITHOUT_TEST.values() for number in numbers.split(", ")}
    return [
        *(f"{number} does not exist" for number in sorted((named | without) - ALL)),
        *(f"{number} has no test" for number in sorted(ALL - named - without)),
        *(f"{number} has a test" for number in sorted(named & without)),
    ]


def table() -> str:
    """The document that belongs to the tests as they are now."""
    deviations = [f"| {', '.join(numbers)} | {text} |" for numbers, text in DEVIATIONS]
    deviating = {number for numbers, _ in DEVIATIONS for number in numbers}
    lines = []
    for name, key, value, statements in _tests():
        promise = " ".join((value.__doc__ or "").split())
        result = "holds" if deviating.isdisjoint(statements) else "partly"
        test = f"`broker/test_{name}.py::{key}`"
        lines.append(f"| {promise} | {', '.join(statements)} | {test} | {result} |")
    without = [f"| {why} | {numbers} |" for why, numbers in WITHOUT_TEST.items()]
    defects = []
    for seen, name, key in DEFECTS:
        if not callable(getattr(load(name), key, None)):
            raise LookupError(f"broker/test_{name}.py has no {key}")
        defects.append(f"| {seen} | `broker/test_{name}.py::{key}` |")
    head = HEAD + "\n".join(deviations) + "\n" + CHOICES
    rows = "\n".join(lines) + "\n" + WITHOUT_TEST_HEAD + "\n".join(without) + "\n"
    return head + rows + DEFECTS_HEAD + "\n".join(defects) + "\n"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))
    TABLE.write_text(table(), encoding="utf-8")
