"""Writes docs/conformance.md from the tests: ``python tests/conformance_table.py``.

A test names the statements that it is about with ``broker_rig.states``; its docstring says in our
own words what is promised. Not for: judging whether the tests pass, which is the test run's part.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "conformance.md"
MODULES = ("connect", "messages", "mqtt5", "limits", "durability")

_loaded: dict[str, ModuleType] = {}

HEAD = """# Conformance with MQTT 3.1.1 and MQTT 5

What the two standards prescribe for servers where a client can observe it, and the tests that
hold the appliance to it over real sockets. `MQTT-...` are the numbers of the statements in the
[OASIS standard MQTT 3.1.1](https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/mqtt-v3.1.1.html),
`MQTT5-...` those of [MQTT 5](https://docs.oasis-open.org/mqtt/mqtt/v5.0/mqtt-v5.0.html). A test
that is about both runs once with each version.

All statements below hold: `pytest tests/integration/broker` runs every one of them. The table
is written by `python tests/conformance_table.py` and a test compares it with what is there.

Where the standards leave a choice, the appliance

- refuses MQTT 3.1 (`MQIsdp`) with the code for an unacceptable protocol version;
- ends the connection of a 3.1.1 client that publishes where it may not, because 3.1.1 has no other
  way to say no, and answers an MQTT 5 client with reason 0x87 at QoS 1 and 2;
- lets no client publish to topics that begin with `$`, or to the appliance's own topics;
- refuses a client id that another user's connected client has;
- sends a message to overlapping subscriptions once, at the highest of their QoS;
- refuses topics and topic filters of more than 200 levels;
- drops the oldest message when a client's queue is full, and counts it;
- does not publish wills when it is stopped in order, nor those of clients that were connected when
  it was killed, but for delayed wills of sessions that outlive their connections: their delay runs
  from the stop, or from the next start if it was killed, and a client that is back by then has its
  will dropped;
- checks a will's topic again when it is published: the rules may have changed since CONNECT;
- sends the messages that a shared subscription's members had not acknowledged to nobody else when
  it is restarted.

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
    ("Killed in a burst: what was acknowledged is gone", "durability", "test_kill_in_a_burst"),
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
    ("A connection without CONNECT stays open for ever", "connect", "test_connect_in_time"),
    ("A PUBLISH of 200 MB is read into memory", "connect", "test_too_large_from_the_header"),
    (
        "After a PUBLISH to a $ topic everything of that client is acknowledged and thrown away",
        "messages",
        "test_dollar_topics",
    ),
    (
        "A wildcard in a topic makes payload bytes be read as packets",
        "messages",
        "test_invalid_topics",
    ),
    (
        "MQTT 5 clients get an answer that they can't read",
        "mqtt5",
        "test_connack_says_what_is_offered",
    ),
    ("A thousand failed logins leave 36 MB behind", "limits", "test_failed_logins_leave_nothing"),
    (
        "The same client id with a clean session does not end the older connection",
        "connect",
        "test_take_over",
    ),
    ("What a subscriber does not acknowledge is dropped after 5 s", "messages", "test_redelivery"),
    ("Published at QoS 0, delivered at QoS 1", "messages", "test_effective_qos"),
    ("SUBSCRIBE again with another QoS is ignored", "messages", "test_subscription_replaced"),
    ("A subscriber that does not read takes unbounded memory", "limits", "test_stalled_subscriber"),
    (
        "Persistent sessions of named users end a second after they leave",
        "messages",
        "test_persistent_session",
    ),
    ("A login stalls everybody for a quarter of a second", "limits", "test_login_stalls_nobody"),
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
"""What was seen of stock amqtt 0.12.1, and the test that shows that the appliance does not do it."""

DEFECTS_HEAD = """
## Defects of stock amqtt that the appliance does not have

The appliance hosts sessions in amqtt (0.12.1) and keeps everything else in front of it, because of
what was seen there:

| Seen | Test |
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


def table() -> str:
    """The document as the tests have it now."""
    lines = []
    for name in MODULES:
        for key, value in vars(load(name)).items():
            statements = getattr(value, "statements", None)
            if key.startswith("test_") and statements:
                promise = " ".join((value.__doc__ or "").split())
                lines.append(
                    f"| {promise} | {', '.join(statements)} | `broker/test_{name}.py::{key}` | holds |"
                )
    defects = []
    for seen, name, key in DEFECTS:
        if not callable(getattr(load(name), key, None)):
            raise LookupError(f"broker/test_{name}.py has no {key}")
        defects.append(f"| {seen} | `broker/test_{name}.py::{key}` |")
    return HEAD + "\n".join(lines) + "\n" + DEFECTS_HEAD + "\n".join(defects) + "\n"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))
    TABLE.write_text(table(), encoding="utf-8")
