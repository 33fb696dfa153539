"""The client's subscriptions: a real appliance, and servers that misbehave after they accepted."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import attached_appliance
import certificates
import msgspec
import pytest

from appliance.errors import ApplianceError, NoPermissionError, UnavailableError
from appliance.mqtt.client import Client, Target

ACCEPTED = b"\x20\x03\x00\x00\x00"
SUBSCRIBED = b"\x90\x04\x00\x01\x00\x00"


@pytest.fixture(scope="module", params=["plain", "tls"])
def address(request, tmp_path_factory) -> Iterator[Callable[[str], Target]]:
    """An appliance with a plain or a TLS listener; gives the target for a user of it."""
    folder = tmp_path_factory.mktemp("client")
    config, context = attached_appliance.CONFIG, None
    if request.param == "tls":
        files = certificates.make(folder / "tls")
        bind = 'bind = "127.0.0.1:PORT"'
        config = config.replace(
            bind, f"{bind}\ntls = {{certfile = {files.server!r}, keyfile = {files.server_key!r}}}"
        )
        context = ssl.create_default_context(cafile=files.root)
    with attached_appliance.make(folder, config=config).start() as process:

        def target(name: str) -> Target:
            made = attached_appliance.target(process, "plc-7", name)
            return msgspec.structs.replace(made, host="localhost", tls=context)

        yield target


def test_messages_are_sent_from_many_threads_while_others_arrive(address) -> None:
    """Every message of any size arrives whole, with senders and the receiver in parallel."""
    sizes = [1, 127, 128, 20_000, 200_000] * 12
    with Client(address("parallel"), keepalive_s=15, largest_packet=300_000) as client:
        client.subscribe("plant/parallel", "plant/unused")
        with ThreadPoolExecutor(4) as pool:
            sent = [pool.submit(client.send, "plant/parallel", bytes(size)) for size in sizes]
            found = [client.receive() for _ in sizes]
        assert all(one.exception() is None for one in sent)
    assert {topic for topic, _ in found} == {"plant/parallel"}
    assert sorted(len(payload) for _, payload in found) == sorted(sizes)


def test_a_retained_message_arrives(address) -> None:
    """A message that the topic holds comes first, with its retain flag set."""
    with Client(address("keeper"), keepalive_s=15) as client:
        client.publish("plant/kept", b"held", qos=1, retain=True)
        client.subscribe("plant/kept")
        assert client.receive() == ("plant/kept", b"held")


def test_another_thread_ends_the_wait_for_a_message(address) -> None:
    """``disconnect`` is what ends a thread that waits; afterwards nothing can be sent."""
    client = Client(address("waiting"), keepalive_s=15)
    waiting, ended = threading.Event(), []

    def wait() -> None:
        try:
            with client:
                client.subscribe("plant/silent")
                waiting.set()
                client.receive()
        except ApplianceError as error:
            ended.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    assert waiting.wait(20)
    client.disconnect()
    thread.join(10)
    assert not thread.is_alive()
    assert len(ended) == 1
    with pytest.raises(UnavailableError):
        client.send("plant/silent", b"x")


def test_a_refused_subscription_is_an_error(address) -> None:
    """No client can subscribe to the topics of another client's terminal."""
    with (
        Client(address("curious"), keepalive_s=15) as client,
        pytest.raises(NoPermissionError, match="refused the subscription"),
    ):
        client.subscribe("plant/a", "$desk/state/another")


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"", "does not answer any longer"),
        (b"\x30\x81\x80\x01", "does not answer as an MQTT broker does"),
        (b"\x30\x03\x00\x09a", "does not answer as an MQTT broker does"),
        (b"\x32\x06\x00\x01a\x00\x01\x00", "does not answer as an MQTT broker does"),
        (b"\xe0\x01\x8b", "ended the connection: it is shutting down"),
        (b"\xe0\x00", "ended the connection"),
        (None, "closed the connection"),
    ],
    ids=["hung", "too large", "cut short", "wrong QoS", "shutting down", "ended", "closed"],
)
def test_a_subscriber_is_told_why_its_connection_ended(sent: bytes | None, said: str) -> None:
    """Silent, larger than accepted, malformed, closing: the reason is said, and in time."""
    done = threading.Event()

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(ACCEPTED)
            connection.recv(65536)
            connection.sendall(SUBSCRIBED + (sent or b""))
            if sent is not None:
                done.wait(20)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = threading.Thread(target=serve)
        server.start()
        target = Target("127.0.0.1", listening.getsockname()[1], "subscriber")
        try:
            with (
                Client(target, keepalive_s=1, largest_packet=16_384) as client,
                pytest.raises(UnavailableError, match=said),
            ):
                client.subscribe("a", "b")
                client.receive()
        finally:
            done.set()
            server.join()
