"""What the tests of bridges share: bridges over a real door and journal, and a broker by script.

``BridgeRig`` is the rig of the broker's tests with bridges; its own listener takes clients, so a
test sees whether they are served. ``ScriptedRemote`` is a broker on a real socket that does what a
test tells it, packet by packet.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

from broker_rig import PATIENCE_S, Rig

from appliance.bridge.backoff import Pace
from appliance.bridge.bridges import Bridges
from appliance.bridge.context import BridgeContext
from appliance.config.tables import BridgeConfig, BridgePublishConfig, BridgeSubscribeConfig
from appliance.config.values import Duration, Size
from appliance.engine_api import BridgeState
from appliance.mqtt.packets import encode_length

QUICK = Pace(first_s=0.01, longest_s=0.05, patient_s=0.05, takeover_s=0.1, stable_s=30.0)
"""Waits that a test can afford."""
CONNACK = b"\x20\x02\x00\x00"
SESSION_PRESENT = b"\x20\x02\x01\x00"


def bridge(port: int, *topics: str | BridgeSubscribeConfig, **keys: Any) -> BridgeConfig:
    """A bridge named plant to a port of this machine."""
    for name in ("keepalive", "connect_timeout", "session_expiry"):
        if name in keys:
            keys[name] = Duration(keys[name])
    if "max_packet_size" in keys:
        keys["max_packet_size"] = Size(keys["max_packet_size"])
    keys.setdefault("name", "plant")
    keys.setdefault("host", "127.0.0.1")
    return BridgeConfig(
        port=port,
        subscribe=tuple(
            BridgeSubscribeConfig(topic=each) if isinstance(each, str) else each for each in topics
        ),
        **keys,
    )


def sends(*topics: str) -> tuple[BridgePublishConfig, ...]:
    """What goes out."""
    return tuple(BridgePublishConfig(topic=each) for each in topics)


class BridgeRig(Rig):
    """The broker's rig, with bridges: ``async with BridgeRig(folder, bridge(port, "#"))``."""

    def __init__(
        self, folder: Path, *configs: BridgeConfig, pace: Pace = QUICK, **more: Any
    ) -> None:
        super().__init__(folder, **more)
        self.configs = configs
        self.pace = pace

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        try:
            self.bridges = Bridges(self._bridge_context(), self.folder)
            await self.bridges.start(self.configs)
        except BaseException:
            await super().__aexit__()
            raise
        return self

    def _bridge_context(self) -> BridgeContext:
        return BridgeContext(
            loop=asyncio.get_running_loop(),
            door=self.door,
            journal=self.journal,
            turns=self.broker.turns,
            limits=lambda: self.limits,
            executor=self.executor,
            service_name="appliance",
            clock_ns=self.clock_ns,
            count=self.count,
            pace=self.pace,
        )

    async def __aexit__(self, *error: object) -> None:
        try:
            await self.bridges.stop()
        finally:
            await super().__aexit__(*error)

    def state(self, name: str = "plant") -> BridgeState:
        return next(each for each in self.bridges.states() if each.name == name)

    async def connected(self, name: str = "plant") -> BridgeState:
        """Wait until a bridge is connected and every filter is granted."""
        await self.until(
            lambda: (
                (state := self.state(name)).connected
                and all(each.granted is not None for each in state.subscriptions)
            )
        )
        return self.state(name)

    async def came(self, count: int, topic: str | None = None) -> list[Any]:
        """Wait until so many messages are in the journal; returns them."""
        await self.until(lambda: len(self.journaled(topic)) >= count)
        return self.journaled(topic)

    async def failed(self, text: str, name: str = "plant") -> BridgeState:
        """Wait until the last error of a bridge has a text."""
        async with asyncio.timeout(PATIENCE_S):
            while text not in self.state(name).last_error:
                await asyncio.sleep(0.01)
        return self.state(name)


class Peer:
    """One connection of a bridge to a scripted remote."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def read(self) -> tuple[int, bytes]:
        """The next packet: its type and its body."""
        async with asyncio.timeout(PATIENCE_S):
            first = (await self.reader.readexactly(1))[0]
            size = shift = 0
            while True:
                digit = (await self.reader.readexactly(1))[0]
                size |= (digit & 127) << shift
                shift += 7
                if digit < 128:
                    break
            return first >> 4, await self.reader.readexactly(size)

    async def expect(self, kind: int) -> bytes:
        """The body of the next packet of this type; pings before it are answered."""
        while True:
            found, body = await self.read()
            if found == kind:
                return body
            assert found == 12, f"packet type {found} instead of {kind}"
            self.send(b"\xd0\x00")

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def send_packet(self, first: int, body: bytes) -> None:
        self.send(bytes((first,)) + encode_length(len(body)) + body)

    def publish(
        self,
        topic: str | bytes,
        payload: bytes = b"x",
        *,
        qos: int = 1,
        id: int = 1,
        dup: bool = False,
        retain: bool = False,
        properties: bytes | None = None,
    ) -> None:
        raw = topic.encode() if isinstance(topic, str) else topic
        body = len(raw).to_bytes(2, "big") + raw + (id.to_bytes(2, "big") if qos else b"")
        if properties is not None:
            body += encode_length(len(properties)) + properties
        self.send_packet(0x30 | dup << 3 | qos << 1 | retain, body + payload)

    async def accept(self, *, connack: bytes = CONNACK, filters: int = 0) -> list[str]:
        """Accept the bridge and grant its subscriptions; returns their filters."""
        await self.expect(1)
        self.send(connack)
        granted = []
        for _ in range(filters):
            body = await self.expect(8)
            is_5 = len(connack) > 4
            at = 3 if is_5 else 2
            size = int.from_bytes(body[at : at + 2], "big")
            granted.append(body[at + 2 : at + 2 + size].decode())
            self.send_packet(0x90, body[:2] + (b"\0" if is_5 else b"") + bytes((body[-1] & 3,)))
        return granted

    async def serve(self) -> None:
        """Answer pings until the bridge says goodbye."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                kind, _ = await self.read()
                if kind == 12:
                    self.send(b"\xd0\x00")
                elif kind == 14:
                    break
        self.close()

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        self.writer.transport.abort()


class ScriptedRemote:
    """A broker that does what ``script(peer, number)`` does with each connection, from 0 on."""

    def __init__(
        self,
        script: Callable[[Peer, int], Awaitable[None]],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._script = script
        self._tls = tls
        self.connections = 0
        self.failures: list[BaseException] = []
        """What went wrong in the script; a bridge that hangs up is no failure."""
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        if error[0] is None and self.failures:
            raise self.failures[0]

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self.connections
        self.connections += 1
        self._writers.append(writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._script(Peer(reader, writer), number)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except Exception as error:  # noqa: BLE001 - the test fails with it
            self.failures.append(error)
        except asyncio.CancelledError:
            pass
        finally:
            self._tasks.discard(task)
