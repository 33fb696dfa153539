"""The terminal UI in a browser: sign-in, sessions, one attached terminal for each of them.

textual-serve brings the page's terminal (its ``textual.js``) and the packets that a Textual app and
a browser exchange. Its server has no users and starts the app by a shell, so none of it is used.
"""
