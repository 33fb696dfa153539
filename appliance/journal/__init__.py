"""The journal: every accepted message in order, durable, with followers that read it."""

FILE_NAME = "journal.db"
"""In the data directory."""
