"""The key-value store: what is written is there after a restart, for as long as it was to be."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance import key_values
from appliance.clock import Clock
from appliance.errors import UnavailableError
from appliance.key_values import FullError, KeyValues, Pair

HOUR_MS = 3_600_000
HOUR_NS = HOUR_MS * 1_000_000


class Machine:
    """Times of a machine: that of day, and the steady one."""

    def __init__(self) -> None:
        self.wall_ns, self.steady_ns = 1_800_000_000 * 10**9, 10**12

    def pass_by(self, ns: int) -> None:
        self.wall_ns += ns
        self.steady_ns += ns

    def clock(self, ahead_ns: int | None = None) -> Clock:
        return Clock(lambda: self.wall_ns, lambda: self.steady_ns, ahead_ns)


@contextlib.contextmanager
def opened(
    folder: Path, machine: Machine | None = None, *, max_keys: int = 1000, ahead: int | None = None
) -> Iterator[KeyValues]:
    clock = (machine or Machine()).clock(ahead)
    store = KeyValues(folder / "kv.db", max_keys=lambda: max_keys, clock=clock)
    store.open()
    with contextlib.closing(store):
        yield store


def test_pairs_and_their_namespaces_are_there_after_a_restart_in_their_order(tmp_path):
    with opened(tmp_path) as store:
        store.put([Pair("b", "2", "x"), Pair("a", "1", ""), Pair("b", "1", "é\0")])
        store.put([Pair("b", "2", "y")])
        store.put([Pair("empty", "k", "v")])
        assert store.remove("empty", "k") == (True, True)
    with opened(tmp_path) as store:
        assert store.namespaces() == ["b", "a", "empty"]
        assert store.keys("b") == ["2", "1"]
        assert store.value("b", "2") == (True, "y")
        assert store.value("b", "1") == (True, "é\0")
        assert store.value("a", "1") == (True, "")
        assert store.value("a", "no") == (True, None)
        assert store.value("no", "1") == (False, None)
        assert store.keys("no") is None
        assert store.remove("empty", "k") == (True, False)
        assert store.remove("no", "k") == (False, False)
        assert store.remove_namespace("b")
        assert not store.remove_namespace("b")
        assert store.keys("b") is None


def test_a_pair_lives_as_long_as_it_was_to_over_restarts(tmp_path):
    machine = Machine()
    with opened(tmp_path, machine) as store:
        store.put(
            [Pair("n", "hour", "v", HOUR_MS), Pair("n", "ever", "v"), Pair("n", "odd", "v", -5)]
        )
        machine.pass_by(HOUR_NS // 2)
    with opened(tmp_path, machine) as store:
        assert store.keys("n") == ["hour", "ever", "odd"]
        machine.pass_by(HOUR_NS // 2 + 1)
        assert store.keys("n") == ["ever", "odd"]
        assert store.value("n", "hour") == (True, None)
        assert store.remove("n", "hour") == (True, False)


def test_a_value_that_is_written_again_gets_its_whole_time(tmp_path):
    machine = Machine()
    with opened(tmp_path, machine) as store:
        store.put([Pair("n", "k", "v", HOUR_MS)])
        machine.pass_by(HOUR_NS - 1)
        store.put([Pair("n", "k", "w", HOUR_MS)])
        machine.pass_by(HOUR_NS - 1)
        assert store.value("n", "k") == (True, "w")
        store.put([Pair("n", "k", "x")])
        machine.pass_by(100 * HOUR_NS)
        assert store.value("n", "k") == (True, "x")


@pytest.mark.parametrize("step_h", [-48, 48])
@pytest.mark.parametrize("is_told", [False, True])
def test_a_step_of_the_clock_does_not_change_how_long_a_pair_lives(tmp_path, step_h, is_told):
    machine = Machine()
    with opened(tmp_path, machine) as store:
        store.put([Pair("n", "k", "v", HOUR_MS)])
        machine.wall_ns += step_h * HOUR_NS
        if is_told:
            store.follow_clock()
        assert store.value("n", "k") == (True, "v")
        machine.pass_by(HOUR_NS - 1)
        assert store.value("n", "k") == (True, "v")
        store.put([Pair("n", "other", "v")])
        assert store.value("n", "k") == (True, "v")
        machine.pass_by(1)
        assert store.value("n", "k") == (True, None)


def test_a_step_between_two_runs_is_followed(tmp_path):
    machine = Machine()
    with opened(tmp_path, machine) as store:
        store.put([Pair("n", "k", "v", HOUR_MS)])
        ahead = machine.wall_ns - machine.steady_ns
    machine.wall_ns += 48 * HOUR_NS
    with opened(tmp_path, machine, ahead=ahead) as store:
        assert store.value("n", "k") == (True, "v")
        store.follow_clock()
        assert store.value("n", "k") == (True, "v")
        machine.pass_by(HOUR_NS)
        assert store.value("n", "k") == (True, None)


def test_a_namespace_takes_no_more_keys_than_it_may_have(tmp_path):
    machine = Machine()
    with opened(tmp_path, machine, max_keys=3) as store:
        store.put([Pair("n", "short", "v", HOUR_MS), Pair("n", "1", "v"), Pair("n", "2", "v")])
        with pytest.raises(FullError, match="max_keys"):
            store.put([Pair("m", "1", "v"), Pair("n", "3", "v")])
        assert store.namespaces() == ["n"], "all or nothing"
        store.put([Pair("n", "2", "w"), Pair("m", "1", "v")])
        machine.pass_by(HOUR_NS)
        store.put([Pair("n", "3", "v")])
        assert store.keys("n") == ["1", "2", "3"]


def test_an_empty_namespace_makes_room_for_another_one(tmp_path, monkeypatch):
    monkeypatch.setattr(key_values, "MAX_NAMESPACES", 2)
    with opened(tmp_path) as store:
        store.put([Pair("a", "k", "v"), Pair("b", "k", "v")])
        with pytest.raises(FullError, match="namespaces"):
            store.put([Pair("c", "k", "v")])
        store.remove("a", "k")
        store.put([Pair("c", "k", "v")])
        assert store.namespaces() == ["b", "c"]


def test_all_values_together_have_a_bound_and_what_is_removed_makes_room(tmp_path, monkeypatch):
    monkeypatch.setattr(key_values, "MAX_BYTES", 1000)
    with opened(tmp_path) as store:
        for _ in range(10):
            store.put([Pair("n", "k", "é" * 200)])
        store.put([Pair("n", "l", "x" * 400)])
        with pytest.raises(FullError, match="holds"):
            store.put([Pair("n", "m", "x" * 400)])
        assert store.value("n", "m") == (True, None)
    with opened(tmp_path) as store:
        with pytest.raises(FullError):
            store.put([Pair("n", "m", "x" * 400)])
        store.remove("n", "k")
        store.put([Pair("n", "m", "x" * 400)])


@pytest.mark.parametrize("pair", [Pair("n" * 1025, "k", "v"), Pair("n", "k" * 1025, "v")])
def test_names_have_a_bound(tmp_path, pair):
    with opened(tmp_path) as store, pytest.raises(FullError, match="1024"):
        store.put([pair])


def test_a_damaged_store_is_set_aside_and_what_can_be_read_is_taken_over(tmp_path):
    with opened(tmp_path) as store:
        store.put([Pair("n", str(number), "v" * 3000) for number in range(20)])
    path = tmp_path / "kv.db"
    content = bytearray(path.read_bytes())
    content[-4096 * 3 : -4096 * 2] = b"\xff" * 4096
    path.write_bytes(content)
    with opened(tmp_path) as store:
        assert "load scripts" in store.losses[0]
        assert store.keys("n")
        store.put([Pair("n", "new", "v")])


def test_a_closed_store_says_so_and_a_full_disk_loses_nothing(tmp_path):
    with opened(tmp_path) as store:
        store.put([Pair("n", "k", "v")])
        store._connection.execute("PRAGMA max_page_count = 10")
        with pytest.raises(UnavailableError, match="the disk is full"):
            store.put([Pair("n", "k", "w" * 1_000_000)])
        assert store.value("n", "k") == (True, "v")
        store.put([Pair("n", "k", "w")])
    with pytest.raises(UnavailableError, match="closed"):
        store.namespaces()
    with contextlib.closing(sqlite3.connect(tmp_path / "kv.db")) as connection:
        assert connection.execute("SELECT value FROM pair").fetchall() == [("w",)]
