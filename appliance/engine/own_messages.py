"""Messages that the appliance publishes in its own name from other threads than the engine's.

Not for: what they say (tasks/outcomes.py, recorders/uploads.py), the status (status_topic.py).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from appliance.broker.door import Door
from appliance.model import OUTCOME_OF, MessageProperties
from appliance.tasks.store import Publication

_LIMIT_S = 10.0


def properties_of(one: Publication) -> MessageProperties:
    """The MQTT 5 properties with which a publication enters the door."""
    return MessageProperties(
        payload_format=1,
        content_type=one.content_type or None,
        correlation_data=one.correlation,
        user_properties=((OUTCOME_OF, one.task),) if one.task else (),
    )


class OwnMessages:
    """Publishes for one thread, which waits until the messages are in the journal.

    What entered the door before the time was over (a slow disk) does not enter again.
    """

    def __init__(
        self, door: Callable[[], Door], wait_for: Callable[[Coroutine[Any, Any, Any], float], Any]
    ) -> None:
        """Nothing is published yet.

        Args:
            door: gives the door.
            wait_for: runs something on the engine's loop, at most so many seconds.
        """
        self._door = door
        self._wait_for = wait_for
        self._entered: dict[int, tuple[Publication, int]] = {}
        """Messages that wait for their commit, by ``id``, and their numbers."""
        self._single: dict[tuple[str, bytes], Publication] = {}

    def publish(self, publications: Sequence[Publication]) -> int:
        """Publish; returns the number of the last message once all are in the journal.

        Raises:
            UnavailableError: not in time; the same objects may be handed in again.
        """
        door, entered = self._door(), self._entered

        async def publish() -> int:
            for one in publications:
                if id(one) in entered:
                    continue
                properties = properties_of(one).encoded()
                seq = door.publish(
                    one.topic,
                    one.payload,
                    qos=one.qos,
                    retain=one.retain,
                    properties=properties,
                )
                entered[id(one)] = (one, seq)
            await door.settled()
            return entered[id(publications[-1])][1]

        newest: int = self._wait_for(publish(), _LIMIT_S)
        for key in [key for key, (_, seq) in entered.items() if seq <= newest]:
            del entered[key]
        return newest

    def publish_one(self, topic: str, payload: bytes) -> int:
        """The same for one message, which is the same one as long as it has not succeeded."""
        one = self._single.setdefault((topic, payload), Publication(topic, payload))
        seq = self.publish([one])
        del self._single[topic, payload]
        return seq
