"""The order of the sequence numbers between the journal and the task database."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from appliance.tasks.cursors import Cursors

CHAIN = ("advanced", "durable", "taken", "read", "committed")


def cursors(numbers: dict[str, int]) -> Cursors:
    made = Cursors()
    made.begin(numbers["durable"])
    made.taken = numbers["taken"]
    made.follow(
        SimpleNamespace(
            advanced=numbers["advanced"], position=numbers["read"], last_seq=numbers["committed"]
        )
    )
    return made


def test_each_step_is_at_most_as_far_as_the_one_before() -> None:
    """All alike, or each a step behind: both happen, and are in order."""
    assert cursors(dict.fromkeys(CHAIN, 7)).are_in_order()
    assert cursors({name: number for number, name in enumerate(CHAIN)}).are_in_order()


@pytest.mark.parametrize("behind", CHAIN[1:])
def test_a_cursor_that_overtakes_is_found(behind: str) -> None:
    """Whichever cursor is behind the one that follows it, the chain is broken and says so."""
    broken = cursors(dict.fromkeys(CHAIN, 7) | {behind: 6})
    assert not broken.are_in_order()
    assert f"{behind}=6" in repr(broken)


def test_before_the_journal_is_followed_the_database_comes_first() -> None:
    """What is on disk was decided before."""
    made = Cursors()
    made.begin(5)
    assert made.are_in_order()
    made.durable = 6
    assert not made.are_in_order()
