"""What an outcome says of a run beside its state: node, time in the queue, the server's notes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks_rig import START_TOPIC, JournaledRig, MemorySource, Rig, client_of

from appliance.counters import Counter
from appliance.model import Step
from appliance.qlik.simulated import Outcome, SimulatedQlik
from appliance.qlik.simulated.site import SimulatedTask, Site, Status
from appliance.tasks.runs import MAX_DETAIL_BYTES, MAX_DETAILS, bounded_details

NODE = "qlik1.example.com"


@pytest.fixture
def qlik() -> Iterator[SimulatedQlik]:
    with SimulatedQlik(site=Site(concurrency=1)) as simulated:
        yield simulated


def last(rig: Rig, task: SimulatedTask) -> dict[str, Any]:
    topic = f"appliance/tasks/{task.id}/last"
    found: list[dict[str, Any]] = rig.broker.wait_until(
        lambda: [body for where, body, *_ in rig.broker.published if where == topic]
    )
    return found[-1]


def test_an_outcome_says_where_a_run_was_and_how_long_it_waited(qlik, tmp_path: Path) -> None:
    """In the message, in the terminal, after a restart, and when only the journal is left."""
    busy = qlik.add_task("A", duration_s=600)
    task = qlik.add_task("B", duration_s=0.0, outcomes=(Outcome.FAIL,))
    source = MemorySource()
    with JournaledRig(tmp_path / "tasks.db", client_of(qlik), source=source) as rig:
        rig.source.put(START_TOPIC, busy.id)
        rig.broker.wait_for(busy.id, "running")
        rig.source.put(START_TOPIC, task.id)
        rig.wait_until(
            lambda: Status.QUEUED in [one.attempt.status for one in qlik.site.sessions()]
        )
        qlik.site.finish(busy.id)
        rig.broker.wait_for(task.id, "failed")
        outcome = last(rig, task)
        assert outcome["node"] == NODE
        assert outcome["queued"] <= outcome["started"]
        assert outcome["queuedSeconds"] > 0
        texts = [note["text"] for note in outcome["details"]]
        assert texts[0] == "Changing task state to Triggered"
        assert "Changing task state from Queued to Started" in texts
        assert texts[-1] == "Changing task state from Started to FinishedFail"
        before = next(one for one in rig.engine.executions(9) if one.task_id == task.id)
        rig.wait_until(lambda: not rig.engine._planner.logs.next_due())
    with JournaledRig(tmp_path / "tasks.db", client_of(qlik), source=source) as again:
        kept = next(one for one in again.engine.executions(9) if one.task_id == task.id)
        assert kept.details == before.details
    lost = JournaledRig(tmp_path / "new.db", client_of(qlik), source=source)
    source.position = source.advanced = lost.engine.rebuild(0, source.last_seq)
    with lost:
        (learned,) = (one for one in lost.engine.executions(9) if one.task_id == task.id)
        assert (learned.node, learned.queued_s) == (NODE, outcome["queuedSeconds"])
        assert [note.text for note in learned.details] == texts


def test_notes_beyond_the_bounds_are_cut_and_counted(qlik, tmp_path: Path) -> None:
    """An outcome stays small, whatever the server writes."""
    text = "Error: " + "ä" * MAX_DETAIL_BYTES
    task = qlik.add_task("A", duration_s=0.0, outcomes=(Outcome.FAIL,), error_text=text)
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        rig.source.put(START_TOPIC, task.id)
        rig.broker.wait_for(task.id, "failed")
        outcome = last(rig, task)
        assert sum(len(note["text"].encode()) for note in outcome["details"]) <= MAX_DETAIL_BYTES
        assert rig.engine.counters()[Counter.EXECUTION_DETAILS_CUT] == 1


@given(st.lists(st.integers(0, 3000), max_size=3 * MAX_DETAILS))
def test_any_notes_are_kept_within_the_bounds(lengths: list[int]) -> None:
    """The first and the last ones, the short ones whole."""
    texts = ["ä" * length for length in lengths]
    notes = [Step(number, text) for number, text in enumerate(texts)]
    kept, are_cut = bounded_details(notes)
    assert len(kept) <= MAX_DETAILS
    assert sum(len(one.text.encode()) for one in kept) <= MAX_DETAIL_BYTES
    assert are_cut == (list(kept) != notes)
    assert kept[:1] == () or (kept[0].at_ns, kept[-1].at_ns) == (0, len(texts) - 1)
    share = MAX_DETAIL_BYTES // MAX_DETAILS
    for one in kept:
        if len(texts[one.at_ns].encode()) <= share:
            assert one.text == texts[one.at_ns]
