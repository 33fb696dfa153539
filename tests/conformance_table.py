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

HEAD = """# Conformance with MQTT 3.1.1 and MQTT 5

What the two standards prescribe for servers where a client can observe it, and the tests that
hold the appliance to it over real sockets. `MQTT-...` are the numbers of the statements in the
[OASIS standard MQTT 3.1.1](https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/mqtt-v3.1.1.html),
`MQTT5-...` those of [MQTT 5](https://docs.oasis-open.org/mqtt/mqtt/v5.0/mqtt-v5.0.html). A test
that is about both runs once with each version.

All statements below hold: `pytest tests/integration -k broker` runs every one of them. The table
is written by `python tests/conformance_table.py` and a test compares it with what is there.

Where the standards leave a choice, the appliance

- refuses MQTT 3.1 (`MQIsdp`) with the code for an unacceptable protocol version;
- ends the connection of a 3.1.1 client that publishes where it may not, because 3.1.1 has no other
  way to say no, and answers an MQTT 5 client with reason 0x87 at QoS 1 and 2;
- lets no client publish to topics that begin with `$`, or to the appliance's own topics;
- refuses a client id that another user's connected client has;
- sends a message to overlapping subscriptions once, at the highest of their QoS;
- drops the oldest message when a client's queue is full, and counts it;
- does not publish wills when it is stopped in order, nor those of clients that were connected when
  it was killed;
- sends the messages that a shared subscription's members had not acknowledged to nobody else when
  it is restarted.

| Promise | Statements | Test |
|---|---|---|
"""


def load(name: str) -> ModuleType:
    """Import a test module by its path."""
    path = ROOT / "tests" / "integration" / f"test_broker_{name}.py"
    spec = importlib.util.spec_from_file_location(f"conformance_{name}", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
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
                    f"| {promise} | {', '.join(statements)} | `test_broker_{name}.py::{key}` |"
                )
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))
    TABLE.write_text(table(), encoding="utf-8")
