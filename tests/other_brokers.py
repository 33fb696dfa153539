"""Brokers of others, as the tests of bridges need them: started, killed and restarted on loopback.

Each runs in a folder of its own on free ports, as a process of the test; nothing of the system's
own services is used. A test is skipped, by name, where the program is missing.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Self

import paho.mqtt.client as mqtt
import pytest
from appliance_process import ApplianceProcess, free_port, until
from argon2 import PasswordHasher
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from appliance.broker.users import Users

USER, PASSWORD = "bridge", "correct horse"
"""Of the user who may do everything, at each broker that has users."""
WEAK, WEAK_PASSWORD = "weak", "battery staple"
"""Of the user who may read and write only below ``ok/``."""

_RABBIT = Path("/usr/lib/rabbitmq/bin")
"""Debian's scripts there run as the present user; those in /usr/sbin change it."""
READY_S = 90.0


def program(name: str) -> str:
    """The path of a program; the test is skipped where it is missing."""
    path = os.environ.get("PATH", "") + ":/usr/sbin"  # Debian keeps mosquitto there
    if found := shutil.which(name, path=path):
        return found
    pytest.skip(f"{name} is missing")


class OtherBroker:
    """A broker that a bridge connects to: ``with X(folder) as broker``."""

    kind = ""
    users = True
    """Whether USER and WEAK exist; otherwise everybody may do everything."""
    survives_kill = True
    """Whether sessions and queues are there again after ``kill`` and ``start``."""
    ordered = True
    """Whether what was not acknowledged comes again before what is new."""
    flags_repeats = True
    """Whether what it sends again after a kill has the DUP flag."""
    sends_again = True
    """Whether what was not acknowledged comes again at all, once the client is back."""
    sends_again_after_s = 0.0
    """How much later than the client's return that is."""
    host = "127.0.0.1"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    def configure(self) -> None:
        """Write what the broker reads at its start."""

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return {}

    def start(self) -> Self:
        """Start it and wait until it takes clients."""
        self._log = (self.folder / "broker.log").open("ab")
        self.process = subprocess.Popen(
            self.command(),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env={**os.environ, **self.environment()},
            cwd=self.folder,
            start_new_session=sys.platform != "win32",
        )
        until(self.ready, f"{self.kind} is ready: {self.said()}", READY_S)
        return self

    def ready(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise AssertionError(f"{self.kind} ended:\n{self.said()}")
        return self.listens()

    def listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 1):
            return True
        return False

    def said(self) -> str:
        """The end of what it logged."""
        return (self.folder / "broker.log").read_text("utf-8", "replace")[-4000:]

    def kill(self) -> None:
        """End it as ``kill -9`` does, with its children."""
        self._end(signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)

    def stop(self) -> None:
        """End it in order."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if sys.platform == "win32":
                self.process.send_signal(number)
            else:
                os.killpg(self.process.pid, number)
        self.process.wait(READY_S)
        self.process = None
        until(lambda: not self.listens(), f"{self.kind} is gone")
        if self._log is not None:
            self._log.close()

    def restart(self) -> None:
        """Kill it and start it again."""
        self.kill()
        self.start()

    def save(self) -> None:
        """Make what it has acknowledged survive a kill, where the broker saves later than that."""

    def wipe_session(self, client_id: str) -> None:
        """Make it forget a client's session, as by the hand of its operator."""
        with Remote(self, client_id, clean=True):
            pass

    def __enter__(self) -> Self:
        self.configure()
        return self.start()

    def __exit__(self, *_error: object) -> None:
        self.kill()


class Mosquitto(OtherBroker):
    """mosquitto 2. Each change is saved at once, as an operator must set it (docs/bridges.md)."""

    kind = "mosquitto"
    saving = ("autosave_interval 1", "autosave_on_changes true")

    def __init__(self, folder: Path, *more: str, users: bool = True, saving: bool = True) -> None:
        super().__init__(folder)
        self.mosquitto = program("mosquitto")
        self.users = users
        self.more = more
        self.survives_kill = saving
        self.lines = self.saving if saving else ()

    def configure(self) -> None:
        lines = [
            f"listener {self.port} 127.0.0.1",
            "persistence true",
            f"persistence_location {self.folder}/",
            "max_queued_messages 0",
            "set_tcp_nodelay true",
            *self.lines,
            *self.more,
        ]
        if os.name == "posix" and os.geteuid() == 0:
            lines.append("user root")
        if self.users:
            passwords = self.folder / "passwords"
            passwords.write_text(f"{USER}:{PASSWORD}\n{WEAK}:{WEAK_PASSWORD}\n", "utf-8")
            passwords.chmod(0o600)
            subprocess.run([program("mosquitto_passwd"), "-U", passwords], check=True)
            acl = self.folder / "acl"
            acl.write_text(
                f"user {USER}\ntopic readwrite #\n\nuser {WEAK}\ntopic readwrite ok/#\n", "utf-8"
            )
            acl.chmod(0o600)
            lines += ["allow_anonymous false", f"password_file {passwords}", f"acl_file {acl}"]
        else:
            lines.append("allow_anonymous true")
        (self.folder / "m.conf").write_text("\n".join(lines) + "\n", "utf-8")

    def command(self) -> list[str]:
        return [self.mosquitto, "-c", str(self.folder / "m.conf")]

    def save(self) -> None:
        """It saves a change only with the next one: more than ``autosave_interval`` have to wait."""
        file = self.folder / "mosquitto.db"
        before = file.stat().st_mtime_ns if file.exists() else 0
        assert self.process is not None
        self.process.send_signal(signal.SIGUSR1)
        until(lambda: file.exists() and file.stat().st_mtime_ns > before, "mosquitto has saved")


class RabbitMQ(OtherBroker):
    """RabbitMQ with its MQTT plugin, one node, with a port mapper (epmd) of its own."""

    kind = "RabbitMQ"

    def __init__(self, folder: Path) -> None:
        if not (_RABBIT / "rabbitmq-server").exists():
            pytest.skip("rabbitmq-server is missing")
        super().__init__(folder)
        self.amqp_port = free_port()
        self.distribution_port = free_port()
        self.epmd_port = free_port()

    def configure(self) -> None:
        cookie = self.folder / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(20), "ascii")
        cookie.chmod(0o400)
        (self.folder / "none.conf").touch()
        (self.folder / "enabled_plugins").write_text("[rabbitmq_mqtt].\n", "ascii")
        (self.folder / "rabbitmq.conf").write_text(
            f"""listeners.tcp.1 = 127.0.0.1:{self.amqp_port}
mqtt.listeners.tcp.1 = 127.0.0.1:{self.port}
mqtt.allow_anonymous = false
mqtt.subscription_ttl = 86400000
default_user = {USER}
default_pass = {PASSWORD}
loopback_users = none
""",
            "utf-8",
        )

    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.folder),
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_RELAXED_COMMAND_CHECK": "1",
            "RABBITMQ_NODENAME": "r1@localhost",
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "none.conf"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_DIST_PORT": str(self.distribution_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "+S 1:1 -kernel inet_dist_use_interface {127,0,0,1}"
            ),
            "LANG": "C.UTF-8",
        }

    def command(self) -> list[str]:
        return [str(_RABBIT / "rabbitmq-server")]

    def ctl(self, *arguments: str) -> None:
        subprocess.run(
            [str(_RABBIT / "rabbitmqctl"), "-q", *arguments],
            env={**os.environ, **self.environment()},
            check=True,
            capture_output=True,
        )

    def __enter__(self) -> Self:
        super().__enter__()
        self.ctl("add_user", WEAK, WEAK_PASSWORD)
        self.ctl("set_permissions", WEAK, ".*", ".*", ".*")
        self.ctl("set_topic_permissions", WEAK, "amq.topic", "^ok", "^ok")
        return self

    def __exit__(self, *_error: object) -> None:
        super().__exit__()
        subprocess.run(
            ["epmd", "-port", str(self.epmd_port), "-kill"],
            env={**os.environ, **self.environment()},
            check=False,
            capture_output=True,
        )


class Nats(OtherBroker):
    """NATS with JetStream. ``ack_wait`` is how soon it sends again what is not acknowledged."""

    kind = "NATS"
    ordered = False
    flags_repeats = False
    sends_again_after_s = 4.0

    def __init__(
        self,
        folder: Path,
        *,
        ack_wait: str = "3s",
        name: str = "s1",
        routes: tuple[int, ...] = (),
        route_port: int = 0,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.nats = program("nats-server")
        super().__init__(folder)
        self.host = host
        self.port = port or self.port
        self.nats_port = free_port()
        self.ack_wait = ack_wait
        self.name = name
        self.routes = routes
        self.route_port = route_port

    def configure(self) -> None:
        lines = [
            f"server_name: {self.name}",
            "host: 127.0.0.1",
            f"port: {self.nats_port}",
            f'jetstream {{ store_dir: "{self.folder}", max_mem: 64M, max_file: 512M }}',
            f'mqtt {{ host: {self.host}, port: {self.port}, ack_wait: "{self.ack_wait}" }}',
            "authorization { users: [",
            f'  {{user: {USER}, password: "{PASSWORD}"}}',
            f'  {{user: {WEAK}, password: "{WEAK_PASSWORD}", permissions: {{',
            '    publish: ["ok", "ok.>", "$MQTT.>", "$JS.>"]',
            '    subscribe: ["ok", "ok.>", "$MQTT.>", "$JS.>", "_INBOX.>"] } }',
            "] }",
        ]
        if self.routes:
            routes = ", ".join(f"nats://127.0.0.1:{port}" for port in self.routes)
            lines.append(
                f"cluster {{ name: c, host: 127.0.0.1, port: {self.route_port},"
                f" routes: [ {routes} ] }}"
            )
        (self.folder / "nats.conf").write_text("\n".join(lines) + "\n", "utf-8")

    def command(self) -> list[str]:
        return [self.nats, "-c", str(self.folder / "nats.conf")]


class NatsCluster:
    """Three NATS servers that share their sessions and messages: ``with NatsCluster(folder)``.

    They have 127.0.0.1, .2 and .3, and the same port, so that one name can have them all.
    """

    def __init__(self, folder: Path) -> None:
        routes = tuple(free_port() for _ in range(3))
        self.port = free_port()
        self.nodes = [
            Nats(
                folder / f"n{n}",
                name=f"s{n}",
                routes=routes,
                route_port=routes[n],
                host=f"127.0.0.{n + 1}",
                port=self.port,
            )
            for n in range(3)
        ]

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for node in self.nodes:
                node.configure()
                stack.callback(node.kill)
            threads = [threading.Thread(target=node.start) for node in self.nodes]
            for each in threads:
                each.start()
            for each in threads:
                each.join()
            # The ports listen before the servers have chosen a leader.
            until(lambda: all(accepts(node) for node in self.nodes), "the cluster takes clients")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()


class Amqtt(OtherBroker):
    """amqtt as it comes, with a password file: for anonymous clients it keeps no queue."""

    kind = "amqtt"
    ordered = False
    """What it sends after a reconnect may stand behind newer messages."""
    survives_kill = False
    sends_again = False

    def configure(self) -> None:
        hashed = "\n".join(
            f"{name}:{PasswordHasher(1, 8, 1).hash(password)}"
            for name, password in ((USER, PASSWORD), (WEAK, WEAK_PASSWORD))
        )
        (self.folder / "passwords").write_text(hashed + "\n", "utf-8")
        (self.folder / "amqtt.yaml").write_text(
            f"""listeners:
  default:
    type: tcp
    bind: 127.0.0.1:{self.port}
timeout_disconnect_delay: 2
plugins:
  amqtt.plugins.authentication.FileAuthPlugin:
    password_file: {self.folder}/passwords
  amqtt.plugins.topic_checking.TopicAccessControlListPlugin:
    acl:
      {USER}: ["#"]
      {WEAK}: ["ok/#"]
    publish_acl:
      {USER}: ["#"]
      {WEAK}: ["ok/#"]
""",
            "utf-8",
        )

    def command(self) -> list[str]:
        script = "from amqtt.scripts.broker_script import main; main()"
        return [sys.executable, "-c", script, "-c", str(self.folder / "amqtt.yaml")]


class ApplianceBroker(OtherBroker):
    """An appliance of our own as the other broker."""

    kind = "appliance"
    flags_repeats = False

    def __init__(self, folder: Path, more: str = "") -> None:
        super().__init__(folder)
        Users(folder / "users.txt").add(USER, PASSWORD.encode())
        Users(folder / "users.txt").add(WEAK, WEAK_PASSWORD.encode())
        self.appliance = ApplianceProcess(
            folder,
            f"""
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:PORT"
[access]
users_file = "users.txt"
[[access.rule]]
user = "{USER}"
publish = ["#"]
subscribe = ["#"]
[[access.rule]]
user = "{WEAK}"
publish = ["ok/#"]
subscribe = ["ok/#"]
{more}
""",
            port=self.port,
        )

    def start(self) -> Self:
        self.appliance.start()
        return self

    def said(self) -> str:
        return "\n".join(self.appliance.lines)

    def kill(self) -> None:
        with self.appliance:
            pass

    def stop(self) -> None:
        self.appliance.end()


def accepts(broker: OtherBroker) -> bool:
    """Whether it accepts a client now."""
    with contextlib.suppress(OSError, AssertionError), Remote(broker, "probe", timeout_s=2):
        return True
    return False


class Remote:
    """A client of the other broker: ``with Remote(broker, "press")``. It comes back by itself."""

    def __init__(
        self,
        broker: OtherBroker,
        client_id: str,
        *,
        clean: bool = False,
        timeout_s: float = READY_S,
        version: int = mqtt.MQTTv311,
    ) -> None:
        self.got: list[mqtt.MQTTMessage] = []
        """What came, in order."""
        self.sent = 0
        self.acknowledged = 0
        """How many messages the broker has acknowledged."""
        self._changed = threading.Condition()
        self._subscribed = threading.Event()
        self._timeout_s = timeout_s
        self._broker = broker
        v5 = version == mqtt.MQTTv5
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id,
            protocol=version,
            clean_session=None if v5 else clean,
        )
        if broker.users:
            self.client.username_pw_set(USER, PASSWORD)
        self.client.reconnect_delay_set(0.1, 0.2)
        self.client.max_inflight_messages_set(100)
        self.client.on_connect = self._on_connect
        self.client.on_message = self._on_message
        self.client.on_publish = self._on_publish
        self.client.on_subscribe = lambda *_: self._subscribed.set()
        self._connections = 0
        self._options: dict[str, object] = {}
        if v5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 3600
            self._options = {"clean_start": clean, "properties": properties}

    def __enter__(self) -> Self:
        self.client.connect(self._broker.host, self._broker.port, 30, **self._options)  # type: ignore[arg-type]
        self.client.loop_start()
        self.wait(lambda: self._connections > 0, "the broker accepts the client")
        return self

    def __exit__(self, *_error: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def subscribe(self, topic: str, qos: int = 1) -> None:
        self._subscribed.clear()
        self.client.subscribe(topic, qos)
        assert self._subscribed.wait(self._timeout_s)

    def publish(self, topic: str, payload: str, qos: int = 1, *, retain: bool = False) -> None:
        self.sent += 1
        self.client.publish(topic, payload, qos, retain)

    def wait(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until ``holds()``, which is asked after each packet that came."""
        with self._changed:
            end = time.monotonic() + self._timeout_s
            while not holds():
                self._changed.wait(0.05)
                assert time.monotonic() < end, f"not in time: {what}"

    @contextlib.contextmanager
    def reconnects(self) -> Iterator[None]:
        """It loses its connection within, and has another one afterwards."""
        before = self._connections
        yield
        self.wait(lambda: self._connections > before, "the client comes back")

    def wait_acknowledged(self, count: int) -> None:
        self.wait(lambda: self.acknowledged >= count, f"{count} acknowledgements")

    def payloads(self) -> list[str]:
        return [message.payload.decode() for message in list(self.got)]

    def _on_connect(
        self, _client: object, _data: object, _flags: object, code: object, *_more: object
    ) -> None:
        with self._changed:
            self._connections += not code.is_failure  # type: ignore[attr-defined]
            self._changed.notify_all()

    def _on_message(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        with self._changed:
            self.got.append(message)
            self._changed.notify_all()

    def _on_publish(self, *_arguments: object) -> None:
        with self._changed:
            self.acknowledged += 1
            self._changed.notify_all()
