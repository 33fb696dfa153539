"""The terminal server: who gets frames and answers, and what happens when the engine fails."""

import asyncio
import contextlib
import logging

import msgspec
import pytest
from plain_engine import PlainEngine

from appliance.counters import Counter
from appliance.remote import server
from appliance.remote import protocol
from appliance.remote.topics import reply_topic, request_topic, state_topic
from appliance.errors import ApplianceError
from appliance.model import Message, decode_hook

DEADLINE_S = 20


class Served:
    """A terminal server over a plain engine, and the broker's part of it."""

    def __init__(self):
        self.engine = PlainEngine()
        self.listening = set()
        self.handed = asyncio.Queue()
        self.recorded = []
        self.counted = []
        self.roles = {"admin": "operator", "anna": "viewer"}
        self.server = server.TerminalServer(
            self.engine,
            hand=self._hand,
            is_listening=lambda client, topic: topic in self.listening,
            record=self._record,
            role_of=lambda user, address: self.roles.get(user),
            count=self.counted.append,
        )

    def _hand(self, topic, payload):
        self.handed.put_nowait((topic, payload))
        return 1

    async def _record(self, message, what):
        self.recorded.append((message.username, what))

    def come(self, client):
        self.listening |= {state_topic(client), reply_topic(client)}

    def ask(self, client, ask, number=0, user="admin"):
        payload = msgspec.json.encode(protocol.Request(number, ask))
        self.server.take(Message(0, 1, request_topic(client), payload, client_id=client,
                               username=user, address="127.0.0.1:5"))  # fmt: skip

    async def next(self, topic):
        """The next payload on a topic; what comes on others is passed over."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                found, payload = await self.handed.get()
                if found == topic:
                    return payload

    async def answer(self, client):
        return msgspec.msgpack.decode(await self.next(reply_topic(client)), type=protocol.Answer)

    async def frame(self, client):
        return msgspec.msgpack.decode(
            await self.next(state_topic(client)), type=protocol.Frame, dec_hook=decode_hook
        )


@pytest.fixture
async def place():
    it = Served()
    it.server.start()
    yield it
    await it.server.stop()


ATTACH = protocol.Attach(protocol.PROTOCOL)


async def test_nothing_is_made_while_nobody_is_attached(place):
    """The engine is not even read before the first terminal comes and after the last has gone."""
    await asyncio.sleep(0.3)  # three times a frame's time, in which nothing must happen
    assert place.engine.reads == 0
    place.come("t1")
    place.ask("t1", ATTACH)
    assert (await place.frame("t1")).number == 1
    place.listening.clear()
    async with asyncio.timeout(DEADLINE_S):
        while place.server.attached:
            await asyncio.sleep(0.02)
    reads = place.engine.reads
    await asyncio.sleep(0.3)  # as above
    assert place.engine.reads == reads


async def test_who_lost_the_right_gets_no_more_answers(place):
    """The role is looked at for each request, not once."""
    place.come("t1")
    place.ask("t1", ATTACH, number=1)
    assert (await place.answer("t1")).error == ""
    place.roles.clear()
    place.ask("t1", protocol.GetTasks(), number=2)
    place.roles["admin"] = "viewer"
    place.ask("t1", protocol.StopAppliance(), number=3)
    answer = await place.answer("t1")
    assert (answer.number, answer.kind) == (3, "NoPermissionError")
    assert place.counted == [
        Counter.TERMINAL_REQUESTS_REFUSED_NOT_ALLOWED, Counter.ACTS_REFUSED,
    ]  # fmt: skip
    assert place.recorded == []


async def test_there_is_a_bound_on_terminals(place):
    """One more than may be attached is told so, and the others stay."""
    for number in range(server.MAX_TERMINALS + 1):
        place.come(f"t{number}")
        place.ask(f"t{number}", ATTACH, number=1)
    answer = await place.answer(f"t{server.MAX_TERMINALS}")
    assert "attached already" in answer.error
    assert place.server.attached == server.MAX_TERMINALS
    place.ask("t0", ATTACH, number=2)  # an attached terminal may attach anew
    assert place.server.attached == server.MAX_TERMINALS
    assert place.counted == [Counter.TERMINALS_REFUSED]


async def test_a_command_gets_answers_and_no_frames(place):
    """The engine's state is not read for a command, and its requests are answered."""
    place.listening.add(reply_topic("c1"))
    place.ask("c1", protocol.Attach(protocol.PROTOCOL, frames=False), number=1)
    assert (await place.answer("c1")).error == ""
    assert place.server.attached == 0
    place.ask("c1", protocol.FindExecutions((1,)), number=2)
    assert "can't look up executions" in (await place.answer("c1")).error
    assert place.engine.reads == 0


async def test_there_is_a_bound_on_commands(place):
    """One more than may wait is told so; a command that has gone makes room for it."""
    ask = protocol.Attach(protocol.PROTOCOL, frames=False)
    for number in range(server.MAX_COMMANDS + 1):
        place.listening.add(reply_topic(f"c{number}"))
        place.ask(f"c{number}", ask, number=1)
    last = f"c{server.MAX_COMMANDS}"
    assert "commands wait already" in (await place.answer(last)).error
    assert place.counted == [Counter.TERMINALS_REFUSED]
    place.listening.discard(reply_topic("c0"))
    place.ask(last, ask, number=2)
    assert (await place.answer(last)).error == ""


async def test_who_does_not_listen_is_not_attached(place):
    """Without the subscription nothing would ever say that the terminal has gone."""
    place.listening.add(reply_topic("t1"))
    place.ask("t1", ATTACH, number=1)
    assert "Subscribe" in (await place.answer("t1")).error
    assert place.server.attached == 0


async def test_an_engine_that_fails_does_not_end_the_server(place, caplog, monkeypatch):
    """While no frame can be made the log says why, once; then terminals go on."""
    monkeypatch.setattr(server, "_AFTER_FAILURE_S", 0.05)
    healthy, tries = place.engine.snapshot, 0
    place.come("t1")
    place.ask("t1", ATTACH)
    await place.frame("t1")

    def broken():
        nonlocal tries
        tries += 1
        if tries < 3:
            raise RuntimeError("no state")
        return healthy()

    place.engine.snapshot = broken
    with caplog.at_level(logging.ERROR):
        place.ask("t1", protocol.Seen(1))
        while (await place.frame("t1")).number < 3:
            place.ask("t1", protocol.Seen(2))
    assert len([one for one in caplog.records if "no frame" in one.message]) == 1


async def test_a_fault_of_the_engine_becomes_an_answer(place):
    """Neither a refusal nor a defect behind a request leaves the terminal waiting."""
    place.come("t1")
    place.ask("t1", ATTACH)

    def fail(error):
        def do(*_arguments):
            raise error

        return do

    place.engine.message = fail(ApplianceError("It was removed."))
    place.ask("t1", protocol.GetMessage(1), number=2)
    assert (await place.answer("t1")).error == "It was removed."
    place.engine.message = fail(KeyError("secret"))
    place.ask("t1", protocol.GetMessage(1), number=3)
    answer = await place.answer("t1")
    assert "KeyError" in answer.error
    assert "secret" not in answer.error


async def test_an_answer_is_bounded(place):
    """What would clog a terminal's line for minutes is refused in words."""
    place.come("t1")
    place.ask("t1", ATTACH)
    place.engine.message = lambda seq: Message(seq, 1, "big", bytes(protocol.LARGEST_ANSWER))
    place.ask("t1", protocol.GetMessage(7), number=2)
    assert "more than is sent" in (await place.answer("t1")).error
    place.engine.tasks = lambda: ["x" * 1000] * 5000
    place.ask("t1", protocol.GetTasks(), number=3)
    assert "too large" in (await place.answer("t1")).error
    place.engine.history = lambda before, limit: [
        Message(seq, 1, "t", bytes(100_000)) for seq in range(1, limit + 1)
    ]
    place.ask("t1", protocol.GetHistory(1 << 62, 100), number=4)
    answer = await place.answer("t1")
    found = msgspec.msgpack.decode(answer.value, type=list[Message], dec_hook=decode_hook)
    assert [one.seq for one in found] == [96, 97, 98, 99, 100]  # the newest; it may ask on


async def test_an_act_is_kept_before_it_is_done(place):
    """What an operator asked for is in the journal in their name when it is carried out."""
    place.come("t1")
    place.ask("t1", ATTACH)
    kept = []

    def start(task_id, by):
        kept.extend(place.recorded)
        return 5

    place.engine.start_task = start
    place.ask("t1", protocol.StartTask("some id"), number=2)
    answer = await place.answer("t1")
    assert msgspec.msgpack.decode(answer.value) == 5
    assert kept == [("admin", b'{"ask":"start_task","task_id":"some id"}')]


async def test_the_stop_of_the_server_leaves_nothing_behind(place):
    """After it, a request is neither answered nor an error."""
    place.come("t1")
    place.ask("t1", ATTACH)
    await place.frame("t1")
    await place.server.stop()
    with contextlib.suppress(asyncio.QueueEmpty):
        while True:
            place.handed.get_nowait()
    place.ask("t1", protocol.Seen(1))
    assert place.handed.empty()
