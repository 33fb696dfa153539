"""What ``appliance check`` says about ``[access] client_ids`` that may be a mistake.

Not for: values that are wrong in themselves (config/checks.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from appliance.broker.client_ids import ClientIds
from appliance.broker.users import Users
from appliance.config.files import anonymous_allowed
from appliance.config.tables import Config
from appliance.errors import ApplianceError

_MOST_USERS = 300
"""More names are not compared with each other: it would take seconds."""
_TERMINAL = "terminal-0123abcd"
"""The form of the client ids that ``appliance attach`` makes up."""


def advice(config: Config) -> Iterator[str]:
    """What may be a mistake, one line each."""
    patterns = config.access.client_ids
    if not patterns:
        yield from _rights_by_client_id(config)
        return
    of_users = [each for each in patterns if "%u" in each]
    if of_users and not _knows_users(config):
        yield (
            "[access] `client_ids`: %u is a name that no password proves, because there is no users"
            " file: a client may give any name"
        )
    elif of_users == list(patterns) and anonymous_allowed(config):
        yield (
            "[access] `client_ids`: a client without a name fits no pattern with %u, so it can have"
            " only a client id that the broker assigns"
        )
    clash = _clash(tuple(of_users), _names(config))
    if clash is not None:
        user, other, client_id = clash
        yield (
            f"[access] `client_ids`: user {user} may use a client id that is meant for user"
            f' {other}, for example "{client_id}"; put a sign behind %u that no name has: "%u:*"'
        )
    acting = [*config.access.operators, *config.access.viewers]
    allowed = ClientIds(patterns)
    if any(not allowed.allow(name, _TERMINAL) for name in acting):
        yield (
            "[access] `client_ids`: no pattern fits the client ids that `appliance attach` makes up"
            ' (terminal-...); add "terminal-*", or use --client-id'
        )


def _rights_by_client_id(config: Config) -> Iterator[str]:
    """Rules that any user can have for its own, because a client chooses its client id itself."""
    if not _knows_users(config):
        return
    for number, rule in enumerate(config.access.rule, 1):
        by_client_id = rule.client_id != "*" or any(
            "%c" in each for each in (*rule.publish, *rule.subscribe)
        )
        if "*" in rule.user and by_client_id and (rule.publish or rule.subscribe):
            yield (
                f"[[access.rule]] {number} gives rights by the client id, which a client chooses"
                " itself, so another user can have them; add `client_ids` to [access], for example"
                ' ["%u", "%u:*"]'
            )


def _knows_users(config: Config) -> bool:
    return (
        config.access.users_file is not None
        or bool(config.access.plugins)
        or any(each.tls is not None and each.tls.identity_as_username for each in config.listener)
    )


def _names(config: Config) -> list[str]:
    if config.access.users_file is None:
        return []
    try:
        return list(Users(config.access.users_file).names()[:_MOST_USERS])
    except (ApplianceError, OSError):  # reported elsewhere
        return []


def _clash(patterns: tuple[str, ...], names: list[str]) -> tuple[str, str, str] | None:
    """A user, another one, and a client id that is meant for the other and fits both."""
    allowed = ClientIds(patterns)
    for user, other in itertools.permutations(names, 2):
        if other.startswith(user) or other.endswith(user):
            for pattern in patterns:
                client_id = pattern.replace("*", "1").replace("%u", other)
                if allowed.allow(user, client_id):
                    return user, other, client_id
    return None
