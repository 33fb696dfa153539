"""An MQTT broker that starts Qlik Sense tasks, records messages and shows what happened.

One process and one file; see docs/architecture.md for its parts and their reasons.
"""

__version__ = "0.1.0"
