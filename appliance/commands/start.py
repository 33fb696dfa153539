"""``appliance start``: have a running appliance start tasks, and wait for their outcome.

A request goes the way of an attached terminal's actions: signed in, journaled, logged, and checked
against [allow] there. Not for: showing progress (progress.py), the connection (remote/).
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from appliance.commands.output import print_json
from appliance.commands.progress import Progress, named, outcome_line
from appliance.commands.target import client_name, config_of, target_of
from appliance.config.values import parse_duration
from appliance.errors import (
    EXIT_NO_PERMISSION,
    EXIT_OK,
    EXIT_UNAVAILABLE,
    ApplianceError,
    NoPermissionError,
    NotNotedError,
    UnavailableError,
    UsageError,
)
from appliance.log.sanitize import escape
from appliance.model import Execution, ExecutionState, decode_hook
from appliance.process.interrupts import EXIT_INTERRUPTED
from appliance.remote import protocol
from appliance.remote.command_link import CommandLink, ConnectionLostError
from appliance.tasks.outcomes import describe
from appliance.tasks.selector import task_id

EXIT_FAILED = 10
EXIT_ABORTED = 11
EXIT_SKIPPED = 12
EXIT_REFUSED = 13
EXIT_REJECTED = 14
EXIT_EXPIRED = 15
EXIT_LOST = 16
EXIT_TIMED_OUT = 17

EXIT_CODES = {
    ExecutionState.SUCCEEDED: EXIT_OK,
    ExecutionState.SKIPPED: EXIT_SKIPPED,
    ExecutionState.EXPIRED: EXIT_EXPIRED,
    ExecutionState.REJECTED: EXIT_REJECTED,
    ExecutionState.REFUSED: EXIT_REFUSED,
    ExecutionState.ABORTED: EXIT_ABORTED,
    ExecutionState.FAILED: EXIT_FAILED,
    ExecutionState.LOST: EXIT_LOST,
}
"""The exit code of each outcome. Of several tasks, the outcome that stands last here counts."""

_CONNECT_S = 10.0
_LOOK_EVERY_S = 0.25
_LOOK_SELDOM_S = 1.0
"""How often the state is asked for: often within the first ten seconds, later once a second."""
_OFTEN_S = 10.0
_AGAIN_S = 1.0
"""Seconds between two tries to connect again."""
_LOOKS_FOR_START_S = 60.0
"""How long a command without --wait tries to find out whether its start was accepted."""
_STILL_COMES_S = 5.0
"""How long a request whose answer was lost is looked for: it may be under way in the appliance."""
_START_S = 60.0
"""How long the answer to the request is waited for: names are looked up on the Qlik server."""
_LEAST_S = 5.0
"""How long an answer is waited for at least, also at the end of --timeout."""
_STATE_S = 15.0
"""How long the answer to a question for the state is waited for, before it is asked anew."""
_LOG_S = 5.0
"""How long the script log of a failed run is waited for."""

_EXECUTIONS: Callable[[bytes], list[Execution]] = msgspec.msgpack.Decoder(
    list[Execution], dec_hook=decode_hook
).decode
_NUMBERS: Callable[[bytes], list[int]] = msgspec.msgpack.Decoder(list[int]).decode


class _OutOfTimeError(Exception):
    """--timeout is over."""


def execute(options: argparse.Namespace) -> int:
    """Start, wait if that is wanted, print the outcome; returns the exit code."""
    payload = _payload(options)
    wait_s = _wait_s(options)
    config = config_of(options)
    target = target_of(
        options, config=config, client=client_name("terminal-start"), timeout_s=_CONNECT_S
    )
    progress = Progress(sys.stderr, is_quiet=options.json)
    link = CommandLink(target)
    starts = _Starts(link, progress, target.client_id, wait_s, made_up=not options.client_id)
    try:
        return _finish(options, starts, payload, progress)
    finally:
        progress.clear()
        with contextlib.suppress(ApplianceError):
            link.close()


def _finish(options: argparse.Namespace, starts: _Starts, payload: str, progress: Progress) -> int:
    try:
        starts.ask(payload)
        if options.wait:
            starts.wait()
            code = _code(starts.executions)
        else:
            starts.look()
            code = EXIT_OK
    except KeyboardInterrupt:
        progress.clear()
        problem = f"the wait is ended. {starts.goes_on}"
        if options.json:
            return _tell(options, EXIT_INTERRUPTED, starts, problem)
        sys.stderr.write(f"appliance: {problem}\n")
        return EXIT_INTERRUPTED
    except _OutOfTimeError:
        progress.clear()
        return _tell(options, EXIT_TIMED_OUT, starts, f"--timeout is over. {starts.goes_on}")
    except _NotTakenError as error:
        return _tell(options, error.exit_code, starts, str(error))
    except ApplianceError as error:
        if not options.json:
            raise
        return _tell(options, error.exit_code, starts, str(error))
    progress.clear()
    return _tell(options, code, starts, "")


def _tell(options: argparse.Namespace, code: int, starts: _Starts, problem: str) -> int:
    """Print the outcome: JSON, or a line for each start on standard output."""
    found = starts.executions
    if options.json:
        body: dict[str, Any] = {
            "exitCode": code,
            "outcome": "succeeded" if code == EXIT_OK and options.wait else _outcome(code),
            "reason": problem or _reason(found),
            "executions": [describe(each) for each in found],
        }
        print_json(body)
        return code
    for each in found:
        if each.state.is_final or not problem:
            sys.stdout.write(outcome_line(each, is_waited_for=options.wait))
    if not found and not problem:  # the connection was lost before the first look
        sys.stdout.write(f"accepted ({starts.shown_numbers})\n")
    if problem:
        sys.stdout.write(f"{_outcome(code)}: {escape(problem)}\n")
    return code


_OUTCOMES = {
    EXIT_OK: "accepted",
    EXIT_TIMED_OUT: "timed out",
    EXIT_UNAVAILABLE: "unavailable",
    EXIT_NO_PERMISSION: "no permission",
    EXIT_INTERRUPTED: "interrupted",
} | {code: state.value for state, code in EXIT_CODES.items() if code}


def _outcome(code: int) -> str:
    return _OUTCOMES.get(code, "error")


def _reason(found: Sequence[Execution]) -> str:
    return next((each.reason for each in found if each.state.is_bad and each.reason), "")


class _NotTakenError(ApplianceError):
    """The request was not accepted, or its fate is not known."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class _Starts:
    """What this command asked for, and how far it is."""

    def __init__(
        self,
        link: CommandLink,
        progress: Progress,
        client_id: str,
        wait_s: float | None,
        *,
        made_up: bool,
    ) -> None:
        self._link = link
        self._progress = progress
        self._client_id = client_id
        self._made_up = made_up
        self._began = time.monotonic()
        self._wait_s = wait_s
        self._end: float | None = None
        self._asked = False
        self._numbers: list[int] = []
        self.executions: list[Execution] = []

    @property
    def goes_on(self) -> str:
        """What becomes of the start without this command."""
        if not self._asked:
            return "Nothing was started."
        if not self._numbers:
            return "Whether the start was accepted is not known."
        shown = ", ".join(
            f"{named(each)} is {each.state.value} (execution {each.id})"
            for each in self.executions
            if not each.state.is_final
        )
        shown = shown or self.shown_numbers
        return f"The appliance goes on with it: {shown}."

    @property
    def shown_numbers(self) -> str:
        """The executions by their numbers alone."""
        return ", ".join(f"execution {number}" for number in self._numbers)

    # --- asking -------------------------------------------------------------------------------

    def ask(self, payload: str) -> None:
        """Ask for the start.

        Raises:
            _NotTakenError: it was not taken, or it is not known whether it was.
            ApplianceError: the appliance is out of reach, or this user may not act there.
        """
        self._link.open()
        self._asked = True
        try:
            self._numbers = self._link.request(protocol.RequestStarts(payload), _NUMBERS, _START_S)
        except ConnectionLostError as error:
            self._progress.say(f"the connection was lost before the answer came: {error}")
            self._find_own()
        except UsageError as error:
            raise _NotTakenError(str(error), EXIT_REJECTED) from None
        except NoPermissionError:
            raise  # with the exit code of its own
        except NotNotedError as error:
            raise _NotTakenError(str(error), EXIT_LOST) from None
        except ApplianceError as error:
            raise _NotTakenError(str(error), EXIT_UNAVAILABLE) from None

    def _find_own(self) -> None:
        """Look for the request by the client id that its cause names."""
        self._end = time.monotonic() + (self._wait_s or _LOOKS_FOR_START_S)
        mine = f"(terminal {self._client_id} at "
        with contextlib.suppress(_OutOfTimeError):
            recent = self._asked_until(protocol.GetExecutions(protocol.LAST, protocol.MAX_FOUND))
            until = time.monotonic() + _STILL_COMES_S
            while self._made_up:
                self._numbers = sorted(each.id for each in recent if mine in each.cause.rule)
                if self._numbers or time.monotonic() > until:
                    break
                self._pause(_LOOK_EVERY_S)
                recent = self._asked_until(
                    protocol.GetExecutions(protocol.LAST, protocol.MAX_FOUND)
                )
        if not self._numbers:
            raise _NotTakenError(
                "whether the start was accepted is not known; see the appliance's log",
                EXIT_LOST,
            )

    # --- waiting ------------------------------------------------------------------------------

    def look(self) -> None:
        """Read the present state once; without an answer it is left out."""
        with contextlib.suppress(ConnectionLostError):
            self.executions = self._read(self._once)

    def wait(self) -> None:
        """Wait for every outcome. Raises ``_OutOfTimeError``."""
        if self._wait_s is not None:
            self._end = time.monotonic() + self._wait_s
        else:
            self._end = None
        while True:
            self._take(self._read(self._asked_until))
            if all(each.state.is_final for each in self.executions):
                break
            self._pause(_LOOK_EVERY_S if self._age_s() < _OFTEN_S else _LOOK_SELDOM_S)
        self._wait_for_log()

    def _wait_for_log(self) -> None:
        """The script log of a failed run comes a moment after its outcome."""
        end = time.monotonic() + _LOG_S
        with contextlib.suppress(_OutOfTimeError):
            while time.monotonic() < end and any(map(_lacks_log, self.executions)):
                self._pause(_LOOK_EVERY_S)
                self._take(self._read(self._asked_until))
        if any(map(_lacks_log, self.executions)):
            self._progress.say(f"no script log came within {_LOG_S:g} s")

    def _age_s(self) -> float:
        return time.monotonic() - self._began

    def _read(self, ask: Callable[[protocol.AnyOperation], list[Execution]]) -> list[Execution]:
        """All executions, so many at a time that they fit into one answer."""
        numbers, size = self._numbers, protocol.MAX_FOUND
        parts = [tuple(numbers[at : at + size]) for at in range(0, len(numbers), size)]
        return [each for part in parts for each in ask(protocol.FindExecutions(part))]

    def _once(self, operation: protocol.AnyOperation) -> list[Execution]:
        return self._link.request(operation, _EXECUTIONS, self._at_most(_STATE_S))

    def _at_most(self, seconds: float) -> float:
        if self._end is None:
            return seconds
        return min(seconds, max(_LEAST_S, self._end - time.monotonic()))

    def _take(self, found: Sequence[Execution]) -> None:
        known = {each.id: each for each in found}
        if gone := [number for number in self._numbers if number not in known]:
            raise _NotTakenError(
                f"the appliance does not know execution {gone[0]} any more: its outcome can't be "
                "read",
                EXIT_LOST,
            )
        answered = {each.id: each.answered_by for each in found if each.answered_by}
        if answered:
            for number, other in answered.items():
                self._progress.say(f"execution {number} is answered by execution {other}")
            self._numbers = list(
                dict.fromkeys(answered.get(number, number) for number in self._numbers)
            )
            self._take(self._read(self._asked_until))
            return
        self.executions = [known[number] for number in self._numbers]
        self._progress.show(self.executions)

    def _asked_until(self, operation: protocol.AnyOperation) -> list[Execution]:
        """Ask, and connect again as often as it takes. Raises ``_OutOfTimeError``."""
        lost = ""
        while True:
            try:
                if lost:
                    self._link.open()
                    self._progress.say("connected again")
                return self._once(operation)
            except UnavailableError as error:
                if not lost:
                    self._progress.say(
                        f"no connection: {error}. A start that was accepted is kept and goes on; "
                        "trying again"
                    )
                lost = str(error)
                self._pause(_AGAIN_S)

    def _pause(self, seconds: float) -> None:
        left = seconds if self._end is None else self._end - time.monotonic()
        if left <= 0:
            raise _OutOfTimeError
        self._progress.tick()
        time.sleep(min(seconds, left))


def _lacks_log(execution: Execution) -> bool:
    return (
        execution.state is ExecutionState.FAILED
        and bool(execution.execution_id)
        and not (execution.log_tail or execution.log_problem)
    )


def _code(found: Sequence[Execution]) -> int:
    order = list(EXIT_CODES)
    worst = max(found, key=lambda each: order.index(each.state))
    return EXIT_CODES[worst.state]


def _payload(options: argparse.Namespace) -> str:
    """The request as a message's payload has it."""
    if options.tag is not None:
        body: dict[str, Any] = {"tag": options.tag}
    elif options.property is not None:
        name, sign, value = options.property.partition("=")
        if not (sign and name.strip() and value.strip()):
            raise UsageError(f"--property {options.property}: write NAME=VALUE")
        body = {"customProperty": {"name": name, "value": value}}
    else:
        found = task_id(options.task)
        body = {"taskId": found} if found else {"taskName": options.task}
    if options.partial:
        body["partial"] = True
    if options.variable:
        body["variables"] = _variables(options.variable)
    return msgspec.json.encode(body).decode()


def _variables(texts: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not (sign and name.strip()):
            raise UsageError(f"--variable {text}: write NAME=VALUE")
        if name in found:
            raise UsageError(f"--variable {text}: {name} is given twice")
        found[name] = value
    return found


def _wait_s(options: argparse.Namespace) -> float | None:
    if options.timeout is None:
        return None
    if not options.wait:
        raise UsageError("--timeout bounds the wait; add --wait")
    try:
        seconds = parse_duration(options.timeout)
    except ValueError as error:
        raise UsageError(f"--timeout {options.timeout}: {error}") from None
    if seconds <= 0:
        raise UsageError(f"--timeout {options.timeout}: write a time above zero")
    return seconds
