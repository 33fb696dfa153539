"""The commands of the command line, one module each with an ``execute``.

A module is imported when its command is called, so that ``appliance --version`` does not pay for
a broker. Not for: options and help texts (cli.py).
"""
