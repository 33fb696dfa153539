"""The command line: options, help texts with examples, exit codes, and no traceback for mistakes.

Importing this module is cheap; a command's module is imported when the command is called.
Not for: what a command does (commands/).
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import errno
import importlib
import itertools
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn, TextIO

from appliance import __version__
from appliance.errors import (
    EXIT_NO_PERMISSION,
    EXIT_OK,
    EXIT_SOFTWARE,
    EXIT_UNAVAILABLE,
    EXIT_USAGE,
    ApplianceError,
)
from appliance.process import interrupts
from appliance.process.interrupts import EXIT_INTERRUPTED

_ENDS_AT_ONCE = frozenset({"run", "demo"})
"""Commands that Ctrl+C may end at any moment until they handle signals themselves."""

_DRAWS = frozenset({"run", "demo", "attach", "selftest"})
"""Commands that have a terminal UI, which writes to the terminal itself."""

DEFAULT_CONFIG = "config.toml"

SHELLS = ("bash", "zsh", "fish", "powershell")
"""Shells that completion is made for."""

_DESCRIPTION = """\
An MQTT broker that starts Qlik Sense tasks, records messages and shows what happened."""

_EXAMPLES = """\
to begin:
  appliance demo                       see it at work, with a simulated Qlik server
  appliance init                       write a configuration to start from
  appliance check                      see what the configuration means
  appliance run                        run it

exit codes:
  0 done   64 wrong usage   69 something is out of reach or in use   70 a defect
  77 no permission   78 wrong configuration, or data that this version can't use"""


class _Parser(argparse.ArgumentParser):
    """argparse with the exit codes of sysexits and a "did you mean"."""

    def error(self, message: str) -> NoReturn:
        raise _Usage(message, self)

    def _check_value(self, action: argparse.Action, value: object) -> None:
        """Check ``choices`` as argparse does, with a "did you mean"."""
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices]
        near = difflib.get_close_matches(str(value), known, 1)
        hint = f"did you mean {near[0]}?" if near else f"choose from: {', '.join(known)}"
        raise argparse.ArgumentError(action, f"there is no {value}; {hint}")


class _Usage(Exception):  # noqa: N818  leaves argparse; ``main`` catches it
    """A mistake in the arguments of the command that ``parser`` is for."""

    def __init__(self, message: str, parser: _Parser) -> None:
        super().__init__(f"{message}\nSee: {parser.prog} --help")
        self.message = message
        self.parser = parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code. A user's mistake never gives a traceback."""
    # A file that was closed before ("appliance stats >&-"), or a program without a console.
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        # A console with an old code page must not turn a name with an accent into an error.
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a replaced stream may lack it
    given = sys.argv[1:] if arguments is None else list(arguments)
    debug = "--debug" in given
    try:
        options = _parse(given)
        debug = options.debug
        module = importlib.import_module(f"appliance.commands.{options.module}")
        if options.module not in _DRAWS:
            from appliance.commands import terminal  # noqa: PLC0415  --help needs it not

            terminal.guard()
        if options.module not in _ENDS_AT_ONCE:
            interrupts.raise_again()
        execute: Callable[[argparse.Namespace], int] = module.execute
        code = execute(options)
        sys.stdout.flush()
    except _Usage as error:
        return _say(str(error), EXIT_USAGE)
    except SystemExit as ending:  # argparse after --help and --version
        return ending.code if isinstance(ending.code, int) else EXIT_OK
    except KeyboardInterrupt:
        return _say("interrupted", EXIT_INTERRUPTED)
    except Exception as error:  # noqa: BLE001  the last place before the user
        if _reader_has_ended(error):
            # Python would report an error when it flushes at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return EXIT_OK
        if debug:
            traceback.print_exc()
        return _failed(error)
    return code


def _nowhere() -> TextIO:
    """A stream in place of one that is not there."""
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - until the process ends


def _reader_has_ended(error: Exception) -> bool:
    """Whether ``head``, ``less`` or the like has closed the pipe that standard output is.

    Windows says EINVAL then, which an error of a file has with the file's name
    (https://github.com/python/cpython/issues/79935).
    """
    if sys.platform == "win32" and isinstance(error, OSError):
        return error.errno == errno.EINVAL and error.filename is None
    return isinstance(error, BrokenPipeError)


def _failed(error: Exception) -> int:
    if isinstance(error, ApplianceError):
        return _say(str(error), error.exit_code)
    if isinstance(error, PermissionError):
        return _say(f"{error.filename or 'a file'}: the system refuses access", EXIT_NO_PERMISSION)
    if isinstance(error, UnicodeEncodeError) and error.reason.startswith("surrogates"):
        # So Python hands on bytes of an argument that are no text (PEP 383).
        return _say(f"this is not UTF-8 text: {error.object!r}", EXIT_USAGE)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return _say(f"{where}{error.strerror or error}", EXIT_UNAVAILABLE)
    return _say(
        f"this is a defect, not your mistake: {type(error).__name__}: {error}\n"
        "Run the command again with --debug and report what it prints.",
        EXIT_SOFTWARE,
    )


def _say(text: str, code: int) -> int:
    if not (text.isascii() and text.replace("\n", "").isprintable()):
        from appliance.commands import terminal  # noqa: PLC0415  a rare text

        text = terminal.inert(text)
    with contextlib.suppress(OSError):
        sys.stderr.write(f"appliance: {text}\n")
    return code


def _parse(given: list[str]) -> argparse.Namespace:
    parser, names = _parser()
    command = next((each for each in given if not each.startswith("-")), None)
    if command is not None and command not in names:
        near = difflib.get_close_matches(command, names, 1)
        hint = f"did you mean {near[0]}?" if near else f"the commands are: {', '.join(names)}"
        parser.error(f"there is no command {command}; {hint}")
    try:
        options, rest = parser.parse_known_args(given)
        if rest:
            _addressed(parser, given).error(f"unrecognized arguments: {' '.join(rest)}")
    except _Usage as error:
        if hint := _option_meant(error.parser, parser, given):
            error.parser.error(f"{error.message}; {hint}")
        raise
    if getattr(options, "module", None) is None:
        parser.print_help()
        raise SystemExit(EXIT_OK if not given else EXIT_USAGE)
    return options


def _addressed(parser: _Parser, given: Iterable[str]) -> _Parser:
    """The parser of the command, and of its action, that the arguments name."""
    for each in given:
        for action in parser._actions:  # noqa: SLF001  argparse has no public way to them
            if isinstance(action.choices, dict) and each in action.choices:
                parser = action.choices[each]
                break
    return parser


def _option_meant(parser: _Parser, top: _Parser, given: Sequence[str]) -> str:
    """The options that misspelt ones in the arguments may stand for, in words."""
    known = parser._option_string_actions  # noqa: SLF001  see above
    for each in itertools.takewhile(lambda each: each != "--", given):
        option = each.partition("=")[0]
        if (
            option.startswith("--")
            and option not in known
            and option
            not in (
                top._option_string_actions  # noqa: SLF001  see above
            )
        ):
            near = difflib.get_close_matches(option, [name for name in known if name != "-h"], 1)
            if near:
                return f"did you mean {near[0]} in place of {option}?"
    return ""


def command_parser() -> argparse.ArgumentParser:
    """The whole command line, for making completions and the manual page of it."""
    return _parser()[0]


def _parser() -> tuple[_Parser, list[str]]:
    parser = _Parser(
        prog="appliance",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"appliance {__version__}")
    parser.add_argument(
        "--debug", action="store_true", help="show where in the program an error came up"
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=_Parser)
    names: list[str] = []

    def add(name: str, short: str, text: str, examples: str, into: object = None) -> _Parser:
        group = commands if into is None else into
        added: _Parser = group.add_parser(  # type: ignore[attr-defined]  # argparse hides its type
            name,
            help=short,
            description=text,
            epilog=f"examples:\n{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        added.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )
        if into is None:  # an action belongs to its command's module
            names.append(name)
            added.set_defaults(module=name.replace("-", ""))
        return added

    _add_run(add)
    _add_demo(add)
    _add_init_and_check(add)
    _add_user(add)
    _add_session(add)
    _add_publish(add)
    _add_start(add)
    _add_explain(add)
    _add_holds(add)
    _add_freshness(add)
    _add_attach(add)
    _add_web(add)
    _add_export(add)
    _add_replay_and_stats(add)
    _add_tasks_and_selftest(add)
    _add_care(add)
    return parser, names


_Add = Callable[..., _Parser]


def _config_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        default=DEFAULT_CONFIG,
        help="the configuration (default: %(default)s in the current folder)",
    )


def _address_options(parser: argparse.ArgumentParser) -> None:
    """Which appliance a command talks to, and how it gets in."""
    parser.add_argument("--host", help="where the appliance runs (default: as configured, or here)")
    _connection_options(parser)
    parser.add_argument("-c", "--config", metavar="FILE",
                        help="a configuration whose first listener it is (default: config.toml in "
                        "the current folder, if there is one)")  # fmt: skip


def _connection_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, help="its port (default: 1883, with TLS 8883)")
    parser.add_argument("-u", "--username", metavar="NAME", help="sign in; asks for the password")
    parser.add_argument(
        "--password-stdin", action="store_true", help="read the password from the first input line"
    )
    parser.add_argument("--client-id", metavar="ID", default="", help="(default: made up)")
    parser.add_argument("--tls", action="store_true", help="speak TLS")
    parser.add_argument("--ca-file", metavar="FILE", help="the authority that signed the broker's")
    parser.add_argument("--certfile", metavar="FILE", help="a client certificate")
    parser.add_argument("--keyfile", metavar="FILE", help="its private key")


def _timeout_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--timeout", metavar="TIME", default="10s", help="(default: %(default)s)")


def _run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--headless",
        action="store_true",
        help="log lines instead of the terminal UI (always so when there is no terminal)",
    )
    parser.add_argument(
        "--run-for",
        metavar="TIME",
        help='stop in order after this time, e.g. "10s" or "1h30m"',
    )


def _add_run(add: _Add) -> None:
    parser = add(
        "run",
        "run the appliance",
        "Run the broker, the recorders and the triggers of a configuration, with the terminal UI "
        "if there is a terminal.\nCtrl+C stops it in order; a second Ctrl+C at once.",
        "  appliance run                                 with config.toml of this folder\n"
        "  appliance run -c /etc/appliance/config.toml --headless\n"
        "  appliance run --run-for 10m                   for a try",
    )
    _config_option(parser)
    _run_options(parser)


def _add_demo(add: _Add) -> None:
    parser = add(
        "demo",
        "see it at work, with a simulated Qlik server",
        "Run the appliance with a simulated Qlik server and a publisher that sends a number every "
        "second and starts a task now and then. Nothing outside this machine is touched.\n"
        "With the terminal UI it runs until q is pressed. Without (no terminal, or --headless) it "
        "ends after 30 seconds, or after --run-for, with exit code 0.",
        "  appliance demo\n"
        "  appliance demo --headless --run-for 10s\n"
        "  appliance demo --data-dir ./demo              keep the recording there\n"
        "  appliance demo --qlik --headless --run-for 8h a Qlik server to try clients with",
    )
    _run_options(parser)
    parser.add_argument(
        "--qlik",
        action="store_true",
        help="offer the simulated Qlik server to other programs over HTTPS; the demo prints its "
        "addresses and the folder of its certificates",
    )
    parser.add_argument(
        "--data-dir", metavar="DIR", help="where the journal and the recording go (default: "
        "a folder that the demo names)",
    )  # fmt: skip


def _add_init_and_check(add: _Add) -> None:
    parser = add(
        "init",
        "write a configuration to start from",
        "Write a configuration with an explanation of each part. A file that exists is never "
        "overwritten.",
        "  appliance init                                writes config.toml\n"
        "  appliance init /etc/appliance/config.toml\n"
        "  appliance init --from-butler production.yaml  takes over what Butler does now",
    )
    parser.add_argument("file", metavar="FILE", nargs="?", default=DEFAULT_CONFIG,
                        help="where to write it (default: %(default)s)")  # fmt: skip
    parser.add_argument(
        "--from-butler",
        metavar="FILE",
        help="make it from this configuration file of Butler, and say what is not taken over "
        "(docs/from-butler.md)",
    )
    parser = add(
        "check",
        "show what a configuration means, or its problems",
        "Read a configuration and say what is wrong with it, or else what it means. First come "
        "mistakes in keys and values; once there are none, those in the files that it names, in "
        "`when` and in [ui]. Nothing is started and no port is opened.",
        "  appliance check\n"
        "  appliance check -c plant.toml\n"
        "  appliance check --connect                     also sign in to Qlik and to other brokers",
    )
    _config_option(parser)
    parser.add_argument(
        "--connect",
        action="store_true",
        help="try to reach the Qlik server, the brokers of bridges and databases, and sign in",
    )


def _actions(parser: _Parser, name: str = "action") -> object:
    """Where the actions of a command are added; ``name``: that of the option that has them."""
    return parser.add_subparsers(
        title="actions", metavar="ACTION", dest=name, required=True, parser_class=_Parser
    )


def _add_user(add: _Add) -> None:
    parser = add(
        "user",
        "add, remove and list the users who may connect",
        "Change the users file that [access] users_file names. A running appliance notices.",
        "  appliance user add plc-7                      asks for the password\n"
        "  echo secret | appliance user add plc-7 --password-stdin\n"
        "  appliance user list\n"
        "  appliance user remove plc-7\n"
        "  appliance user token add etl --label nightly  for HTTP",
    )
    actions = _actions(parser)
    added = add(
        "add",
        "add a user, or give one a new password",
        "Add a user, or give a user a new password. The password is stored hashed (argon2id).",
        "  appliance user add plc-7\n  appliance user add plc-7 --password-stdin < secret.txt",
        actions,
    )
    added.add_argument("name", metavar="NAME", help="letters, digits and _ . - @")
    added.add_argument(
        "--password-stdin", action="store_true", help="read the password from the first input line"
    )
    _config_option(added)
    example = "  appliance user remove plc-7"
    added = add("remove", "remove a user", "Remove a user.", example, actions)
    added.add_argument("name", metavar="NAME")
    _config_option(added)
    example = "  appliance user list"
    added = add("list", "list the users", "List the users' names.", example, actions)
    _config_option(added)
    _add_token(add, actions)


def _add_token(add: _Add, actions: object) -> None:
    parser = add(
        "token",
        "make, remove and list tokens for HTTP",
        "A token lets a program in over HTTP ([http]) as its user, without the password. It has "
        "the user's rights, and goes with the user. A running appliance notices.",
        "  appliance user token add etl --label nightly --expires 90d\n"
        "  appliance user token list\n"
        "  appliance user token remove etl nightly",
        actions,
    )
    below = _actions(parser, "action_of_tokens")
    added = add(
        "add",
        "make a token, and print it",
        "Make a token and print it. It is shown this once: only a hash of it is stored, beside "
        "the users file.",
        "  appliance user token add etl --label nightly --expires 90d\n"
        "  appliance user token add etl --label nightly > token.txt",
        below,
    )
    added.add_argument("name", metavar="NAME", help="the user")
    added.add_argument("--label", metavar="TEXT", required=True, help="what it is for")
    added.add_argument("--expires", metavar="TIME", help='for how many days it counts, e.g. "90d"; '
                       "without it, until it is removed")  # fmt: skip
    _config_option(added)
    example = "  appliance user token remove etl nightly"
    added = add("remove", "remove a token", "Remove a token.", example, below)
    added.add_argument("name", metavar="NAME", help="the user")
    added.add_argument("label", metavar="LABEL", help="as the list shows it")
    _config_option(added)
    example = "  appliance user token list\n  appliance user token list etl"
    text = "List tokens: whose, their labels, their last characters, and until when they count."
    added = add("list", "list tokens", text, example, below)
    added.add_argument("name", metavar="NAME", nargs="?", help="of this user only")
    _config_option(added)


def _add_session(add: _Add) -> None:
    parser = add(
        "session",
        "list and end the sessions of a running appliance's clients",
        "A session is what the broker keeps of a client: its subscriptions and the messages that "
        "wait for it, also while it is away. It belongs to the user who began it.",
        "  appliance session list\n"
        "  appliance session list plc                    with plc in client id or user\n"
        "  appliance session end press-7",
    )
    actions = _actions(parser)
    added = add(
        "list",
        "list the sessions",
        "List the sessions, connected or not, with what waits in each.",
        "  appliance session list\n  appliance session list plc --json",
        actions,
    )
    added.add_argument("search", metavar="TEXT", nargs="?", default="",
                       help="a part of the client id or the user's name")  # fmt: skip
    added.add_argument("--json", action="store_true", help="for programs: one JSON list")
    _config_option(added)
    added = add(
        "end",
        "end a client's session and its connection",
        "End a session: the client is disconnected (MQTT 5: reason 0x98), its subscriptions and "
        "the messages that wait for it are dropped, its will is published. It may come back and "
        "begin a new one. Asks first if there is a terminal.",
        "  appliance session end press-7\n  appliance session end press-7 --yes",
        actions,
    )
    added.add_argument("client_id", metavar="CLIENT_ID", help="as the list shows it")
    added.add_argument("--yes", action="store_true", help="do not ask")
    _config_option(added)


def _add_publish(add: _Add) -> None:
    parser = add(
        "publish",
        "send one message to a broker",
        "Send one MQTT message: to the first listener of the configuration, or to --host.",
        "  appliance publish -t qliksense/start_task -m 2ce4dc25-9d8c-4d0c-8e57-7d0bd4a7ea34\n"
        "  appliance publish -t plant/state -m running -r -q 1 --host broker.local -u me\n"
        "  appliance publish -t plant/order --file order.json",
    )
    parser.add_argument("-t", "--topic", required=True, help="the topic")
    payload = parser.add_mutually_exclusive_group(required=True)
    payload.add_argument("-m", "--message", metavar="TEXT", help="the payload")
    payload.add_argument("--file", metavar="FILE", help='the payload from a file ("-": from input)')
    parser.add_argument("-q", "--qos", type=int, choices=(0, 1, 2), default=1,
                        help="quality of service (default: %(default)s)")  # fmt: skip
    parser.add_argument("-r", "--retain", action="store_true", help="keep it as the topic's last")
    parser.add_argument("--host", help="another broker than the configuration's")
    _connection_options(parser)
    _timeout_option(parser)
    _config_option(parser)


def _add_start(add: _Add) -> None:
    parser = add(
        "start",
        "have a running appliance start a task, and wait for the outcome",
        "Start a task by its id or name, or all tasks with a tag or a custom property. The running "
        "appliance does it as for a message: [allow] holds, the log names who asked, and while the "
        "task runs the start waits for the end of that run. Users in [access] operators may start; "
        "without a users file, every user of the appliance's machine may.\n"
        "State changes go to standard error, the outcome and its reason to standard output. Ctrl+C "
        "and --timeout end the wait, not the task.\n\n"
        "exit codes:\n"
        "  0 accepted, with --wait succeeded   10 failed    11 aborted   12 skipped\n"
        "  13 refused by the Qlik server       14 rejected: not allowed, unknown, not possible\n"
        "  15 expired before its turn          16 lost: the outcome can't be read\n"
        "  17 --timeout is over                69 the appliance does not run or can't take it\n"
        "  77 no permission                    130 Ctrl+C\n"
        "Of several tasks, the gravest counts: 16, 10, 11, 13, 14, 15, 12, 0.",
        "  appliance start 'Reload sales'                 accepted, and no wait\n"
        "  appliance start 'Reload sales' --wait --timeout 2h\n"
        "  appliance start 2ce4dc25-9d8c-4d0c-8e57-7d0bd4a7ea34 --wait --json\n"
        "  appliance start --tag nightly --wait -u scheduler --password-stdin < secret.txt",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("task", metavar="TASK", nargs="?", help="the task's id or name")
    what.add_argument("--tag", metavar="TAG", help="all tasks with this tag")
    what.add_argument("--property", metavar="NAME=VALUE",
                      help="all tasks with this value of a custom property")  # fmt: skip
    parser.add_argument("--partial", action="store_true", help="reload partially")
    parser.add_argument("--variable", metavar="NAME=VALUE", action="append", default=[],
                        help="of the load script; may come more than once")  # fmt: skip
    parser.add_argument("--wait", action="store_true", help="until the outcome is known")
    parser.add_argument("--timeout", metavar="TIME",
                        help='how long at most, e.g. "2h" (default: for ever)')  # fmt: skip
    parser.add_argument("--json", action="store_true", help="for programs: the outcome as JSON")
    parser.add_argument("--host", help="where it runs (default: as configured, or here)")
    _connection_options(parser)
    parser.add_argument("-c", "--config", metavar="FILE",
                        help="a configuration whose first listener it is (default: config.toml in "
                        "the current folder, if there is one)")  # fmt: skip


def _add_explain(add: _Add) -> None:
    parser = add(
        "explain",
        "show what a message would start, and when, or why nothing",
        "Ask a running appliance what a message would start, without sending it: for each trigger "
        "the topic, each comparison of `when` with what was found, the task, [allow], debounce, "
        "cooldown and what runs. The last line says what would start and when, or what stands in "
        "the way. Nothing is published or started. With --seq, a message of the journal is "
        "explained: why it started nothing.\n"
        "Users in [access] operators and viewers may ask. Where no appliance answers, the rules of "
        "the configuration are asked alone, and the last line says so.",
        '  appliance explain -t plant/7/done -m \'{"state": "done"}\'\n'
        "  appliance explain -t plant/7/done --file order.json --client plc-7 --retain\n"
        "  appliance explain --seq 4711                  why message 4711 started nothing\n"
        "  appliance explain -t plant/7/done -m x -c new.toml --offline",
    )
    parser.add_argument("-t", "--topic", help="the topic")
    payload = parser.add_mutually_exclusive_group()
    payload.add_argument("-m", "--message", metavar="TEXT", help="the payload (default: empty)")
    payload.add_argument("--file", metavar="FILE", help='the payload from a file ("-": from input)')
    parser.add_argument("--client", metavar="ID", help="the client that would send it")
    parser.add_argument("-r", "--retain", action="store_true", help="as a retained message")
    parser.add_argument("--seq", metavar="NUMBER", type=int,
                        help="a message of the journal, by its number")  # fmt: skip
    parser.add_argument("--offline", action="store_true",
                        help="ask the configuration's rules alone, no appliance")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="for programs: all of it as JSON")
    _address_options(parser)


def _add_holds(add: _Add) -> None:
    parser = add(
        "hold",
        "hold starts for a maintenance window, or keep a client out",
        "Hold everything, a task, a trigger, a timer or a client of a running appliance, until a "
        "time, for a while, or until it is released. Starts that are asked for meanwhile wait and "
        "are merged as the rules say; with --drop they are dropped. What runs already goes on. A "
        "held client is disconnected and can't connect. Holding the same again changes the hold. "
        "Who may start tasks may hold (see appliance start --help).",
        "  appliance hold everything --for 2h --reason 'new disks'\n"
        "  appliance hold task 'Reload sales' --until 06:00\n"
        "  appliance hold trigger stock --until '2026-12-01 06:00' --drop\n"
        "  appliance hold client press-7 --reason 'sends nonsense'\n"
        "  appliance hold --list",
    )
    _what_is_held(parser)
    parser.add_argument("--for", dest="for_time", metavar="TIME",
                        help='how long, e.g. "2h" (default: until it is released)')  # fmt: skip
    parser.add_argument("--until", metavar="TIME",
                        help='when it ends: "06:00", or "2026-12-01 06:00"')  # fmt: skip
    parser.add_argument("--reason", metavar="TEXT", help="why, for everybody who sees it")
    parser.add_argument("--drop", action="store_true",
                        help="drop what asks for a start meanwhile; it waits else")  # fmt: skip
    parser.add_argument("--list", action="store_true", help="only list what is held")
    _operator_options(parser, action="hold")
    parser = add(
        "release",
        "end a hold: what waited goes on",
        "End a hold of a running appliance before its time. Starts that waited go on.",
        "  appliance release everything\n"
        "  appliance release task 'Reload sales'\n"
        "  appliance release client press-7",
    )
    _what_is_held(parser)
    _operator_options(parser, action="release")
    parser = add(
        "list",
        "list what is held",
        "List what a running appliance holds: until when, by whom, why, and how many starts wait.",
        "  appliance list\n  appliance list --json",
    )
    _operator_options(parser, action="list")


def _add_freshness(add: _Add) -> None:
    parser = add(
        "freshness",
        "how fresh each task's data is, and what is late, and why",
        "Say of each task that messages asked for since when its data is stale and why, and how "
        "long it took from a message to fresh data in the last seven days. The appliance runs. "
        "Operators and viewers may ask.",
        "  appliance freshness\n"
        "  appliance freshness sales\n"
        "  appliance freshness --late --json\n"
        "  appliance freshness --every 1h     beside what an hourly schedule would give",
    )
    parser.set_defaults(module="freshness")
    parser.add_argument("task", metavar="TEXT", nargs="?", default="",
                        help="only tasks with this in their name, app or id")  # fmt: skip
    parser.add_argument("--late", action="store_true",
                        help="only tasks whose fresh_within is over")  # fmt: skip
    parser.add_argument("--every", metavar="TIME",
                        help="beside it: what a schedule of this interval would give, e.g. "
                        '"1h"')  # fmt: skip
    _operator_options(parser)


def _what_is_held(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", metavar="KIND", nargs="?",
                        choices=("everything", "task", "trigger", "timer", "client"),
                        help="everything, task, trigger, timer or client")  # fmt: skip
    parser.add_argument("name", metavar="NAME", nargs="?",
                        help="the task's id or name, the name of the trigger or timer, "
                        "the client id")  # fmt: skip


def _operator_options(parser: argparse.ArgumentParser, *, action: str = "") -> None:
    if action:
        parser.set_defaults(module="hold", action=action)
    parser.add_argument("--json", action="store_true", help="for programs: the answer as JSON")
    _address_options(parser)


def _add_attach(add: _Add) -> None:
    parser = add(
        "attach",
        "the terminal UI for an appliance that runs as a service",
        "Show the terminal UI for an appliance that runs already, on this machine or another. "
        "Users in [access] operators may view and act, viewers may view; without a users "
        "file, every user of its machine may. Leaving the UI leaves the appliance running.",
        "  appliance attach                              that of config.toml, or here\n"
        "  appliance attach plant7.example.com --tls -u anna\n"
        "  appliance attach -c /etc/appliance/config.toml -u admin",
    )
    parser.add_argument("host", metavar="HOST", nargs="?",
                        help="where it runs (default: as configured, or here)")  # fmt: skip
    _connection_options(parser)
    _timeout_option(parser)
    parser.add_argument("-c", "--config", metavar="FILE",
                        help="a configuration whose first listener it is (default: config.toml in "
                        "the current folder, if there is one)")  # fmt: skip


def _add_web(add: _Add) -> None:
    parser = add(
        "web",
        "the terminal UI in a browser",
        "Serve the terminal UI of an appliance that runs already to browsers. Each signs in as a "
        "user of the broker and gets a terminal of its own, as with attach. Beyond this machine it "
        'needs a certificate. Needs the extra "web".',
        "  appliance web                                 on http://127.0.0.1:8088/\n"
        "  appliance web -c /etc/appliance/config.toml --bind 0.0.0.0:8443 \\\n"
        "      --server-cert server.pem --server-key key.pem --hosts plant7.example.com",
    )
    parser.add_argument("host", metavar="HOST", nargs="?",
                        help="where it runs (default: as configured, or here)")  # fmt: skip
    parser.add_argument("--bind", metavar="ADDRESS:PORT", default="127.0.0.1:8088",
                        help="where browsers connect (default: %(default)s)")  # fmt: skip
    parser.add_argument("--server-cert", metavar="FILE", help="the certificate that browsers see")
    parser.add_argument("--server-key", metavar="FILE", help="its private key")
    parser.add_argument("--hosts", metavar="NAME", action="append", default=[],
                        help="a name that browsers may ask for, beside addresses, localhost and "
                             "this machine's own; * for any characters; several times")  # fmt: skip
    parser.add_argument("--sessions", metavar="NUMBER", type=int, default=8,
                        help="people at one time (default: %(default)s)")  # fmt: skip
    parser.add_argument("--idle", metavar="TIME", default="1h",
                        help="ends a session without a key (default: %(default)s)")  # fmt: skip
    parser.add_argument("--port", type=int, help="the appliance's (default: 1883, with TLS 8883)")
    parser.add_argument("--tls", action="store_true", help="speak TLS with the appliance")
    parser.add_argument("--ca-file", metavar="FILE", help="the authority that signed the broker's")
    parser.add_argument("--certfile", metavar="FILE", help="a client certificate")
    parser.add_argument("--keyfile", metavar="FILE", help="its private key")
    _timeout_option(parser)
    parser.add_argument("-c", "--config", metavar="FILE",
                        help="a configuration whose first listener it is (default: config.toml in "
                        "the current folder, if there is one)")  # fmt: skip


def _add_export(add: _Add) -> None:
    parser = add(
        "export",
        "write messages from the journal to a file",
        "Write the messages of the journal, oldest first. The appliance may be running. An export "
        "that was interrupted says how it goes on.",
        "  appliance export > all.jsonl\n"
        "  appliance export -t 'plant/#' --since 24h -o plant.jsonl\n"
        "  appliance export --text overheated --client 'press*' --until 2026-11-29\n"
        "  appliance export --task 'Reload Sales' --state bad -o failed.csv --format csv\n"
        "  appliance export --since 7d -o week.parquet --format parquet\n"
        "  appliance export --resume -o all.jsonl",
    )
    _range_options(parser)
    parser.add_argument("--text", metavar="TEXT", action="append", default=[],
                        help="only with this in topic, client id or payload, in any case; "
                             "several: with all of them")  # fmt: skip
    parser.add_argument("--state", metavar="STATE", action="append", default=[],
                        help="only what started a task, or should have, with this state now, e.g. "
                             "failed, done, or bad, open, any; several: one of them")  # fmt: skip
    parser.add_argument("--task", metavar="TEXT", action="append", default=[],
                        help="only what started a task with this in its name or id")  # fmt: skip
    parser.add_argument("--format", choices=("json", "jsonl", "csv", "parquet", "qvd"),
                        default="jsonl", help="as in [[recorder]] (default: %(default)s); parquet "
                        "and qvd need -o, and a large qvd export is several files")  # fmt: skip
    parser.add_argument(
        "--payload", action="store_true", help="payloads alone, without time, topic and client"
    )
    parser.add_argument("-o", "--output", metavar="FILE", default="-",
                        help="a new file (default: standard output)")  # fmt: skip
    parser.add_argument("--resume", action="store_true",
                        help="go on with the file of an export that did not end")  # fmt: skip
    parser.add_argument("--limit", metavar="N", type=int, help="at most this many messages")
    _config_option(parser)


def _range_options(parser: argparse.ArgumentParser) -> None:
    """Which messages of the journal (commands/journal_range.py)."""
    parser.add_argument("-t", "--topic", metavar="FILTER", action="append", default=[],
                        help="only these topics; may come more than once")  # fmt: skip
    parser.add_argument("--client", metavar="TEXT", action="append", default=[],
                        help="only clients with this in their id; * is any text")  # fmt: skip
    parser.add_argument("--since", metavar="TIME",
                        help='not older than this, e.g. "24h" or "2026-11-29T06:00"')  # fmt: skip
    parser.add_argument("--until", metavar="TIME", help="older than this, written the same way")
    parser.add_argument("--after", metavar="N", type=int, default=0,
                        help="only messages with larger numbers than this")  # fmt: skip


def _add_replay_and_stats(add: _Add) -> None:
    parser = add(
        "replay",
        "send messages of the journal again",
        "Send a range of the journal again, oldest first: to this appliance below --prefix, or to "
        "another broker. What the appliance itself published is left out. A replayed message is "
        "marked and starts no task, here and at any appliance that gets it by MQTT 5.\n"
        "Ctrl+C ends it in order and says with which --after it goes on.\n\n"
        "exit codes:\n"
        "  0 all sent   69 the broker is out of reach, or some were refused or too large\n"
        "  77 some were refused for want of a right   130 Ctrl+C",
        "  appliance replay --since 1h --prefix replay/\n"
        "  appliance replay -t 'plant/#' --since 2026-11-28 --until 2026-11-29 --speed 60 \\\n"
        "      --host test.example.com --tls -u me\n"
        "  appliance replay --after 120000 --speed max --prefix again/",
    )
    _range_options(parser)
    parser.add_argument("--limit", metavar="N", type=int, help="at most this many messages")
    parser.add_argument("--prefix", metavar="TEXT", help="put before each topic")
    parser.add_argument("--speed", metavar="X", default="1",
                        help="so many times as fast, or max (default: %(default)s)")  # fmt: skip
    parser.add_argument("--retain", action="store_true",
                        help="retained messages as such (default: without the flag)")  # fmt: skip
    parser.add_argument("--start-tasks", action="store_true",
                        help="without the mark: triggers act as on new messages")  # fmt: skip
    parser.add_argument("--host", help="another broker than the configuration's")
    _connection_options(parser)
    _timeout_option(parser)
    _config_option(parser)
    parser = add(
        "stats",
        "count the messages of the journal",
        "Count the messages of the journal by topic and by client: how many, how many a second, "
        "how large. The appliance may be running.",
        "  appliance stats --since 24h\n"
        "  appliance stats -t 'plant/#' --top 50\n"
        "  appliance stats --client press --since 2026-11-28 --json",
    )
    _range_options(parser)
    parser.add_argument("--top", metavar="N", type=int, default=10,
                        help="so many topics and clients (default: %(default)s)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="for programs: all of them, as JSON")
    _config_option(parser)
    parser = add(
        "rehearse",
        "see what the rules would have started, by the messages of the journal",
        "Hold the messages of the journal against the triggers of a configuration, the present or "
        "a new one, and say what they would have started, beside what really happened. Nothing is "
        "started. The appliance may be running.\n"
        "Runs take as long as they really took for the same message, else as long as usual. What "
        "timers, operators and others started happens as it happened.",
        "  appliance rehearse                            the last 7 days, the present rules\n"
        "  appliance rehearse --since 24h -c new.toml --against config.toml\n"
        "  appliance rehearse --since 2026-11-23 --until 2026-11-30 --json",
    )
    parser.add_argument("--since", metavar="TIME", default="7d",
                        help='from then on, e.g. "24h" or "2026-11-29T06:00" '
                             "(default: %(default)s)")  # fmt: skip
    parser.add_argument("--until", metavar="TIME", help="until then, written the same way")
    parser.add_argument("--against", metavar="PATH",
                        help="the running appliance's configuration or data directory, if the one "
                        "of -c has another data directory")  # fmt: skip
    parser.add_argument("--offline", action="store_true",
                        help="do not ask the Qlik server for its tasks")  # fmt: skip
    parser.add_argument("--top", metavar="N", type=int, default=10,
                        help="so many rules and tasks (default: %(default)s)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="for programs: all of it, as JSON")
    _config_option(parser)


def _add_tasks_and_selftest(add: _Add) -> None:
    parser = add(
        "tasks",
        "list the Qlik tasks that may be started",
        "List the tasks that the configured user sees on the Qlik server, with their ids.",
        "  appliance tasks\n  appliance tasks sales                         by name, app, tag\n"
        "  appliance tasks --long                        last run, next start, what starts it\n"
        "  appliance tasks --tree                        which task starts after which",
    )
    parser.add_argument(
        "search",
        metavar="TEXT",
        nargs="?",
        default="",
        help="a part of name, id, app, tag or property=value",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--long", action="store_true", help="a table: last run, next start, and why")
    form.add_argument("--tree", action="store_true", help="the same, each task below its chain's")
    form.add_argument("--json", action="store_true", help="for programs: one JSON list")
    _config_option(parser)
    add(
        "selftest",
        "check that this installation is complete",
        "Load every part, write a small database and recordings, hash a password, look for TLS, "
        "show the UI without a terminal.",
        "  appliance selftest",
    )


def _add_care(add: _Add) -> None:
    parser = add(
        "completion",
        "print the completion for a shell",
        "Print a script that lets a shell complete commands, options and values.",
        "  source <(appliance completion bash)           in ~/.bashrc\n"
        '  eval "$(appliance completion zsh)"            in ~/.zshrc, behind compinit\n'
        "  appliance completion fish | source            in ~/.config/fish/config.fish\n"
        "  appliance completion powershell | Out-String | Invoke-Expression\n"
        "                                                in the file that $PROFILE names",
    )
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS,
                        help="bash, zsh, fish or powershell")  # fmt: skip
    parser.set_defaults(command_parser=command_parser)
    parser = add(
        "manual",
        "print the manual page",
        "Print the manual page for man(1): the help of all commands.",
        "  appliance manual | man -l -                   read it\n"
        "  appliance manual > ~/.local/share/man/man1/appliance.1",
    )
    parser.set_defaults(command_parser=command_parser)
    parser = add(
        "health",
        "show the health of a running appliance",
        "Show the health of the appliance of a configuration. The exit code is 0 while messages "
        'are accepted and no loss waits for "appliance acknowledge", else 69.',
        "  appliance health\n  appliance health --json -c /etc/appliance/config.toml",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    _config_option(parser)
    parser = add(
        "reload",
        "make a running appliance read its configuration again",
        "Have a running appliance read its configuration again, all or nothing. What counts at "
        "once and what counts from the next start is named. (Outside Windows, SIGHUP does the "
        "same.)",
        "  appliance reload -c /etc/appliance/config.toml",
    )
    _config_option(parser)
    parser = add(
        "acknowledge",
        "tell a running appliance that problems are known",
        "A problem that is known is no warning any more until it happens again: a failing task, "
        "the alarm of a silence watch, a counter of losses, a bridge. Without a name: what a start "
        "found lost or damaged (the health is bad until then) and what bridges lost. Prints what "
        "was acknowledged.",
        "  appliance acknowledge -c /etc/appliance/config.toml\n"
        "  appliance acknowledge --list\n"
        '  appliance acknowledge "Reload Sales" --note "DBA knows, ticket 4711"\n'
        '  appliance acknowledge "Reload Sales" --take-back',
    )
    parser.add_argument("names", metavar="NAME", nargs="*",
                        help="a task, timer, counter or bridge, as --list names it")  # fmt: skip
    parser.add_argument("--note", metavar="TEXT", default="",
                        help="what others should know, shown beside it")  # fmt: skip
    parser.add_argument("--list", action="store_true",
                        help="what can be acknowledged, and what is: who, when, note")  # fmt: skip
    parser.add_argument("--take-back", action="store_true",
                        help="show it as a problem again")  # fmt: skip
    _config_option(parser)
    parser = add(
        "log-level",
        "set a running appliance's log level",
        "Set the log level of a running appliance until its next start or reload.",
        "  appliance log-level debug",
    )
    parser.add_argument("level", metavar="LEVEL", choices=("debug", "info", "warning", "error"),
                        help="debug, info, warning or error")  # fmt: skip
    _config_option(parser)
    parser = add(
        "backup",
        "copy the journal, recordings and pending tasks",
        "Copy the data directory into a new folder. The appliance may be running.",
        "  appliance backup /backup/appliance-monday",
    )
    parser.add_argument("folder", metavar="DIR", help="the new folder")
    _config_option(parser)
    parser = add(
        "restore",
        "put a backup back",
        "Put a backup in the place of a data directory. The appliance must not run, and an "
        "existing journal is never overwritten.",
        "  appliance restore /backup/appliance-monday",
    )
    parser.add_argument("folder", metavar="DIR", help="what appliance backup has written")
    _config_option(parser)
