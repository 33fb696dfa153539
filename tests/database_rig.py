"""A recorder's target without its thread: what it is made of, messages for it, and retries."""

from __future__ import annotations

import json
import time
from collections import Counter as Counts
from collections.abc import Callable, Sequence
from pathlib import Path

from appliance.config.tables import DatabaseConfig, RecorderConfig
from appliance.counters import Counter
from appliance.errors import UnavailableError
from appliance.model import Message
from appliance.recorders.database_waits import TimeLimits, Waits
from appliance.recorders.progress import Progress, ProgressStore
from appliance.recorders.target import Context, Target

INSTALLATION = "abcdefghijkmnpqrstuv"
OWN_KEY = f"{INSTALLATION}/sensors"
TIME_NS = 1_764_447_000_123_456_789
"""2025-11-29 20:10:00.123456 UTC."""
QUICK = TimeLimits(connect_s=2, statement_s=2, answer_s=3)
AT_ONCE = Waits(first_s=0.0, longest_s=0.0, patient_s=0.0)
PATIENCE_S = 60.0


def messages(
    first: int,
    last: int,
    payload: object = None,
    topic: str = "plant/1/press",
) -> list[Message]:
    """Messages with these numbers, the last one included.

    ``payload``: the bytes, a value for JSON, or what makes one of them from the number.
    """
    made = []
    for seq in range(first, last + 1):
        given = payload(seq) if callable(payload) else payload
        if given is None:
            given = {"t": seq / 4, "n": seq}
        value = given if isinstance(given, bytes) else json.dumps(given).encode()
        made.append(Message(seq, TIME_NS + seq * 1000, topic, value, qos=1, client_id="press"))
    return made


class DatabaseRig:
    """One data directory; each ``target`` is a start of its recorder."""

    def __init__(
        self,
        folder: Path,
        url: str,
        make: Callable[..., Target] | None = None,
        *,
        installation: str = INSTALLATION,
        table: str = "messages",
        name: str = "sensors",
        **keys: object,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.store = ProgressStore(folder / "recorders.db")
        self.store.open(time.time_ns())
        if make is None:  # imported here: SQLAlchemy is not everywhere
            from appliance.recorders.sql import SqlTable as make
        self.make = make
        self.counts: Counts[Counter] = Counts()
        self.last_seq = 0
        self.made: list[Target] = []
        config = RecorderConfig(
            topic=str(keys.pop("topic", "plant/#")),
            name=name,
            database=DatabaseConfig(url=url, table=table, password=keys.pop("password", None)),
            **keys,
        )
        self.context = Context(
            config=config,
            key=f"database:{name}",
            name=name,
            data_dir=folder,
            store=self.store,
            parts=None,
            clock_ns=time.time_ns,
            installation=lambda: installation,
            count=lambda counter: self.counts.update([counter]),
            last_seq=lambda: self.last_seq,
            is_stopping=lambda: False,
        )

    @property
    def stored(self) -> Progress:
        """The position that a start would find."""
        return self.store.load().get(self.context.key, Progress("", 0))

    def target(self, stored: Progress | None = None, **more: object) -> Target:
        """The target at a start, which has the position that was stored last."""
        target = self.make(
            self.context, stored or self.stored, **{"limits": QUICK, "waits": AT_ONCE, **more}
        )
        self.made.append(target)
        target.open(lambda _: iter(()))
        return target

    def save(self, target: Target) -> None:
        """Store its position, as its thread does after a batch."""
        rows = target.unsaved().rows
        self.store.save(rows, durable=False)
        target.saved(rows)

    def append(self, target: Target, batch: Sequence[Message]) -> None:
        """Give it a batch once, and store its position."""
        self.last_seq = max(self.last_seq, batch[-1].seq)
        target.append(batch, batch[-1].seq)
        self.save(target)

    def record(self, target: Target, batch: Sequence[Message]) -> list[str]:
        """Give it a batch until it has taken it; returns what was said meanwhile."""
        self.last_seq = max(self.last_seq, batch[-1].seq)
        said: list[str] = []
        end = time.monotonic() + PATIENCE_S
        while target.cursor < batch[-1].seq:
            rest = [message for message in batch if message.seq > target.cursor]
            try:
                target.append(rest, batch[-1].seq)
            except UnavailableError as error:
                said.append(str(error))
                assert time.monotonic() < end, said[-1]
                time.sleep(0.02)
        self.save(target)
        return said

    def close(self) -> None:
        for target in self.made:
            target.finish()
        self.store.close()
