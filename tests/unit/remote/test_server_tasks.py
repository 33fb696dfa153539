"""The tasks of a large server cross the channel in parts, each within the bound of an answer."""

import msgspec
from plain_engine import PlainEngine

from appliance.engine_api import ServerTask, ServerTasks, Starter
from appliance.model import Task
from appliance.mqtt.client import Target
from appliance.remote import protocol
from appliance.remote.client_engine import AttachedEngine
from appliance.remote.dispatch import carry_out


class Server(PlainEngine):
    """An engine whose server has these tasks; the first one moves to the end at each question."""

    def __init__(self, count, text):
        super().__init__()
        self.rows = [
            ServerTask(
                Task(str(number), text),
                starters=(Starter("chain", "x", after=((str(number), "succeeded"),), next_ns=7),),
            )
            for number in range(count)
        ]
        self.moves = False

    def server_tasks(self):
        if self.moves:
            self.rows.append(self.rows.pop(0))
        return ServerTasks(tuple(self.rows), len(self.rows), "a problem", ("any",))


class Wire:
    """What a link does, without the network: every request and answer is bytes in between."""

    def __init__(self, engine):
        self.engine = engine
        self.sizes = []

    def request(self, operation, decode):
        request = msgspec.json.encode(protocol.Request(1, operation))
        asked = msgspec.json.decode(request, type=protocol.Request).operation
        answer = protocol.encode(carry_out(self.engine, asked, "ann"))
        self.sizes.append(len(answer))
        return decode(answer)


def attached(engine):
    found = AttachedEngine(Target("127.0.0.1", 1))
    found._link = Wire(engine)
    return found, found._link


def test_a_thousand_tasks_come_in_parts_that_a_slow_line_carries_in_time():
    """64 kbit/s carry 50 kB in 6 seconds, and the state of the appliance has to wait for them."""
    engine = Server(1000, "x" * 200)
    terminal, wire = attached(engine)
    assert terminal.server_tasks() == engine.server_tasks()
    assert len(wire.sizes) < 15
    assert max(wire.sizes) < 50_000


def test_more_come_in_parts_within_the_bound():
    engine = Server(300, "x" * 20_000)
    terminal, wire = attached(engine)
    assert terminal.server_tasks() == engine.server_tasks()
    assert len(wire.sizes) > 4
    assert max(wire.sizes) < protocol.LARGEST_ANSWER


def test_a_row_that_is_larger_than_a_part_does_not_stop_the_rest():
    engine = Server(3, "x" * (protocol.LARGEST_ANSWER // 2 + 1))
    terminal, _ = attached(engine)
    assert len(terminal.server_tasks().tasks) == 3


def test_a_list_that_changes_in_between_has_each_task_once():
    engine = Server(200, "x" * 1000)
    engine.moves = True
    terminal, _ = attached(engine)
    found = [one.task.id for one in terminal.server_tasks().tasks]
    assert len(found) == len(set(found))
    assert len(found) > 190
