"""The classes of amqtt plugins that the configuration names: found, and their settings converted.

Everything that can be wrong with ``[[access.plugins]]`` before a plugin is made is told here, for
``appliance check`` and for the start alike. Not for: making and running plugins
(plugin_runner.py), what their answers mean (plugins.py).
"""

from __future__ import annotations

import enum
import importlib
import inspect
import sys
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from amqtt.events import BrokerEvents
from amqtt.plugins.base import BaseAuthPlugin, BasePlugin, BaseTopicPlugin
from amqtt.session import Session
from dacite import Config as DaciteConfig
from dacite import DaciteError, MissingValueError, UnexpectedDataError, from_dict

from appliance.config.files import read_secret
from appliance.config.tables import AccessConfig, AccessPlugin
from appliance.config.values import ReadPath
from appliance.errors import ApplianceError, ConfigError
from appliance.secret import Secret

EVENTS = (
    BrokerEvents.CLIENT_CONNECTED,
    BrokerEvents.CLIENT_DISCONNECTED,
    BrokerEvents.CLIENT_SUBSCRIBED,
    BrokerEvents.CLIENT_UNSUBSCRIBED,
    BrokerEvents.MESSAGE_RECEIVED,
    BrokerEvents.MESSAGE_BROADCAST,
)
"""The events of amqtt that a plugin can hear of clients and messages."""

_IN_LDAP_FILTERS = frozenset("*()\\\0")
_LDAP_MODULE = "amqtt.contrib.ldap"
_EXTRA = {
    "aiohttp": "plugins",
    "aiosqlite": "plugins",
    "bcrypt": "plugins",
    "cryptography": "plugins",
    "greenlet": "plugins",
    "jwt": "plugins",
    "ldap": "ldap",
    "sqlalchemy": "plugins",
}
"""Modules that amqtt's own plugins need, and the extra of the appliance that brings them."""


class PluginClass(msgspec.Struct, frozen=True):
    """A plugin that can be made: its class is there and its settings fit."""

    where: str
    """As a user finds it: ``[[access.plugins]] 2``."""
    path: str
    """Module and class: ``amqtt.contrib.http.UserAuthHttpPlugin``."""
    settings: Mapping[str, Any]
    """As the class takes them; secrets are plain text."""
    authenticates: bool
    filters_topics: bool
    keep_password: bool
    events: frozenset[str]
    """Those of ``EVENTS`` that it hears."""
    is_ldap: bool = False
    """It is one of amqtt's LDAP plugins, or derived from one."""

    @property
    def name(self) -> str:
        """The class without its module, for log lines."""
        return self.path.rpartition(".")[2]

    def refuses(self, session: Session) -> bool:
        """Whether a client is refused without asking the plugin.

        amqtt's LDAP plugins put the name into a search filter as it is (RFC 4515, section 3), and
        many servers take a bind without a password for an anonymous one that succeeds (RFC 4513,
        section 5.1.2).
        """
        if not self.is_ldap:
            return False
        name, password = session.username or "", session.password
        unfit = not name or any(sign in _IN_LDAP_FILTERS for sign in name)
        return unfit or (self.authenticates and not password)

    @property
    def roles(self) -> str:
        """What it does, in words."""
        roles = []
        if self.authenticates:
            roles.append("is asked about clients")
        if self.filters_topics:
            roles.append("is asked about topics")
        if self.events:
            roles.append("hears events")
        return ", ".join(roles) or "does nothing that the appliance has a use for"


def plugin_classes(access: AccessConfig) -> tuple[PluginClass, ...]:
    """Find all classes. Imports modules and reads files: for worker threads.

    Raises:
        ConfigError: one line for each problem.
    """
    found: list[PluginClass] = []
    problems: list[str] = []
    for number, plugin in enumerate(access.plugins, 1):
        where = f"[[access.plugins]] {number}"
        try:
            found.append(_plugin_class(where, plugin))
        except ApplianceError as error:
            problems.append(f"{where} {error}")
    if problems:
        raise ConfigError("\n".join(problems))
    return tuple(found)


def sign_in_problem(
    access: AccessConfig, classes: tuple[PluginClass, ...], *, is_loopback_only: bool
) -> str | None:
    """Why no client could sign in where all have to, or ``None``.

    Which plugins authenticate shows only once their classes are there.
    """
    if is_loopback_only or access.users_file is not None or access.anonymous:
        return None
    if any(each.authenticates for each in classes):
        return None
    return (
        "[access]: a listener or [http] can be reached from other machines, and no plugin"
        ' authenticates clients; add [access] users_file = "users.txt" and "appliance user add'
        ' NAME"'
    )


def _plugin_class(where: str, plugin: AccessPlugin) -> PluginClass:
    kind = find_class(plugin.plugin_class)
    settings = _settings(kind, plugin)
    return PluginClass(
        where,
        plugin.plugin_class,
        settings,
        authenticates=issubclass(kind, BaseAuthPlugin),
        filters_topics=issubclass(kind, BaseTopicPlugin),
        keep_password=plugin.keep_password,
        # amqtt's own logger of events has no methods of these names, and answers to all of them.
        events=frozenset(
            each for each in EVENTS if hasattr(kind, f"on_{each}") or hasattr(kind, "__getattr__")
        ),
        is_ldap=any(each.__module__ == _LDAP_MODULE for each in kind.__mro__),
    )


def find_class(path: str) -> type[Any]:
    """The class of a plugin.

    Raises:
        ConfigError: it is not there, can't be imported, or is no plugin.
    """
    module_name, _, name = path.rpartition(".")
    if not module_name or not all(each.isidentifier() for each in path.split(".")):
        raise ConfigError(
            f'`class`: {path!r} is not a module and a class; write for example "'
            'amqtt.contrib.http.UserAuthHttpPlugin"'
        )
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"`class`: {_missing(module_name, error)}") from None
    except Exception as error:  # noqa: BLE001 - foreign code runs when it is imported
        raise ConfigError(
            f"`class`: {module_name} can't be imported ({type(error).__name__}: {error}); install"
            " what it needs"
        ) from None
    kind = getattr(module, name, None)
    if not isinstance(kind, type):
        known = ", ".join(_plugins_in(module)) or "none"
        raise ConfigError(f"`class`: {module_name} has no class {name}; plugins in it: {known}")
    if not issubclass(kind, BasePlugin):
        raise ConfigError(
            f"`class`: {path} is no amqtt plugin; a plugin's class is derived from"
            " amqtt.plugins.base.BasePlugin"
        )
    for method in ("authenticate", "topic_filtering", *(f"on_{each}" for each in BrokerEvents)):
        if not inspect.iscoroutinefunction(getattr(kind, method, _nothing)):
            raise ConfigError(f"`class`: {path}.{method} is not a coroutine (async def)")
    return kind


async def _nothing() -> None:
    """What a plugin without a method does when it is called."""


def _missing(module_name: str, error: ImportError) -> str:
    """Which module is not there, and how to get it."""
    missing = error.name or ""
    if missing == module_name or module_name.startswith(f"{missing}."):
        text = f"there is no module {missing}"
        if missing.partition(".")[0] == "amqtt" and not _is_frozen():
            return f"{text} in the amqtt that is installed; check the name"
    elif missing:
        text = f"{module_name} needs the module {missing}, which is not installed"
    else:
        return f"{module_name} can't be imported: {error}"
    if _is_frozen():
        return (
            f"{text}; the packaged program has only the plugins that docs/access.md lists:"
            " install the appliance with pip to use others"
        )
    extra = _EXTRA.get(missing.partition(".")[0])
    if extra is not None:
        return f"{text}; install it: pip install 'qlik-mqtt-appliance[{extra}]'"
    return f"{text}; install the package that has it beside the appliance"


def _is_frozen() -> bool:
    return bool(getattr(sys, "frozen", False))


def _plugins_in(module: Any) -> Iterator[str]:
    for name, kind in vars(module).items():
        if isinstance(kind, type) and issubclass(kind, BasePlugin) and not name.startswith("Base"):
            yield name


def _settings(kind: type[Any], plugin: AccessPlugin) -> dict[str, Any]:
    """The settings as the class's own ``Config`` wants them.

    Raises ``ConfigError``: they don't fit; values are not repeated, for they may be secrets.
    """
    try:
        hints = typing.get_type_hints(kind.Config)
    except (NameError, TypeError):  # a plugin of others, with annotations that can't be read
        hints = {}
    settings: dict[str, Any] = {}
    for key, value in plugin.settings.items():
        plain = _plain(value)
        of_file = key.removesuffix("_file")
        if isinstance(value, ReadPath) and key not in hints and of_file in hints:
            if of_file in plugin.settings:
                raise ConfigError(f"`settings`: `{key}` says `{of_file}` too; keep one of the two")
            secret = read_secret(None, value)
            key, plain = of_file, "" if secret is None else secret.reveal()  # noqa: PLW2901
        settings[key] = _as_choice(key, plain, hints.get(key))
    _check_fit(kind, settings)
    return settings


def _plain(value: Any) -> Any:
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, ReadPath) else value


def _as_choice(key: str, value: Any, kind: Any) -> Any:
    """A value of an enumeration from its text, which amqtt does not convert."""
    if not (isinstance(kind, type) and issubclass(kind, enum.Enum) and isinstance(value, str)):
        return value
    for member in kind:
        if str(member.value).lower() == value.lower():
            return member
    choices = ", ".join(f'"{member.value}"' for member in kind)
    raise ConfigError(f"`settings.{key}`: write one of {choices}")


def _check_fit(kind: type[Any], settings: dict[str, Any]) -> None:
    try:
        # As amqtt's plugin manager does it.
        from_dict(data_class=kind.Config, data=settings, config=DaciteConfig(strict=True))
    except MissingValueError as error:
        raise ConfigError(f"`settings.{error.field_path}`: this key is missing") from None
    except UnexpectedDataError as error:
        known = ", ".join(f"`{each}`" for each in typing.get_type_hints(kind.Config)) or "none"
        unknown = ", ".join(f"`{each}`" for each in sorted(error.keys))
        raise ConfigError(f"`settings`: {unknown} is not known; known here: {known}") from None
    except DaciteError as error:
        wanted = getattr(error, "field_type", None)
        name = getattr(wanted, "__name__", str(wanted))
        path = getattr(error, "field_path", "")
        raise ConfigError(f"`settings.{path}`: not of the type that is wanted ({name})") from None
    except Exception as error:  # noqa: BLE001 - a plugin may check its settings itself
        raise ConfigError(f"`settings`: the plugin refuses them ({type(error).__name__})") from None
