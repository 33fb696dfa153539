"""Attached terminals: a real appliance process, real sockets, the engine object of the terminal."""

import contextlib
import itertools
import json
import queue
import signal
import sqlite3
from pathlib import Path

import attached_appliance
import msgspec
import paho.mqtt.client as mqtt
import pytest
from appliance_process import QUICK, until
from attached_appliance import PASSWORD, publish, target

from appliance.counters import Counter
from appliance.problems import acknowledged, problems
from appliance.remote.client_engine import AttachedEngine
from appliance.mqtt.client import Client
from appliance.remote import client_engine, link, protocol
from appliance.remote.topics import reply_topic, request_topic, state_topic
from appliance.engine_api import AskedValues
from appliance.errors import ApplianceError, NoPermissionError, UnavailableError, UsageError
from appliance.message_filter import MessageFilter, Name
from appliance.model import ExecutionState, decode_hook
from appliance.ui import journal_lookup

_numbers = itertools.count()


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """One appliance for all tests that leave it running."""
    with attached_appliance.make(tmp_path_factory.mktemp("attach")) as process:
        yield process.start()


@pytest.fixture
def attach():
    """Attaches terminals, and detaches them at the end."""
    with contextlib.ExitStack() as stack:

        def do(process, user, client_id=None):
            name = client_id or f"{user}-{next(_numbers)}"
            engine = attached_appliance.attach(process, user, name)
            stack.callback(engine.close)
            return engine

        yield do


def topics(engine):
    return [message.topic for message in engine.live(0, 10_000)]


def test_a_terminal_shows_state_messages_and_log(running, attach):
    """What the UI reads is there within moments: snapshot, messages, topics, clients, log."""
    engine = attach(running, "anna")
    assert engine.role == "viewer"
    publish(running, "plant/a", b"x" * 5000)
    until(lambda: "plant/a" in topics(engine), "the message at the terminal")
    message = [one for one in engine.live(0, 100) if one.topic == "plant/a"][-1]
    assert message.payload == b"x" * protocol.SHOWN_BYTES
    assert engine.full_size(message.seq) == 5000
    assert message.username == "plc-7"
    snapshot = engine.snapshot()
    assert snapshot.name == "appliance"
    assert snapshot.link.level == "ok"
    assert snapshot.listeners[0].bind.endswith(str(running.port))
    assert abs(engine.clock_ns() - snapshot.taken_ns) < 60 * 10**9
    until(lambda: "plant/a" in [one.topic for one in engine.topics(100)], "the topic")
    until(lambda: any(one.username == "anna" for one in engine.clients()), "itself as a client")
    until(lambda: any("listening on" in one.text for one in engine.log(0, 1000)), "the log")


def test_a_terminal_reads_the_journal(running, attach):
    """The whole message, older messages and a point in time are had by asking."""
    publish(running, "plant/whole", b"y" * 200_000)
    engine = attach(running, "anna")
    until(lambda: "plant/whole" in topics(engine), "the message at the terminal")
    last = [one for one in engine.live(0, 100) if one.topic == "plant/whole"][-1]
    assert engine.message(last.seq).payload == b"y" * 200_000
    assert engine.message(10**9) is None
    assert [one.seq for one in engine.history(last.seq + 1, 2)] == [last.seq - 1, last.seq]
    assert engine.seq_at(last.received_ns) <= last.seq
    tasks = engine.server_tasks()
    assert [one.task for one in tasks.tasks] == list(engine.tasks())
    assert tasks.any_task == ("qliksense/start_task",)
    assert {each.kind for one in tasks.tasks for each in one.starters} == {"schedule", "chain"}
    assert list(engine.executions(1 << 62, 10, "no such task")) == []


def test_a_terminal_searches_the_journal(running, attach):
    """Steps back through the journal, with the filter as data; large payloads come cut."""
    publish(running, "searched/1", b"The Needle " + b"y" * 700_000)
    publish(running, "searched/2", b"needle")
    publish(running, "searched/3", b"hay")
    engine = attach(running, "anna")
    until(lambda: "searched/3" in topics(engine), "the messages at the terminal")
    asked = MessageFilter(topics=("searched/+",), texts=("NEEDLE",))
    before, found = 1 << 62, []
    while before:
        step = engine.search(asked, before, 1)
        found = [*step.messages, *found]
        before = step.before_seq
    assert [one.topic for one in found] == ["searched/1", "searched/2"]
    assert len(found[0].payload) == protocol.SHOWN_BYTES
    assert (Path(running.data) / "index.db").exists()
    with pytest.raises(ApplianceError, match="at most 50 words"):
        engine.search(MessageFilter(texts=("x",) * 51), 1 << 62, 1)


def test_the_numbers_of_a_topic_are_summed_up_on_the_appliances_side(running, attach):
    """A terminal on a slow line plots days: it gets sums, not messages."""
    for number in range(4):
        publish(running, "plotted/a", b'{"t": %d, "pad": "%s"}' % (number, b"x" * 700_000))
    engine = attach(running, "anna")
    until(lambda: "plotted/a" in topics(engine), "the messages at the terminal")
    asked = AskedValues("plotted/a", 3600 * 10**9, 0)
    found = engine.values(asked, 1 << 62).found
    assert [(one.path, one.value) for one in found] == [("t", 3.0)]
    since_ns = engine.snapshot().taken_ns - 100 * 3600 * 10**9
    asked = AskedValues("plotted/a", 3600 * 10**9, since_ns, ("t",))
    before, count, total = 1 << 62, 0, 0
    while before:
        step = engine.values(asked, before)
        count += sum(step.buckets[0].counts)
        total += sum(step.buckets[0].sums)
        before = step.before_seq
    assert (count, total) == (4, 6)
    with pytest.raises(ApplianceError, match="wildcard"):
        engine.values(AskedValues("plotted/#", 1, 0), 1 << 62)


def test_the_index_knows_the_clients_of_messages_that_come_together(running, attach):
    """What several clients send at a time is committed together, and each client's is found."""
    names = [f"crowd-{number}" for number in range(3)]
    with contextlib.ExitStack() as stack:
        clients = []
        for name in names:
            client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, name)
            client.username_pw_set("plc-7", PASSWORD)
            client.connect("127.0.0.1", running.port)
            client.loop_start()
            stack.callback(client.loop_stop)
            stack.callback(client.disconnect)
            clients.append(client)
        sent = [
            client.publish(f"crowd/{number % 7}", b"x", qos=1)
            for number in range(500)
            for client in clients
        ]
        for each in sent:
            each.wait_for_publish(60)
    engine = attach(running, "anna")

    def segments():
        with contextlib.closing(sqlite3.connect(Path(running.data) / "index.db")) as connection:
            return connection.execute("SELECT count(*) FROM segment").fetchone()[0]

    until(segments, "a part of them is in the index")
    for name in names:
        before, found = 1 << 62, []
        while before:
            step = engine.search(MessageFilter(clients=(Name(name, exact=True),)), before, 2000)
            found = [*step.messages, *found]
            before = step.before_seq
        assert [one.topic for one in found] == [f"crowd/{number % 7}" for number in range(500)]


def test_a_terminal_says_why_a_message_started_nothing(running, attach):
    """The reason is the engine's, for a viewer too; asking the Qlik server is for an operator."""
    engine = attach(running, "anna")
    publish(running, "hall/door", b"open")
    publish(running, "qliksense/start_task", b"nonsense")
    until(lambda: "qliksense/start_task" in topics(engine), "the messages at the terminal")
    last = {one.topic: one.seq for one in engine.live(0, 1000)}
    assert engine.explain(last["hall/door"]).reasons == ("No trigger listens on its topic.",)
    until(
        lambda: last["qliksense/start_task"] in engine.marks([last["qliksense/start_task"]]), "mark"
    )
    assert "JSON" in " ".join(engine.explain(last["qliksense/start_task"]).reasons)
    with pytest.raises(ApplianceError, match="look"):
        engine.check_server("")
    attach(running, "admin").check_server("")


def test_an_operator_may_let_a_bridge_connect(running, attach):
    """The appliance answers for itself: it has no such bridge."""
    with pytest.raises(ApplianceError, match="no bridge plant"):
        attach(running, "admin").connect_bridge("plant", "")


def test_an_operator_acknowledges_an_alarm(running, attach):
    """The act has the name of the user in the log and the journal; a viewer sees who and why."""
    engine = attach(running, "admin", "desk-admin")
    engine.fire_timer("press", "ignored")

    def alarm():
        return next((one for one in problems(engine.snapshot()) if one.kind == "alarm"), None)

    made = engine.acknowledge_problem(*until(alarm, "the alarm").identity, "ticket 7", "ignored")
    assert made.by.startswith("admin")
    running.wait_for_line('"ask":"acknowledge_problem"')
    seen = attach(running, "anna", "anna-seeing")
    until(lambda: acknowledged(seen.snapshot()), "it is seen elsewhere")
    assert acknowledged(seen.snapshot())[0].note == "ticket 7"
    engine.unacknowledge_problem(made.kind, made.name, "ignored")
    until(lambda: not seen.snapshot().acknowledged, "it is taken back")
    publish(running, "plant/press7", b"on")


def test_an_operator_starts_a_task_and_sees_its_outcome(running, attach):
    """The act is carried out, followed to its end, and stands in journal and log with its name."""
    engine = attach(running, "admin", "desk-admin")
    task = engine.tasks()[0]
    number = engine.start_task(task.id, "ignored")
    until(lambda: engine.execution(number) is not None, "the execution")
    assert engine.execution(number).task_id == task.id
    running.wait_for_line('"ask":"start_task"')
    line = next(one for one in running.lines if '"ask":"start_task"' in one)
    assert "admin (terminal desk-admin at 127.0.0.1:" in line
    assert task.id in line
    until(lambda: request_topic("desk-admin") in topics(engine), "the act in the journal")
    act = [one for one in engine.live(0, 100) if one.topic == request_topic("desk-admin")][-1]
    assert (act.username, act.client_id) == ("admin", "desk-admin")
    assert json.loads(act.payload) == {"ask": "start_task", "task_id": task.id}


def test_a_message_that_started_something_is_marked(running, attach):
    """Beside a message stands what it led to, also at a terminal elsewhere."""
    engine = attach(running, "admin")
    task = engine.tasks()[0]
    publish(running, "qliksense/start_task", task.id.encode())
    until(lambda: "qliksense/start_task" in topics(engine), "the message")
    [seq] = [one.seq for one in engine.live(0, 100) if one.topic == "qliksense/start_task"][-1:]
    until(lambda: seq in engine.marks([seq]), "the mark")
    assert isinstance(engine.marks([seq])[seq].state, ExecutionState)


def test_an_operator_publishes_and_disconnects(running, attach):
    """Acts on the broker work from elsewhere, and their refusals come back in words."""
    engine = attach(running, "admin")
    seq = engine.publish("plant/from-terminal", b"hello", 1, False, "ignored")
    assert until(lambda: engine.message(seq), "the message").payload == b"hello"
    other = attach(running, "anna", "anna-to-go")
    engine.disconnect("anna-to-go", "ignored")
    until(lambda: other.snapshot().link.level == "bad", "the lost connection")
    assert engine.acknowledge("ignored") == []
    with pytest.raises(ApplianceError, match="nobody-here is not connected"):
        engine.disconnect("nobody-here", "ignored")
    ended = attach(running, "anna", "anna-ended")
    assert engine.end_session("anna-ended", "ignored") == 0
    until(lambda: ended.snapshot().link.level == "bad", "the end of its connection")
    with pytest.raises(ApplianceError, match="nobody-here has no session"):
        engine.end_session("nobody-here", "ignored")
    with pytest.raises(UsageError, match="Topic"):
        engine.publish("plant/#", b"", 0, False, "ignored")
    for topic in ("appliance/status", "appliance/x", "appliance", "$SYS/x", "$desk/reply/a"):
        with pytest.raises(UsageError, match=r"appliance's own|belong to the broker"):
            engine.publish(topic, b"forged", 1, True, "ignored")
    with pytest.raises(UsageError, match="own"):
        engine.clear_retained("appliance/status", "ignored")


def test_an_operator_holds_and_releases(running, attach):
    """A viewer sees it too, with who did it."""
    engine, other = attach(running, "admin"), attach(running, "anna")
    task = engine.tasks()[0]
    found = engine.hold("task", task.name, 2**62, "new disks", False, "ignored")
    assert (found.name, found.title, found.who) == (task.id, task.name, "admin")
    seen = until(lambda: other.snapshot().holds, "the hold")
    assert [(one.shown, one.reason) for one in seen] == [(f"task {task.name}", "new disks")]
    assert other.holds().holds == seen
    assert engine.release("task", task.id, "ignored").by.startswith("admin (terminal ")
    until(lambda: not other.snapshot().holds, "the release")
    with pytest.raises(UsageError, match="Nothing holds"):
        engine.release("task", task.id, "ignored")


def test_a_viewer_may_not_act(running, attach):
    """Every act of a viewer is refused by the appliance, in words, with a line in the log."""
    engine = attach(running, "anna", "anna-acting")
    for act in (
        lambda: engine.start_task("2ce4dc25-9d8c-4d0c-8e57-7d0bd4a7ea34", ""),
        lambda: engine.repeat(1, ""),
        lambda: engine.stop_execution(1, ""),
        lambda: engine.publish("a", b"", 0, False, ""),
        lambda: engine.clear_retained("a", ""),
        lambda: engine.disconnect("anna-acting", ""),
        lambda: engine.end_session("anna-acting", ""),
        lambda: engine.pause_timer("a", True, ""),
        lambda: engine.fire_timer("a", ""),
        lambda: engine.hold("everything", "", None, "", False, ""),
        lambda: engine.release("everything", "", ""),
        lambda: engine.acknowledge(""),
        lambda: engine.acknowledge_problem("task", "id", "1", "", ""),
        lambda: engine.unacknowledge_problem("task", "id", ""),
        lambda: engine.connect_bridge("plant", ""),
        engine.stop,
    ):
        with pytest.raises(NoPermissionError, match=r"anna may look and not act.*\[access\]"):
            act()
    running.wait_for_line('refused {"ask":"stop"} to anna (terminal anna-acting at 127.0.0.1:')
    until(
        lambda: dict(engine.snapshot().counters).get(Counter.ACTS_REFUSED.metric, 0) >= 10,
        "the counter",
    )
    assert "anna-acting" not in [one.client_id for one in engine.history(1 << 62, 1000)]
    assert running.process.poll() is None


def test_a_stranger_is_not_let_in(running):
    """A user in neither list is told so and where that is written; a wrong password too."""
    for engine, text in (
        (AttachedEngine(target(running, "plc-7")), r"plc-7 may not attach.*\[access\] operators"),
        (AttachedEngine(target(running, "admin", password="wrong")), "refused"),
    ):
        try:
            with pytest.raises(NoPermissionError, match=text) as caught:
                engine.open(20)
        finally:
            engine.close()
        assert PASSWORD not in str(caught.value)


def test_looking_leaves_no_trace(running, attach):
    """A terminal that only looks, however long, does not make the journal grow."""
    engine = attach(running, "admin", "looker")
    engine.history(1 << 62, 100)
    engine.tasks()
    engine.message(1)
    heard = engine.snapshot().taken_ns
    until(lambda: engine.snapshot().taken_ns > heard + 10**9, "a second of frames")
    assert "looker" not in [one.client_id for one in engine.history(1 << 62, 1000)]


def test_several_terminals_at_once(running, attach):
    """Each sees the same, and one's leaving disturbs no other."""
    engines = [attach(running, user) for user in ("admin", "anna", "admin")]
    publish(running, "plant/all", b"1")
    for engine in engines:
        until(lambda engine=engine: "plant/all" in topics(engine), "the message everywhere")
    engines[0].close()
    publish(running, "plant/rest", b"1")
    for engine in engines[1:]:
        until(lambda engine=engine: "plant/rest" in topics(engine), "the message at the others")


# --- what clients could try -------------------------------------------------------------------


class Raw:
    """An MQTT 5 client that sends what it likes."""

    def __init__(self, process, user, client_id):
        self.subscribed, self.received = queue.Queue(), queue.Queue()
        self.gone = queue.Queue()
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv5
        )
        connected = queue.Queue()
        self.client.username_pw_set(user, PASSWORD)
        self.client.on_connect = lambda *arguments: connected.put(arguments[3])
        self.client.on_subscribe = lambda *arguments: self.subscribed.put(arguments[3])
        self.client.on_message = lambda _client, _data, message: self.received.put(message)
        self.client.on_disconnect = lambda *arguments: self.gone.put(arguments[3])
        self.client.connect("127.0.0.1", process.port, clean_start=True)
        self.client.loop_start()
        assert connected.get(timeout=15) == "Success"

    def subscribe(self, *wanted):
        self.client.subscribe([(one, mqtt.SubscribeOptions(qos=1)) for one in wanted])
        return [one.value for one in self.subscribed.get(timeout=15)]

    def ask(self, client_id, ask, number=0, qos=0):
        payload = msgspec.json.encode(protocol.Request(number, ask))
        return self.client.publish(request_topic(client_id), payload, qos=qos)

    def frame(self, timeout=15):
        return msgspec.msgpack.decode(
            self.received.get(timeout=timeout).payload, type=protocol.Frame, dec_hook=decode_hook
        )

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def raw(running):
    with contextlib.ExitStack() as stack:

        def make(user, client_id):
            client = Raw(running, user, client_id)
            stack.callback(client.close)
            return client

        yield make


def test_nobody_listens_in(running, raw, attach):
    """Wildcards don't take what the desk says; another's topics are refused, to operators too."""
    listener = raw("plc-7", "listener")
    assert listener.subscribe("#", "+/request/+", state_topic("listener")) == [1, 1, 0x87]
    spy = raw("admin", "spy")
    refused = [state_topic("victim"), reply_topic("victim"), "$desk/#", "$desk/+/spy",
               "$share/x/$desk/state/victim", request_topic("spy")]  # fmt: skip
    assert spy.subscribe(*refused) == [0x87] * len(refused)
    engine = attach(running, "admin", "victim")
    engine.publish("plant/heard", b"1", 1, False, "")
    heard = []
    while "plant/heard" not in heard:
        heard.append(listener.received.get(timeout=15).topic)
    assert not [topic for topic in heard if topic.startswith("$desk")]
    until(lambda: b"plant/heard" in (running.data / "all.jsonl").read_bytes(), "the recording")
    assert b"$desk" not in (running.data / "all.jsonl").read_bytes()


def test_nobody_asks_for_another(running, raw):
    """A request on another's topic, or of a user without a role, ends the connection."""
    for user, mine in (("admin", "asker-1"), ("plc-7", "asker-2")):
        client = raw(user, mine)
        client.ask("anna-terminal" if user == "admin" else mine, protocol.StopAppliance())
        client.gone.get(timeout=15)
    last = raw("admin", "asker-3")
    last.ask(
        "asker-3", protocol.StopAppliance(), qos=1
    )  # requests have no acknowledgement to wait for
    last.gone.get(timeout=15)
    assert running.process.poll() is None


def test_a_will_is_no_request(running):
    """What a client leaves behind can't ask the desk for anything when its connection is cut."""
    refused = queue.Queue()
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "willful", protocol=mqtt.MQTTv5)
    client.username_pw_set("admin", PASSWORD)
    client.will_set(request_topic("willful"), b'{"number":0,"ask":{"ask":"stop"}}')
    client.on_connect = lambda *arguments: refused.put(arguments[3])
    client.reconnect_delay_set(0.05, 0.05)  # the end waits for it
    client.connect("127.0.0.1", running.port)
    client.loop_start()
    try:
        assert refused.get(timeout=15) == "Not authorized"
    finally:
        client.disconnect()
        client.loop_stop()


def test_nonsense_is_counted_and_harms_nobody(running, raw, attach):
    """Bytes that are no request are dropped; the terminal goes on."""
    client = raw("admin", "nonsense")
    assert client.subscribe(state_topic("nonsense"), reply_topic("nonsense")) == [1, 1]
    for payload in (b"", b"{", b"\xff\xfe", b'{"number":1,"ask":{"ask":"rm -rf"}}', b"[" * 10_000,
                    b'{"x":' + b"[" * 100_000):  # fmt: skip
        client.client.publish(request_topic("nonsense"), payload)
    client.ask("nonsense", protocol.Attach(protocol.PROTOCOL + 1), number=5)
    answer = msgspec.msgpack.decode(client.received.get(timeout=15).payload, type=protocol.Answer)
    assert answer.number == 5
    assert "same version" in answer.error
    client.ask("nonsense", protocol.Attach(protocol.PROTOCOL, after_seq=-5, after_log=-1))
    assert client.frame().number == 1
    counters = dict(attach(running, "anna").snapshot().counters)
    assert counters[Counter.TERMINAL_REQUESTS_REFUSED_NOT_UNDERSTOOD.metric] >= 5


def test_a_stalled_terminal_gets_two_frames_and_no_more(running, raw, attach):
    """What is not confirmed is not sent on: nothing piles up for a terminal that hangs."""
    client = raw("anna", "stalled")
    client.subscribe(state_topic("stalled"))
    client.ask("stalled", protocol.Attach(protocol.PROTOCOL))
    assert [client.frame().number, client.frame().number] == [1, 2]
    other = attach(running, "admin")
    for number in range(12):
        seq = other.publish("plant/flood", bytes([number]) * 1000, 1, False, "")
        until(lambda: other.live(seq - 1, 1), "the message at the terminal that reads")
    assert client.received.empty()
    client.ask("stalled", protocol.Seen(2))
    frame = client.frame()
    assert frame.number == 3
    # At once what is new, not what it missed frame by frame. The appliance publishes meanwhile, too.
    assert seq in {one.seq for one in frame.messages}


def test_too_many_requests_at_a_time_are_refused(running, raw):
    """One terminal can't occupy the appliance with requests."""
    client = raw("admin", "greedy")
    client.subscribe(reply_topic("greedy"), state_topic("greedy"))
    client.ask("greedy", protocol.Attach(protocol.PROTOCOL), number=1)
    for number in range(2, 200):
        client.ask("greedy", protocol.GetHistory(1 << 62, 2000), number=number)
    answers = []
    while len(answers) < 199:
        message = client.received.get(timeout=15)
        if message.topic == reply_topic("greedy"):
            answers.append(msgspec.msgpack.decode(message.payload, type=protocol.Answer))
    assert any("Too much was asked" in one.error for one in answers)
    assert any(not one.error and one.number > 1 for one in answers)


# --- faults -------------------------------------------------------------------------------------


@pytest.mark.campaign
def test_a_killed_appliance_and_its_return(tmp_path, attach):
    """While it is away the terminal says so and refuses acts; when it is back it goes on itself."""
    process = attached_appliance.make(tmp_path)
    with process.start():
        engine = attach(process, "admin")
        publish(process, "plant/before", b"1")
        until(lambda: "plant/before" in topics(engine), "the message before")
        lines = [line.text for line in engine.log(0, 1000)]
        process.kill()
        until(lambda: engine.snapshot().link.level == "bad", "the trouble")
        assert "trying again" in engine.snapshot().link.text
        assert "plant/before" in topics(engine)
        with pytest.raises(UnavailableError, match="no connection"):
            engine.publish("plant/lost", b"", 1, False, "")
        process.start()
        publish(process, "plant/after", b"1")
        until(lambda: "plant/after" in topics(engine), "the message after", 60)
        until(lambda: engine.snapshot().link.level == "ok", "the trouble is over")
        seen = topics(engine)
        assert seen.count("plant/before") == 1
        seqs = [message.seq for message in engine.live(0, 10_000)]
        assert seqs == sorted(set(seqs))
        after = [line.text for line in engine.log(0, 1000)]
        assert after[: len(lines)] == lines
        assert any("listening on" in text for text in after[len(lines) :])
        numbers = [line.number for line in engine.log(0, 1000)]
        assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.campaign
def test_an_appliance_that_hangs_is_said_to(tmp_path, attach, monkeypatch):
    """A stopped process sends nothing: the terminal says so, and recovers with it."""
    if not hasattr(signal, "SIGSTOP"):
        pytest.skip("processes can't be stopped here")
    monkeypatch.setattr(client_engine, "_SILENT_S", 1.5)
    process = attached_appliance.make(tmp_path)
    with process.start():
        engine = attach(process, "admin")
        process.send(signal.SIGSTOP)
        until(lambda: engine.snapshot().link.level == "warn", "the silence")
        assert "nothing heard" in engine.snapshot().link.text
        process.send(signal.SIGCONT)
        until(lambda: engine.snapshot().link.level == "ok", "the frames again")


@pytest.mark.campaign
def test_a_user_who_may_attach_again_is_attached_again(tmp_path, attach, monkeypatch):
    """A role that is taken away ends the connection with the reason; given back, the terminal
    goes on by itself."""
    if not hasattr(signal, "SIGHUP"):
        pytest.skip("no signal reloads the configuration here")
    monkeypatch.setattr(client_engine, "_ATTACH_AGAIN_S", 1.5)
    monkeypatch.setattr(link, "_FASTEST_RETRY_S", 0.1)
    process = attached_appliance.make(tmp_path)
    process.program = QUICK
    config = tmp_path / "config.toml"
    with process.start():
        engine = attach(process, "anna")
        text = config.read_text()
        config.write_text(text.replace('"anna", ', ""))
        process.send(signal.SIGHUP)
        until(lambda: "anna may not attach" in engine.snapshot().link.text, "the reason")
        config.write_text(text)
        process.send(signal.SIGHUP)
        until(lambda: engine.snapshot().link.level == "ok", "the frames again")


def test_an_operator_stops_the_appliance(tmp_path, attach):
    """The stop asked for from a terminal is the ordered one."""
    process = attached_appliance.make(tmp_path)
    with process.start():
        engine = attach(process, "admin")
        engine.stop()
        assert process.exit_code() == 0
        until(lambda: engine.snapshot().link.level == "bad", "the trouble")


def test_nothing_there_is_said(tmp_path):
    """A port where nothing listens ends the attempt with the reason."""
    engine = AttachedEngine(target(attached_appliance.make(tmp_path), "admin"))
    try:
        with pytest.raises(UnavailableError, match="nothing listens at"):
            engine.open(5)
    finally:
        engine.close()


def test_a_terminal_elsewhere_finds_the_line_of_a_recording(running, attach):
    """The line that is said is the one in the file, and what a topic retains can be seen."""
    for number in range(5):
        publish(running, f"line/{number % 2}", f"value {number}".encode())
    with Client(target(running, "plc-7", "keeper")) as client:
        client.publish("line/kept", b"held", qos=1, retain=True)
    engine = attach(running, "anna")
    newest = engine.history(1 << 62, 1)[-1].seq
    until(lambda: engine.snapshot().recorders[0].looked_at >= newest, "everything is recorded")
    recorder = engine.snapshot().recorders[0]
    lines = Path(recorder.path).read_text("utf-8").splitlines()
    found = [one for one in engine.history(1 << 62, 100) if one.topic.startswith("line/")]
    assert len(found) == 6
    for message in found:
        where = journal_lookup.place(engine, recorder, message.seq).removeprefix("line ")
        assert message.payload.decode() in lines[int(where.replace(",", "")) - 1]
    assert engine.retained("line/kept").payload == b"held"
    assert engine.retained("line/0") is None
