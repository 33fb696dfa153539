"""An answer to a bridged message goes where the bridge takes it back, and nowhere else."""

from __future__ import annotations

import pytest

from appliance.bridge.answers import local_topic
from appliance.config.tables import BridgePublishConfig

RULES = (
    BridgePublishConfig(topic="here/answers/#", remove_prefix="here/"),
    BridgePublishConfig(topic="out/#", remove_prefix="out/", remote_prefix="site4/"),
    BridgePublishConfig(topic="plain/+"),
)


@pytest.mark.parametrize(
    ("remote", "local"),
    [
        ("answers/plc", "here/answers/plc"),
        ("site4/a/b", "out/a/b"),
        ("plain/x", "plain/x"),
        ("plain/x/y", None),  # no rule takes it
        ("other", None),
        ("site4/", "out/"),
        ("here/answers/plc", None),  # that goes out as answers/plc
        ("out/a", None),
    ],
)
def test_the_way_back(remote, local) -> None:
    """The local topic is the one whose messages go out under the response topic."""
    assert local_topic(RULES, remote) == local


def test_an_earlier_rule_wins_on_the_way_back_as_on_the_way_out() -> None:
    """A topic that another rule sends elsewhere is no way to the response topic."""
    rules = (
        BridgePublishConfig(topic="a/#", remote_prefix="first/"),
        BridgePublishConfig(topic="#"),
    )
    assert local_topic(rules, "a/x") is None
    assert local_topic(rules, "b/x") == "b/x"
    assert local_topic((), "b/x") is None
