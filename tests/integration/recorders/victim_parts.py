"""Publishes to recorders of parts as fast as they go and prints a line a commit, until killed.

Argument: folder.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

from appliance.config.tables import RecorderConfig, RotateConfig
from appliance.journal.journal import Journal
from appliance.model import Message
from appliance.recorders.progress import highest_cursor
from appliance.recorders.recorders import Recorders

folder = Path(sys.argv[1])
journal = Journal(folder / "journal.db", sync="os", keep_s=1e6, max_bytes=10**9)
room = threading.Semaphore(40)


def committed(_messages, entries):
    os.write(1, b".\n")
    for _ in entries:
        room.release()


journal.start(committed, minimum_seq=highest_cursor(folder / "recorders.db"))
recorders = Recorders(
    [
        RecorderConfig(
            topic="#",
            path=str(folder / kind / f"all.{kind}"),
            format=kind,
            rotate=RotateConfig(messages=150),
        )
        for kind in ("parquet", "qvd")
    ],
    folder / "recorders.db",
)
recorders.open(journal.last_seq)
recorders.start(journal.follower)
while True:
    room.acquire()
    seq = journal.next_seq()
    payload = json.dumps({"n": seq, "text": "x" * (seq % 50)}).encode()
    journal.append(Message(seq, time.time_ns(), "ab"[seq % 2] + "/x", payload), None)
