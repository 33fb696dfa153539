"""Kills of the process at any moment: what the index says afterwards is right, or it is made anew."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from appliance.journal.journal import Journal
from appliance.journal.indexer import Indexer
from appliance.journal.search import History, opened
from appliance.message_filter import MessageFilter, Name

VICTIM = Path(__file__).with_name("victim_index.py")


def found(pieces):
    return [one.seq for piece in pieces for one in piece.messages]


@pytest.mark.campaign
def test_no_kill_makes_a_search_miss_a_message(tmp_path):
    """After each kill, every search gives the same with the index as without it."""
    chance = random.Random(17)
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, str(VICTIM), str(tmp_path)], stdout=subprocess.PIPE
        )
        assert process.stdout.readline() == b"ready\n"
        time.sleep(chance.uniform(0.05, 0.8))
        process.kill()
        process.wait()
        process.stdout.close()
        journal = Journal(tmp_path / "journal.db", sync="os", keep_s=1e6, max_bytes=10**9)
        journal.start(lambda *_: None)
        bare = History(journal.reading)
        first, last = bare.bounds()
        asked = [
            MessageFilter(topics=(f"hundred/{chance.randint(first, last) // 100}",))
            for _ in range(5)
        ]
        asked += [MessageFilter(topics=("hundred/+",), clients=(Name("C3"),))]
        expected = [found(bare.forward(one)) for one in asked]
        assert all(expected)
        with opened(tmp_path) as history:  # as a command sees it
            assert [found(history.forward(one)) for one in asked] == expected
        indexer = Indexer(journal, tmp_path / "index.db", segment_messages=50, write_every_s=0)
        indexer.look()
        history = History(journal.reading, indexer.reader, pytest.fail)
        assert [found(history.forward(one)) for one in asked] == expected
        indexer.stop(5)
        assert journal.close(30)
