"""The least that Textual can show, for comparison in startup.py."""

from __future__ import annotations

from textual.app import App, ComposeResult
from textual.widgets import Static


class Empty(App):
    def compose(self) -> ComposeResult:
        yield Static("an application with nothing but this one line of text")


if __name__ == "__main__":
    Empty().run()
