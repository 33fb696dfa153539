"""Topics shows the last value of each topic, however many messages came on others since."""

import attached_appliance
import pytest
from screens import NARROW, settle, until

from appliance.mqtt.client import Client
from appliance.ui.app import ApplianceApp
from appliance.ui.settings import UiSettings


@pytest.fixture
def engine(tmp_path):
    with attached_appliance.make(tmp_path) as process:
        process.start()
        with Client(attached_appliance.target(process, "plc-7", "quiet")) as client:
            client.publish("quiet/plain", b"the last word", qos=1, retain=False)
            client.publish("quiet/kept", b"retained word", qos=1, retain=True)
            client.publish("busy/1", b"noise", qos=1, retain=False)
        attached = attached_appliance.attach(process, "admin")
        try:
            yield attached
        finally:
            attached.close()


async def test_the_last_value_is_shown_when_its_message_is_long_gone(engine):
    """On a real appliance, attached: the messages have left the terminal's ring."""
    app = ApplianceApp(engine, UiSettings())
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        app.feed._kept.clear()  # as 10,000 newer messages do
        await pilot.press("2")
        await settle(pilot)
        await pilot.press("o")
        text = await until(pilot, "the last word")
        assert "retained word" in text


async def test_a_retained_value_of_an_earlier_run_is_shown(tmp_path):
    """New subscribers get it, so the operator sees it, although no message came since the start."""
    with attached_appliance.make(tmp_path) as process:
        process.start()
        with Client(attached_appliance.target(process, "plc-7", "quiet")) as client:
            client.publish("quiet/kept", b"retained word", qos=1, retain=True)
        process.end()
        process.start()
        attached = attached_appliance.attach(process, "admin")
        try:
            async with ApplianceApp(attached, UiSettings()).run_test(size=NARROW) as pilot:
                await settle(pilot)
                await pilot.press("2", "o")
                assert "retained word" in await until(pilot, "quiet/kept")
        finally:
            attached.close()


async def test_an_answer_that_comes_late_replaces_no_newer_one(engine):
    """Two questions are asked at once, and the first one may be answered last."""
    app = ApplianceApp(engine, UiSettings())
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        app.feed._kept.clear()
        await pilot.press("2")
        await settle(pilot)
        await pilot.press("o")
        await until(pilot, "the last word")
        app.screen._found_values(({}, {}))
        assert "the last word" in await settle(pilot)
