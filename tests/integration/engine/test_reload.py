"""A configuration that is changed while the appliance runs: what counts at once, for whom."""

from __future__ import annotations

import json
import re
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import certificates
import msgspec
import paho.mqtt.client as mqtt
import pytest
from appliance_process import QUICK, ApplianceProcess, until
from broker_rig import Wire, hang_up

from appliance.config.changes import changes, counts_at_once, with_changes_at_once
from appliance.config.reading import loads
from appliance.config.tables import Config
from appliance.ops.control_file import ask
from appliance.qlik.simulated import SimulatedQlik
from appliance.qlik.simulated.server import TlsFiles
from appliance.qlik.simulated.site import SimulatedTask
from appliance.broker.users import Users

ROOT = Path(__file__).parents[3]

TASK = "5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b10"

BASE = """
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:PORT"
[access]
users_file = "users.txt"
"""


@pytest.fixture(autouse=True)
async def no_connection_is_left() -> AsyncIterator[None]:
    """A connection belongs to its test's loop."""
    yield
    await hang_up()


@pytest.fixture
def appliance(tmp_path) -> Iterator[ApplianceProcess]:
    """An appliance that is set up with the users ann and bob, and not started."""
    with ApplianceProcess(tmp_path, BASE, program=QUICK) as process:
        for name in ("ann", "bob"):
            users(process).add(name, b"secret")
        yield process


def users(process: ApplianceProcess) -> Users:
    """The users file, as ``appliance user`` has it."""
    return Users(process.folder / "users.txt")


def configure(process: ApplianceProcess, text: str) -> str:
    """Write another configuration, have it read, and return what was said."""
    done, told = reload(process, text)
    assert done, told
    return told


def reload(process: ApplianceProcess, text: str) -> tuple[bool, str]:
    process.config.write_text(text.replace("PORT", str(process.port)), "utf-8")
    until(lambda: (process.data / "health.json").exists(), "it can be asked")
    answer = ask(process.data, "reload")
    return answer.done, "\n".join(answer.lines)


async def client(process: ApplianceProcess, version: int, name: str, **more) -> Wire:
    wire = await Wire.open(process.port, version)
    await wire.connect(name, username=name.partition("-")[0], password=b"secret", **more)
    return wire


RULES = """
[[access.rule]]
user = "*"
publish = ["plant/#"]
subscribe = ["plant/#"]
"""


PLUGINS = """
plugin_cache = "1h"
[[access.plugins]]
class = "amqtt.plugins.topic_checking.TopicAccessControlListPlugin"
settings = {publish_acl = {ann = ["plant/#"]}, acl = {ann = ["plant/#"]}}
"""


async def test_plugins_count_from_the_start(appliance) -> None:
    """A running appliance asks the plugins of its start; others are told to wait for the next."""
    appliance.config.write_text((BASE + PLUGINS).replace("PORT", str(appliance.port)), "utf-8")
    appliance.start()
    ann, bob = await client(appliance, 5, "ann-1"), await client(appliance, 5, "bob-1")
    assert await ann.subscribe("plant/a", "other") == [0, 0x87]
    assert (await bob.publish_acked("plant/a")).codes == [0x87]
    assert (await ann.publish_acked("other")).codes == [0x87]
    ann.publish("plant/a", b"1", 1)
    assert {(await ann.receive()).kind, (await ann.receive()).kind} == {3, 4}
    other = PLUGINS.replace("ann", "bob").replace("1h", "2h")
    told = configure(appliance, BASE + other)
    assert "counts now: [access] plugin_cache" in told
    assert "counts from the next start: [[access.plugins]] (plugins are loaded" in told
    assert (await bob.publish_acked("plant/a")).codes == [0x87]


async def test_rules_count_for_who_is_connected(appliance) -> None:
    """A rule that went away refuses the next PUBLISH on the open connection, in each version's
    way, and ends the subscriptions that it allowed, queued messages with them; a new rule allows.
    """
    appliance.start()
    configure(appliance, BASE + RULES)
    old, new = await client(appliance, 4, "ann-1"), await client(appliance, 5, "ann-2")
    reader = await client(appliance, 5, "bob-1")
    away = await client(appliance, 4, "bob-2", clean=False)
    for wire in (old, new):
        await wire.publish_acked("plant/a", b"1", 1)
    assert await reader.subscribe(("plant/#", 1), ("plant/b", 1)) == [1, 1]
    await away.subscribe(("plant/#", 1))
    away.disconnect()
    await away.closed()
    await new.publish_acked("plant/a", b"queued", 1)
    await reader.messages(1)
    told = configure(appliance, BASE + RULES.replace("plant/#", "plant/b"))
    assert "[[access.rule]]" in told
    assert "subscriptions ended: 2" in told
    new.publish("plant/a", b"2", 1, id=7)
    refused = await new.expect(4)
    assert refused.body[2] == 0x87
    await new.publish_acked("plant/b", b"3", 1)
    [message] = await reader.messages(1)
    assert message.payload == b"3"
    old.publish("plant/a", b"2", 1, id=7)
    await old.closed()
    away = await client(appliance, 4, "bob-2", clean=False)
    await away.ping()  # nothing came before the answer
    configure(appliance, BASE)
    await new.publish_acked("plant/a", b"4", 1)
    assert await reader.subscribe(("other/#", 1)) == [1]


async def test_users_that_are_gone_or_have_another_password_are_disconnected(appliance) -> None:
    """The users file is noticed by itself; a client that may not connect any more is out at once, and
    the others stay."""
    appliance.start()
    ann, bob = await client(appliance, 5, "ann-1"), await client(appliance, 4, "bob-1")
    users(appliance).remove("ann")
    goodbye = await ann.closed()
    assert goodbye is not None
    assert goodbye.body[0] == 0x87
    await bob.ping()
    users(appliance).add("ann", b"secret")
    ann = await client(appliance, 5, "ann-1")
    users(appliance).add("bob", b"another")
    assert await bob.closed() is None
    await ann.ping()
    with pytest.raises(AssertionError, match="refused with 0x4"):
        await client(appliance, 4, "bob-1")


class Listener:
    """A paho client that publishes, and keeps what it hears."""

    def __init__(self, process: ApplianceProcess) -> None:
        self.heard: dict[str, list[bytes]] = {}
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "listener")
        self.client.username_pw_set("ann", "secret")
        self.client.on_message = lambda _c, _u, m: self.heard.setdefault(m.topic, []).append(
            m.payload
        )
        done: list[int] = []
        self.client.on_connect = lambda *_: self.client.subscribe("#", 1)
        self.client.on_subscribe = lambda *_: done.append(1)
        self.client.connect("127.0.0.1", process.port)
        self.client.loop_start()
        until(lambda: done, "subscribed")

    def publish(self, topic: str, payload: str = "x") -> None:
        self.client.publish(topic, payload, 1).wait_for_publish(20)

    def wait_for(self, topic: str, part: bytes = b"") -> bytes:
        return until(
            lambda: next((each for each in self.heard.get(topic, ()) if part in each), None), topic
        )

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_error: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()


QLIK = """
[qlik]
edition = "client-managed"
url = "{url}"
user = 'INTERNAL\\sa_repository'
certificate = {{certfile = "certificates/client.pem", keyfile = "certificates/client_key.pem"}}
ca_file = "certificates/root.pem"
"""
FIRST_RULES = """
[[trigger]]
topic = "start/old"
task = {name = "Reload line 7"}
debounce = "1s"
[[timer]]
name = "every day"
every = "1d"
publish = {topic = "tick/day"}
[[timer]]
name = "goes"
silence = "1s"
topic = "machine/7"
[[timer]]
name = "press"
silence = "1s"
topic = "machine/8"
[[recorder]]
topic = "numbers/old"
path = "old.json"
"""
SECOND_RULES = """
[[trigger]]
topic = "start/new"
task = {name = "Reload line 7"}
[[timer]]
name = "tick"
every = "1s"
publish = {topic = "tick/second", payload = "now"}
[[timer]]
name = "every day"
every = "1d"
publish = {topic = "tick/day"}
[[timer]]
name = "press"
silence = "1s"
topic = "machine/8"
[[recorder]]
topic = "numbers/new"
path = "new.json"
"""
ALLOW = """
[allow]
names = ["Another"]
"""


def test_rules_timers_and_recorders_are_exchanged_under_way(appliance, tmp_path) -> None:
    """Other triggers, timers, recorders and another [allow] count at once; a start that waits for
    quiet still comes, an alarm of a timer that is gone is cleared and that of one that stays not,
    a recording that is left stays valid and is gone on with when it is wanted again."""
    files = certificates.make(tmp_path / "certificates")
    tls = TlsFiles(files.server, files.server_key, client_ca=files.root)
    with SimulatedQlik([SimulatedTask("Reload line 7", id=TASK, duration_s=0.05)], tls=tls) as qlik:
        base = BASE + QLIK.format(url=qlik.url)
        process = appliance
        process.config.write_text((base + FIRST_RULES).replace("PORT", str(process.port)), "utf-8")
        process.start()
        with Listener(process) as listener:
            listener.publish("numbers/old", "1")
            listener.wait_for("appliance/alarms/goes", b"raised")
            listener.wait_for("appliance/alarms/press", b"raised")
            until(lambda: json.loads((process.data / "old.json").read_text()) == [1], "recorded")
            listener.publish("start/old")
            told = configure(process, base + SECOND_RULES)
            assert "counts now: [[trigger]], [[recorder]], [[timer]]" in told
            listener.wait_for("appliance/alarms/goes", b"cleared")
            listener.wait_for("tick/second")
            assert qlik.wait_for(lambda: qlik.starts(TASK) == 1, 20)
            listener.publish("start/old")
            listener.publish("numbers/old", "2")
            listener.publish("numbers/new", "3")
            listener.publish("start/new")
            assert qlik.wait_for(lambda: qlik.starts(TASK) == 2, 20)
            until(lambda: json.loads((process.data / "new.json").read_text()) == [3], "recorded")
            assert json.loads((process.data / "old.json").read_text()) == [1]
            assert b"cleared" not in b"".join(listener.heard["appliance/alarms/press"])
            assert "tick/day" not in listener.heard

            told = configure(process, base + FIRST_RULES.split("[[timer]]")[0] + ALLOW)
            assert "[[recorder]]" in told
            listener.publish("start/old")
            listener.wait_for(f"appliance/tasks/{TASK}/execution", b"[allow]")
            assert qlik.starts(TASK) == 2
            (process.data / "old.json").chmod(0o666)
            configure(process, base + FIRST_RULES)
            until(
                lambda: json.loads((process.data / "old.json").read_text()) == [1, 2],
                "what came meanwhile is recorded too",
            )
            if sys.platform != "win32":
                mode = stat.S_IMODE((process.data / "old.json").stat().st_mode)
                assert mode == 0o600, "nobody else reads it"
        if sys.platform != "win32":  # no SIGTERM there; tests/windows ends it in order
            assert process.end() == 0


def test_a_wrong_configuration_changes_nothing(appliance) -> None:
    """All or nothing: with one mistake nothing of the new configuration counts, and the mistake is
    named; what does not go with what waits for a restart is refused as well."""
    appliance.start()
    for text, said in (
        (BASE + RULES + "[limits]\nmax_sesions = 1\n", "max_sessions"),
        (BASE + RULES + "[[timer]]\nname = 'a'\nevery = '1s'\n", "timer"),
        (BASE.replace("users.txt", "broken.txt") + RULES, "broken.txt"),
        (
            BASE + RULES + "[qlik]\nedition = 'simulated'\n"
            f"[[timer]]\nname = 'a'\nevery = '1s'\ntask = '{TASK}'\n",
            "Restart the appliance",
        ),
    ):
        (appliance.folder / "broken.txt").write_text("ann secret\n", "utf-8")
        done, told = reload(appliance, text)
        assert not done
        assert said in told
    with Listener(appliance) as listener:  # which subscribes to more than RULES allow
        listener.publish("other/topic")
        listener.wait_for("other/topic")


async def test_bounds_count_at_once(appliance) -> None:
    """[limits], a listener's bound and the journal's are other ones without a restart, and the
    first recorder records; what waits is named by key, with the reason."""
    appliance.start()
    here = await client(appliance, 4, "ann-1", clean=False)
    told = configure(
        appliance,
        BASE.replace('"data"', '"data"\nname = "other"\nlog_format = "json"').replace(
            'PORT"', 'PORT"\nmax_connections = 3'
        )
        + "[limits]\nmax_sessions = 1\nmax_packet_size = 2048\n"
        + "[journal]\nkeep = '1d'\nsync = 'os'\n[metrics]\nbind = '127.0.0.1:0'\n"
        + "[[recorder]]\ntopic = 't'\npath = 't.json'\n",
    )
    now = re.search("counts now: (.*)", told)[1]
    assert now.split(", ") == [
        "[[listener]] mqtt max_connections",
        "[limits] max_packet_size",
        "[limits] max_sessions",
        "[journal] keep",
        "[[recorder]]",
    ]
    waits = re.search("from the next start: (.*)", told)[1]
    for key in ("[service] name (", "[service] log_format (", "[journal] sync (", "[metrics] bind"):
        assert key in waits
    other = await Wire.open(appliance.port, 5)
    other.send(other.connect_packet("ann-2", username="ann", password=b"secret", clean=False))
    assert (await other.closed()).body[1] == 0x97
    large = await client(appliance, 4, "ann-3")
    large.publish("t", b"x" * 3000, 1)
    await large.closed()
    await here.publish_acked("t", b"1" * 3000, 1)  # its connection is older
    recording = appliance.data / "t.json"
    until(lambda: json.loads(recording.read_text()) == [int("1" * 3000)], "it is recorded")
    assert configure(appliance, appliance.config.read_text()).count("counts now") == 0


TABLES = {field.name: field for field in msgspec.structs.fields(Config) if field.name != "file"}


def test_every_key_is_marked_in_the_documentation_as_it_is() -> None:
    """docs/configuration.md says of each key whether it counts at once or after a restart."""
    page = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    seen = set()
    for heading, body in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", page, re.M | re.S):
        table, repeated = re.match(r"\[+(\w+)\.?(\w*)", heading).groups()
        inner = heading.partition(" ")[2] or repeated
        for key, mark in re.findall(r"^\| `(\w+)` \|.*\| (at once|restart) \|$", body, re.M):
            assert (mark == "at once") == counts_at_once(table, inner or key), (heading, key)
            seen.add(table)
        assert len(re.findall(r"^\| `", body, re.M)) == len(
            re.findall(r"(?:at once|restart) \|$", body, re.M)
        ), heading
    assert seen == set(TABLES)


def test_what_waits_is_left_as_it_is() -> None:
    """What is taken over of a new configuration is what counts at once, and nothing else."""
    old = loads("[[listener]]\nname = 'a'\nbind = '127.0.0.1:1'\n")
    new = loads(
        "[service]\nname = 'x'\nlog_level = 'debug'\n[qlik]\nedition = 'simulated'\n"
        "[[listener]]\nname = 'a'\nbind = '127.0.0.1:2'\nmax_connections = 7\n"
        "[[listener]]\nname = 'b'\nbind = '127.0.0.1:3'\n[limits]\nmax_retained = 3\n"
    )
    mixed = with_changes_at_once(old, new)
    assert (mixed.service.name, mixed.service.log_level) == ("appliance", "debug")
    assert [(one.bind, one.max_connections) for one in mixed.listener] == [("127.0.0.1:1", 7)]
    assert mixed.qlik is None
    assert mixed.limits.max_retained == 3
    assert all(change.waits for change in changes(mixed, new))
    assert {change.where for change in changes(mixed, new)} == {
        "[service] name",
        "[[listener]] a bind",
        "[[listener]] b (is new)",
        "[qlik]",
    }
