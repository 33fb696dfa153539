"""The lines about recorders on the Clients screen."""

import re

import msgspec
from fake_engine import story

from appliance.engine_api import Health, RecorderState, UploadState
from appliance.ui.text import width
from appliance.ui.views.counters import recorder_lines


def recorders(*found: RecorderState, cells: int) -> list[str]:
    snapshot = msgspec.structs.replace(story().snapshot(), recorders=found, data_dir="/srv/data")
    return ["".join(text for text, _ in line) for line in recorder_lines(snapshot, cells)]


def test_a_recorder_says_what_it_writes_and_how_far_it_is():
    """Target, messages, files, lag, uploads: in columns on a wide screen, the most on a narrow."""
    parts = RecorderState(
        "plant/#", "/srv/data/rec/plant.parquet", "parquet", Health("ok"), 12_345, 3, 4_200_000,
        upload=UploadState(Health("ok"), waiting=2, uploaded=7), name="plant",
        target="/srv/data/rec/plant.parquet", files=9, details=(("open part", "45 messages"),),
    )  # fmt: skip
    table = RecorderState(
        "plant/#", "", "json", Health("ok"), 7, name="sql", files=0, mode="latest",
        target="postgresql://db/messages, table sql", details=(("table", "sql"),),
    )  # fmt: skip
    bad = RecorderState("a", "/srv/data/a.json", "json", Health("bad", "disk full"), name="a")
    wide = recorders(parts, table, bad, cells=140)
    assert re.fullmatch(
        r" ● plant +rec/plant.parquet +12,345 msgs  9 files  4.2 MB  3 behind  2 to upload"
        r"  open part 45 messages",
        wide[0],
    )
    assert re.fullmatch(
        r" ● sql +postgresql://db/messages, table sql +7 msgs  latest  0 behind", wide[1]
    )
    assert wide[0].index("12,345") == wide[1].index("7 msgs")
    assert re.fullmatch(r" ✗ a +disk full", wide[2])
    narrow = recorders(parts, table, bad, cells=78)
    assert all(width(line) <= 78 for line in narrow)
    assert "2 to upload" in narrow[0]
