"""The tables ``[[timer]]`` and ``[[notify]]`` of the configuration.

Not for: what they do (appliance/timers.py, notices.py).
"""

from __future__ import annotations

from typing import Annotated, Literal

from appliance.config import TopicFilter
from appliance.config.tables import Base
from appliance.config.values import Between, Duration, Key, Secret

NoticeKind = Literal["failed", "recovered", "lost", "slow"]


class PublishConfig(Base, frozen=True):
    """A message that a timer publishes."""

    topic: Annotated[str, Key('"plant/tick"')]
    """Where it is published."""
    payload: Annotated[str, Key('"now"')] = ""
    """What it says."""
    retain: bool = False
    """Whether the broker keeps it for later subscribers."""


class TimerConfig(Base, frozen=True):
    """Something that happens by itself at a time. May come more than once."""

    name: Annotated[str, Key('"nightly"')]
    """What the UI, the log and topics call it: letters, digits, blanks, `-`, `_` and `.`."""
    cron: Annotated[str | None, Key('"30 6 * * MON-FRI"')] = None
    """When: minute, hour, day of month, month, day of week."""
    timezone: Annotated[str, Key('"Europe/Berlin"')] = "UTC"
    """The time zone that `cron` is meant in, by its IANA name."""
    every: Annotated[Duration | None, Between(1), Key('"15m"')] = None
    """Instead of `cron`: once in this time, counted from when the timer was first configured."""
    silence: Annotated[Duration | None, Between(1), Key('"10m"')] = None
    """Instead of `cron`: an alarm when no message came on `topic` for this long."""
    topic: Annotated[TopicFilter | None, Key('"plant/7/#"')] = None
    """With `silence`: the messages that are awaited."""
    task: Annotated[str | dict[str, str] | None, Key('{name = "Reload Sales"}')] = None
    """What is started: a task id or `{name = ...}`, `{tag = ...}`, `{property = ..., value = ...}`,
    `{app = ...}`."""
    publish: PublishConfig | None = None
    """What is published."""
    catch_up: bool = False
    """Whether a time that passed while the appliance was down is made up for, once, at its start.
    """


class NotifyConfig(Base, frozen=True):
    """Whom to tell about outcomes. May come more than once. Needs the extra `notify`."""

    url: Annotated[Secret | None, Key('"mailto://user:password@example.com"')] = None
    """Where to, as an Apprise URL."""
    url_file: Annotated[str | None, Key('"notify_url.txt"')] = None
    """The file that holds the URL, instead of `url`."""
    on: tuple[NoticeKind, ...] = ("failed", "recovered", "lost")
    """What is told: a run that failed, the first success after that, a run whose outcome can't be
    had, a run that takes far longer than usual."""
    tasks: Annotated[tuple[str, ...], Key('["Reload *"]')] = ()
    """Task names or ids, `*` for any text; empty: all tasks."""
    at_most: Annotated[int, Between(1)] = 20
    """Notices in an hour; what is beyond that is summed up in one."""
