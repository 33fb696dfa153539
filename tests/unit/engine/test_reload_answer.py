"""What a reload says about the clients that changed rules concern."""

from __future__ import annotations

from appliance.broker.reauthorize import Enforced
from appliance.engine.reload import _consequences


def test_a_reload_says_what_came_of_it_or_that_it_is_not_done_yet() -> None:
    """With very many sessions the rules are still being applied when the reload is answered."""
    assert _consequences(Enforced()) == []
    assert _consequences(Enforced(1, 2)) == ["clients disconnected: 1, subscriptions ended: 2"]
    assert "still being looked at" in _consequences(None)[0]
