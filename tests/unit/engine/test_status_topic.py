"""The appliance's status for everybody who subscribes."""

from __future__ import annotations

import json

from msgspec.structs import replace
from plain_engine import PlainEngine

from appliance.engine.status_topic import MAX_HOLDS_TOLD, StatusTopic
from appliance.engine_api import Health, HoldState


class Door:
    def __init__(self) -> None:
        self.published: list[tuple[str, bytes]] = []

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        assert retain
        self.published.append((topic, payload))


def test_many_holds_are_counted_and_the_oldest_are_told() -> None:
    """A thousand would be a message of hundreds of kilobytes, twice a minute."""
    held = tuple(
        HoldState("client", f"press-{number}", None, "", "ann", number) for number in range(1000)
    )
    found = replace(PlainEngine().snapshot(), holds=held)
    door = Door()
    status = StatusTopic(
        snapshot=lambda: found,
        connected=list,
        holds=lambda: held,
        journal_health=lambda: Health("ok", ""),
        door=door,
        retained=None,
    )
    status.tick(1)
    status.tick(2)
    ((topic, payload),) = door.published
    body = json.loads(payload)
    assert topic == f"{found.name}/status"
    assert body["holdCount"] == 1000
    assert [one["name"] for one in body["holds"]] == [f"press-{n}" for n in range(MAX_HOLDS_TOLD)]
