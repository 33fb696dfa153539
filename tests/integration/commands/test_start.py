"""``appliance start`` against an appliance process with a simulated Qlik server over HTTP."""

from __future__ import annotations

import contextlib
import io
import json
import re
import select
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from appliance_process import DEADLINE_S, QUICK, ApplianceProcess, free_port, until

from appliance import cli
from appliance.broker.users import Users
from appliance.commands import start
from appliance.model import ExecutionState, TaskKind
from appliance.qlik.simulated import SimulatedQlik
from appliance.qlik.simulated.site import Outcome, SimulatedTask

ROOT = Path(__file__).parents[3]
QUICK_ID = "5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b10"
CONFIG = """
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:PORT"
[access]
users_file = "users.txt"
operators = ["scheduler"]
viewers = ["anna"]
[qlik]
edition = "client-managed"
url = "QLIK"
header = {name = "X-Qlik-User", value = "UserDirectory=INTERNAL; UserId=sa"}
[allow]
names = ["Quick", "Failing", "Twin", "Long", "Longer", "Off", "Across", "Program"]
"""


def tasks() -> list[SimulatedTask]:
    return [
        SimulatedTask("Quick", id=QUICK_ID, duration_s=0.1, tags=("nightly",)),
        SimulatedTask("Failing", duration_s=0.1, outcomes=(Outcome.FAIL,), tags=("nightly",),
                      error_text="Table \x1b[31mnot found", log=("line one", "the last line")),
        SimulatedTask("Off", enabled=False),
        SimulatedTask("Secret", tags=("secret",)),
        SimulatedTask("Twin"),
        SimulatedTask("Twin"),
        SimulatedTask("Long", duration_s=600.0),
        SimulatedTask("Longer", duration_s=600.0),
        SimulatedTask("Across", duration_s=5.0),
        SimulatedTask("Program", kind=TaskKind.EXTERNAL_PROGRAM, duration_s=0.1,
                      outcomes=(Outcome.FAIL,)),
    ]  # fmt: skip


def make(folder: Path, url: str) -> ApplianceProcess:
    process = ApplianceProcess(folder, CONFIG.replace("QLIK", url), program=QUICK)
    users = Users(str(folder / "users.txt"))
    for name in ("scheduler", "anna", "plc"):
        users.add(name, b"secret")
    return process


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory):
    """One appliance for all tests that leave it running."""
    with SimulatedQlik(tasks()) as server:
        with make(tmp_path_factory.mktemp("start"), server.url) as process:
            yield process.start()


@pytest.fixture
def call(capfd, monkeypatch):
    """Runs the command in this process; returns exit code, standard output and error."""

    def run(process: ApplianceProcess, *arguments: str, user: str = "scheduler"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"secret\n")))
        connection = ("-c", str(process.config), "-u", user, "--password-stdin")
        code = cli.main(["start", *arguments, *connection])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        assert "\x1b" not in out + err
        return code, out, err

    return run


def spawn(process: ApplianceProcess, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "appliance", "start", *arguments, "-c", str(process.config)]
    child = subprocess.Popen(
        [*command, "-u", "scheduler", "--password-stdin"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    child.stdin.write("secret\n")
    child.stdin.close()
    child.stdin = None
    return child


def read_until(child: subprocess.Popen[str], part: str) -> str:
    """Read standard error up to a line that has ``part``."""
    watch = threading.Timer(DEADLINE_S, child.kill)
    watch.start()
    try:
        said = ""
        for line in child.stderr:
            said += line
            if part in line:
                return said
    finally:
        watch.cancel()
    raise AssertionError(f"no {part!r}: {said}")


@pytest.mark.parametrize("reference", ["Quick", QUICK_ID, f" {{{QUICK_ID.upper()}}} "])
def test_a_task_is_started_by_id_or_name_and_waited_for(running, call, reference: str) -> None:
    """Success is 0; each state is a line on standard error, the outcome one on standard output."""
    code, out, err = call(running, reference, "--wait")
    assert code == 0
    assert re.fullmatch(r"Quick: succeeded after \d+\.\d s \(execution \d+\)\n", out)
    assert "Quick: " in err
    number = re.search(r"execution (\d+)", out)[1]
    running.wait_for_line(f"succeeded after {out.split()[3]} s (execution {number}, asked for by"
                          " operator scheduler (terminal terminal-start-")  # fmt: skip
    running.wait_for_line("scheduler (terminal terminal-start-")


def test_without_wait_the_answer_is_that_it_was_accepted(running, call) -> None:
    """The command ends when the start is accepted; the log names who asked for what."""
    code, out, err = call(running, "Quick")
    assert (code, err) == (0, "")
    assert re.match(r"Quick: accepted \(execution \d+\)", out)
    running.wait_for_line('asks: {"ask":"request_starts","payload":"{\\"taskName\\":\\"Quick')


def test_a_failure_is_10_with_its_reason_and_the_script_log(running, call) -> None:
    """The reason and the log's last lines are printed, and steer no terminal."""
    code, out, _ = call(running, "Failing", "--wait")
    assert code == 10
    first, *log = out.splitlines()
    assert re.match(r"Failing: failed after .* \(execution \d+\): .*not found", first)
    assert "  the last line" in log


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("Secret",), 14, r'rejected: Task "Secret" .* may not be started: the \[allow\] table'),
        (("--tag", "secret"), 14, r"may not be started"),
        (("Qick",), 14, r'rejected: .* no task "Qick"\. Did you mean "Quick"\?'),
        (("--tag", "nihgtly"), 14, r'no tasks with tag "nihgtly"\. Did you mean "nightly"\?'),
        (("--property", "plant=north"), 14, r'no tasks with plant = "north"'),
        (("Twin",), 14, r"2 tasks answer to task \"Twin\" \(.*, .*\)\. Nothing was started"),
        (("",), 14, r"taskName must be text"),
        (("00000000-0000-0000-0000-000000000000",), 14, r"zero id"),
        (("Off", "--wait"), 13, r"Off: refused .*the task is disabled"),
        (("Long", "--wait", "--timeout", "200ms"), 17, r"timed out: --timeout is over\. The "
                                                       r"appliance goes on with it: Long is"),
        (("Quick", "--variable", "vDay=1=2", "--wait"), 14, r"Quick: rejected .*ariables"),
        (("--tag", "nightly", "--wait"), 10, r"(?s)Quick: succeeded.*Failing: failed"),
    ],
)  # fmt: skip
def test_each_outcome_has_its_exit_code(running, call, arguments, code, said) -> None:
    """What is not started or does not succeed says why, and its code tells it apart."""
    found, out, _ = call(running, *arguments)
    assert found == code
    assert re.search(said, out)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("Quick", "--timeout", "2h"), "add --wait"),
        (("Quick", "--wait", "--timeout", "soon"), "not a duration"),
        (("--property", "plant"), "write NAME=VALUE"),
        (("Quick", "--variable", "vDay"), "write NAME=VALUE"),
        (("Quick", "--variable", "vDay=1", "--variable", "vDay=2"), "vDay is given twice"),
        ((), "required"),
        (("Quick", "--tag", "x"), "not allowed with argument"),
    ],
)
def test_wrong_usage_is_64(running, call, arguments, said) -> None:
    """Mistakes in the options are told before anything is sent."""
    code, _, err = call(running, *arguments)
    assert code == 64
    assert said in err


def test_a_script_log_that_does_not_come_is_said(running, call, monkeypatch) -> None:
    """Such as that of a program, which has none: what is missing is no riddle."""
    monkeypatch.setattr(start, "_LOG_S", 0.3)
    code, out, err = call(running, "Program", "--wait")
    assert code == 10
    assert "Program: failed" in out
    assert "no script log came within 0.3 s" in err


@pytest.mark.parametrize("user", ["anna", "plc"])
def test_only_operators_may_start(running, call, user: str) -> None:
    """A viewer, and a user who is neither, get 77 and start nothing."""
    code, out, err = call(running, "Quick", user=user)
    assert (code, out) == (77, "")
    assert "[access] operators" in err


def test_without_a_running_appliance_it_is_69(tmp_path, call) -> None:
    """The command says that nothing listens there."""
    process = make(tmp_path, f"http://127.0.0.1:{free_port()}")
    code, out, err = call(process, "Quick", "--wait")
    assert (code, out) == (69, "")
    assert "is the appliance running?" in err
    found = json.loads(call(process, "Quick", "--json")[1])
    assert (found["exitCode"], found["outcome"]) == (69, "unavailable")
    assert "is the appliance running?" in found["reason"]


def test_json_has_exit_code_outcome_and_executions(running, call) -> None:
    """Programs get one JSON object on standard output and nothing on standard error."""
    code, out, err = call(running, "Quick", "--wait", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert (found["exitCode"], found["outcome"]) == (0, "succeeded")
    (execution,) = found["executions"]
    assert (execution["taskId"], execution["state"]) == (QUICK_ID, "succeeded")
    assert execution["cause"]["rule"].startswith("scheduler (terminal terminal-start-")
    found = json.loads(call(running, "Qick", "--json")[1])
    assert (found["exitCode"], found["outcome"], found["executions"]) == (14, "rejected", [])
    assert "Did you mean" in found["reason"]


def test_ctrl_c_ends_the_wait_and_not_the_task(running, call) -> None:
    """The command ends with 130 and says that the run goes on; further starts wait for that run,
    and all of them for one and the same further run."""
    with spawn(running, "Longer", "--wait") as child:
        read_until(child, "Longer: running")
        if sys.platform == "win32":
            child.kill()
            return
        child.send_signal(signal.SIGINT)
        assert child.wait(DEADLINE_S) == 130
        rest = child.stderr.read()
        assert "the wait is ended. The appliance goes on with it: Longer is running" in rest
        assert "Traceback" not in rest
    merged = [call(running, "Longer")[1] for _ in range(2)]
    numbers = {re.search(r"Longer: accepted \(execution (\d+)\)", out)[1] for out in merged}
    assert len(numbers) == 1


@pytest.mark.campaign
def test_a_wait_outlives_the_appliance(tmp_path) -> None:
    """Killed and started again during the wait, the appliance still tells how the run ended."""
    with SimulatedQlik(tasks()) as server, make(tmp_path, server.url) as process:
        process.start()
        with spawn(process, "Across", "--wait") as child:
            read_until(child, "Across: ")
            process.kill()
            said = read_until(child, "no connection")
            assert "A start that was accepted is kept and goes on; trying again" in said
            process.start()
            out, err = child.communicate(timeout=DEADLINE_S)
            assert child.returncode == 0
            assert "connected again" in err
            assert re.fullmatch(r"Across: succeeded after .* \(execution 1\)\n", out)
        assert process.end() == 0


@contextlib.contextmanager
def breaking_at_the_request(port: int, *, hands_on: bool) -> Iterator[int]:
    """A port before the broker's: the connection ends at the request, before or behind it."""

    class Connection(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", port)) as broker:
                while True:
                    for source in select.select([self.request, broker], [], [])[0]:
                        sink = broker if source is self.request else self.request
                        data = source.recv(65536)
                        is_request = b'"request_starts"' in data
                        if not data or (is_request and not hands_on):
                            return
                        sink.sendall(data)
                        if is_request:
                            broker.shutdown(socket.SHUT_WR)  # what was sent is read all the same
                            while broker.recv(65536):
                                pass
                            return

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Connection) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.campaign
def test_a_start_whose_answer_was_lost_is_found_and_not_repeated(running, call) -> None:
    """The request arrived, the answer did not: the command goes on with the start that there is."""
    with breaking_at_the_request(running.port, hands_on=True) as port:
        code, out, err = call(running, "Quick", "--wait", "--port", str(port))
    assert "the connection was lost before the answer came" in err
    assert code == 0
    number = int(re.search(r"Quick: succeeded .*\(execution (\d+)\)", out)[1])
    _, out, _ = call(running, "Quick", "--wait")
    assert int(re.search(r"execution (\d+)", out)[1]) == number + 1


@pytest.mark.campaign
def test_a_request_that_never_arrived_is_not_repeated(running, call, monkeypatch) -> None:
    """Whether it arrived can't be told, and 16 says so."""
    monkeypatch.setattr(start, "_STILL_COMES_S", 0.3)
    with breaking_at_the_request(running.port, hands_on=False) as port:
        code, out, _ = call(running, "Quick", "--wait", "--port", str(port))
    assert code == 16
    assert out.startswith("lost: whether the start was accepted is not known")


@pytest.mark.campaign
@pytest.mark.skipif(sys.platform == "win32", reason="there is no pseudo terminal")
def test_on_a_terminal_one_line_is_renewed(running) -> None:
    """The line has state and time, and is gone when the outcome is printed."""
    import os  # noqa: PLC0415
    import pty  # noqa: PLC0415

    master, slave = pty.openpty()
    command = [sys.executable, "-m", "appliance", "start", "Quick", "--wait", "-c",
               str(running.config), "-u", "scheduler", "--password-stdin"]  # fmt: skip
    done = subprocess.run(
        command, input=b"secret\n", stdout=slave, stderr=slave, cwd=ROOT, timeout=DEADLINE_S,
        check=False,
    )  # fmt: skip
    os.close(slave)
    shown = os.read(master, 65536).decode()
    os.close(master)
    assert done.returncode == 0
    *progress, outcome = shown.rstrip("\r\n").split("\r\x1b[K")
    assert re.match(r"Quick: succeeded after", outcome)
    assert any(line.startswith("Quick: ") for line in progress)


def test_documented_codes_are_those_of_the_command() -> None:
    """docs/operating.md and --help have a row or word for each outcome's code."""
    text = (ROOT / "docs" / "operating.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| (\d+) \| (\w+)", text, re.MULTILINE))
    for state, code in start.EXIT_CODES.items():
        assert rows[str(code)] == state.value
    assert rows[str(start.EXIT_TIMED_OUT)] == "timed"
    assert set(start.EXIT_CODES) == {state for state in ExecutionState if state.is_final}
    taken = {1, 2, *range(64, 79), *range(124, 256)}
    assert taken.isdisjoint(start.EXIT_CODES.values())
