"""Who asks, and what that user may do: the broker's users and access rules.

A request has no client id of its own; in rules and in the journal it is that of ``CLIENT_ID``.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from fnmatch import fnmatchcase

import msgspec
from starlette.requests import Request

from appliance.broker.access import Role
from appliance.http_api.context import Context
from appliance.http_api.problem import ProblemError
from appliance.mqtt.packets import PacketError

CLIENT_ID = "http"
_ASK = {"WWW-Authenticate": 'Basic realm="appliance", charset="UTF-8"'}


class Caller(msgspec.Struct, frozen=True):
    """Somebody who was let in."""

    context: Context
    username: str | None
    address: str
    """``"host:port"``."""

    @property
    def role(self) -> Role | None:
        return self.context.appliance.access.role(self.username, self.address)

    def may_publish(self, topic: str) -> bool:
        return self.context.appliance.access.may_publish(self.username, CLIENT_ID, topic)

    def may_read(self, topic: str) -> bool:
        """Whether it may have the messages of a topic, as a subscriber of it."""
        return self.context.appliance.access.may_subscribe(self.username, CLIENT_ID, topic)

    def reader(self) -> Callable[[str], bool]:
        """``may_read`` for many topics, by the rules that count now."""
        return self.context.appliance.access.subscriber(self.username, CLIENT_ID)

    def readable(self) -> tuple[str, ...] | None:
        """Topic filters within which everything lies that ``may_read`` allows; ``None``: all."""
        return self.context.appliance.access.readable(self.username, CLIENT_ID)

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


async def sign_in(context: Context, request: Request) -> Caller:
    """Let a request in, by Basic or as nobody.

    Raises:
        ProblemError: 401, the credentials are missing or wrong.
    """
    client = request.client
    host, port = ("", 0) if client is None else (client.host, client.port)
    username, password = _credentials(request.headers.get("authorization"))
    access = context.appliance.access
    try:
        proof = await context.on_engine(lambda: access.admit(username, password, host), 15)
    except PacketError:
        raise ProblemError(503, "Too many logins wait.", headers={"Retry-After": "5"}) from None
    if proof is None:
        raise ProblemError(401, "A user name and password are needed.", headers=_ASK)
    shown = f"[{host}]" if ":" in host else host
    return Caller(context, username, f"{shown}:{port}")


def _credentials(header: str | None) -> tuple[str | None, bytes | None]:
    if header is None:
        return None, None
    scheme, _, value = header.partition(" ")
    try:
        if scheme.lower() == "basic":
            name, found, password = base64.b64decode(value.strip(), validate=True).partition(b":")
            if found:
                return name.decode(), password
    except (binascii.Error, UnicodeDecodeError):
        pass
    raise ProblemError(401, "The Authorization header is not understood.", headers=_ASK)


async def caller_of(request: Request) -> Caller:
    """Who sent a request; signs in at the first call for it. Raises as ``sign_in``."""
    found: Caller | None = getattr(request.state, "caller", None)
    if found is None:
        found = request.state.caller = await sign_in(request.app.state.context, request)
    return found
