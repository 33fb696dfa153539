"""Who asks, and what that user may do: the broker's users and access rules.

A request has no client id of its own; in rules and in the journal it is that of ``CLIENT_ID``.
Not for: letting requests in (sign_in.py).
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request

from appliance.broker.access import Role
from appliance.counters import Counter
from appliance.http_api.problem import ProblemError
from appliance.model import HTTP_CLIENT, Message

if TYPE_CHECKING:
    from appliance.broker.plugins import Action, PluginClient
    from appliance.http_api.context import Context

CLIENT_ID = HTTP_CLIENT


class Caller(msgspec.Struct, frozen=True):
    """Somebody who was let in."""

    context: Context
    username: str | None
    address: str
    """``"host:port"``."""
    plugin_client: PluginClient | None = None
    """How plugins know the caller, where there are any."""

    @property
    def role(self) -> Role | None:
        return self.context.appliance.access.role(self.username, self.address)

    @property
    def shown(self) -> str:
        """For the beginning of a text: ``"User etl"``."""
        return "A caller without a name" if self.username is None else f"User {self.username}"

    def may_publish(self, topic: str) -> bool:
        """Whether rules allow it; ``allow_publish`` asks plugins too."""
        return self.context.appliance.access.may_publish(self.username, CLIENT_ID, topic)

    async def allow_publish(self, topic: str) -> None:
        """Go on if the caller may publish to a (valid) topic, by rules and plugins.

        Raises:
            ProblemError: 403, it may not; 503, a plugin does not answer.
        """
        if self.may_publish(topic) and await self._plugins_allow(topic, "PUBLISH"):
            return
        self.context.count(Counter.PUBLISHES_REFUSED_NOT_ALLOWED)
        raise self._refusal("publish to", topic, "publish")

    def may_read(self, topic: str) -> bool:
        """Whether it may have the messages of a topic, as a subscriber of it."""
        return self.context.appliance.access.may_subscribe(self.username, CLIENT_ID, topic)

    def reader(self) -> Callable[[str], bool]:
        """``may_read`` for many topics, by the rules that count now."""
        return self.context.appliance.access.subscriber(self.username, CLIENT_ID)

    def readable(self) -> tuple[str, ...] | None:
        """Topic filters within which everything lies that ``may_read`` allows; ``None``: all."""
        return self.context.appliance.access.readable(self.username, CLIENT_ID)

    async def may_receive(self, topic: str) -> bool:
        """``may_read``, and plugins are asked too, whose answers are remembered for a while.

        A plugin may know rules about subscriptions only, so it is asked as for a subscriber of
        this very topic.

        Raises:
            ProblemError: 503, a plugin does not answer.
        """
        return (
            self.may_read(topic)
            and await self._plugins_allow(topic, "SUBSCRIBE")
            and await self._plugins_allow(topic, "RECEIVE")
        )

    async def receivable(self, messages: list[Message]) -> list[Message]:
        """Those that ``may_receive`` allows; without plugins about topics, all of them.

        They must be such that rules allow them already. Raises as ``may_receive``.
        """
        plugins = self.context.appliance.plugins
        if plugins is None or not plugins.filter_topics:
            return messages
        topics = dict.fromkeys(each.topic for each in messages)
        allowed = {each for each in topics if await self.may_receive(each)}
        return [each for each in messages if each.topic in allowed]

    def may_start(self, task_id: str, name: str) -> bool:
        """Whether it may start a task. ``[allow]`` counts besides."""
        if self.role is Role.OPERATOR or not self.context.config.access.rule:
            return True
        return any(
            fnmatchcase(text.casefold(), pattern.casefold())
            for text in (task_id, name)
            if text
            for pattern in self.start_patterns
        )

    def may_see(self, task_id: str, name: str) -> bool:
        """Whether it may see a task and its executions: viewers may see all."""
        return self.role is not None or self.may_start(task_id, name)

    @property
    def start_patterns(self) -> list[str]:
        """``start`` of all rules that fit."""
        return [
            each
            for rule in self.context.config.access.rule
            if fnmatchcase(self.username or "", rule.user)
            and fnmatchcase(CLIENT_ID, rule.client_id)
            for each in rule.start
        ]

    def allow_start(self, task_id: str, name: str) -> None:
        """Go on if the caller may start a task and see its executions.

        Raises:
            ProblemError: 403, it may not.
        """
        if not self.may_start(task_id, name):
            raise self._refusal("start", name or task_id, "start")

    async def _plugins_allow(self, topic: str, action: str) -> bool:
        plugins, client = self.context.appliance.plugins, self.plugin_client
        if plugins is None or client is None or not plugins.filter_topics:
            return True
        # Loaded where there are plugins: amqtt takes megabytes.
        from appliance.broker.plugins import Action, PluginFailedError  # noqa: PLC0415

        asked: Action = Action[action]
        try:
            return await self.context.on_engine(lambda: plugins.may(client, topic, asked), 70)
        except PluginFailedError:
            self.context.count(Counter.PUBLISHES_REFUSED_PLUGIN_FAILED)
            raise ProblemError(
                503, f"No answer of a plugin about {topic}.", headers={"Retry-After": "5"}
            ) from None

    def _refusal(self, act: str, what: str, key: str) -> ProblemError:
        user = "" if self.username is None else self.username
        rule = f'[[access.rule]] with user = "{user}" and {key} = ["{what}"]'
        error = ProblemError(
            403,
            f"{self.shown} may not {act} {what}: no [[access.rule]] or plugin allows it, or one"
            f" denies it. To allow it, add {rule} to the configuration.",
        )
        error.more["task" if key == "start" else "topic"] = what
        return error


async def caller_of(request: Request) -> Caller:
    """Who sent a request; signs in at the first call for it.

    Raises:
        ProblemError: as ``SignIn.admit``.
    """
    found: Caller | None = getattr(request.state, "caller", None)
    if found is None:
        found = request.state.caller = await admitted(request)
    return found


async def admitted(request: Request) -> Caller:
    """Who sent a request, if it would be let in now: for answers that take long.

    Raises:
        ProblemError: as ``SignIn.admit``.
    """
    context: Context = request.app.state.context
    client = request.client
    host, port = ("", 0) if client is None else (client.host, client.port)
    signed_in = await request.app.state.sign_in.admit(request, host, port)
    shown = f"[{host}]" if ":" in host else host
    return Caller(context, signed_in.username, f"{shown}:{port}", signed_in.plugin_client)
