"""The journal: every accepted message in order, durable, with followers that read it."""

from appliance.journal.follower import Follower
from appliance.journal.inbox import Entry, Statement
from appliance.journal.journal import Journal

__all__ = ["Entry", "Follower", "Journal", "Statement"]
