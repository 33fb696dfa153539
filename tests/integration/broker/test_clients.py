"""The clients that people use, over every kind of listener."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
import sys
import threading
from pathlib import Path

import aiomqtt
import certificates
import paho.mqtt.client as paho
import pytest
from broker_rig import Rig, Wire, both, hang_up
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties

from appliance.counters import Counter
from appliance.broker.access import Terms
from appliance.config.tables import AccessConfig, ListenerConfig, TlsConfig

CLIENT = Path(__file__).with_name("mqttjs_client.mjs")


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def everywhere(tmp_path, files):
    """A broker with a listener of every kind."""
    tls = TlsConfig(certfile=files.server, keyfile=files.server_key)
    strict = TlsConfig(certfile=files.server, keyfile=files.server_key, client_ca=files.root)
    here = "127.0.0.1:0"
    listeners = [
        ListenerConfig(name="tcp", bind=here),
        ListenerConfig(name="tls", bind=here, tls=tls),
        ListenerConfig(name="mutual", bind=here, tls=strict),
        ListenerConfig(name="ws", bind=here, transport="websocket"),
        ListenerConfig(name="wss", bind=here, transport="websocket", tls=tls),
    ]
    if has_ipv6():
        listeners.append(ListenerConfig(name="tcp6", bind="[::1]:0"))
    async with Rig(tmp_path / "data", listeners=tuple(listeners)) as running:
        yield running


async def run(*command: str, **environment: str) -> str:
    """Run a program to its end; returns its output."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **environment},
    )
    try:
        output = (await asyncio.wait_for(process.communicate(), 30))[0].decode()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, output
    return output


def mosquitto(port: int, version: int, files: certificates.Certificates, kind: str) -> list[str]:
    options = ["-h", "::1" if kind == "tcp6" else "localhost" if kind != "tcp" else "127.0.0.1"]
    options += ["-p", str(port), "-V", "mqttv5" if version == 5 else "mqttv311"]
    if kind in ("tls", "mutual"):
        options += ["--cafile", files.root]
    if kind == "mutual":
        options += ["--cert", files.client, "--key", files.client_key]
    return options


@pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="mosquitto's clients are missing")
@pytest.mark.parametrize(
    ("version", "kind"),
    [(4, "tcp"), (5, "tcp"), (4, "tls"), (5, "mutual"), (4, "mutual"), (4, "tcp6"), (5, "tcp6")],
)
async def test_mosquitto_clients(everywhere, files, version, kind):
    """mosquitto_pub and mosquitto_sub work in both versions, with TLS and client certificates."""
    if kind not in everywhere.broker.ports:
        pytest.skip("this machine has no IPv6")
    options = mosquitto(everywhere.broker.ports[kind], version, files, kind)
    reading = asyncio.create_task(
        run("mosquitto_sub", *options, "-t", "clients/#", "-q", "2", "-C", "3", "-F", "%t %p %q")
    )
    await everywhere.until(lambda: len(everywhere.subscriptions) == 1)
    for qos in "012":
        await run("mosquitto_pub", *options, "-t", "clients/m", "-m", f"m{qos}", "-q", qos)
    assert (await reading).split("\n")[:3] == [f"clients/m m{qos} {qos}" for qos in "012"]


class Paho:
    """paho-mqtt in its own thread."""

    def __init__(self, version: int, transport: str) -> None:
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"paho-{version}-{transport}",
            protocol=MQTTProtocolVersion(version),
            transport=transport,
        )
        self.got: list[tuple[str, bytes, int]] = []
        self.done = threading.Event()
        self.failed = threading.Event()
        self.client.on_connect = self._connected
        self.client.on_subscribe = self._subscribed
        self.client.on_message = self._message

    def _connected(self, client, _userdata, _flags, reason, _properties) -> None:
        if reason.is_failure:
            self.failed.set()
        else:
            client.subscribe("clients/#", 2)

    def _subscribed(self, client, *_rest) -> None:
        for qos in (0, 1, 2):
            client.publish("clients/paho", b"m%d" % qos, qos)

    def _message(self, _client, _userdata, message) -> None:
        self.got.append((message.topic, message.payload, message.qos))
        if len(self.got) == 3:
            self.done.set()

    def talk(self, port: int) -> None:
        self.client.connect("localhost" if self.client._ssl else "127.0.0.1", port)
        self.client.loop_start()
        try:
            assert self.done.wait(10)
        finally:
            self.client.disconnect()
            self.client.loop_stop()


@both
@pytest.mark.parametrize("kind", ["tcp", "tls", "mutual", "ws", "wss"])
async def test_paho(everywhere, files, version, kind):
    """paho-mqtt publishes and receives at every QoS over every kind of listener."""
    client = Paho(version, "websockets" if kind.startswith("ws") else "tcp")
    if kind in ("tls", "wss"):
        client.client.tls_set(files.root)
    elif kind == "mutual":
        client.client.tls_set(files.root, files.client, files.client_key)
    await asyncio.to_thread(client.talk, everywhere.broker.ports[kind])
    assert sorted(client.got) == [("clients/paho", b"m%d" % qos, qos) for qos in (0, 1, 2)]


@both
async def test_paho_clean_start_and_properties(everywhere, version):
    """paho's own keepalive, will and reconnect options are understood."""
    client = Paho(version, "tcp")
    client.client.will_set("clients/will", b"w", 1, retain=True)
    if version == 5:
        properties = Properties(1)
        properties.SessionExpiryInterval = 30
        client.client.connect("127.0.0.1", everywhere.port, keepalive=5, properties=properties)
        client.client.disconnect()
    await asyncio.to_thread(client.talk, everywhere.port)
    assert len(client.got) == 3


@both
@pytest.mark.posix("aiomqtt needs a loop with add_reader, which Windows' own loop has not")
async def test_aiomqtt(everywhere, version):
    """aiomqtt publishes and receives at every QoS."""
    protocol = aiomqtt.ProtocolVersion.V5 if version == 5 else aiomqtt.ProtocolVersion.V311
    got = []
    async with aiomqtt.Client(
        "127.0.0.1", everywhere.port, identifier="aio", protocol=protocol
    ) as client:
        await client.subscribe("clients/#", qos=2)
        for qos in (0, 1, 2):
            await client.publish("clients/aio", b"m%d" % qos, qos=qos)
        async for message in client.messages:
            got.append((message.payload, message.qos))
            if len(got) == 3:
                break
    assert sorted(got) == [(b"m%d" % qos, qos) for qos in (0, 1, 2)]


@pytest.mark.skipif(
    shutil.which("node") is None or not os.environ.get("MQTTJS_FOLDER"),
    reason="needs node, and MQTTJS_FOLDER to name a folder where npm has installed mqtt",
)
@pytest.mark.parametrize(
    ("version", "kind"),
    [(4, "tcp"), (5, "tcp"), (4, "tls"), (5, "mutual"), (4, "ws"), (5, "ws"), (5, "wss")],
)
async def test_mqttjs(everywhere, files, version, kind):
    """MQTT.js publishes and receives at every QoS over every kind of listener."""
    scheme = {"tcp": "mqtt", "tls": "mqtts", "mutual": "mqtts"}.get(kind, kind)
    command = ["node", str(CLIENT), f"{scheme}://localhost:{everywhere.broker.ports[kind]}"]
    if scheme in ("mqtt", "ws"):
        command[2] = command[2].replace("localhost", "127.0.0.1")
    command += [str(version), files.root]
    if kind == "mutual":
        command += [files.client, files.client_key]
    output = await run(*command)
    assert sorted(output.split("\n")[:3]) == [f"clients/js m{qos} {qos}" for qos in (0, 1, 2)]


# --- TLS and WebSocket themselves -------------------------------------------------------------


def context(files: certificates.Certificates, *, mine: bool = False) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=files.root)
    if mine:
        made.load_cert_chain(files.client, files.client_key)
    return made


async def test_client_certificate_is_needed(everywhere, files):
    """Where client certificates are asked for, no client gets in without one."""
    port = everywhere.broker.ports["mutual"]
    with pytest.raises((ConnectionError, ssl.SSLError, asyncio.IncompleteReadError)):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context(files), server_hostname="localhost"
        )
        try:
            writer.write(Wire(reader, writer, 4).connect_packet())
            await reader.readexactly(4)
        finally:
            writer.transport.abort()
    assert everywhere.broker.clients_connected == 0


async def test_old_tls_is_refused(everywhere, files):
    """TLS below 1.2 is not spoken."""
    old = context(files)
    with pytest.warns(DeprecationWarning):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("localhost", everywhere.broker.ports["tls"], ssl=old)


@pytest.mark.skipif(sys.platform == "darwin", reason="where options have other names")
async def test_vanished_machines_are_found_out(everywhere):
    """Also a client without MQTT keepalive is asked within minutes whether it is still there."""
    wire = await Wire.open(everywhere.broker.ports["tcp"])
    await wire.connect(keepalive=0)
    (connection,) = everywhere.broker.connections.all()
    sock = connection._transport.get_extra_info("socket")
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    if sys.platform == "win32":  # the times can be set there, not be read
        return
    idle, interval, probes = (
        sock.getsockopt(socket.IPPROTO_TCP, option)
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    )
    assert idle + interval * probes <= 120


@pytest.mark.parametrize("kind", ["tls", "ws", "wss"])
async def test_mute_strangers_are_counted(tmp_path, files, kind):
    """Connections that never finish TLS or WebSocket count, are bounded, and are closed in time."""
    tls = TlsConfig(certfile=files.server, keyfile=files.server_key)
    listener = ListenerConfig(
        bind="127.0.0.1:0",
        transport="tcp" if kind == "tls" else "websocket",
        tls=None if kind == "ws" else tls,
    )
    limits = {"connect_timeout": 0.5, "max_unauthenticated": 3}
    async with Rig(tmp_path / "data", listeners=(listener,), **limits) as rig:
        mute = [await rig.socket() for _ in range(3)]
        await rig.until(lambda: rig.broker.connections.unauthenticated == 3)
        mute.append(await rig.socket())
        assert await mute[0].closed() is None
        assert rig.counters[Counter.CONNECTIONS_ENDED_TO_MAKE_ROOM] == 1
        for wire in mute[1:]:
            assert await wire.closed() is None
        await rig.until(lambda: not rig.broker.connections)


async def test_changed_certificate(tmp_path, files):
    """A certificate that is replaced is used without a restart; a broken one is not taken."""
    own = tmp_path / "own"
    mine = certificates.make(own)
    tls = TlsConfig(certfile=mine.server, keyfile=mine.server_key)
    async with Rig(
        tmp_path / "data", listeners=(ListenerConfig(bind="127.0.0.1:0", tls=tls),)
    ) as rig:

        async def works(files) -> bool:
            try:
                wire = await Wire.open(rig.port, host="localhost", tls=context(files))
            except ssl.SSLError:
                return False
            await wire.connect()
            return True

        assert await works(mine)
        assert not await works(files)
        (listener,) = rig.broker._listeners.values()
        Path(mine.server).write_bytes(b"broken")
        assert "stays" in listener.reload_certificates()
        assert await works(mine)
        shutil.copy(files.server, mine.server)
        shutil.copy(files.server_key, mine.server_key)
        assert "taken into use" in listener.reload_certificates()
        assert await works(files)
        assert listener.reload_certificates() is None


async def test_stalled_tls_client(tmp_path, files):
    """A TLS client that does not read is cut off in time when its client id connects again."""
    tls = TlsConfig(certfile=files.server, keyfile=files.server_key)
    listeners = (ListenerConfig(bind="127.0.0.1:0", tls=tls),)
    async with Rig(tmp_path / "data", listeners=listeners, max_client_backlog=65536) as rig:
        stalled = await Wire.open(rig.port, host="localhost", tls=context(files))
        await stalled.connect("same")
        await stalled.subscribe("t")
        stalled.writer.transport.pause_reading()
        for _ in range(200):
            rig.door.publish("t", b"x" * 50_000)
            await rig.settled()
        assert rig.counters[Counter.DELIVERIES_DROPPED_SLOW_SUBSCRIBER]
        again = await Wire.open(rig.port, host="localhost", tls=context(files))
        await again.connect("same")
        await hang_up()


async def test_websocket_text_is_refused(everywhere):
    """MQTT in text frames, and a client that asks for another subprotocol, are refused."""
    import websockets

    url = f"ws://127.0.0.1:{everywhere.broker.ports['ws']}/mqtt"
    async with websockets.connect(url, subprotocols=["mqtt"]) as client:
        await client.send("text")
        with pytest.raises(websockets.ConnectionClosedError) as caught:
            await client.recv()
        assert caught.value.rcvd.code == 1003
    with pytest.raises(websockets.InvalidStatus):
        await websockets.connect(url, subprotocols=["chat"])


@pytest.mark.parametrize("kind", ["ws", "wss"])
async def test_websocket_of_a_foreign_page(everywhere, files, kind):
    """While no password is needed, a page of another machine can't use the operator's browser."""
    import websockets

    scheme = "wss" if kind == "wss" else "ws"
    url = f"{scheme}://localhost:{everywhere.broker.ports[kind]}/mqtt"
    options = {"subprotocols": ["mqtt"], "ssl": context(files) if kind == "wss" else None}
    for origin in ("http://localhost:8080", "http://[::1]", "https://127.0.0.1"):
        async with websockets.connect(url, origin=origin, **options):
            pass
    for origin in ("https://example.com", "http://localhost.example.com", "null", "http://[x"):
        with pytest.raises(websockets.InvalidStatus) as caught:
            await websockets.connect(url, origin=origin, **options)
        assert caught.value.response.status_code == 403
    assert everywhere.counters[Counter.CONNECTIONS_REFUSED_FOREIGN_ORIGIN] == 4
    everywhere.access.take(Terms(AccessConfig(), None, anonymous=False, open_without_users=False))
    async with websockets.connect(url, origin="https://example.com", **options):
        pass
