"""An engine that is what a test says it is, for the desk and what attached terminals get."""

from __future__ import annotations

from appliance.model import Cause, Execution, Message
from appliance.engine_api import (
    ClientState,
    Engine,
    Health,
    JournalState,
    LogLine,
    Mark,
    QlikState,
    Snapshot,
    TopicState,
)


class PlainEngine(Engine):
    """An engine that is what the test says."""

    def __init__(self):
        self.now_ns = 1000
        self.messages = []
        self.states = {}
        self.marked = {}
        self.present = {}
        self.lines = []
        self.reads = 0

    def snapshot(self):
        self.reads += 1
        executions = tuple(
            Execution(number, "task", "Task", state, Cause("operator"), 1)
            for number, state in sorted(self.states.items(), reverse=True)
        )
        return Snapshot(
            taken_ns=self.now_ns,
            name="plant",
            version="1",
            started_ns=7,
            listeners=(),
            clients_connected=len(self.present),
            journal=JournalState(Health("ok"), last_seq=len(self.messages)),
            qlik=QlikState("simulated", "simulated", Health("ok")),
            recorders=(),
            rules=(),
            timers=(),
            executions=executions,
            messages_in=len(self.messages),
        )

    def live(self, after_seq, limit):
        return [one for one in self.messages if one.seq > after_seq][-limit:]

    def full_size(self, seq):
        return None

    def marks(self, seqs):
        return {seq: self.marked[seq] for seq in seqs if seq in self.marked}

    def clients(self):
        return tuple(self.present.values())

    def topics(self, limit):
        counts = {}
        for one in self.messages:
            counts[one.topic] = counts.get(one.topic, 0) + 1
        return [TopicState(topic, count, 0.0, 1, 1) for topic, count in counts.items()][:limit]

    def log(self, after_number, limit):
        return [one for one in self.lines if one.number > after_number][-limit:]

    # --- what tests do to it ------------------------------------------------------------------

    def receive(self, size=3):
        seq = len(self.messages) + 1
        self.messages.append(Message(seq, seq, f"t/{seq % 5}", bytes([seq % 256]) * size))

    def run(self, number, state):
        self.states[number] = state
        if number <= len(self.messages):
            self.marked[number] = Mark(state, "x", number)

    def come(self, name, count):
        self.present[name] = ClientState(name, "a:1", "5.0", True, 1, messages_in=count)

    def go(self, name):
        self.present.pop(name, None)

    def log_line(self, text):
        self.lines.append(LogLine(len(self.lines) + 1, 1, 20, "x", text))
