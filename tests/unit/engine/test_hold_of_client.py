"""A client that is held leaves, whatever the disk says."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from appliance.engine.view import View
from appliance.errors import NotNotedError, UsageError


@pytest.mark.parametrize(("error", "is_held"), [(NotNotedError("full"), True), (UsageError, False)])
def test_a_client_leaves_if_its_hold_counts(error, is_held) -> None:
    """One that could not be noted counts all the same; one that is refused does not."""
    ended: list[str] = []

    def hold(*_said: object) -> None:
        raise error

    holding = SimpleNamespace(hold=hold, held_client=lambda _name: "held" if is_held else None)
    appliance = SimpleNamespace(
        tasks=SimpleNamespace(holding=holding),
        broker=SimpleNamespace(disconnect=ended.append),
        call=lambda work, _seconds: work(),
    )
    view = View(appliance)  # type: ignore[arg-type]
    with pytest.raises((NotNotedError, UsageError)):
        view.hold("client", "press-7", None, "", False, "ann")
    assert ended == ["press-7"] * is_held
