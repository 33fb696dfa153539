"""Who is told of a task by mail beside the receivers of the URL: named by the task, or the owner.

Addresses come from custom properties and users of the Qlik server, which its users may write: only
plain ones are taken, so none can begin a header or an argument of a URL.
Not for: asking the server (task_facts.py), sending (notice_target.py).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

from appliance.config.tables import NotifyConfig
from appliance.counters import Count, Counter
from appliance.log.sanitize import escape
from appliance.model import Task
from appliance.qlik.server import Owner, QlikError
from appliance.tasks.task_facts import TaskFacts

_log = logging.getLogger(__name__)
MOST = 20
"""Receivers of one notice beside those of the URL."""
_LONGEST = 254
"""Characters of an address, as RFC 5321 (4.5.3.1.3) has it without the angle brackets."""
_ADDRESS = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z0-9-]{2,63}"
)
"""An address without quotes, comments or a name (RFC 5322, 3.4.1: dot-atom)."""
_BETWEEN = re.compile(r"[,;\s]+")


def is_address(text: str) -> bool:
    """Whether a text is a plain e-mail address."""
    return len(text) <= _LONGEST and _ADDRESS.fullmatch(text) is not None


class Receivers:
    """The further receivers of one ``[[notify]]``."""

    def __init__(self, config: NotifyConfig, facts: TaskFacts, count: Count, where: str) -> None:
        """``where`` is what log lines call the table."""
        self._property = config.to_property
        self._to_owner = config.to_owner
        self._owners = tuple(one.casefold() for one in config.owners)
        self._not_owners = tuple(one.casefold() for one in config.not_owners)
        self._facts = facts
        self._count = count
        self._where = where

    def __bool__(self) -> bool:
        """Whether there may be any."""
        return bool(self._property) or self._to_owner

    def of(self, task: Task | None) -> list[str]:
        """The addresses for a task, each once. May wait for the server for some seconds."""
        found: dict[str, str] = {}
        for text in self._texts(task) if task is not None else ():
            for address in filter(None, _BETWEEN.split(text)):
                if not is_address(address):
                    self._left_out(f"{escape(address[:_LONGEST])} is no e-mail address")
                elif len(found) < MOST or address.casefold() in found:
                    found.setdefault(address.casefold(), address)
                else:
                    self._left_out(f"a task has more than {MOST} receivers")
        return list(found.values())

    def _texts(self, task: Task) -> Iterator[str]:
        if self._property:
            yield from (value for name, value in task.properties if name == self._property)
        if self._to_owner and task.app_id:
            try:
                owner = self._facts.owner(task.app_id)
            except QlikError as error:
                self._left_out(f"the owner of the app can't be asked for: {error}")
                return
            if owner is not None and self._is_meant(owner):
                yield from owner.emails

    def _is_meant(self, owner: Owner) -> bool:
        name = owner.name.casefold()
        if any(fnmatchcase(name, pattern) for pattern in self._not_owners):
            return False
        return not self._owners or any(fnmatchcase(name, pattern) for pattern in self._owners)

    def _left_out(self, why: str) -> None:
        self._count(Counter.NOTICE_RECEIVERS_LEFT_OUT)
        _log.warning("%s: a receiver is left out: %s", self._where, why)
