"""What a message leads to is decided while it goes to the disk, and happens when it is there."""

from __future__ import annotations

from pathlib import Path

import pytest
from tasks_rig import START_TOPIC, AheadSource, MemorySource, Rig, client_of, start_trigger

from appliance.model import ExecutionState
from appliance.qlik.simulated import SimulatedQlik


@pytest.fixture
def qlik():
    with SimulatedQlik() as simulated:
        yield simulated


def decided(rig: Rig) -> bool:
    return rig.engine._ledger._ahead_seq == len(rig.source.messages)


@pytest.mark.parametrize("debounce_s", [0.0, 0.05])
def test_nothing_happens_before_the_message_is_on_disk(
    qlik, tmp_path: Path, debounce_s: float
) -> None:
    """No start, no note, no word to anybody while the journal does not have the message, whatever
    else happens meanwhile; then exactly one start."""
    task, other = (qlik.add_task(f"Reload {one}", duration_s=0.1) for one in (1, 2))
    source = AheadSource()
    with Rig(
        tmp_path / "tasks.db", client_of(qlik), start_trigger(debounce_s), source=source
    ) as rig:
        source.put(START_TOPIC, task.id)
        rig.wait_until(lambda: decided(rig))
        rig.engine.start_task(other.id, "ann")  # another change, which must not take it along
        rig.engine._ledger.settle(flush=True)
        assert rig.engine._ledger.durable_seq == 0
        assert rig.engine._store.open_records() == []
        assert rig.states() == rig.broker.published == []
        assert qlik.starts() == 0
        source.commit()
        for one in (task, other):
            rig.broker.wait_for(one.id, "succeeded")
            assert qlik.starts(one.id) == 1
        assert rig.states() == [ExecutionState.SUCCEEDED] * 2
        rig.wait_until(lambda: source.advanced == 1)
        assert not rig.engine._intake._ahead


def test_what_never_got_to_the_disk_never_was(qlik, tmp_path: Path) -> None:
    """The appliance ends while the journal's disk refuses a message: neither this run nor the next
    knows anything of it, and the number is free for another message."""
    task, other = (qlik.add_task(f"Reload {one}", duration_s=0.1) for one in (1, 2))
    database = tmp_path / "tasks.db"
    source = AheadSource()
    with Rig(database, client_of(qlik), source=source) as rig:
        source.put(START_TOPIC, task.id)
        rig.wait_until(lambda: decided(rig))
    assert qlik.starts() == 0
    again = MemorySource()
    with Rig(database, client_of(qlik), source=again) as rig:
        assert rig.states() == []
        again.put(START_TOPIC, other.id)
        rig.broker.wait_for(other.id, "succeeded")
    assert qlik.starts() == qlik.starts(other.id) == 1


def test_messages_one_after_the_other_each_start_once(qlik, tmp_path: Path) -> None:
    """Told ahead and read afterwards, a message counts once; so does one that asks for nothing."""
    tasks = [qlik.add_task(f"Reload {number}", duration_s=0.05) for number in range(8)]
    source = AheadSource()
    with Rig(tmp_path / "tasks.db", client_of(qlik), source=source) as rig:
        for number, task in enumerate(tasks):
            source.put(START_TOPIC, task.id if number % 4 else "nonsense")
            if number % 2:
                rig.wait_until(lambda: decided(rig))
            source.commit()
        for number, task in enumerate(tasks):
            if number % 4:
                rig.broker.wait_for(task.id, "succeeded")
            assert qlik.starts(task.id) == bool(number % 4)
        rig.wait_until(lambda: source.advanced == len(tasks))
        (rule,) = rig.engine.rules()
        assert (rule.matched, rule.started, rule.rejected) == (8, 6, 2)


def test_the_place_in_the_journal_never_goes_back(qlik, tmp_path: Path) -> None:
    """What was read after something was taken ahead does not undo that it is dealt with."""
    with Rig(tmp_path / "tasks.db", client_of(qlik)) as rig:
        ledger = rig.engine._ledger
        with ledger.change():
            ledger.read_to(5)
            ledger.read_to(3)
        assert ledger.durable_seq == 5
        with ledger.change():
            ledger.read_to(4)
        assert ledger.durable_seq == rig.engine._store.meta("seq") == 5
