"""Plugins at the door: what answers mean together, time limits, failures, events, bounds."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import collections
from collections.abc import AsyncIterator
from typing import Any

import plugins_for_tests as foreign
import pytest

from appliance.broker import plugin_runner
from appliance.broker.plugin_classes import plugin_classes
from appliance.broker.plugins import Action, PluginClient, PluginFailedError, Plugins
from appliance.config.tables import AccessConfig, AccessPlugin
from appliance.config.values import Settings
from appliance.counters import Counter
from appliance.model import Message
from appliance.mqtt.packets import Connect


@pytest.fixture(autouse=True)
def _fresh() -> Any:
    foreign.forget()
    yield
    foreign.RELEASE.set()


COUNTERS: collections.Counter[Counter] = collections.Counter()


@contextlib.asynccontextmanager
async def running(
    *wanted: tuple[str, dict[str, object]],
    timeout_s: float = 5.0,
    cache_s: float = 10.0,
    keep_password: bool = False,
) -> AsyncIterator[Plugins]:
    COUNTERS.clear()
    config = AccessConfig(
        plugins=tuple(
            AccessPlugin(
                plugin_class=f"plugins_for_tests.{name}",
                settings=Settings(settings),
                keep_password=keep_password,
            )
            for name, settings in wanted
        )
    )
    plugins = Plugins(
        plugin_classes(config),
        timeout_s=timeout_s,
        cache_s=cache_s,
        count=lambda name: COUNTERS.update([name]),
    )
    await plugins.start()
    try:
        yield plugins
    finally:
        foreign.RELEASE.set()
        await plugins.stop()


def client(plugins: Plugins, password: str | None = "yes", name: str = "anna") -> PluginClient:
    asked = Connect(
        version=4,
        client_id="c1",
        clean_start=True,
        keepalive_s=0,
        username=name,
        password=None if password is None else password.encode(),
        will=None,
    )
    return plugins.client(asked, "c1", ("127.0.0.1", 4711), None)


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("answers", "admitted"),
    [
        (["yes"], True),
        (["no"], False),
        (["none"], False),
        (["text"], False),
        (["yes", "none"], True),
        (["yes", "no"], False),
        (["none", "none"], False),
        (["yes", "yes"], True),
    ],
)
async def test_answers_together(answers: list[str], admitted: bool) -> None:
    """None refuses and one says yes; only True is a yes, although amqtt takes any text for one."""
    async with running(*[("Auth", {"how": each}) for each in answers]) as plugins:
        assert await plugins.authenticate(client(plugins)) is admitted


@pytest.mark.parametrize("how", ["raise", "hang", "block"])
async def test_a_plugin_that_fails_refuses(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """Its failure is counted and logged once, without what the error's text says."""
    async with running(("Auth", {"how": "yes"}), ("Auth", {"how": how}), timeout_s=0.3) as plugins:
        for _ in range(2):
            with pytest.raises(PluginFailedError):
                await plugins.authenticate(client(plugins))
    assert COUNTERS[Counter.PLUGIN_QUESTIONS_FAILED] == 2
    told = [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR]
    assert len(told) == 1
    assert "plugin 2 (Auth)" in told[0]
    assert "password" not in told[0]


async def test_a_plugin_that_blocks_its_thread_keeps_nobody_else_from_an_answer() -> None:
    """The loop, and the plugins beside it, go on while it blocks."""
    async with running(("Auth", {"how": "block"}), ("Topics", {}), timeout_s=3) as plugins:
        one = client(plugins)
        blocked = asyncio.create_task(plugins.authenticate(one))
        await until(lambda: foreign.ASKED)
        assert await plugins.may(one, "yes/1", Action.PUBLISH)
        assert not blocked.done()
        foreign.RELEASE.set()
        assert await blocked


async def test_what_waits_for_a_plugin_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound the answer is no, at once; afterwards the plugin is asked again."""
    monkeypatch.setattr(plugin_runner, "_MOST_QUESTIONS", 3)
    async with running(("Auth", {"how": "block"}), timeout_s=0.2) as plugins:
        for _ in range(3):
            with pytest.raises(PluginFailedError):
                await plugins.authenticate(client(plugins))
        with pytest.raises(PluginFailedError):
            await plugins.authenticate(client(plugins))
        assert COUNTERS[Counter.PLUGIN_QUESTIONS_REFUSED] == 1
        foreign.RELEASE.set()
        await until(lambda: not plugins._runners[0]._questions)
        assert await plugins.authenticate(client(plugins))


async def test_a_plugin_whose_connection_has_ended_is_made_anew() -> None:
    """The client that found out need not notice."""
    async with running(("Auth", {"how": "first-breaks"})) as plugins:
        assert await plugins.authenticate(client(plugins))
    assert foreign.MADE["auth"] == 2


async def test_a_plugin_that_can_not_be_made_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that is down at the start is no reason not to start."""
    monkeypatch.setattr(plugin_runner, "_MADE_AGAIN_S", 0.0)
    async with running(("Auth", {"fail_to_be_made": 1})) as plugins:
        await until(lambda: "could not be made" in caplog.text)
        assert "ConnectionError: the server is down" in caplog.text
        assert await plugins.authenticate(client(plugins))


async def test_the_password_is_gone_once_it_has_done_its_work() -> None:
    """Unless a plugin says that it needs it later."""
    for keep in (False, True):
        async with running(("Topics", {}), keep_password=keep) as plugins:
            one = client(plugins, "s3cret")
            plugins.came_in(one)
            await plugins.may(one, "yes/1", Action.PUBLISH)
            assert foreign.ASKED[-1] == ("publish", "c1", "yes/1", "s3cret" if keep else None)


async def test_answers_about_topics_are_remembered() -> None:
    """For the same connection, topic and action, for a while; failures are not."""
    async with running(("Topics", {}), timeout_s=0.2) as plugins:
        now = 0.0
        plugins._clock = lambda: now
        one, other = client(plugins), client(plugins)
        for _ in range(2):
            assert await plugins.may(one, "yes/1", Action.PUBLISH)
            assert not await plugins.may(one, "no/1", Action.PUBLISH)
        assert len(foreign.ASKED) == 2
        await plugins.may(one, "yes/1", Action.RECEIVE)
        await plugins.may(other, "yes/1", Action.PUBLISH)
        assert len(foreign.ASKED) == 4
        now = 10.0
        await plugins.may(one, "yes/1", Action.PUBLISH)
        assert len(foreign.ASKED) == 5
        for _ in range(2):
            with pytest.raises(PluginFailedError):
                await plugins.may(one, "hang/1", Action.PUBLISH)
        assert len(foreign.ASKED) == 7


async def test_remembered_answers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest gives way."""
    monkeypatch.setattr("appliance.broker.plugins._MOST_ANSWERS", 2)
    async with running(("Topics", {})) as plugins:
        one = client(plugins)
        for topic in ("yes/1", "yes/2", "yes/3"):
            await plugins.may(one, topic, Action.PUBLISH)
        assert plugins.known(one, "yes/1", Action.PUBLISH) is None
        assert plugins.known(one, "yes/3", Action.PUBLISH)


def message(payload: bytes = b"x", client_id: str = "c1") -> Message:
    return Message(
        seq=1, received_ns=1, topic="a/b", payload=payload, qos=1, client_id=client_id, packet_id=7
    )


async def test_events_are_heard_in_order_until_the_end() -> None:
    """Also those that were told just before the stop; the appliance's own messages are none."""
    async with running(("Listener", {})) as plugins:
        one = client(plugins, "s3cret")
        plugins.came_in(one)
        plugins.connected(one)
        plugins.subscribed("c1", "a/#", 1)
        plugins.received(
            [
                message(),
                message(client_id="$appliance"),
                message(b"bridged", client_id="$bridge/plant"),
            ]
        )
        plugins.unsubscribed("c1", "a/#")
        plugins.disconnected(one)
    assert foreign.HEARD == [
        ("pre_start",),
        ("connected", "c1", "anna", None),
        ("subscribed", "c1", "a/#", 1),
        ("received", "c1", "a/b", b"x", 1),
        ("received", "$bridge/plant", "a/b", b"bridged", 1),
        ("unsubscribed", "c1", "a/#"),
        ("disconnected", "c1"),
        ("pre_shutdown",),
    ]


async def test_a_plugin_that_hears_too_slowly_misses_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bounded in number and in bytes, and counted."""
    monkeypatch.setattr(plugin_runner, "_MOST_EVENTS", 5)
    monkeypatch.setattr(plugin_runner, "_MOST_EVENT_BYTES", 10_000)
    async with running(("Listener", {"block": True})) as plugins:
        plugins.received([message(bytes(6_000))] * 2)
        assert COUNTERS[Counter.PLUGIN_EVENTS_DROPPED] == 1
        for _ in range(20):
            plugins.subscribed("c1", "a", 0)
        assert COUNTERS[Counter.PLUGIN_EVENTS_DROPPED] >= 15
        foreign.RELEASE.set()
        await until(lambda: ("received", "c1", "a/b", bytes(6_000), 1) in foreign.HEARD)


async def test_a_failure_to_hear_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    """And logged once, without the error's text."""
    async with running(("Listener", {"fail": True})) as plugins:
        for _ in range(3):
            plugins.subscribed("c1", "a", 0)
        await until(lambda: COUNTERS[Counter.PLUGIN_EVENTS_FAILED] == 3)
    assert caplog.text.count("failed to hear an event: RuntimeError") == 1
    assert "stays here" not in caplog.text


async def test_a_plugin_that_hangs_does_not_keep_the_stop(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is left behind, and it is said."""
    monkeypatch.setattr(plugin_runner, "_STOP_S", 0.2)
    async with running(("Auth", {"how": "block"})) as plugins:
        asked = asyncio.create_task(plugins.authenticate(client(plugins)))
        await until(lambda: foreign.ASKED)
        await plugins.stop()
        foreign.RELEASE.set()
        await asked
    assert "does not stop; it is left behind" in caplog.text
