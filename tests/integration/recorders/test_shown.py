"""What is shown of every kind of recorder while a real engine records with it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from appliance_process import until

from appliance.config.reading import load
from appliance.engine.service import Appliance
from appliance.engine.view import View
from appliance.ops.health import report
from appliance.ops.metrics import exposition

CONFIG = """
[service]
name = "here"
data_dir = "data"
[[listener]]
bind = "127.0.0.1:0"
[qlik]
edition = "simulated"
[[recorder]]
topic = "plant/{line}/{sensor}"
path = "recordings/plain.jsonl"
format = "jsonl"
metadata = true
[[recorder]]
topic = "plant/#"
path = "recordings/typed.qvd"
format = "qvd"
rotate = {messages = 10}
upload = {folder = "plant"}
[[recorder]]
topic = "plant/#"
path = "recordings/last.json"
mode = "latest"
[[recorder]]
topic = "plant/+/temp"
name = "table of all"
database = {url = "sqlite:///recordings/messages.sqlite", table = "messages"}
[[recorder]]
topic = "plant/#"
name = "nobody there"
database = {url = "postgresql+psycopg://me:s3cr3t@127.0.0.1:1/m"}
"""


async def eventually(holds, what):
    return await asyncio.to_thread(until, holds, what)


async def test_every_recorder_says_what_it_does(tmp_path: Path) -> None:
    """Name, target without secrets, messages, files, uploads; the same in health, metrics, status."""
    pytest.importorskip("psycopg")
    (tmp_path / "config.toml").write_text(CONFIG, "utf-8")
    running = Appliance(load(tmp_path / "config.toml"))
    await asyncio.to_thread(running.start)
    try:
        view = View(running)

        def states():
            return {one.name: one for one in view.snapshot().recorders}

        for number in range(30):
            topic = f"plant/{number % 3}/temp"
            await asyncio.to_thread(view.publish, topic, b'{"t": %d}' % number, 1, False, "test")

        def recorded():
            found = states()
            done = ("plain", "typed", "last", "table of all")
            upload = found["typed"].upload
            return all(found[name].recorded == 30 for name in done) and upload.uploaded >= 2

        await eventually(recorded, "what is recorded")
        found = states()
        data = tmp_path / "data" / "recordings"
        assert found["plain"].target == str(data / "plain.jsonl")
        assert found["plain"].topic == "plant/+/+"
        assert (found["plain"].files, found["plain"].is_counted) == (1, True)
        assert found["typed"].files >= 2
        assert not found["typed"].is_counted
        assert found["last"].mode == "latest"
        assert found["table of all"].target == f"{data / 'messages.sqlite'}, table messages"
        assert found["table of all"].files == 0
        away = await eventually(
            lambda: (one := states()["nobody there"]).health.level == "bad" and one, "the reason"
        )
        assert away.target == "postgresql://127.0.0.1:1/m, table nobody there"
        assert "s3cr3t" not in repr(view.snapshot())

        parts = {part.name: part.level for part in report(view.snapshot()).parts}
        assert parts["recorder nobody there"] == "bad"
        assert parts[f"recorder {data / 'typed.qvd'}"] == "ok"
        metrics = exposition(view.snapshot()).decode()
        assert 'appliance_recorder_files{name="typed"}' in metrics
        assert "s3cr3t" not in metrics

        def told():
            kept = view.retained("here/status")
            rows = json.loads(kept.payload)["recorders"] if kept is not None else []
            return {one["name"]: one for one in rows}

        status = await eventually(told, "the status")
        assert set(status) == set(found)
        assert set(status["typed"]) == {
            "name", "health", "messages", "lag", "files", "bytes", "upload",
        }  # fmt: skip
    finally:
        running.stop()
        assert await asyncio.to_thread(running.wait, 60)
