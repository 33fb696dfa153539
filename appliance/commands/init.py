"""``appliance init``: writes the documented example, or Butler's configuration in a new form.

Not for: what becomes of Butler's keys (from_butler/).
"""

from __future__ import annotations

import argparse
import contextlib
import os
from importlib import resources
from pathlib import Path

from appliance.commands.lines import print_item, print_line
from appliance.errors import EXIT_OK, NoPermissionError, UnavailableError, UsageError
from appliance.log.sanitize import escape


def execute(options: argparse.Namespace) -> int:
    """Write the file; raises ``UsageError`` if there is one already."""
    path = Path(options.file)
    option = "" if options.file == "config.toml" else f" -c {options.file}"
    if options.from_butler is not None:
        _from_butler(Path(options.from_butler), path, option)
        return EXIT_OK
    text = resources.files("appliance").joinpath("config/example.toml").read_text(encoding="utf-8")
    _write({path: text})
    print_line(
        f"{path} is written. Next:\n"
        f"  appliance check{option}            see what it means\n"
        f"  appliance run{option}              run it; it starts tasks of a simulated Qlik server\n"
        f'  appliance publish{option} -t /demo/integers -m "{{}}"\n'
        f"  appliance user add NAME{option}    before other machines may connect\n"
        "Then put the address of your Qlik server into [qlik]."
    )
    return EXIT_OK


def _from_butler(source: Path, path: Path, option: str) -> None:
    # YAML, and all that a configuration is checked with.
    from appliance.commands.from_butler.convert import convert, sentences  # noqa: PLC0415

    _refuse_existing(path)
    made = convert(source, path)
    _write({path: made.text} | {path.parent / name: each for name, each in made.secrets.items()})
    print_line(f"{path} is written, from {source}. In effect:")
    counted = (f"{count} {header}" for header, count in made.counts.items())
    print_item("  ", ", ".join(counted))
    if made.secrets:
        print_item("  ", f"files of secrets beside it: {', '.join(made.secrets)}")
    for title, lines in sentences(made.findings).items():
        print_line(title)
        for line in lines:
            print_item("  ", escape(line))
    print_line(
        "Next:\n"
        f"  appliance check{option}              see what it means\n"
        f"  appliance check{option} --connect    try the Qlik server and the broker\n"
        "docs/from-butler.md has the steps of a move, with Butler running beside the appliance."
    )


def _write(contents: dict[Path, str]) -> None:
    """Write new files, all or none. Secrets are written into them, so only the user may read."""
    for path in contents:
        _refuse_existing(path)
    done: list[Path] = []
    try:
        for path, text in contents.items():
            _create(path, text)
            done.append(path)
    except BaseException:
        for path in done:
            with contextlib.suppress(OSError):
                path.unlink()
        raise


def _create(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        raise _exists(path) from None
    except PermissionError:
        raise NoPermissionError(f"{path}: this user may not write there; name another") from None
    except OSError as error:
        raise UnavailableError(f"{path}: it can't be written: {error.strerror}") from None


def _refuse_existing(path: Path) -> None:
    if os.path.lexists(path):
        raise _exists(path)


def _exists(path: Path) -> UsageError:
    return UsageError(
        f"{path}: this file exists and stays as it is; name another: appliance init FILE"
    )
