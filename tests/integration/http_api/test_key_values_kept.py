"""The key-value store outlives what an appliance may meet: restarts, backups, damage, kills."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from appliance_process import until
from http_site import HttpProcess, HttpSite, session

from appliance.counters import Counter
from appliance.ops.backup import backup, restore

PAIRS = "/v4/keyvalues/n"


def put(site: HttpSite, key: str, value: str, **more: Any) -> None:
    found = site.ask("POST", PAIRS, json={"key": key, "value": value, **more})
    assert found.status_code == 201, found.text


def value(site: HttpSite, key: str) -> str:
    return site.ask("GET", f"{PAIRS}?key={key}").json()["value"]


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-4096:] = b"\xff" * 4096
    path.write_bytes(content)


@pytest.mark.campaign
def test_a_backup_has_the_pairs_and_damage_loses_no_more_than_it_hit(tmp_path):
    """The damaged file is set aside, and the loss waits for an operator."""
    with HttpSite(tmp_path) as site:
        put(site, "first", "1")
        backup(site.appliance.data_dir, tmp_path / "backup")
        put(site, "later", "2")
    (tmp_path / "data").rename(tmp_path / "lost")
    restore(tmp_path / "backup", tmp_path / "data")
    with HttpSite(tmp_path) as site:
        assert value(site, "first") == "1"
        assert site.ask("GET", "/v4/keylist/n").json()["keys"] == [{"key": "first"}]
        for number in range(30):
            put(site, f"big {number}", "x" * 3000)
    damage(tmp_path / "data" / "key_values.db")
    with HttpSite(tmp_path) as site:
        assert list((tmp_path / "data").glob("key_values.db.corrupt-*"))
        assert "key-value store" in site.appliance.losses.health.text
        assert value(site, "first") == "1"
        put(site, "again", "3")


def test_a_full_namespace_refuses_and_is_counted(tmp_path):
    with HttpSite(tmp_path, http="max_keys = 2") as site:
        put(site, "1", "a")
        put(site, "2", "b")
        found = site.ask("POST", PAIRS, json={"key": "3", "value": "c"})
        assert (found.status_code, found.json()["error"]) == (400, "Bad Request")
        assert "max_keys" in found.json()["message"]
        item = {"type": "keyvaluestore", "payload": {"namespace": "n", "key": "3", "value": "c"}}
        found = site.ask("PUT", "/v4/reloadtask/-/start", json=[item])
        assert found.status_code == 400
        until(lambda: site.counted(Counter.KEY_VALUES_REFUSED) == 2, "both are counted")


def test_without_butlers_calls_there_is_no_store(tmp_path):
    with HttpSite(tmp_path, http="butler = false") as site:
        assert site.ask("GET", "/v4/keyvaluesnamespaces").status_code == 404
        assert not (tmp_path / "data" / "key_values.db").exists()


@pytest.mark.campaign
def test_what_was_answered_is_there_after_a_kill(tmp_path):
    """Pairs are on the disk with 201: the process is killed right after it."""
    with HttpProcess(tmp_path).start() as process, session() as client:
        made = client.post(f"{process.url}{PAIRS}", json={"key": "k", "value": "v"})
        process.kill()
        assert made.status_code == 201
        process.start()
        assert client.get(f"{process.url}{PAIRS}?key=k").json()["value"] == "v"
