"""The journal: every accepted message in order, durable, with followers that read it."""
