"""Series of files whose rows in recorders.db are lost: their names and ends say where to go on."""

import contextlib
import gzip
import random
import sqlite3
import threading

import crash_targets
import pytest
from crash_targets import TARGETS, Site, Target

from appliance.config.tables import RotateConfig

pytest.importorskip("pyarrow.parquet")
pytest.importorskip("openqvd")
pytestmark = pytest.mark.not_in_wine("pyarrow does not start in Wine")

SERIES = [
    *(each for each in TARGETS if not each.is_latest and each.name != "table"),
    Target(
        "{date}/day.jsonl",
        lambda f: [n for p in (f / "rec").glob("*/day.jsonl") for n in crash_targets.read_lines(p)],
        format="jsonl",
    ),
    Target(
        "{date}-{line}.qvd",
        lambda f: sorted(
            n for p in (f / "rec").glob("*-[12]-*.qvd") for n in crash_targets.read_qvd(p)
        ),
        topic="plant/{line}/{sensor}",
        format="qvd",
        rotate=RotateConfig(messages=15),
    ),
]


def live(folder, targets, seed, count):
    """A life of the recorders in which so many messages come; returns their numbers so far."""
    site = Site(folder, targets)
    kept = site.journal.read(0, 10**9, 10**12)
    rng = random.Random(seed)
    for number in range(len(kept) + 1, len(kept) + count + 1):
        site.publish(number, rng)
    losses = site.recorders.losses
    assert site.close()
    return len(kept) + count, losses


def drop(folder, what):
    if what == "all":
        (folder / "recorders.db").unlink()
        return
    with contextlib.closing(sqlite3.connect(folder / "recorders.db")) as connection:
        connection.execute("UPDATE recording SET seq = 'seven' WHERE instr(key, char(31)) = 0")
        connection.commit()


@pytest.mark.parametrize(
    "what", ["all", pytest.param("the recorders' own rows", marks=pytest.mark.campaign)]
)
def test_every_series_goes_on(tmp_path, what):
    """No message twice and none left out, also those that came while the recorder was away."""
    live(tmp_path, SERIES, 1, 70)
    live(tmp_path, [], 2, 20)
    drop(tmp_path, what)
    _, losses = live(tmp_path, SERIES, 3, 10)
    assert losses == []
    count, _ = live(tmp_path, SERIES, 4, 60)
    for target in SERIES:
        assert target.read(tmp_path) == list(range(1, count + 1)), target.name
    aside = [path.name for path in (tmp_path / "rec").rglob("*") if ".before-" in path.name]
    assert aside == []


@pytest.mark.parametrize("content", [b"", b'{"n": 61, "text'], ids=["empty", "torn"])
def test_a_file_that_was_only_begun_is_made_again(tmp_path, content):
    """Its name says with which message it begins; what is in it by then stays beside it."""
    series = [each for each in SERIES if each.name == "series.jsonl"]
    count, _ = live(tmp_path, series, 1, 50)
    newest = max((tmp_path / "rec").glob("series-*.jsonl"))
    assert newest.name == "series-000000000041.jsonl"
    newest.write_bytes(content)
    drop(tmp_path, "all")
    live(tmp_path, series, 2, 5)
    assert series[0].read(tmp_path) == list(range(1, count + 6))
    aside = list((tmp_path / "rec").glob("*.before-*"))
    assert [path.read_bytes() for path in aside] == [content] * bool(content)


@pytest.mark.campaign
def test_a_plain_file_beside_its_compressed_copy_goes(tmp_path):
    """A kill between the copy and the removal, and the database is lost on top."""
    packed = [each for each in SERIES if each.name == "packed.jsonl"]
    count, _ = live(tmp_path, packed, 1, 100)
    folder = tmp_path / "rec"
    closed = sorted({path.name.removesuffix(".gz") for path in folder.glob("packed-*")})[:-1]
    for name in closed:
        plain, copy = folder / name, folder / f"{name}.gz"
        if copy.exists():
            plain.write_bytes(gzip.decompress(copy.read_bytes()))
        else:
            copy.write_bytes(gzip.compress(plain.read_bytes()))
    drop(tmp_path, "all")
    site = Site(tmp_path, packed)
    pause = threading.Event()
    for _ in range(1000):
        if not any((folder / name).exists() for name in closed):
            break
        pause.wait(0.05)
    assert site.close()
    assert closed
    assert packed[0].read(tmp_path) == list(range(1, count + 1))
    assert not any((folder / name).exists() for name in closed)


@pytest.mark.campaign
def test_files_that_are_found_again_are_known(tmp_path):
    """Retention and uploads see them as before."""

    def known():
        with contextlib.closing(sqlite3.connect(tmp_path / "recorders.db")) as connection:
            rows = connection.execute("SELECT path, recorder, series FROM part").fetchall()
        # A file may be compressed by now, or not yet.
        return {(path.removesuffix(".gz"), *others) for path, *others in rows}

    live(tmp_path, SERIES, 1, 70)
    before = known()
    drop(tmp_path, "all")
    live(tmp_path, SERIES, 2, 1)
    assert len(before) > 10
    assert before <= known()


def test_a_series_without_files_begins_anew_and_says_so(tmp_path):
    """What was in an open part can't be told any more: an operator hears of it."""
    live(tmp_path, [], 1, 10)
    (tmp_path / "recorders.db").unlink(missing_ok=True)
    _, losses = live(tmp_path, SERIES, 2, 5)
    assert len(losses) == len(SERIES)
    assert all("begins anew" in text or "file is gone" in text for text in losses)
