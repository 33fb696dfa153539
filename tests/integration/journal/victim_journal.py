"""Fills a journal as fast as it can and prints what was reported as committed, until killed.

Arguments: folder, sync. Each line is the last committed sequence number.
"""

import os
import sys
import threading
import time
from pathlib import Path

from appliance.journal.journal import Journal
from appliance.model import Message
from appliance.storage.layout import Tables

folder, sync = Path(sys.argv[1]), sys.argv[2]
journal = Journal(folder / "journal.db", sync=sync, keep_s=1e6, max_bytes=10**9)
journal.define(Tables("CREATE TABLE IF NOT EXISTS note (seq INTEGER PRIMARY KEY);"))
room = threading.Semaphore(700)


def committed(messages, entries):
    last = max((message.seq for message in messages), default=0)
    os.write(1, b"%d\n" % last)
    for _ in entries:
        room.release()


journal.start(committed)
while True:
    for _ in range(50):
        room.acquire()
    for _ in range(49):
        seq = journal.next_seq()
        # As old as it is: retention looks at it while the machine is slow.
        journal.append(Message(seq, time.time_ns(), "a/b", b"%d" % seq * 3), seq)
    journal.transact([("INSERT INTO note VALUES (?)", (seq,))], None)
