"""What every bridge of an appliance needs of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field

from appliance.bridge.backoff import Pace
from appliance.broker.door import Door
from appliance.broker.work import Turns
from appliance.config.tables import LimitsConfig
from appliance.counters import Count
from appliance.journal.journal import Journal


@dataclass(frozen=True, slots=True)
class BridgeContext:
    """The parts that bridges share. Engine's loop only."""

    loop: asyncio.AbstractEventLoop
    door: Door
    journal: Journal
    turns: Turns
    limits: Callable[[], LimitsConfig]
    """The bounds that count now; a reload changes them."""
    executor: Executor
    """For what reads files."""
    service_name: str
    clock_ns: Callable[[], int]
    count: Count
    pace: Pace = field(default_factory=Pace)
    chance: Callable[[], float] | None = None
    """Gives numbers from 0 to 1; ``None``: random ones."""
