"""Publishes to one recorder as fast as it goes and prints a line a batch, until killed.

In mode ``append``, some payloads are lists whose elements become rows.

Arguments: folder, kind (a format or ``sqlite``), mode.
"""

import os
import sys
import threading
import time
from pathlib import Path

from appliance.config.tables import DatabaseConfig, RecorderConfig, RotateConfig
from appliance.config.values import TopicFilter
from appliance.journal.journal import Journal
from appliance.model import Message
from appliance.recorders.formats import is_of_parts
from appliance.recorders.progress import highest_cursor
from appliance.recorders.recorders import Recorders

folder, kind, mode = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
keys = {"topic": TopicFilter("#"), "metadata": True, "mode": mode, "flatten": mode == "append"}
if kind == "sqlite":
    (folder / "rec").mkdir(exist_ok=True)
    url = f"sqlite:///{(folder / 'rec' / 'rec.db').as_posix()}"
    config = RecorderConfig(name="t", database=DatabaseConfig(url=url, table="t"), **keys)
else:
    if mode == "append" and is_of_parts(kind):
        keys["rotate"] = RotateConfig(messages=150)
    config = RecorderConfig(path=str(folder / "rec" / f"rec.{kind}"), format=kind, **keys)

journal = Journal(folder / "journal.db", sync="os", keep_s=1e6, max_bytes=10**9)
room = threading.Semaphore(40)


def committed(_messages, entries):
    os.write(1, b".\n")
    for _ in entries:
        room.release()


journal.start(committed, minimum_seq=highest_cursor(folder / "recorders.db"))
recorders = Recorders([config], folder / "recorders.db", installation=lambda: "site")
recorders.open(journal.last_seq, journal)
recorders.start(journal.follower)
while True:
    room.acquire()
    seq = journal.next_seq()
    payload = b'{"n": %d, "k%d": "%b"}' % (seq, seq % 5, b"x" * (seq % 50))
    if mode == "append" and seq % 3 == 0:
        payload = b"[]" if seq % 2 else b'[%b, {"m": %d}]' % (payload, seq)
    journal.append(Message(seq, time.time_ns(), f"t{seq % 7}", payload), None)
