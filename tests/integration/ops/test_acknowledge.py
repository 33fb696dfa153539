"""``appliance acknowledge`` with names, asked of a process that is killed meanwhile."""

from __future__ import annotations

import pytest
from appliance_process import QUICK, ApplianceProcess, until

from appliance import cli

pytestmark = pytest.mark.campaign  # processes of their own

CONFIG = """
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:PORT"
[[timer]]
name = "press"
silence = "1s"
topic = "plant/press7/#"
"""


def test_what_is_acknowledged_survives_a_kill(tmp_path, monkeypatch, capfd) -> None:
    """By a name, with a note; --list says who and why; it can be taken back."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str]:
        code = cli.main(list(arguments))
        out, err = capfd.readouterr()
        return code, out + err

    with ApplianceProcess(tmp_path, CONFIG, program=QUICK) as appliance:
        appliance.start()
        appliance.wait_for_line("Timer press: no message on plant/press7/#")
        until(lambda: "bad  timer press" in call("health")[1], "health names it")
        assert call("acknowledge", "--list")[1].startswith("press: timer press: no message")
        code, told = call("acknowledge", "nobody")
        assert (code, told.strip()) == (
            69,
            "Nothing that is called nobody needs attention. These can be acknowledged: press.",
        )
        code, told = call("acknowledge", "press", "--note", "serviced till Friday")
        assert (code, told.partition(" since ")[0]) == (
            0,
            "acknowledged: timer press: no message on plant/press7/#",
        )
        appliance.wait_for_line("(serviced till Friday)")
        appliance.kill()
        appliance.start()
        until(lambda: call("health")[1].startswith("ok:"), "it is still known")
        assert "ok   timer press  acknowledged: no message on" in call("health")[1]
        assert ", serviced till Friday: timer press: no message" in call("health")[1]
        listed = call("acknowledge", "--list")[1]
        assert listed.startswith("acknowledged by ")
        assert "by appliance acknowledge at " in listed
        assert ", serviced till Friday: timer press: no message" in listed
        assert call("acknowledge", "press", "--take-back")[0] == 0
        until(lambda: "bad  timer press" in call("health")[1], "it is a problem again")
        assert call("acknowledge", "--take-back")[0] == 64
        assert call("acknowledge") == (0, "no loss is known\n")
        assert appliance.end() == 0
