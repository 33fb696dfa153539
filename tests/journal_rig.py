"""What the journal's tests share: a journal whose commits can be waited for."""

import threading

from appliance.journal.journal import Journal
from appliance.model import Message


class JournalRig:
    """A journal whose commits can be waited for."""

    def __init__(self, path, **settings):
        self.settings = {"sync": "os", "keep_s": 1e10, "max_bytes": 10**10} | settings
        self.journal = Journal(path, **self.settings)
        self.entries = []
        self.refused = []
        self.health = []
        self.changed = threading.Condition()

    def start(self, **more):
        self.journal.start(self._on_commit, self._on_health, on_refused=self._on_refused, **more)
        return self

    def _on_commit(self, _messages, entries):
        with self.changed:
            self.entries.extend(entries)
            self.changed.notify_all()

    def _on_refused(self, token, error):
        with self.changed:
            self.refused.append((token, error))
            self.changed.notify_all()

    def _on_health(self, level, text):
        with self.changed:
            self.health.append((level, text))
            self.changed.notify_all()

    def until(self, condition):
        with self.changed:
            assert self.changed.wait_for(condition, 30), (self.tokens[-3:], self.health)

    def put(self, count, payload=b"x", topic="t", received_ns=None):
        for _ in range(count):
            seq = self.journal.next_seq()
            self.journal.append(Message(seq, received_ns or seq, topic, payload), seq)

    def settle(self):
        assert self.journal.flush(30)

    @property
    def tokens(self):
        """The tokens of what was committed, in order."""
        return [token for _, token in self.entries]

    def numbers(self):
        return [message.seq for message in self.journal.read(0, 10**9, 10**12)]
