"""Lines on standard output: on a terminal, long ones are broken between words.

Not for: JSON (output.py), lines that are renewed (status_line.py).
"""

from __future__ import annotations

import shutil
import sys
import textwrap


def print_item(head: str, text: str) -> None:
    """A line; on a terminal several, each below the beginning of the text."""
    if not sys.stdout.isatty():
        print_line(f"{head}{text}")
        return
    lines = textwrap.wrap(
        text,
        shutil.get_terminal_size().columns - 1,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    )
    print_line("\n".join(lines))


def print_line(text: str) -> None:
    """A line as it is."""
    sys.stdout.write(f"{text}\n")
