"""Recorders: followers of the journal that write files, one module a format."""

from appliance.recorders.progress import highest_cursor
from appliance.recorders.recorders import Recorders, Source

__all__ = ["Recorders", "Source", "highest_cursor"]
