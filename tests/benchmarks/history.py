"""How fast the history answers: a rare topic, a client, a time, a text; export; the index itself.

It makes a journal on the disk (payloads of about 100 bytes, 200 topics, 50 clients), or uses the one
that an earlier run left in the folder. Every search also runs without the index, and beside all of
them everything is decoded once, which is what a search took before there was an index: the ratios
mean more than the numbers.

Usage: python tests/benchmarks/history.py [--folder FOLDER] [--messages N] [--chunk N] [--only NAME]
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from appliance import matching
from appliance.engine import databases
from appliance.journal import FILE_NAME, chunks
from appliance.journal.index import FILE_NAME as INDEX
from appliance.journal.indexer import Indexer
from appliance.journal.journal import Journal
from appliance.journal.search import History, Piece
from appliance.journal.store import Store
from appliance.message_filter import MessageFilter, Name
from appliance.model import Message

BEGIN_NS = 1_795_000_000_000_000_000
A_SECOND = 1000
"""Messages a second, by their times."""


def payload(number: int) -> bytes:
    return (
        b'{"Generated number": %d, "station": "press %d", "state": "running", "temperature": %d.%d,'
        b' "unit": "C"}' % (number, number % 40, 20 + number % 60, number % 10)
    )


def make(folder: Path, count: int, a_chunk: int) -> None:
    """Write the journal, chunk by chunk, as the writer does."""
    store = Store(folder / FILE_NAME, "os")
    for tables in databases.JOURNAL_TABLES:
        store.database.add_tables(tables)
    connection = store.open(0)
    topics = [f"plant/line{number % 10}/sensor{number}/state" for number in range(200)]
    clients = [f"plc-{number:02}" for number in range(50)]
    rare = {count // 3: "plant/rare/door", count // 2: "plant/rare/door"}
    began = time.perf_counter()
    connection.execute("BEGIN")
    for start in range(0, count, a_chunk):
        messages = [
            Message(
                seq,
                BEGIN_NS + seq * (10**9 // A_SECOND),
                rare.get(seq) or topics[seq % 200],
                b'{"opened by": "Someone \xc3\x84rgerlich"}' if seq in rare else payload(seq),
                client_id="rare-client" if seq in rare else clients[seq % 50],
                username="plc",
                address="10.0.4.11:50010",
            )
            for seq in range(start + 1, min(start + a_chunk, count) + 1)
        ]
        for row in chunks.encode(messages, 0):
            connection.execute("INSERT INTO chunk VALUES (?, ?, ?, ?, ?)", row)
        if start % (a_chunk * 1000) == 0:
            connection.execute("COMMIT")
            connection.execute("BEGIN")
    connection.execute("COMMIT")
    connection.close()
    store.close()
    size = (folder / FILE_NAME).stat().st_size
    print(f"made in {time.perf_counter() - began:.1f} s: {size / 1e6:,.0f} MB", flush=True)


def decoded(history: History, asked: MessageFilter) -> tuple[int, float]:
    """Everything is decoded and asked one by one."""
    began = time.perf_counter()
    found = sum(
        matching.takes(asked, one)
        for piece in history.forward(MessageFilter())
        for one in piece.messages
    )
    return found, time.perf_counter() - began


def measured(pieces: Iterable[Piece]) -> tuple[int, float, float]:
    """What was found; seconds by the clock and of the processor."""
    began, worked = time.perf_counter(), time.process_time()
    found = sum(len(piece.messages) for piece in pieces)
    return found, time.perf_counter() - began, time.process_time() - worked


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--messages", type=int, default=3_000_000)
    parser.add_argument("--chunk", type=int, default=1000, help="messages of a commit")
    parser.add_argument("--only", default="", help="a part of a line's name")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(exist_ok=True)
        print(f"{options.messages:,} messages, {options.chunk} a commit", flush=True)
        if not (folder / FILE_NAME).exists():
            make(folder, options.messages, options.chunk)
        run(folder, options.messages, options.only)


def run(folder: Path, count: int, only: str) -> None:
    journal = Journal(folder / FILE_NAME, sync="os", keep_s=1e12, max_bytes=10**12)
    for tables in databases.JOURNAL_TABLES:
        journal.define(tables)
    journal.start(lambda *_: None)
    indexer = Indexer(journal, folder / INDEX)
    began = time.perf_counter()
    indexer.start()
    assert indexer.wait_for(count, 600)
    took_s = time.perf_counter() - began
    size, journal_size = ((folder / name).stat().st_size for name in (INDEX, FILE_NAME))
    print(
        f"{'index made or checked':24} {took_s:8.2f} s, {size / 1e6:.1f} MB,"
        f" {size / journal_size:.2%} of the journal",
        flush=True,
    )
    with_index = History(journal.reading, indexer.reader)
    without = History(journal.reading)
    middle = BEGIN_NS + count // 2 * (10**9 // A_SECOND)
    searches = {
        "one rare topic": MessageFilter(topics=("plant/rare/door",)),
        "a rare topic by wildcard": MessageFilter(topics=("+/rare/#",)),
        "one rare client": MessageFilter(clients=(Name("RARE"),)),
        "one second": MessageFilter(since_ns=middle, until_ns=middle + 10**9),
        "a rare text": MessageFilter(texts=("opened BY",)),
        "a text beyond ASCII": MessageFilter(texts=("ÄRGERLICH",)),
        "a text that is nowhere": MessageFilter(texts=("kilogramm",)),
        "rare topic and text": MessageFilter(topics=("plant/rare/door",), texts=("someone",)),
    }
    all_s = 0.0
    if only in "everything decoded":
        _, all_s = decoded(without, searches["one rare topic"])
        print(f"{'everything decoded':24} {all_s:8.2f} s", flush=True)
    for name, asked in searches.items():
        if only not in name:
            continue
        found, forward_s, _ = measured(with_index.forward(asked))
        again, back_s, worked_s = measured(with_index.back(asked, count + 1))
        bare, bare_s, bare_worked_s = measured(without.forward(asked))
        assert found == again == bare, (found, again, bare)
        ratio = f", {all_s / back_s:6.1f} times as fast as decoding" if all_s else ""
        print(
            f"{name:24} {back_s:8.3f} s back ({worked_s:.3f} s of work), {forward_s:.3f} s forward,"
            f" {bare_s:.2f} s ({bare_worked_s:.2f} s) without the index, {found} found{ratio}",
            flush=True,
        )
    indexer.stop(60)
    journal.close(10)
    if only in "export":
        exported(folder, count)


def exported(folder: Path, count: int) -> None:
    """``appliance export`` as a process of its own, with its start."""
    config = folder / "config.toml"
    config.write_text(f'[service]\ndata_dir = "{folder.as_posix()}"\n', encoding="utf-8")
    target = folder / "export.out"
    for more in ([], ["--payload"], ["--format", "csv"], ["--format", "json"]):
        target.unlink(missing_ok=True)
        command = [
            sys.executable,
            "-m",
            "appliance",
            "export",
            "-c",
            str(config),
            "-o",
            str(target),
        ]
        began = time.perf_counter()
        subprocess.run([*command, *more], check=True, stderr=subprocess.DEVNULL)  # noqa: S603
        took_s = time.perf_counter() - began
        name = f"export {' '.join(more)}"
        print(f"{name:24} {took_s:8.2f} s, {count / took_s:,.0f} messages/s", flush=True)
    target.unlink()


if __name__ == "__main__":
    main()
