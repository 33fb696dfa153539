"""Ways to another broker: TLS is always verified, certificates, WebSocket, and what goes wrong."""

from __future__ import annotations

import asyncio
import ssl

import certificates
import pytest
from bridge_rig import BridgeRig, ScriptedRemote, bridge
from broker_rig import TCP, Rig

from appliance.config.tables import BridgeTlsConfig, ListenerConfig, TlsConfig


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def strangers(tmp_path_factory):
    """Of an authority that nobody trusts."""
    return certificates.make(tmp_path_factory.mktemp("strangers"))


def listener(files, *, transport="tcp", client_ca=None) -> ListenerConfig:
    return ListenerConfig(
        name="tls",
        bind="127.0.0.1:0",
        transport=transport,
        tls=TlsConfig(certfile=files.server, keyfile=files.server_key, client_ca=client_ca),
    )


async def brings(rig, there) -> None:
    """A message of the other broker comes in."""
    await rig.connected()
    sender = await there.wire(client_id="sender")
    sender.send(sender.publish_packet("a", b"1", 1))
    await rig.came(1, "a")


@pytest.mark.parametrize("transport", ["tcp", "websocket"])
async def test_tls(tmp_path, files, transport):
    """TLS with an authority of its own and a client certificate, with and without WebSocket."""
    tls = listener(files, transport=transport, client_ca=files.root)
    async with Rig(tmp_path / "there", listeners=(TCP, tls)) as there:
        config = bridge(
            there.broker.ports["tls"],
            "a",
            transport=transport,
            tls=BridgeTlsConfig(
                ca_file=files.root, certfile=files.client, keyfile=files.client_key
            ),
        )
        async with BridgeRig(tmp_path / "here", config) as rig:
            await brings(rig, there)
            assert rig.state().tls


async def test_server_name(tmp_path, files):
    """``server_name`` is what the certificate must have, whatever the address is."""
    async with Rig(tmp_path / "there", listeners=(TCP, listener(files))) as there:
        tls = BridgeTlsConfig(ca_file=files.root, server_name="localhost")
        config = bridge(there.broker.ports["tls"], "a", tls=tls)
        async with BridgeRig(tmp_path / "here", config) as rig:
            await brings(rig, there)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wrong name", "certificate is for another name"),
        ("unknown authority", "an authority that is not trusted here"),
        ("public authorities", "an authority that is not trusted here"),
        ("no client certificate", "the broker wants a client certificate"),
        ("foreign client certificate", "does not accept the client certificate"),
        ("no such file", "does not exist"),
        ("no PEM", "can't be used"),
        ("key of another", "can't be used"),
    ],
)
async def test_wrong_certificate(tmp_path, files, strangers, name, said):
    """Whatever is wrong with a certificate is named, and nothing is sent."""
    no_pem = tmp_path / "no.pem"
    no_pem.write_text("not PEM")
    tls = {
        "wrong name": BridgeTlsConfig(ca_file=files.root, server_name="other.example.com"),
        "unknown authority": BridgeTlsConfig(ca_file=strangers.root),
        "public authorities": BridgeTlsConfig(),
        "no client certificate": BridgeTlsConfig(ca_file=files.root),
        "foreign client certificate": BridgeTlsConfig(
            ca_file=files.root, certfile=strangers.client, keyfile=strangers.client_key
        ),
        "no such file": BridgeTlsConfig(ca_file=str(tmp_path / "missing.pem")),
        "no PEM": BridgeTlsConfig(ca_file=str(no_pem)),
        "key of another": BridgeTlsConfig(
            ca_file=files.root, certfile=files.client, keyfile=files.other_key
        ),
    }[name]
    wants_client = "client certificate" in name
    there = listener(files, client_ca=files.root if wants_client else None)
    async with Rig(tmp_path / "there", listeners=(there,)) as remote:
        config = bridge(remote.broker.ports["tls"], "a", tls=tls)
        async with BridgeRig(tmp_path / "here", config) as rig:
            state = await rig.failed(said)
            assert not state.connected
            assert state.health.level == "bad"


async def test_no_tls_there(tmp_path):
    """TLS to a port without it is called that."""

    async def script(peer, _number):
        await peer.reader.read(1)
        peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await asyncio.Event().wait()

    async with ScriptedRemote(script) as remote:
        config = bridge(remote.port, "a", tls=BridgeTlsConfig())
        async with BridgeRig(tmp_path, config) as rig:
            await rig.failed("there is no TLS on this port")


async def test_no_tls_there_and_no_word(tmp_path):
    """mosquitto closes a connection that begins with TLS where it has none."""

    async def script(peer, _number):
        await peer.reader.read(1)
        peer.close()

    async with ScriptedRemote(script) as remote:
        config = bridge(remote.port, "a", tls=BridgeTlsConfig())
        async with BridgeRig(tmp_path, config) as rig:
            await rig.failed("no TLS on this port")


async def test_tls_there(tmp_path, files):
    """A connection without TLS to a port with it is explained."""
    async with Rig(tmp_path / "there", listeners=(listener(files),)) as there:
        async with BridgeRig(tmp_path / "here", bridge(there.broker.ports["tls"], "a")) as rig:
            await rig.failed("or the port wants TLS")


async def test_alpn(tmp_path, files):
    """The application protocols are offered, as AWS IoT Core wants it on port 443."""
    chosen = []
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.server, files.server_key)
    context.set_alpn_protocols(["x-amzn-mqtt-ca"])

    async def script(peer, _number):
        chosen.append(peer.writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await peer.accept()
        await peer.serve()

    async with ScriptedRemote(script, tls=context) as remote:
        tls = BridgeTlsConfig(ca_file=files.root, alpn=("x-amzn-mqtt-ca",))
        async with BridgeRig(tmp_path, bridge(remote.port, tls=tls)) as rig:
            await rig.until(lambda: rig.state().connected)
            assert chosen == ["x-amzn-mqtt-ca"]


@pytest.mark.parametrize("is_abrupt", [False, True])
async def test_tls_ends(tmp_path, files, is_abrupt):
    """An accepted connection that ends, in order or not, is lost, and comes back."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.server, files.server_key)

    async def script(peer, number):
        await peer.accept(filters=not number, connack=b"\x20\x02" + bytes((number > 0, 0)))
        if number:
            await peer.serve()
        elif is_abrupt:
            peer.reset()
        else:
            peer.close()

    async with ScriptedRemote(script, tls=context) as remote:
        config = bridge(remote.port, "a", tls=BridgeTlsConfig(ca_file=files.root))
        async with BridgeRig(tmp_path, config) as rig:
            await rig.failed("the connection was lost")
            await rig.connected()


async def test_websocket(tmp_path):
    """MQTT by WebSocket, on the configured path."""
    ws = ListenerConfig(name="ws", bind="127.0.0.1:0", transport="websocket")
    async with Rig(tmp_path / "there", listeners=(TCP, ws)) as there:
        config = bridge(there.broker.ports["ws"], "a", transport="websocket", version="5")
        async with BridgeRig(tmp_path / "here", config) as rig:
            await brings(rig, there)


async def test_websocket_on_another_path(tmp_path):
    """A web server that has no WebSocket there says so by its status."""
    ws = ListenerConfig(name="ws", bind="127.0.0.1:0", transport="websocket")
    async with Rig(tmp_path / "there", listeners=(ws,)) as there:
        config = bridge(there.broker.ports["ws"], "a", transport="websocket", path="/other")
        async with BridgeRig(tmp_path / "here", config) as rig:
            await rig.failed("404 Not Found")


HEAD = b"HTTP/1.1 101 Switching Protocols\r\n"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"\x20\x02\x00\x00", "is no web server"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "is no web server"),
        (b"HTTP/1.1 302 Found\r\nLocation: https://elsewhere/\r\n\r\n", "302 Found"),
        (b"HTTP/1.1 " + b"x" * 40_000, "is no web server"),
        (HEAD + b"\r\n", "handshake failed"),
        (HEAD + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "handshake failed"),
        (HEAD + b"Sec-WebSocket-Accept: \xff\x00\r\n\r\n", "handshake failed"),
        (HEAD + b": x\r\n\r\n", "handshake failed"),
    ],
)
async def test_no_websocket_there(tmp_path, answer, said, caplog):
    """What answers a WebSocket handshake with something else is named, without a traceback."""

    async def script(peer, _number):
        await peer.reader.readuntil(b"\r\n\r\n")
        peer.send(answer)
        await asyncio.Event().wait()

    async with ScriptedRemote(script) as remote:
        config = bridge(remote.port, "a", transport="websocket")
        async with BridgeRig(tmp_path, config) as rig:
            await rig.failed(said)
    assert not any(one.exc_info for one in caplog.records)
