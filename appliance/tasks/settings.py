"""The tables ``[[timer]]`` and ``[[notify]]`` of the configuration.

Not for: what they do (appliance/timers.py, notices.py).
"""

from __future__ import annotations

from typing import Annotated, Literal

from appliance.config import PublishConfig, Secret, TimerConfig
from appliance.config.tables import Base
from appliance.config.values import Between, Key, ReadPath

__all__ = ["NoticeKind", "NotifyConfig", "PublishConfig", "TimerConfig"]

NoticeKind = Literal["failed", "recovered", "lost", "slow"]


class NotifyConfig(Base, frozen=True):
    """Whom to tell about outcomes. May come more than once. Needs the extra `notify`."""

    url: Annotated[Secret | None, Key('"mailto://user:password@example.com"')] = None
    """Where to, as an Apprise URL."""
    url_file: Annotated[ReadPath | None, Key('"notify_url.txt"')] = None
    """The file that holds the URL, instead of `url`."""
    on: tuple[NoticeKind, ...] = ("failed", "recovered", "lost")
    """What is told: a request that ended badly (failed, aborted, refused, rejected, expired), the
    first success after that, a run whose outcome can't be had, a run that takes three times as long
    as usual and at least a minute more."""
    tasks: Annotated[tuple[str, ...], Key('["Reload *"]')] = ()
    """Task names or ids, `*` for any text; empty: all tasks."""
    at_most: Annotated[int, Between(1)] = 20
    """Notices in an hour; what is beyond that is summed up in one."""
