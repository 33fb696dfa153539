"""The terminal's side of ``appliance attach``: a ``state.Engine`` whose engine is elsewhere.

The UI that it is given to does not know the difference. Not for: drawing (appliance.ui), the
engine's side (appliance.desk, of which only what travels and the topics are used here).
"""
