"""Fills a journal and its index as fast as it can, with retention, until killed.

Argument: the folder. A topic says in which hundred of messages it is.
"""

import sys
import threading
import time
from pathlib import Path

from appliance.journal.indexer import Indexer
from appliance.journal.journal import Journal
from appliance.model import Message

folder = Path(sys.argv[1])
journal = Journal(
    folder / "journal.db", sync="os", keep_s=1e6, max_bytes=300_000, housekeeping_s=0.05
)
room = threading.Semaphore(700)
journal.start(lambda _messages, entries: [room.release() for _ in entries])
indexer = Indexer(journal, folder / "index.db", segment_messages=50, write_every_s=0.01)
indexer.start()
print("ready", flush=True)
while True:
    room.acquire()
    seq = journal.next_seq()
    topic = f"hundred/{seq // 100}"
    journal.append(Message(seq, time.time_ns(), topic, b"x" * 50, client_id=f"c{seq % 7}"), seq)
