"""Bridges to brokers that exist, while something breaks: nothing is lost, nothing started twice.

Each test sends messages both ways through a proxy, breaks something in the middle, and looks into
the appliance's journal, at the start calls of the Qlik server and at what the other broker got.
``ALL_FAULTS=1 pytest -n 0 -s -m campaign`` with this file prints the table of docs/bridges.md.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from appliance_process import QUICK, until
from bridge_site import Site, task_id
from broker_rig import packet, text
from fault_proxy import (
    CONNACK,
    PUBACK,
    PUBLISH,
    SUBACK,
    TO_BROKER,
    TO_CLIENT,
    Fault,
    FaultProxy,
)
from other_brokers import (
    PASSWORD,
    USER,
    WEAK,
    WEAK_PASSWORD,
    Amqtt,
    ApplianceBroker,
    Mosquitto,
    Nats,
    NatsCluster,
    OtherBroker,
    RabbitMQ,
    Remote,
)
from set_clock import ProcessWithSetClock


pytestmark = [
    pytest.mark.posix("a process is killed, and brokers of a Unix system are started"),
    pytest.mark.campaign,  # brokers of other makers
]

MANY = 100
"""Messages before, during and after the fault, in each direction."""
_numbers = itertools.count(1)


NAME = "broker.test"
"""A name with the addresses of three nodes."""
_SEVERAL = """
import runpy, socket, sys
resolve = socket.getaddrinfo
def getaddrinfo(host, port, *more, **named):
    if host != {name!r}:
        return resolve(host, port, *more, **named)
    return [found for n in (1, 2, 3) for found in resolve(f"127.0.0.{{n}}", port, *more, **named)]
socket.getaddrinfo = getaddrinfo
sys.argv[0] = {program!r}
runpy.run_path({program!r}, run_name="__main__")
"""


class Row(NamedTuple):
    """A line of the table."""

    broker: str
    fault: str
    way: str
    sent: int
    acknowledged: int
    journaled: int
    repeats: int
    started: str


_rows: list[Row] = []


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    """Print the table at the end (to be seen with ``-s``)."""
    yield
    titles = ("broker", "fault", "way", "sent", "acknowledged", "journaled", "repeats", "started")
    print("\n| " + " | ".join(titles) + " |\n|" + "---|" * len(titles))  # noqa: T201
    for row in sorted(_rows):
        print("| " + " | ".join(map(str, row)) + " |")  # noqa: T201


class Run:
    """Messages both ways between an appliance and another broker, and what became of them."""

    def __init__(self, broker: OtherBroker, folder: Path, version: str, many: int) -> None:
        self.broker = broker
        self.many = many
        self.number = next(_numbers)
        self.client_id = f"bridge-{self.number}"
        self.proxy = FaultProxy((broker.host, broker.port))
        self.knows_repeats = True
        """Whether the other broker flags what it sends again."""
        self._kind = broker.kind + (" (MQTT 5)" if version == "5" else "")
        self.loses = False
        """Whether the other broker itself forgets messages in this run."""
        self.sent_in: list[str] = []
        self.sent_out: list[str] = []
        self._folder = folder
        self._version = version

    @contextlib.contextmanager
    def running(self) -> Iterator[Run]:
        with contextlib.ExitStack() as stack:
            stack.push(self._tell)
            stack.enter_context(self.proxy)
            self.site = stack.enter_context(
                Site(
                    self._folder / "site",
                    self.proxy.port,
                    tasks=3 * self.many,
                    version=self._version,
                    client_id=self.client_id,
                    subscribe=f"plant{self.number}/#",
                    publish=f'{{topic = "out/#", remote_prefix = "from{self.number}/"}}',
                )
            )
            until(lambda: self.proxy.count(TO_CLIENT, SUBACK), "the bridge has subscribed")
            self.press = stack.enter_context(Remote(self.broker, f"press-{self.number}"))
            self.scada = stack.enter_context(Remote(self.broker, f"scada-{self.number}"))
            self.scada.subscribe(f"from{self.number}/#")
            self.plc = stack.enter_context(self.site.client())
            yield self

    def _tell(self, _kind: object, error: object, _trace: object) -> None:
        if error is not None:
            starts = self.site.starts()
            missing = [name for name in self.sent_in if starts[name] != 1]
            print("not started once:", missing)  # noqa: T201

    def send(self) -> None:
        """Messages to the other broker, which the bridge brings in, and to the appliance."""
        for _ in range(self.many):
            self.sent_in.append(task_id(len(self.sent_in)))
            self.press.publish(f"plant{self.number}/line", self.sent_in[-1])
            self.sent_out.append(f"o{len(self.sent_out):04}")
            self.plc.publish("out/line", self.sent_out[-1])

    def quiet(self) -> None:
        """Wait until both brokers have acknowledged all: no sender sends anything again."""
        self.press.wait_acknowledged(len(self.sent_in))
        self.plc.wait_acknowledged(len(self.sent_out))

    def send_without_answers(self) -> None:
        """Messages which arrive at both sides of the bridge while their acknowledgements vanish."""
        before = [self.proxy.count(way, PUBLISH) for way in (TO_CLIENT, TO_BROKER)]
        self.proxy.swallow_answers()
        self.send()
        self.quiet()
        for way, count in zip((TO_CLIENT, TO_BROKER), before, strict=True):
            until(lambda: self.proxy.count(way, PUBLISH) > count, f"messages {way}")  # noqa: B023

    @contextlib.contextmanager
    def reconnects(self) -> Iterator[None]:
        """The bridge loses its connection within, and has another one afterwards."""
        before = self.proxy.count(TO_CLIENT, CONNACK)
        yield
        until(lambda: self.proxy.count(TO_CLIENT, CONNACK) > before, "the bridge comes back")

    @contextlib.contextmanager
    def subscribes(self) -> Iterator[None]:
        """The other broker has forgotten the bridge within, which subscribes again."""
        self.loses = True
        before = self.proxy.count(TO_CLIENT, SUBACK)
        yield
        until(lambda: self.proxy.count(TO_CLIENT, SUBACK) > before, "the bridge subscribes again")

    def check(self, fault: str) -> None:
        """Wait until everything has arrived, and look at it."""
        last = self.sent_in[-self.many :] if self.loses else self.sent_in
        site = self.site
        until(lambda: all(site.starts()[name] for name in last), "all starts")
        if not self.loses or self.broker.survives_kill:
            self.scada.wait(
                lambda: set(self.sent_out) <= set(self.scada.payloads()), "all that goes out"
            )
        # What comes again comes before the next message, or after a time.
        time.sleep(self.broker.sends_again_after_s)
        site.end()
        journaled = site.journaled()
        note(self._kind, fault, site, self.press, self.plc, self.scada)
        first: dict[str, int] = {}
        for message in journaled:
            name = message.payload.decode()
            number = first.setdefault(name, message.packet_id)
            if self.knows_repeats:
                assert message.packet_id == number, f"the repeat of {name} is not known as one"
        assert set(first) <= set(self.sent_in)
        if not self.loses:
            assert set(first) == set(self.sent_in)
        if self.broker.ordered:
            assert list(first) == sorted(first)
        news = Counter(message.payload.decode() for message in journaled if not message.dup)
        assert site.starts() == news
        if self.knows_repeats:
            assert news == Counter(dict.fromkeys(first, 1))
        if self.broker.ordered:
            entered = [one.payload.decode() for one in site.messages() if one.topic == "out/line"]
            arrived = dict.fromkeys(self.scada.payloads())
            assert list(arrived) == [one for one in dict.fromkeys(entered) if one in arrived]


def note(broker: str, fault: str, site: Site, press: Remote, plc: Remote, scada: Remote) -> None:
    """Lines of the table for what came in and what went out."""
    journaled = [message.payload for message in site.journaled()]
    got = scada.payloads()
    counts = Counter(site.starts().values())
    counts.pop(0, None)
    started = ", ".join(f"{count} x {times}" for times, count in sorted(counts.items()))
    for way, sender, found, starts in (("in", press, journaled, started), ("out", plc, got, "")):
        different = len(set(found))
        counted = (sender.sent, sender.acknowledged, different, len(found) - different)
        _rows.append(Row(broker, fault, way, *counted, starts))


def cut(run: Run) -> None:
    with run.reconnects():
        run.send_without_answers()
        run.proxy.cut()
        run.proxy.flow()


def half_a_packet(run: Run) -> None:
    """Once in each direction."""
    with run.reconnects():
        ways = (TO_CLIENT, TO_BROKER)
        done = [run.proxy.at(way, PUBLISH, run.many // 4, Fault.CUT_WITHIN) for way in ways]
        run.send()
        assert all(each.wait(60) for each in done)


def half_closed(run: Run) -> None:
    with run.reconnects():
        done = run.proxy.at(TO_BROKER, PUBACK, run.many // 4, Fault.HALF_CLOSE)
        run.send()
        assert done.wait(60)


def delayed(run: Run) -> None:
    run.proxy.delay_s = 0.01
    run.send()
    run.quiet()
    run.proxy.delay_s = 0.0


def silent(run: Run) -> None:
    """The connection stays open and carries nothing: only the keepalive tells."""
    with run.reconnects():
        done = run.proxy.at(TO_CLIENT, PUBLISH, run.many // 4, Fault.SILENCE)
        run.send()
        assert done.wait(60)


def broker_killed(run: Run) -> None:
    forgets = contextlib.nullcontext() if run.broker.survives_kill else run.subscribes()
    # A sender that is away while messages are handed to it sends them in another order.
    with run.reconnects(), forgets, run.press.reconnects(), run.scada.reconnects():
        run.send_without_answers()
        run.knows_repeats = run.broker.flags_repeats
        run.broker.save()
        run.broker.restart()
        run.proxy.flow()


def session_wiped(run: Run) -> None:
    """Another client with the bridge's id begins a new session, as an operator's mistake does."""
    with run.reconnects(), run.subscribes():
        run.send_without_answers()
        run.broker.wipe_session(run.client_id)
        run.proxy.flow()


def appliance_killed(run: Run) -> None:
    with run.reconnects(), run.plc.reconnects():
        run.send_without_answers()
        run.site.process.kill()
        run.proxy.flow()
        run.site.process.start()


def appliance_killed_under_load(run: Run) -> None:
    """In the middle of whatever it does then."""
    with run.reconnects(), run.plc.reconnects():
        done = run.proxy.at(TO_BROKER, PUBACK, run.many // 2, Fault.CUT_AFTER)
        run.send()
        run.plc.wait_acknowledged(len(run.sent_out))
        assert done.wait(60)
        run.site.process.kill()
        run.site.process.start()


@contextlib.contextmanager
def several_addresses(folder: Path) -> Iterator[tuple[str, ...]]:
    """Arguments of Python that start an appliance for which NAME has three addresses."""
    if sys.platform != "linux":
        pytest.skip("only Linux has 127.0.0.2 without being told")
    script = folder / "several.py"
    script.write_text(_SEVERAL.format(name=NAME, program=QUICK[0]), "utf-8")
    yield (str(script),)


FAULTS: dict[str, Callable[[Run], None]] = {
    "connection cut": cut,
    "half a packet": half_a_packet,
    "half-closed": half_closed,
    "delayed": delayed,
    "silent": silent,
    "broker killed": broker_killed,
    "session wiped": session_wiped,
    "appliance killed": appliance_killed,
    "appliance killed under load": appliance_killed_under_load,
}


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], OtherBroker]]:
    """Brokers by name, each started when it is asked for first."""
    kinds = {
        "mosquitto": Mosquitto,
        "RabbitMQ": RabbitMQ,
        "NATS": Nats,
        "amqtt": Amqtt,
        "appliance": ApplianceBroker,
    }
    running: dict[str, OtherBroker] = {}
    with contextlib.ExitStack() as stack:

        def broker(name: str) -> OtherBroker:
            if name not in running:
                made = kinds[name](tmp_path_factory.mktemp(name))
                running[name] = stack.enter_context(made)
            return running[name]

        yield broker


def carry(broker: OtherBroker, fault: str, folder: Path, version: str, many: int = MANY) -> None:
    with Run(broker, folder, version, many).running() as run:
        run.loses = not broker.sends_again
        run.send()
        FAULTS[fault](run)
        run.quiet()
        run.send()
        run.check(fault)


KINDS = [
    ("mosquitto", "3.1.1"),
    ("mosquitto", "5"),
    ("NATS", "3.1.1"),
    ("amqtt", "3.1.1"),
    ("appliance", "5"),
    ("RabbitMQ", "3.1.1"),
]
FEWER = {
    ("NATS", "3.1.1"): ("connection cut", "half a packet", "broker killed", "appliance killed"),
    ("mosquitto", "5"): ("connection cut", "broker killed", "appliance killed"),
    ("amqtt", "3.1.1"): ("connection cut", "broker killed", "appliance killed"),
    ("appliance", "5"): ("connection cut", "half a packet", "broker killed", "appliance killed"),
    ("RabbitMQ", "3.1.1"): ("connection cut", "broker killed", "session wiped", "appliance killed"),
}
"""Of some brokers the campaign tries fewer; ``ALL_FAULTS=1`` tries all."""
CASES = [
    (*kind, fault)
    for kind in KINDS
    for fault in (FAULTS if "ALL_FAULTS" in os.environ else FEWER.get(kind, FAULTS))
    if fault != "silent" or kind == ("mosquitto", "3.1.1")  # it lasts two keepalives
]


@pytest.mark.campaign
@pytest.mark.parametrize(("name", "version", "fault"), CASES)
def test_each_message_arrives_and_starts_its_task_once(
    brokers: Callable[[str], OtherBroker], tmp_path: Path, name: str, version: str, fault: str
) -> None:
    """Both ways: in the journal in order, repeats known as such, each task started once."""
    carry(brokers(name), fault, tmp_path, version)


@pytest.mark.parametrize("fault", ["connection cut", "appliance killed"])
def test_mosquitto_through_a_fault(
    brokers: Callable[[str], OtherBroker], tmp_path: Path, fault: str
) -> None:
    """The quick ones of the tests above, with fewer messages."""
    carry(brokers("mosquitto"), fault, tmp_path, "3.1.1", many=20)


@pytest.mark.campaign
def test_a_node_of_a_nats_cluster_is_killed_under_load(tmp_path: Path) -> None:
    """One name has the addresses of all nodes; the bridge goes on at another one.

    NATS keeps the session of a lost client for some 15 s: it closes connections without an answer.
    """
    with NatsCluster(tmp_path / "nats") as cluster, several_addresses(tmp_path) as program:
        first, second, _ = cluster.nodes
        with (
            Site(
                tmp_path / "site", cluster.port, host=NAME, tasks=3 * MANY, program=program
            ) as site,
            Remote(second, "press") as press,
            Remote(second, "scada") as scada,
            site.client() as plc,
        ):
            scada.subscribe("from/#")
            site.said("is connected")
            # What goes out waits for the answer to the subscription, which a cluster takes a while for.
            plc.publish("out/line", "ready")
            scada.wait(lambda: "ready" in scada.payloads(), "the bridge has subscribed")
            sent_in, sent_out = [], []
            for number in range(3 * MANY):
                if number == MANY:
                    press.wait_acknowledged(MANY // 2)
                    first.kill()
                sent_in.append(task_id(number))
                press.publish("plant/line", sent_in[-1])
                sent_out.append(f"o{number:04}")
                plc.publish("out/line", sent_out[-1])
            until(lambda: all(site.starts()[name] for name in sent_in), "all starts")
            scada.wait(lambda: set(sent_out) <= set(scada.payloads()), "all that goes out")
            time.sleep(second.sends_again_after_s)
            site.end()
            # What the killed node had sent comes from another one, not always flagged as a repeat.
            journaled = site.journaled()
            assert {message.payload.decode() for message in journaled} == set(sent_in)
            news = Counter(one.payload.decode() for one in journaled if not one.dup)
            assert site.starts() == news
            note("NATS, three nodes", "a node killed", site, press, plc, scada)


@pytest.mark.campaign
def test_a_remote_that_floods_keeps_no_client_waiting(
    brokers: Callable[[str], OtherBroker], tmp_path: Path
) -> None:
    """Another client's acknowledgements go on while the other broker sends what it can."""
    broker = brokers("mosquitto")
    with Site(tmp_path / "site", broker.port, client_id="flooded", subscribe="flood/#") as site:
        site.said("is connected")
        flood = packet(0x30, text("flood/x"), b"x" * 100) * 200
        stop = threading.Event()

        def pour() -> None:
            with socket.create_connection((broker.host, broker.port)) as source:
                login = text("pouring") + text(USER) + text(PASSWORD)
                source.sendall(packet(0x10, text("MQTT"), b"\4\xc2\0\0", login))
                while not stop.is_set():
                    source.sendall(flood)

        pouring = threading.Thread(target=pour)
        pouring.start()
        try:
            until(lambda: len(site.journaled()) > 1000, "the flood comes in")
            before = len(site.journaled())
            waits = []
            with site.client() as plc:
                for number in range(1, 101):
                    began = time.monotonic()
                    plc.publish("plant/other", "x")
                    plc.wait_acknowledged(number)
                    waits.append(time.monotonic() - began)
            assert len(site.journaled()) > before + 1000, "the flood went on"
        finally:
            stop.set()
            pouring.join()
        assert max(waits) < 5, sorted(waits)[-5:]
        site.end()


@pytest.mark.campaign
@pytest.mark.parametrize("hours", [48, -5])
def test_a_clock_that_is_set_while_connected_and_while_waiting(
    brokers: Callable[[str], OtherBroker], tmp_path: Path, hours: int
) -> None:
    """Neither the connection nor the wait for the next attempt is held up by it."""
    broker = brokers("mosquitto")
    with (
        FaultProxy((broker.host, broker.port)) as proxy,
        Site(
            tmp_path / "site",
            proxy.port,
            tasks=3 * MANY,
            client_id="clock",
            subscribe="clock/#",
            process=ProcessWithSetClock,
        ) as site,
        Remote(broker, "press-clock") as press,
    ):
        until(lambda: proxy.count(TO_CLIENT, SUBACK), "the bridge has subscribed")
        sent: list[str] = []

        def send() -> None:
            for _ in range(MANY):
                sent.append(task_id(len(sent)))
                press.publish("clock/line", sent[-1])
            # A request that waits for its start would expire when the clock is set.
            until(lambda: all(site.starts()[name] for name in sent), "all starts")

        def set_clock(ahead_s: float, times: int) -> None:
            site.process.clock.set(ahead_s)
            told = "The system's clock was set"
            until(lambda: sum(told in line for line in site.process.lines) >= times, told)

        send()
        set_clock(hours * 3600, 1)
        send()
        proxy.refuse()
        taken = proxy.connections
        until(lambda: proxy.connections > taken, "an attempt that fails")
        set_clock(0, 2)
        proxy.accept()
        send()
        site.end()
        assert site.starts() == Counter(dict.fromkeys(sent, 1))
        assert [one.payload.decode() for one in site.journaled() if not one.dup] == sent


REFUSALS = [
    # broker, version, and the topic below out/ that it refuses
    ("mosquitto", "5", "bad/x"),
    ("appliance", "5", "bad/x"),
    ("RabbitMQ", "3.1.1", "bad/x"),
    ("NATS", "3.1.1", "ok/out/with a space"),
    ("amqtt", "3.1.1", "bad/x"),
]


@pytest.mark.campaign
@pytest.mark.parametrize(("name", "version", "topic"), REFUSALS)
def test_what_the_broker_refuses_is_left_out_and_the_rest_goes_on(
    brokers: Callable[[str], OtherBroker], tmp_path: Path, name: str, version: str, topic: str
) -> None:
    """A refusal with a reason, a connection that ends at each attempt, or a silent one."""
    broker = brokers(name)
    with (
        Site(
            tmp_path / "site",
            broker.port,
            version=version,
            client_id=f"refused-{name}",
            user=WEAK,
            password=WEAK_PASSWORD,
            subscribe="ok/in",
            publish='{topic = "out/ok/out/#", remove_prefix = "out/"}, '
            '{topic = "out/bad/#", remove_prefix = "out/"}',
        ) as site,
        Remote(broker, f"scada-refused-{name}") as scada,
        site.client() as plc,
    ):
        scada.subscribe("ok/#")
        plc.publish("out/ok/out/1", "first")
        plc.publish(f"out/{topic}", "refused")
        plc.publish("out/ok/out/1", "last")
        # Where the connection ends at a refusal, what was sent just before may come twice.
        scada.wait(lambda: "last" in scada.payloads(), "what is behind the refused one")
        assert list(dict.fromkeys(scada.payloads())) == ["first", "last"]
        if name != "amqtt":  # it acknowledges what its rules threw away
            site.said("plant", topic)
        site.end()


@pytest.mark.campaign
@pytest.mark.parametrize("name", ["mosquitto", "appliance", "RabbitMQ", "NATS", "amqtt"])
def test_a_wrong_password_is_named(
    brokers: Callable[[str], OtherBroker], tmp_path: Path, name: str
) -> None:
    broker = brokers(name)
    with Site(tmp_path / "site", broker.port, client_id="wrong", password="wrong one") as site:
        line = site.said("plant", "password")  # some brokers say only: not authorized
        assert "wrong one" not in line
        site.end()


@pytest.mark.campaign
@pytest.mark.parametrize("name", ["appliance", "RabbitMQ", "NATS", "amqtt"])
def test_a_forbidden_subscription_is_named_and_the_way_out_goes_on(
    brokers: Callable[[str], OtherBroker], tmp_path: Path, name: str
) -> None:
    """By a reason code, or by the end of the connection; mosquitto grants it and stays silent."""
    broker = brokers(name)
    with (
        Site(
            tmp_path / "site",
            broker.port,
            client_id=f"forbidden-{name}",
            user=WEAK,
            password=WEAK_PASSWORD,
            subscribe="forbidden/#",
            publish='{topic = "out/ok/#", remove_prefix = "out/"}',
        ) as site,
        Remote(broker, f"scada-forbidden-{name}") as scada,
        site.client() as plc,
    ):
        site.said("plant", "forbidden/#")
        scada.subscribe("ok/#")
        plc.publish("out/ok/2", "goes out")
        scada.wait(lambda: scada.payloads() == ["goes out"], "the way out works")
        site.end()
