"""A journal and recorders in one folder, as the appliance runs them."""

import json
import threading

from appliance.config.tables import RecorderConfig
from appliance.journal.journal import Journal
from appliance.model import Message
from appliance.recorders.part_store import PartStore
from appliance.recorders.progress import ProgressStore, highest_cursor
from appliance.recorders.recorders import Recorders

NOW_NS = 1_700_000_000_000_000_000


class Plant:
    """A journal and its recorders in one folder, as the appliance runs them."""

    def __init__(self, folder, *configs):
        self.folder = folder
        self.journal = Journal(
            folder / "journal.db", sync="os", keep_s=1e6, max_bytes=10**10, housekeeping_s=60
        )
        self.configs = [
            RecorderConfig(topic=topic, path=str(folder / path), **more)
            for topic, path, more in configs
        ]
        self.recorders = Recorders(self.configs, folder / "recorders.db", clock_ns=lambda: NOW_NS)
        self.followers = {}

    def __enter__(self):
        self.journal.start(
            lambda *_: None, minimum_seq=highest_cursor(self.folder / "recorders.db")
        )
        self.recorders.open(self.journal.last_seq, self.journal)
        self.recorders.start(self.follow)
        return self

    def follow(self, name, after_seq):
        follower = self.journal.follower(name, after_seq)
        self.followers[name] = follower
        return follower

    @property
    def follower(self):
        """That of the thread that writes files."""
        return self.followers["recorders"]

    def __exit__(self, *_):
        self.journal.flush(30)
        self.complete = self.recorders.stop(30)
        self.journal.close(30)

    def publish(self, *payloads, topic="t", ahead_ns=0):
        for payload in payloads:
            seq = self.journal.next_seq()
            if not isinstance(payload, bytes):
                payload = json.dumps(payload).encode()
            self.journal.append(Message(seq, ahead_ns + seq, topic, payload), None)

    def until(self, condition):
        """The recorders have no event for it; look until it is so."""
        pause = threading.Event()
        for _ in range(1500):
            if condition(self.recorders.states()):
                return
            pause.wait(0.02)
        raise AssertionError(self.recorders.states())

    def settle(self):
        assert self.journal.flush(30)
        self.until(lambda states: all(state.lag == 0 for state in states))

    def recorders_parts(self, number=0):
        """The closed files of a recorder, also after the stop."""
        recorder = self.recorders._plan.recorders[number]
        store = ProgressStore(self.folder / "recorders.db")
        store.open(NOW_NS)
        try:
            return PartStore(store).of_recorder(recorder.key)
        finally:
            store.close()
