"""All bridges of an appliance: start, stop, another configuration, what the UI sees.

Not for: the life of one (bridge.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from appliance.bridge.account import Kept, read_kept
from appliance.bridge.bridge import Bridge
from appliance.bridge.context import BridgeContext
from appliance.bridge.installation import installation_id
from appliance.bridge.marks import is_looping
from appliance.bridge.store import keep_only, oldest_cursor
from appliance.config.tables import BridgeConfig
from appliance.engine_api import BridgeState
from appliance.journal.follower import Follower
from appliance.model import EncodedProperties

logger = logging.getLogger(__name__)

_SHOWN_ID = 6
"""Characters of the installation id in a default client id."""


class Bridges:
    """The bridges of one appliance. Engine's loop only, but for ``states``."""

    def __init__(self, context: BridgeContext, data_dir: Path) -> None:
        self._context = context
        self._data_dir = data_dir
        self._installation = ""
        self._bridges: dict[str, Bridge] = {}
        self._change: asyncio.Task[None] | None = None
        self._is_stopped = False
        self._hold: Follower | None = None
        """Keeps messages from retention while no bridge is there to do so."""

    async def hold(self) -> None:
        """Keep what has still to go out from retention, until ``start`` has begun the bridges.

        Raises:
            UnavailableError, sqlite3.Error: the journal can't be read.
        """
        journal = self._context.journal
        cursor = await asyncio.to_thread(oldest_cursor, journal)
        if cursor is not None:
            # Known before the listeners open: other appliances' bridges may bring messages back.
            self._installation = await asyncio.to_thread(installation_id, self._data_dir)
            self._hold = journal.follower("bridges", cursor)

    def _release(self) -> None:
        hold, self._hold = self._hold, None
        if hold is not None:
            hold.close()

    async def start(self, configs: Sequence[BridgeConfig]) -> None:
        """Begin to connect; does not wait for any broker.

        Raises:
            ApplianceError: what is kept of the bridges can't be read.
        """
        self._context.door.record(keep_only(each.name for each in configs))
        await self._begin(configs)
        self._release()

    def _read(self, config: BridgeConfig) -> tuple[str, str, Kept]:
        """Installation, client id, and what is kept on the disk. Not on the loop."""
        installation = self._installation or installation_id(self._data_dir)
        client_id = config.client_id or (
            f"{self._context.service_name}-{config.name}-{installation[:_SHOWN_ID]}"
        )
        wants_retained = any(each.retained for each in config.subscribe)
        kept = read_kept(
            self._context.journal,
            config.name,
            client_id=client_id,
            most_digests=self._context.limits().max_retained if wants_retained else 0,
        )
        return installation, client_id, kept

    async def _begin(self, configs: Sequence[BridgeConfig]) -> None:
        """Make all of them first: the first message that one brings goes out by the others."""
        made: list[Bridge] = []
        try:
            for config in configs:
                self._installation, client_id, kept = await asyncio.to_thread(self._read, config)
                bridge = Bridge(
                    config, self._context, client_id, installation=self._installation, kept=kept
                )
                self._bridges[config.name] = bridge
                made.append(bridge)
        finally:
            for bridge in made:
                if not self._is_stopped:
                    bridge.start()

    def is_looping(self, properties: EncodedProperties) -> bool:
        """Whether a client's message has been sent out by a bridge of this appliance before.

        The client is a bridge of another appliance then. Taken in again, the message would go
        round between the two.
        """
        return is_looping(properties, self._installation)

    async def stop(self) -> None:
        """End every bridge in order; returns when all are ended."""
        self._is_stopped = True
        if self._change is not None:
            self._change.cancel()
            await asyncio.wait({self._change})
        await asyncio.gather(*(bridge.stop() for bridge in self._bridges.values()))

    def take(self, configs: Sequence[BridgeConfig]) -> None:
        """Let another configuration count: only bridges that changed are ended or begun.

        Those that wait before they connect again do so now.

        Returns at once; the change goes on by itself, behind an earlier one.
        """
        before = self._change
        self._change = self._context.loop.create_task(self._take(configs, before), name="bridges")

    async def _take(
        self, configs: Sequence[BridgeConfig], before: asyncio.Task[None] | None
    ) -> None:
        if before is not None:
            await asyncio.wait({before})
        wanted = {each.name: each for each in configs}
        ending = [
            bridge for name, bridge in self._bridges.items() if wanted.get(name) != bridge.config
        ]
        try:
            await self.hold()
            # The broker ends the older of two connections with one client id: first out, then in.
            await asyncio.gather(*(bridge.stop() for bridge in ending))
            self._context.door.record(keep_only(wanted))
            await self._context.door.settled()  # what they noted at the end is read below
            for bridge in ending:
                del self._bridges[bridge.config.name]
            await self._begin([one for name, one in wanted.items() if name not in self._bridges])
            for bridge in self._bridges.values():
                bridge.wake()  # the operator may have corrected a file that it reads
        except Exception:
            logger.exception("the bridges could not be changed")
        finally:
            self._release()

    def follow_step(self, step_ns: int) -> None:
        """The clock was set by this: what is shown is as old as before."""
        for bridge in self._bridges.values():
            bridge.follow_step(step_ns)

    def connected(self) -> tuple[str, ...]:
        """The names of those that are connected. Safe from any thread."""
        return tuple(name for name, one in tuple(self._bridges.items()) if one.is_connected)

    def connect_now(self, name: str) -> bool:
        """Let a bridge that waits connect now; returns whether there is such a bridge."""
        bridge = self._bridges.get(name)
        if bridge is not None:
            bridge.wake()
        return bridge is not None

    def acknowledge(self) -> list[str]:
        """An operator knows what was lost or left out; returns that, a sentence each."""
        return [text for bridge in self._bridges.values() for text in bridge.acknowledge()]

    def states(self) -> tuple[BridgeState, ...]:
        """What the UI shows. Safe from any thread."""
        return tuple(bridge.state() for bridge in tuple(self._bridges.values()))
