"""Recorders: followers of the journal that write files, one module a format."""
