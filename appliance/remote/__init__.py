"""``appliance attach``: the server of attached terminals, and the terminal's side.

A terminal is an MQTT client in one of two roles (broker/access.py). It sends requests on a topic
of its own, and gets frames and answers on two others (topics.py). The serving side
is server.py, frames.py, dispatch.py and tables.py; the terminal's side is link.py, mirror.py and
client_engine.py; protocol.py is what travels between them. Without
an attached terminal no frames are made. Only an operator's actions are journaled.
Not for: what an action does (engine_api.Engine).
"""
