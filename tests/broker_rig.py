"""What the broker's tests share: a broker with a real journal and sockets, and a packet client.

``Rig`` runs the broker in the test's own loop; ``python tests/broker_rig.py FOLDER`` runs the same
in a process of its own, which a test may kill. ``Wire`` speaks MQTT byte by byte, so that a test
decides what goes over the socket and sees exactly what comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
import ssl
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mqtt5
import pytest
from stand_in_host import session_host
from wine import SLOWNESS

from appliance.bridge.store import BRIDGE_TABLES
from appliance.broker import server
from appliance.broker.access import Access, Terms
from appliance.broker.door import RETAINED_TABLES, Door
from appliance.broker.server import MqttBroker
from appliance.broker.session_store import TABLES as SESSION_TABLES
from appliance.broker.subscriptions import Retained, Subscriptions
from appliance.broker.plugin_classes import plugin_classes
from appliance.broker.plugins import Plugins
from appliance.config.tables import (
    AccessConfig,
    AccessPlugin,
    AccessRule,
    LimitsConfig,
    ListenerConfig,
    TlsConfig,
)
from appliance.config.values import Duration, Settings
from appliance.journal.journal import Journal
from appliance.journal.batch import Batch
from appliance.model import Message
from appliance.mqtt.packets import encode_length
from appliance.broker.users import Users

PATIENCE_S = 30.0 * SLOWNESS
"""A wait ends with its event; this only bounds how long a failure takes on a busy machine."""

# The broker looks for what is overdue ten times a second here, so that no test waits long for it.
server._SWEEP_S = 0.1

TCP = ListenerConfig(name="tcp", bind="127.0.0.1:0", max_connections=5000)
PLENTY = {"max_connections": 5000, "max_connections_per_address": 5000, "max_unauthenticated": 2000}


class Rig:
    """A broker with all that it needs, started with ``async with``."""

    def __init__(
        self,
        folder: Path,
        *,
        listeners: tuple[ListenerConfig, ...] = (TCP,),
        users: Path | None = None,
        anonymous: bool = True,
        rules: tuple[AccessRule, ...] = (),
        client_ids: tuple[str, ...] = (),
        sync: str = "os",
        observe: Any = None,
        host: Any = None,
        plugins: tuple[AccessPlugin, ...] = (),
        plugin_timeout: float = 5.0,
        plugin_cache: float = 10.0,
        will_grace: float = 30.0,
        **limits: Any,
    ) -> None:
        self.folder = folder
        self.listeners = listeners
        self.limits = LimitsConfig(**{**PLENTY, **limits})
        self.users = None if users is None else Users(users)
        self.anonymous = anonymous
        self.rules = rules
        self.access_config = AccessConfig(
            rule=rules,
            client_ids=client_ids,
            plugins=plugins,
            plugin_timeout=Duration(plugin_timeout),
            plugin_cache=Duration(plugin_cache),
        )
        self.plugins: Plugins | None = None
        self.sync = sync
        self.counters: Counter[str] = Counter()
        self.now_offset_ns = 0
        self.will_grace = will_grace
        self.host = host
        self.observe = observe or (lambda _messages: None)

    def clock_ns(self) -> int:
        return time.time_ns() + self.now_offset_ns

    async def __aenter__(self) -> Rig:
        self.folder.mkdir(exist_ok=True)
        self.executor = ThreadPoolExecutor(4)
        self.journal = Journal(
            self.folder / "journal.db",
            sync=self.sync,
            keep_s=86400,
            max_bytes=10**10,
            clock_ns=self.clock_ns,
        )
        self.journal.define(RETAINED_TABLES)
        self.journal.define(SESSION_TABLES)
        self.journal.define(BRIDGE_TABLES)
        self.subscriptions = Subscriptions()
        self.retained = Retained(self.limits.max_retained, int(self.limits.max_retained_size))
        self.journal.start(lambda *committed: self.door.committed(*committed))
        self.door = Door(
            self.journal,
            subscriptions=self.subscriptions,
            retained=self.retained,
            loop=asyncio.get_running_loop(),
            clock_ns=self.clock_ns,
            max_pending=self.limits.max_pending,
            own_client_id="$appliance",
            observe=self._observe,
            count=self.count,
        )
        self.door.fanned_out_seq = self.journal.last_seq
        self.door.load_retained()
        if self.access_config.plugins:
            self.plugins = Plugins(
                plugin_classes(self.access_config),
                timeout_s=self.access_config.plugin_timeout,
                cache_s=self.access_config.plugin_cache,
                count=self.count,
            )
            await self.plugins.start()
        self.access = Access(
            Terms(
                self.access_config,
                self.users,
                anonymous=self.anonymous,
                open_without_users=self.anonymous,
            ),
            reserved="appliance",
            executor=self.executor,
            clock=time.monotonic,
            count=self.count,
            plugins=self.plugins,
        )
        self.broker = MqttBroker(
            listeners=self.listeners,
            limits=self.limits,
            access=self.access,
            subscriptions=self.subscriptions,
            retained=self.retained,
            door=self.door,
            host=self.host or session_host(),
            records=self.journal,
            executor=self.executor,
            counters=self.counters,
            clock_ns=self.clock_ns,
            plugins=self.plugins,
            will_grace_s=self.will_grace,
        )
        await self.broker.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await hang_up()
        await self.broker.stop()
        if self.plugins is not None:
            await self.plugins.stop()
        await asyncio.to_thread(self.journal.close, 10)
        self.executor.shutdown()

    def _observe(self, messages: Any) -> None:
        self.observe(messages)
        if self.plugins is not None and self.plugins.hear_messages:
            self.plugins.received(messages)

    def count(self, name: str) -> None:
        self.counters[name] += 1

    @property
    def port(self) -> int:
        return next(iter(self.broker.ports.values()))

    def journaled(self, topic: str | None = None) -> list[Message]:
        everything = self.journal.read(0, 10**9, 10**12)
        return [m for m in everything if topic is None or m.topic == topic]

    async def settled(self) -> None:
        """Everything that has reached the broker by now is committed and handed on."""
        await self.door.settled()

    async def until(self, condition: Any) -> None:
        """Wait for something that the broker does by itself."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await asyncio.sleep(0.01)

    async def wire(self, version: int = 4, **options: Any) -> Wire:
        """A client that is connected and accepted."""
        wire = await self.socket(version)
        await wire.connect(**options)
        return wire

    async def socket(self, version: int = 4) -> Wire:
        """A client that has opened its socket and sent nothing."""
        wire = await Wire.open(self.port, version)
        wire.settled = self.settled
        return wire


def hold_commits(monkeypatch: Any) -> threading.Event:
    """Hold every commit of a journal until the event is set."""
    go = threading.Event()
    write = Batch.write

    def later(batch: Batch, connection: sqlite3.Connection) -> None:
        assert go.wait(PATIENCE_S)
        write(batch, connection)

    monkeypatch.setattr(Batch, "write", later)
    return go


def plugin(path: str, *, keep_password: bool = False, **settings: object) -> AccessPlugin:
    """A plugin with its settings; a name alone is one of plugins_for_tests.py."""
    return AccessPlugin(
        plugin_class=path if "." in path else f"plugins_for_tests.{path}",
        settings=Settings(settings),
        keep_password=keep_password,
    )


class Packet:
    """A packet from the broker; its body, and for what has them, its fields."""

    def __init__(self, version: int, first: int, body: bytes, raw: bytes) -> None:
        self.kind = first >> 4
        self.flags = first & 15
        self.body = body
        self.raw = raw
        self.v5: Any = None
        if version == 5 and self.kind in (2, 3, 14) and len(raw) > 5:
            self.v5, used = mqtt5.read(memoryview(raw))
            assert used == len(raw)
        if self.kind == 3:
            self.qos = self.flags >> 1 & 3
            self.retain = bool(self.flags & 1)
            self.dup = bool(self.flags & 8)
            size = struct.unpack_from(">H", body)[0]
            self.topic = body[2 : 2 + size].decode()
            rest = body[2 + size :]
            self.id = 0
            if self.qos:
                self.id = struct.unpack_from(">H", rest)[0]
                rest = rest[2:]
            self.payload = rest if version == 4 else self.v5.payload if self.v5 else rest[1:]
        elif self.kind in (4, 5, 6, 7, 9, 11):
            self.id = struct.unpack_from(">H", body)[0]
            if version == 4:
                self.codes = list(body[2:])
            elif self.kind in (9, 11):
                assert body[2] == 0
                self.codes = list(body[3:])
            else:
                self.codes = [body[2]] if len(body) > 2 else [0]

    def __repr__(self) -> str:
        return f"<packet {self.kind} flags {self.flags:#x} {self.body[:60]!r}>"


def packet(first: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return bytes((first,)) + encode_length(len(body)) + body


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack(">H", len(data)) + data


def number(value: int) -> bytes:
    return struct.pack(">H", value)


class Closed(Exception):
    """The broker closed the connection."""


_opened: list[Wire] = []


async def hang_up() -> None:
    """Abort every connection that a test has opened."""
    while _opened:
        _opened.pop().abort()
    await asyncio.sleep(0)


class Wire:
    """One connection of a test's own making."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, version: int
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.version = version
        self.published = 0
        self.settled: Callable[[], Awaitable[None]] | None = None
        """Waits until the broker has handed on what it has taken."""

    @classmethod
    async def open(
        cls,
        port: int,
        version: int = 4,
        *,
        host: str = "127.0.0.1",
        tls: Any = None,
        source: str | None = None,
    ) -> Wire:
        local = None if source is None else (source, 0)
        reader, writer = await asyncio.open_connection(host, port, ssl=tls, local_addr=local)
        wire = cls(reader, writer, version)
        _opened.append(wire)
        return wire

    # --- what a client sends ---

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def connect_packet(
        self,
        client_id: str = "tester",
        *,
        clean: bool = True,
        keepalive: int = 0,
        username: str | None = None,
        password: bytes | None = None,
        will: tuple[str, bytes, int, bool] | None = None,
        **more: Any,
    ) -> bytes:
        if self.version == 5:
            told = None
            if will is not None:
                told = mqtt5.Will(
                    will[0],
                    payload=will[1],
                    qos=mqtt5.QoS(will[2]),
                    retain=will[3],
                    will_delay_interval=more.pop("will_delay", 0),
                )
            return mqtt5.ConnectPacket(
                client_id,
                clean_start=clean,
                keep_alive=keepalive,
                username=username,
                password=password,
                will=told,
                session_expiry_interval=more.pop("expiry", 0 if clean else 0xFFFFFFFF),
                **more,
            ).write()
        flags = 2 if clean else 0
        payload = text(client_id)
        if will is not None:
            flags |= 4 | will[2] << 3 | (32 if will[3] else 0)
            payload += text(will[0]) + text(will[1])
        if username is not None:
            flags |= 128
            payload += text(username)
        if password is not None:
            flags |= 64
            payload += text(password)
        return packet(0x10, text("MQTT"), bytes((self.version, flags)), number(keepalive), payload)

    async def connect(self, client_id: str = "tester", **options: Any) -> Packet:
        """Connect and expect to be accepted; returns the CONNACK."""
        self.send(self.connect_packet(client_id, **options))
        answer = await self.expect(2)
        assert answer.body[1] == 0, f"refused with {answer.body[1]:#x}"
        return answer

    def publish_packet(
        self,
        topic: str,
        payload: bytes = b"x",
        qos: int = 0,
        *,
        id: int = 0,
        retain: bool = False,
        dup: bool = False,
        **properties: Any,
    ) -> bytes:
        if qos and not id:
            self.published = id = self.published % 65535 + 1
        if self.version == 5:
            return mqtt5.PublishPacket(
                topic,
                payload,
                qos=mqtt5.QoS(qos),
                retain=retain,
                duplicate=dup,
                packet_id=id if qos else None,
                **properties,
            ).write()
        first = 0x30 | (8 if dup else 0) | qos << 1 | (1 if retain else 0)
        return packet(first, text(topic), number(id) if qos else b"", payload)

    def publish(self, topic: str, payload: bytes = b"x", qos: int = 0, **options: Any) -> None:
        self.send(self.publish_packet(topic, payload, qos, **options))

    async def publish_acked(
        self, topic: str, payload: bytes = b"x", qos: int = 1, **options: Any
    ) -> Packet:
        """Publish and go through the whole exchange; returns the last answer."""
        self.publish(topic, payload, qos, **options)
        answer = await self.expect({1: 4, 2: 5}[qos])
        if qos == 1 or answer.codes[:1] > [0]:
            return answer
        self.ack(6, answer.id)
        return await self.expect(7)

    def ack(self, kind: int, id: int, reason: int | None = None) -> None:
        first = kind << 4 | (2 if kind == 6 else 0)
        self.send(packet(first, number(id), b"" if reason is None else bytes((reason,))))

    def subscribe_packet(self, *filters: tuple[str, int] | str, id: int = 9, **more: Any) -> bytes:
        wanted = [(each, 0) if isinstance(each, str) else each for each in filters]
        properties = b""
        if self.version == 5:
            identifier = more.pop("identifier", None)
            properties = b"\0"
            if identifier is not None:
                inner = b"\x0b" + encode_length(identifier)
                properties = encode_length(len(inner)) + inner
        extra = (
            (4 if more.pop("no_local", False) else 0)
            | (8 if more.pop("retain_as_published", False) else 0)
            | more.pop("retain_handling", 0) << 4
        )
        body = b"".join(text(name) + bytes((qos | extra,)) for name, qos in wanted)
        return packet(0x82, number(id), properties, body)

    async def subscribe(self, *filters: tuple[str, int] | str, **options: Any) -> list[int]:
        """Subscribe; returns the reason codes."""
        self.send(self.subscribe_packet(*filters, **options))
        answer = await self.expect(9)
        return answer.codes

    async def unsubscribe(self, *filters: str, id: int = 10) -> list[int]:
        body = b"".join(text(name) for name in filters)
        self.send(packet(0xA2, number(id), b"\0" if self.version == 5 else b"", body))
        answer = await self.expect(11)
        assert answer.id == id
        return answer.codes

    def disconnect(self, reason: int | None = None) -> None:
        self.send(packet(0xE0, b"" if reason is None else bytes((reason,))))

    async def ping(self) -> None:
        """After this, everything that was sent before has been looked at."""
        self.send(b"\xc0\x00")
        await self.expect(13)

    def abort(self) -> None:
        """Go away without a word."""
        with contextlib.suppress(AttributeError):  # of a closed TLS transport, in Python 3.11.2
            self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await self.writer.wait_closed()

    # --- what it receives ---

    async def receive(self) -> Packet:
        """The next packet; raises ``Closed`` if there will be none."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                raw = await self.reader.readexactly(2)
                shift = size = 0
                while True:
                    digit = raw[-1]
                    size |= (digit & 127) << shift
                    if digit < 128:
                        break
                    shift += 7
                    raw += await self.reader.readexactly(1)
                body = await self.reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Closed from error
        return Packet(self.version, raw[0], body, raw + body)

    async def expect(self, kind: int) -> Packet:
        """The next packet, which must be of this kind."""
        answer = await self.receive()
        assert answer.kind == kind, f"expected {kind}, got {answer}"
        return answer

    async def message(self) -> Packet:
        return await self.expect(3)

    async def messages(self, count: int, *, ack: bool = True) -> list[Packet]:
        """So many messages, acknowledged to the end."""
        found: list[Packet] = []
        releases = 0
        while len(found) < count or releases:
            answer = await self.receive()
            if answer.kind == 3:
                found.append(answer)
                if ack and answer.qos:
                    self.ack(4 if answer.qos == 1 else 5, answer.id)
                    releases += answer.qos == 2
            elif answer.kind == 6:
                releases -= 1
                self.ack(7, answer.id)
            else:
                raise AssertionError(f"unexpected {answer}")
        return found

    async def closed(self) -> Packet | None:
        """Wait until the broker closes; returns the last packet before that, if there was one."""
        last = None
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    last = await self.receive()
        except Closed:
            return last

    async def nothing_more_until(self, condition: Any) -> None:
        """Nothing has come when this is the case."""
        while not condition():
            await asyncio.sleep(0.01)
        assert not self.reader._buffer

    async def nothing_more(self) -> None:
        """Nothing but the answers to pings comes: all that was to come has come.

        A ping is answered at once, a message is handed on when it is on disk. So what was sent
        before is waited for in between.
        """
        await self.ping()
        if self.settled is not None:
            await self.settled()
            await self.ping()


def tls_listener(files: dict[str, Path], *, client_ca: bool = False, **more: Any) -> ListenerConfig:
    return ListenerConfig(
        tls=TlsConfig(
            certfile=str(files["server"]),
            keyfile=str(files["server_key"]),
            client_ca=str(files["ca"]) if client_ca else None,
        ),
        **{"bind": "127.0.0.1:0", **more},
    )


@pytest.fixture
async def rig(tmp_path: Path) -> Any:
    """A broker on loopback that lets everybody in."""
    async with Rig(tmp_path / "data") as running:
        yield running


both = pytest.mark.parametrize("version", [4, 5], ids=["v311", "v5"])


def states(*statements: str) -> Any:
    """Which normative statements of the specifications a test is about (docs/conformance.md)."""

    def mark(function: Any) -> Any:
        function.statements = statements
        return function

    return mark


async def _main() -> None:
    """Serve until SIGTERM: ``FOLDER [always|os] [GRACE]``. The first line of output is the port."""
    stop = asyncio.Event()
    with contextlib.suppress(NotImplementedError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    sync = sys.argv[2] if len(sys.argv) > 2 else "always"
    grace = float(sys.argv[3]) if len(sys.argv) > 3 else 30.0
    async with Rig(Path(sys.argv[1]), sync=sync, will_grace=grace) as rig:
        print(rig.port, flush=True)
        await stop.wait()
    print("stopped", flush=True)


if __name__ == "__main__":
    try:
        from uvloop import new_event_loop
    except ImportError:  # Windows
        new_event_loop = None

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_main())
