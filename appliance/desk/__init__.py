"""The engine's side of ``appliance attach``: it serves terminals elsewhere through the broker.

A terminal is an MQTT client in one of two roles (broker/access.py). It asks on a topic of its
own, and gets the changes of the state and the answers on two others (topics.py). Nothing of this
is made while nobody is attached, and only acts stand in the journal. Not for: the terminal's side
(appliance.attach), what an act does (state.Engine).
"""
