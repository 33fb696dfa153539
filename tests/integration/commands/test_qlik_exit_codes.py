"""How commands that ask a Qlik server end: scripts and service managers tell the cases apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance import cli
from appliance.qlik.simulated import FaultKind, SimulatedQlik


@pytest.mark.parametrize("command", [["tasks"], ["check", "--connect"]])
@pytest.mark.parametrize(
    ("kind", "settings", "code"),
    [
        (FaultKind.STATUS, {"status": 403, "text": "Forbidden"}, 77),
        (FaultKind.STATUS, {"status": 401}, 77),
        (FaultKind.LOGIN_PAGE, {}, 77),
        (FaultKind.STATUS, {"status": 404}, 78),
        (FaultKind.STATUS, {"status": 503}, 69),
        (FaultKind.DROP_BEFORE, {}, 69),
        (None, {}, 0),
    ],
)
def test_the_exit_code_says_who_has_to_act(
    tmp_path: Path, capsys, command: list[str], kind: FaultKind | None, settings, code: int
) -> None:
    """77 where the server lets us not in or not do this, 78 where [qlik] is wrong, 69 for what may
    pass by itself: the same from every command, without a traceback."""
    with SimulatedQlik() as qlik:
        qlik.add_task("Reload sales")
        if kind is not None:
            qlik.fail(kind, **settings)
        (tmp_path / "config.toml").write_text(
            f"[qlik]\nedition = 'client-managed'\nurl = '{qlik.url}'\n"
            "header = {name = 'X-Qlik-User', value = 'UserDirectory=INTERNAL;UserId=sa_repository'}\n"
        )
        found = cli.main([*command, "-c", str(tmp_path / "config.toml")])
    out, err = capsys.readouterr()
    assert found == code, out + err
    assert "Traceback" not in err
