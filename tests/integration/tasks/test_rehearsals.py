"""What a running task engine did over HTTP is what a rehearsal of its messages gives."""

import time

from tasks_rig import JournaledRig, MemorySource, client_of

from manual_engine import rule

from appliance.model import ExecutionState
from appliance.qlik.simulated import SimulatedQlik
from appliance.tasks.past import read
from appliance.tasks.rehearsal import Rehearsal, Setting
from appliance.tasks.rehearsed import really


def test_a_rehearsal_of_what_the_engine_took_gives_what_it_did(tmp_path):
    """Starts, merges behind a run, a skip, rejections, a chain and a redelivery, with real times."""
    path = tmp_path / "tasks.db"
    began = time.time_ns()
    with SimulatedQlik() as qlik:
        sales = qlik.add_task("Sales", duration_s=600)
        qlik.add_task("Stock", duration_s=0.05)
        rules = (
            rule("sales", {"name": "Sales"}, name="sales"),
            rule("press", {"name": "Sales"}, name="press", if_running="skip"),
            rule("start", "payload", name="payload"),
            rule(
                f"appliance/tasks/{sales.id}/last",
                {"name": "Stock"},
                name="chain",
                when={"state": "succeeded"},
            ),
        )
        server = client_of(qlik)
        source = MemorySource()
        with JournaledRig(path, server, *rules, source=source) as rig:

            def put(topic, payload=b"", **fields):
                message = source.put(topic, payload, qos=1, packet_id=5, **fields)
                rig.wait_until(lambda: rig.engine._state.cursors.taken >= message.seq)

            def until_runs(number):
                rig.wait_until(
                    lambda: (
                        [
                            one
                            for one in rig.engine.executions(50)
                            if one.task_name == "Sales" and one.state is ExecutionState.RUNNING
                        ]
                        and rig.engine._planner.book.followed >= number
                    )
                )

            put("sales", b"1")
            until_runs(1)
            put("press")
            rig.wait_until(lambda: ExecutionState.SKIPPED in rig.states())
            put("sales", b"2")
            put("sales", b"3")
            put("sales", b"3", dup=True)
            put("start", b"nonsense")
            put("start", b'{"taskName": "Nobody"}')
            qlik.site.finish(sales.id)
            rig.wait_until(lambda: ExecutionState.SUCCEEDED in rig.states())
            until_runs(2)
            qlik.site.finish(sales.id)
            rig.wait_until(lambda: rig.states().count(ExecutionState.SUCCEEDED) == 4)
            messages = list(source.messages)
            listed = server.tasks()
            until = time.time_ns()
            past = read(path, began, until)  # while the engine has the database open

    class Listed:
        is_complete = True

        def tasks(self):
            return listed

        def apps(self):
            return ()

    rehearsal = Rehearsal(Setting("appliance", rules), Listed(), past, began)
    rehearsal.take(messages)
    rehearsal.finish(until)
    real = really(past, began, until)
    assert rehearsal.tally.pairs == real.pairs
    assert rehearsal.tally.total == real.total
    assert (real.total.starts, real.total.merged, real.total.rejected, real.total.skipped) == (
        4, 1, 2, 2
    )  # fmt: skip
