"""Which messages are a second delivery of one that was acted on already.

A client that did not get the acknowledgement sends the message again with the DUP flag, mostly on
its next connection, and the journal then holds it twice. What is certain: a redelivery comes from
the same client id with DUP, the same packet identifier, topic and payload (MQTT 3.1.1, sections
3.3.1.1 and 4.4), and never before its original. So a message without DUP is always news, and one
with DUP is a redelivery if the same was seen from the same client within the window. A client
uses a packet identifier again only after the acknowledgement and clients count upwards, so the
window can be a day. Where the packet identifier is not known, two messages of the same content
can't be told apart and the window is ten minutes.

A bridge decides for itself what its broker sent again (bridge/repeats.py): what it brings in with
DUP is a repeat of a message that stands before it in the journal, however long ago. What comes by
HTTP is news each time: a repeated request is answered before it becomes a message
(broker/publication_keys.py).

Not for: QoS 2, whose redeliveries the broker itself drops; they are treated the same here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from hashlib import blake2b

from appliance.model import HTTP_CLIENT, Message, bridge_of

WINDOW_S = 86400.0
WINDOW_WITHOUT_ID_S = 600.0
MAX_REMEMBERED = 100_000
"""Messages; the oldest are forgotten first (``Counter.SIGHTINGS_FORGOTTEN``)."""


class Redeliveries:
    """Memory of what was acted on. Not thread-safe."""

    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, int] = OrderedDict()
        self.forgotten = 0

    def load(self, sightings: Iterable[tuple[bytes, int]]) -> None:
        """Take up what earlier runs of the appliance remembered, oldest first."""
        for digest, at_ns in sightings:
            self._remember(digest, at_ns)

    def shift(self, step_ns: int) -> None:
        """The clock was set by this: what was seen is as old as before."""
        self._seen = OrderedDict((digest, at + step_ns) for digest, at in self._seen.items())

    def is_redelivery(self, message: Message) -> bool:
        """Whether this message was seen before."""
        if bridge_of(message.client_id):
            return message.dup
        if not message.dup or message.qos == 0:
            return False
        at_ns = self._seen.get(_digest(message))
        if at_ns is None:
            return False
        window_s = WINDOW_S if message.packet_id else WINDOW_WITHOUT_ID_S
        return message.received_ns - at_ns <= window_s * 1e9

    def note(self, message: Message) -> tuple[bytes, int] | None:
        """Remember a message; returns what is to be kept on disk, if it can be redelivered."""
        if message.qos == 0 or message.client_id == HTTP_CLIENT or bridge_of(message.client_id):
            return None
        digest = _digest(message)
        self._remember(digest, message.received_ns)
        return digest, message.received_ns

    def _remember(self, digest: bytes, at_ns: int) -> None:
        self._seen[digest] = at_ns
        self._seen.move_to_end(digest)
        if len(self._seen) > MAX_REMEMBERED:
            self._seen.popitem(last=False)
            self.forgotten += 1


def _digest(message: Message) -> bytes:
    digest = blake2b(digest_size=16)
    for part in (message.client_id.encode(), message.topic.encode(), message.payload):
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    digest.update(message.packet_id.to_bytes(2, "big"))
    return digest.digest()
