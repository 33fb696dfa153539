"""The task engine at a clock that the test sets: each time is exact, and nothing waits.

The engine's own parts (consumer, state store, planner, runner, ``tasks.db``) with a server that
starts what it is told to, and runs that end when the test says so.
"""

import heapq
import itertools
import random

from appliance.config.tables import AllowConfig, OutcomeConfig, TriggerConfig
from appliance.config.values import Duration, TopicFilter
from appliance.engine.own_messages import properties_of
from appliance.model import Cause, ExecutionState, Message, Task
from appliance.qlik.server import Report, Started
from appliance.tasks.catalog import AllowList, TaskList
from appliance.tasks.consumer import JournalConsumer
from appliance.tasks.jobs import Limits
from appliance.tasks.outcome_forms import OutcomeForms
from appliance.tasks.outcomes import Outcomes
from appliance.tasks.planner import Planner
from appliance.tasks.rehearsal import Setting
from appliance.tasks.resolution import Resolution
from appliance.tasks.runner import Runner
from appliance.tasks.selector import TaskSelector
from appliance.tasks.state_store import StateStore
from appliance.tasks.store import Store
from appliance.tasks.triggers import Options
from appliance.tasks.verdicts import Triggers
from appliance.tasks.views import Views

S = 10**9
BEGIN = 1_796_000_000 * S
IDS = [f"00000000-0000-0000-0000-00000000000{number}" for number in range(1, 6)]
TASKS = (
    Task(IDS[0], "Sales"),
    Task(IDS[1], "Stock", tags=("nightly",)),
    Task(IDS[2], "Plan", tags=("nightly",)),
    Task(IDS[3], "Press"),
    Task(IDS[4], "Chained"),
)


class Catalogue:
    is_complete = True

    def tasks(self):
        return TASKS

    def apps(self):
        return ()


class Server(Catalogue):
    """Starts what it is told to."""

    def __init__(self):
        self._numbers = itertools.count(1)

    def start(self, task_id, *, options=None):
        return Started(f"run-{next(self._numbers)}")


def rule(topic, task, **fields):
    for name in ("debounce", "debounce_max", "cooldown", "expire"):
        if name in fields:
            fields[name] = Duration(fields[name])
    return TriggerConfig(topic=TopicFilter(topic), task=task, **fields)


RULES = (
    rule("sales/+", {"name": "Sales"}, name="sales", debounce=30),
    rule("sales/#", {"name": "Sales"}, name="sales too", when={"state": "done"}),
    rule("stock", {"tag": "nightly"}, name="nightly", cooldown=600),
    rule("press", IDS[3], name="skips", if_running="skip"),
    rule("press/all", IDS[3], name="starts all", if_running="start"),
    rule("start", "payload", name="payload"),
    rule("start/+", "topic", name="level", expire=120),
    rule(
        f"appliance/tasks/{IDS[0]}/last",
        {"name": "Chained"},
        name="chain",
        when={"state": "succeeded"},
    ),
    rule("told/#", {"name": "Press"}, name="told"),
)
OUTCOMES = (OutcomeConfig(topic="told/{task}", form="name"),)


class ManualEngine:
    """The task engine at a clock of the test."""

    def __init__(self, path, rules=RULES, *, max_running=None, allow=None, outcomes=OUTCOMES):
        self.path = path
        self.now = BEGIN
        self.journal = []
        self.server = Server()
        self.setting = Setting(
            "appliance", rules, allow or AllowConfig(), outcomes, max_running=max_running
        )
        tasks = TaskList(self.server)
        tasks.get()
        triggers = Triggers(rules, service_name="appliance")
        telling = Outcomes("appliance", triggers.concern)
        telling.forms = OutcomeForms(outcomes, "appliance", tasks.known).of
        self.planner = Planner(
            Limits(slots=4, max_running=max_running), known=tasks.known, chance=random.Random(0)
        )
        store = Store(path, sync="os")
        store.open(self.now)
        self.state = StateStore(store, self.planner, Views(), telling, lambda: self.now)
        self.consumer = JournalConsumer(
            self.state, triggers, telling, lambda _: None, own_time_ns=lambda at: at
        )
        resolution = Resolution(tasks, AllowList(self.setting.allow))
        self.runner = Runner(self.state, self.server, resolution, telling)
        self.lasts = []
        """Seconds that each further run takes; then ten."""
        self._ends = []
        self._followed = set()

    def wait_until(self, at):
        """Let everything happen that is due until then."""
        while True:
            due = [one for one in (self.planner.next_due(), self._ends and self._ends[0][0]) if one]
            if not due or min(due) > at:
                break
            self.now = max(self.now, min(due))
            self.end_runs()
            self.settle()
        self.now = at

    def end_runs(self):
        while self._ends and self._ends[0][0] <= self.now:
            _, number, state = heapq.heappop(self._ends)
            record = self.planner.open.get(number)
            if record is None:
                continue
            run = record.execution.execution_id
            with self.state.change() as planner:
                report = Report(run, record.execution.task_id, state, ended_ns=self.now)
                planner.report(record, report, self.now)
            if (late := self.planner.logs.begin(self.now)) is not None:
                with self.state.change():
                    self.planner.logs.fetched(late, ())

    def settle(self):
        """Until nothing more follows: jobs, runs that begin, outcomes in the journal."""
        while True:
            with self.state.change():
                pass
            is_done = self.state.jobs.empty()
            while not self.state.jobs.empty():
                self.runner.do(self.state.jobs.get())
                self._follow()
            self._follow()
            for number, one in self.state.next_publications(0.0, 100):
                self.state.was_published(number, 0)
                self.put(
                    one.topic,
                    one.payload,
                    retain=one.retain,
                    client_id="$appliance",
                    properties=properties_of(one).encoded(),
                )
                is_done = False
            if is_done:
                return

    def _follow(self):
        for record in list(self.planner.running.values()):
            if record.id in self._followed:
                continue
            self._followed.add(record.id)
            took, state = self.lasts.pop(0) if self.lasts else (10, ExecutionState.SUCCEEDED)
            with self.state.change() as planner:
                report = Report(
                    record.execution.execution_id,
                    record.execution.task_id,
                    ExecutionState.RUNNING,
                    started_ns=self.now,
                )
                planner.report(record, report, self.now)
            heapq.heappush(self._ends, (self.now + took * S + S // 2, record.id, state))

    def put(self, topic, payload=b"", **fields):
        message = Message(
            len(self.journal) + 1,
            self.now,
            topic,
            payload,
            **{"qos": 1, "client_id": "plc", "packet_id": len(self.journal) % 7 + 1, **fields},
        )
        self.journal.append(message)
        self.consumer.take([message])

    def close(self):
        """Write what is left; the database can be read by others then."""
        self.state.close()

    def start_elsewhere(self, task_id):
        with self.state.change() as planner:
            number = len(self._followed) + 1000
            report = Report(f"other-{number}", task_id, ExecutionState.RUNNING, started_ns=self.now)
            planner.elsewhere(report, "", self.now)

    def start_by_operator(self, task_id):
        with self.state.change() as planner:
            selector = TaskSelector("id", task_id)
            planner.ask(selector, Options(), Cause("operator", rule="anna"), self.now)
