"""Keys of starts: found for their user alone, kept for a day, bounded in number."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from appliance.tasks import start_keys
from appliance.tasks.start_keys import KeptKey, StartKey
from appliance.tasks.store import Changes, Store

NOW = 1_800_000_000_000_000_000


def keep(store: Store, user: str, key: str, *executions: int, at_ns: int = NOW) -> KeptKey:
    kept = KeptKey(StartKey(user, key, b"digest"), executions, at_ns)
    changes = Changes()
    changes.keys.append(kept)
    assert changes
    store.write(changes)
    return kept


@pytest.fixture
def store(tmp_path: Path):
    found = Store(tmp_path / "tasks.db")
    found.open(time.time_ns())
    yield found
    found.close()


def test_a_key_is_one_user_s(store: Store) -> None:
    kept = keep(store, "anna", "k", 7, 8)
    assert store.start_key("anna", "k") == kept
    assert store.start_key("bob", "k") is None
    assert store.start_key("anna", "K") is None


def test_keys_are_forgotten_by_age_and_number(store: Store, monkeypatch) -> None:
    """The oldest go first; those that had to go before their time are counted."""
    monkeypatch.setattr(start_keys, "MAX_KEPT", 10)
    for number in range(start_keys.BOUND_EVERY):
        keep(store, "anna", f"k{number}", number, at_ns=NOW + number)
    assert store.keys_forgotten == start_keys.BOUND_EVERY - 10
    assert store.start_key("anna", "k89") is None
    assert store.start_key("anna", "k90") is not None
    store.prune(0, 1000, 0, NOW + 95)
    assert store.start_key("anna", "k94") is None
    assert store.start_key("anna", "k95") is not None


def test_a_key_that_can_t_be_read_is_no_key(store: Store) -> None:
    keep(store, "anna", "k", 7)
    store._db.execute("UPDATE start_keys SET executions = x'ff'")
    assert store.start_key("anna", "k") is None
