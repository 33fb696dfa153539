"""One connection's questions to the plugins about topics."""

from __future__ import annotations

import asyncio
from collections import Counter as Tally

from amqtt.contexts import Action

from appliance.broker.plugin_gate import TopicGate
from appliance.counters import Counter


def gate(ask, counts: Tally[Counter]) -> TopicGate:
    """A gate that remembers no answers."""
    return TopicGate(lambda _topic, _action: None, ask, lambda counter: counts.update([counter]))


async def test_one_subscribe_may_name_a_filter_twice() -> None:
    """Both are granted, and a filter that the next packet does not name has no answer left."""

    async def yes(_topic: str, _action: Action) -> bool:
        return True

    asked = gate(yes, Tally())
    await asked.ask_subscribe(["plant/#", "plant/#"])
    assert [asked.may_subscribe("plant/#") for _ in range(2)] == [True, True]
    await asked.ask_subscribe(["other"])
    assert not asked.may_subscribe("plant/#")


async def test_an_error_while_a_plugin_is_asked_stops_no_deliveries() -> None:
    """That message is left out and counted; the next one is asked about again."""
    counts: Tally[Counter] = Tally()
    errors = [RuntimeError("never seen before")]

    async def ask(_topic: str, _action: Action) -> bool:
        if errors:
            raise errors.pop()
        return True

    asked = gate(ask, counts)
    for expected in (False, True):
        known = asyncio.Event()
        assert asked.may_receive("plant/line", known.set) is None
        await asyncio.wait_for(known.wait(), 10)
        assert asked.may_receive("plant/line", known.set) is expected
    assert counts == {Counter.INTERNAL_ERRORS: 1}
