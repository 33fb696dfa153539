"""The journal: every accepted message in order, durable, with followers that read it."""

from appliance.journal.follower import Follower
from appliance.journal.inbox import Entry, Statement
from appliance.journal.journal import Journal

FILE_NAME = "journal.db"
"""In the data directory."""

__all__ = ["FILE_NAME", "Entry", "Follower", "Journal", "Statement"]
