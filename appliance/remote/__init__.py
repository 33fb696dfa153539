"""``appliance attach``: the side that serves terminals elsewhere, and the side of the terminal.

A terminal is an MQTT client in one of two roles (broker/access.py). It asks on a topic of its
own, and gets the changes of the state and the answers on two others (topics.py). The serving side
is server.py, frames.py, dispatch.py and tables.py; the terminal's side is link.py, mirror.py and
client_engine.py; protocol.py is what travels between them. Nothing of this is made while no
terminal is attached. Only an operator's actions stand in the journal.
Not for: what an action does (engine_api.Engine).
"""
