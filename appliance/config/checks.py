"""Rules about several keys: what each table needs, and which keys exclude each other.

Not for: single values (decoder.py) or whether named files exist (files.py).
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from appliance.config.bridge_advice import bridge_advice
from appliance.config.bridge_checks import bridge_problems
from appliance.config.notify_checks import notify_problems
from appliance.config.outcome_topics import OUTCOME_KEYS, outcome_problems
from appliance.config.port_checks import collide, port_advice, port_problems
from appliance.config.problems import ConfigPath, Problems, shown
from appliance.config.recorder_checks import recorder_advice, recorder_problems
from appliance.config.recorder_paths import path_problems
from appliance.config.sign_in import TOKEN_KEYS, header_value_problem, secret_problem
from appliance.config.tables import (
    AccessConfig,
    Config,
    ListenerConfig,
    QlikConfig,
    TimerConfig,
    TriggerConfig,
)
from appliance.config.timer_checks import TIMER_KEYS, timer_problems
from appliance.config.values import format_duration, is_loopback, parse_bind
from appliance.model import HTTP_CLIENT, ReloadOptions
from appliance.mqtt.topics import topic_problem

GUID = re.compile(r"\{?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\}?", re.IGNORECASE)
_CLOUD_ID = re.compile(r"[0-9a-f]{24}", re.IGNORECASE)
"""The form of older ids of Qlik Cloud."""
_OWN_HEADERS = frozenset(
    {
        *("host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer"),
        *("accept-encoding", "cookie", "content-type", "x-qlik-xrfkey", "expect"),
    }
)
"""Headers, in lower case, that the client sets or that change what a request is."""


class ReportProblem(Protocol):
    """Adds a problem, unless a problem with one of the keys ``about`` may be its cause."""

    def __call__(self, where: ConfigPath, text: str, /, *about: str) -> None: ...


def check(config: Config, problems: Problems) -> None:
    """Add to ``problems`` every rule about several keys that ``config`` breaks."""
    report = problems.add_unless_consequence
    _service(config, report)
    _listeners(config, report)
    for where, text, about in bridge_problems(config):
        report(where, text, *about)
    _client_ids(config, report)
    _starts(config, report)
    if config.qlik is not None:
        check_qlik(config.qlik, problems)
    _triggers(config, report)
    for number, task in enumerate(config.allow.tasks, 1):
        if not _is_task_id(task, config.qlik):
            report(
                ConfigPath("[allow]", f"tasks[{number}]"),
                f"value {shown(task)}: not a task id; a name goes into `names`",
                "tasks",
            )
    _recorders(config, report)
    for number, notify in enumerate(config.notify, 1):
        for key, text, *keys in notify_problems(notify):
            report(ConfigPath(f"[[notify]] {number}", key), text, *keys)
    names: set[str] = set()
    for number, timer in enumerate(config.timer, 1):
        table = f"[[timer]] {number}"
        for key, text in timer_problems(timer, config.service.name):
            report(ConfigPath(table, key), text, *TIMER_KEYS.get(key, (key,)))
        if timer.task is not None and (problem := _task_problem(timer.task, config.qlik)):
            report(ConfigPath(table, "task"), f"value {_task_shown(timer.task)}: {problem}", "task")
        _reload_options(timer, table, config.qlik, report)
        if timer.task is not None and config.qlik is None:
            text = "no Qlik server is configured; add [qlik]"
            report(ConfigPath(table, "task"), text, "task")
        _unique(timer.name, names, table, report)
        if timer.id and any(timer.id == other.id for other in config.timer[: number - 1]):
            text = f"{shown(timer.id)} is taken; choose another id, or remove it"
            report(ConfigPath(table, "id"), text, "id")
    for number, outcome in enumerate(config.outcome, 1):
        for key, text in outcome_problems(outcome, config.limits, config.service.name):
            where = ConfigPath(f"[[outcome]] {number}", key)
            report(where, text, *OUTCOME_KEYS.get(key, (key,)))
    _http(config, report)
    for where, text, about in port_problems(config):
        report(where, text, *about)


def check_qlik(qlik: QlikConfig, problems: Problems) -> None:
    """Add to ``problems`` every rule about several keys that ``[qlik]`` breaks."""
    for key, text in _qlik(qlik):
        about = ("url", "edition") if key == "url" else ()
        problems.add_unless_consequence(ConfigPath("[qlik]", key), text, *about)


def _unique(name: str, taken: set[str], table: str, report: ReportProblem) -> None:
    """Report a name that an earlier table of the same kind has, and add it to ``taken``."""
    if name and name in taken:
        where = ConfigPath(table, "name")
        report(where, f"{shown(name)} is taken; choose another name", "name")
    taken.add(name)


def advice(config: Config) -> list[str]:
    """Settings that are allowed and may be a mistake, one line each."""
    return list(_advice(config))


def brackets(name: str) -> str:
    """How the table ``name`` is written in the file: ``[service]``, ``[[listener]]``."""
    return f"[[{name}]]" if name in _REPEATED else f"[{name}]"


_REPEATED = frozenset(
    field.name for field in msgspec.structs.fields(Config) if isinstance(field.default, tuple)
)


def _service(config: Config, report: ReportProblem) -> None:
    name = config.service.name
    where = ConfigPath("[service]", "name")
    problem = topic_problem(name)
    if problem is None and "/" in name:
        problem = "it is one level of a topic, so it can't have a /"
    if problem is None and name.startswith("$"):
        problem = "topics that begin with $ belong to the broker"
    if problem is None and name == HTTP_CLIENT[1:]:
        problem = f"{HTTP_CLIENT} is the sender of what comes in over HTTP"
    if problem is None and (not name.isprintable() or name != name.strip() or len(name) > 100):
        problem = "it has at most 100 visible characters and no blanks at its ends"
    if problem:
        report(where, f'value {shown(name)}: {problem}; write for example "appliance"', "name")


def _listeners(config: Config, report: ReportProblem) -> None:
    if not config.listener and not config.bridge:
        report(
            ConfigPath("[listener]"),
            "no client could connect, and no [[bridge]] brings messages in; remove listener = [], "
            'or add [[listener]] with bind = "127.0.0.1:1883"',
        )
    seen: dict[tuple[str, int], int] = {}
    names: set[str] = set()
    for number, listener in enumerate(config.listener, 1):
        table = f"[[listener]] {number}"
        _unique(listener.name, names, table, report)
        _client_certificates(listener, table, report)
        bind = ConfigPath(table, "bind")
        try:
            host, port = parse_bind(listener.bind)
        except ValueError as error:
            report(bind, f"value {shown(listener.bind)}: {error}", "bind")
            continue
        for (other_host, other_port), other in seen.items():
            if port and port == other_port and collide(host, other_host):
                report(
                    bind,
                    f"value {shown(listener.bind)}: [[listener]] {other} has this port already; "
                    "choose another port",
                    "bind",
                )
        seen[host, port] = number
        if not is_loopback(host):
            names_clients = bool(listener.tls and listener.tls.identity_as_username)
            _must_sign_in(config, bind, listener.bind, report, names_clients=names_clients)


def _must_sign_in(
    config: Config, where: ConfigPath, bind: str, report: ReportProblem, *, names_clients: bool
) -> None:
    """Report that everybody could come in where other machines can reach an address.

    ``names_clients``: certificates say there which user a client is.
    """
    access = config.access
    if access.anonymous:
        report(
            ConfigPath("[access]", "anonymous"),
            f"value true: {where.table} ({bind}) can be reached from other machines; "
            "remove `anonymous` and add users, or bind to 127.0.0.1",
            "anonymous",
        )
    elif access.users_file is None and not access.plugins and not names_clients:
        report(
            where,
            f"value {shown(bind)}: it can be reached from other machines, so clients "
            'must sign in; add [access] users_file = "users.txt" and "appliance user add NAME"',
            "bind",
        )


def _http(config: Config, report: ReportProblem) -> None:
    bind = config.http.bind
    if bind is None:
        return
    where = ConfigPath("[http]", "bind")
    try:
        host, _ = parse_bind(bind)
    except ValueError as error:
        report(where, f"value {shown(bind)}: {error}", "bind")
        return
    if not is_loopback(host):
        _must_sign_in(config, where, bind, report, names_clients=False)


def _starts(config: Config, report: ReportProblem) -> None:
    for number, rule in enumerate(config.access.rule, 1):
        if any(not pattern.strip() for pattern in rule.start):
            report(
                ConfigPath(f"[[access.rule]] {number}", "start"),
                "value '': it fits no task; write a task's name or id, or * for all",
                "start",
            )


def _client_ids(config: Config, report: ReportProblem) -> None:
    for number, pattern in enumerate(config.access.client_ids, 1):
        problem = None
        if not pattern:
            problem = "it fits no client id; remove it"
        elif pattern.startswith("$"):
            problem = "client ids that begin with $ belong to the broker; remove it"
        elif "%c" in pattern or "%U" in pattern:
            problem = 'only %u stands for something, the user\'s name; write for example "%u:*"'
        if problem:
            report(
                ConfigPath("[access]", f"client_ids[{number}]"),
                f"value {shown(pattern)}: {problem}",
                "client_ids",
            )


def _client_certificates(listener: ListenerConfig, table: str, report: ReportProblem) -> None:
    if listener.tls is None or listener.tls.client_ca is not None:
        return
    for key, is_set in (
        ("crl_file", listener.tls.crl_file is not None),
        ("identity_as_username", listener.tls.identity_as_username),
    ):
        if is_set:
            report(
                ConfigPath(table, f"tls.{key}"),
                "it is about certificates of clients, and the listener asks for none; add "
                '`client_ca`, for example client_ca = "clients.pem"',
                key,
            )


def _qlik(qlik: QlikConfig) -> Iterator[tuple[str, str]]:
    """Each problem of ``[qlik]``: a key, and a text with what is wrong and the fix."""
    for key in ("jwt", "password", "api_key", "client_secret"):
        if getattr(qlik, key) is not None and getattr(qlik, f"{key}_file") is not None:
            yield key, f"`{key}_file` is set too; keep one of the two"
    if qlik.edition == "simulated":
        return
    for key in ("jwt", "password", "api_key", "client_secret"):
        secret = getattr(qlik, key)
        text = secret.reveal().rstrip("\r\n") if secret is not None else ""
        if problem := secret_problem(text, "token" if key in TOKEN_KEYS else "line"):
            yield key, f"value (not shown): {problem}"
    if problem := _url_problem(qlik):
        yield "url", problem
    yield from _client_managed(qlik) if qlik.edition == "client-managed" else _cloud(qlik)


def _url_problem(qlik: QlikConfig) -> str | None:
    example = (
        "https://sense.example.com:4242"
        if qlik.edition == "client-managed"
        else "https://tenant.eu.qlikcloud.com"
    )
    write = f'write for example "{example}"'
    if not qlik.url:
        return f'this key is missing for edition "{qlik.edition}"; {write}'
    try:
        parts = urlsplit(qlik.url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return f"value {shown(qlik.url)}: not an address; {write}"
    if parts.username or parts.password:
        return (
            "value (not shown): a name or password does not belong here; use `user` and a key for "
            "the secret"
        )
    if parts.scheme not in ("http", "https") or not host:
        return f"value {shown(qlik.url)}: not an address; {write}"
    if parts.query or parts.fragment:
        return f"value {shown(qlik.url)}: an address has no ? or #; {write}"
    if parts.scheme == "http" and not is_loopback(host):
        return (
            f"value {shown(qlik.url)}: http:// would send the sign-in unencrypted; write https://"
        )
    return None


def _client_managed(qlik: QlikConfig) -> Iterator[tuple[str, str]]:
    ways = {
        "certificate": qlik.certificate is not None,
        "header": qlik.header is not None,
        "jwt": qlik.jwt is not None or qlik.jwt_file is not None,
        "ntlm": qlik.ntlm,
    }
    chosen = [name for name, is_chosen in ways.items() if is_chosen]
    if not chosen:
        text = (
            "no way to sign in is configured; write for example "
            '{certfile = "client.pem", keyfile = "client_key.pem"}, or use `header`, `jwt_file` or '
            "`ntlm`"
        )
        yield "certificate", text
    elif len(chosen) > 1:
        yield chosen[1], f"`{chosen[0]}` is a way to sign in too; keep one of them"
    example = r"write for example 'INTERNAL\sa_repository', in single quotes"
    if qlik.user and not re.fullmatch(r"[^\\;]+\\[^\\;]+", qlik.user) and not qlik.header:
        yield "user", f"value {shown(qlik.user)}: a user is directory, backslash, name; {example}"
    elif not qlik.user and (qlik.certificate or qlik.ntlm):
        yield "user", f"this key is missing; {example}"
    elif not qlik.user and qlik.header and qlik.header.value is None:
        yield "user", f"this key is missing, the header's value; {example}"
    elif (qlik.certificate or (qlik.header and qlik.header.value is None)) and (
        problem := header_value_problem(qlik.user)
    ):
        yield "user", f"value {shown(qlik.user)}: {problem}"
    if qlik.header and not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", qlik.header.name):
        yield "header.name", "not the name of an HTTP header; write it without :"
    elif qlik.header and qlik.header.name.lower() in _OWN_HEADERS:
        yield "header.name", "HTTP itself uses this header; name the virtual proxy's own header"
    if qlik.header and qlik.header.value is not None:
        if not qlik.header.value:
            yield "header.value", "the value is empty; write it, or remove it to send `user`"
        elif problem := header_value_problem(qlik.header.value.reveal()):
            yield "header.value", f"value (not shown): {problem}"
    if qlik.ntlm and qlik.password is None and qlik.password_file is None:
        yield "password_file", "this key is missing; NTLM needs the password"
    for key in ("api_key", "api_key_file", "client_secret", "client_secret_file", "client_id"):
        if getattr(qlik, key):
            yield key, 'this is for edition = "cloud"; remove it'


def _cloud(qlik: QlikConfig) -> Iterator[tuple[str, str]]:
    has_key = qlik.api_key is not None or qlik.api_key_file is not None
    has_secret = qlik.client_secret is not None or qlik.client_secret_file is not None
    if not has_key and not qlik.client_id:
        text = (
            'no way to sign in is configured; write for example "api_key.txt", or `client_id` and '
            "`client_secret_file`"
        )
        yield "api_key_file", text
    elif has_key and qlik.client_id:
        yield "client_id", "an API key is a way to sign in too; keep one of them"
    elif qlik.client_id and not has_secret:
        yield "client_secret_file", "this key is missing; `client_id` needs it"
    for key in ("certificate", "header", "jwt", "jwt_file", "ntlm", "password", "password_file"):
        if getattr(qlik, key):
            yield key, 'this is for edition = "client-managed"; remove it'


def _triggers(config: Config, report: ReportProblem) -> None:
    names: set[str] = set()
    unnamed = Counter(one.topic for one in config.trigger if not one.name)
    limited = {one.topic for one in config.trigger if one.fresh_within and not one.name}
    for number, trigger in enumerate(config.trigger, 1):
        table = f"[[trigger]] {number}"
        if config.qlik is None:
            report(
                ConfigPath(table),
                'no Qlik server is configured; add [qlik], for a try with edition = "simulated"',
                "task",
            )
        problem = _topic_task_problem(trigger) or _task_problem(
            trigger.task, config.qlik, by_message=True
        )
        if problem:
            report(
                ConfigPath(table, "task"),
                f"value {_task_shown(trigger.task)}: {problem}",
                "task",
                "topic",
            )
        _unique(trigger.name, names, table, report)
        _reload_options(trigger, table, config.qlik, report)
        if not trigger.name and trigger.topic in limited and unnamed[trigger.topic] > 1:
            unnamed[trigger.topic] = 0  # Said once for each topic.
            report(
                ConfigPath(table, "name"),
                "this key is missing; several triggers without a name have this topic, and one of "
                "them `fresh_within`, which counts by the name",
                "name",
                "fresh_within",
            )
        if (
            trigger.fresh_within is not None
            and trigger.debounce is not None
            and trigger.fresh_within <= trigger.debounce
        ):
            report(
                ConfigPath(table, "fresh_within"),
                f'value "{format_duration(trigger.fresh_within)}": not longer than `debounce` '
                f'("{format_duration(trigger.debounce)}"), so the data would always be late; write '
                "a longer time",
                "fresh_within",
                "debounce",
            )
        if trigger.debounce_max is None:
            continue
        if trigger.debounce is None:
            report(
                ConfigPath(table, "debounce_max"),
                "it limits `debounce`, which is missing; add `debounce`",
                "debounce",
                "debounce_max",
            )
        elif trigger.debounce_max < trigger.debounce:
            report(
                ConfigPath(table, "debounce_max"),
                f'value "{format_duration(trigger.debounce_max)}": shorter than `debounce` '
                f'("{format_duration(trigger.debounce)}"); write a longer time',
                "debounce",
                "debounce_max",
            )


def _reload_options(
    rule: TriggerConfig | TimerConfig, table: str, qlik: QlikConfig | None, report: ReportProblem
) -> None:
    where, variables = ConfigPath(table, "variables"), rule.variables
    if isinstance(rule, TimerConfig) and rule.task is None:
        for key in ("partial", "variables"):
            if getattr(rule, key):
                text = "it says how a task is reloaded, and `task` is missing; remove it"
                report(ConfigPath(table, key), text, key, "task")
    elif variables and qlik is not None and qlik.edition != "cloud":
        text = (
            "client-managed Qlik Sense takes no variables with a start; remove them, and let the "
            "script read the values, for example from a file"
        )
        report(where, text, "variables")
    elif variables and (problem := ReloadOptions(variables=tuple(variables.items())).problem):
        report(where, f"{problem}; write fewer or shorter ones", "variables")


def _topic_task_problem(trigger: TriggerConfig) -> str | None:
    if trigger.task == "topic" and trigger.topic.split("/").count("+") != 1:
        return (
            "the level that names the task is the filter's +, so `topic` has exactly one; "
            'write for example "qliksense/start/+"'
        )
    return None


def _task_problem(
    task: str | dict[str, str], qlik: QlikConfig | None, *, by_message: bool = False
) -> str | None:
    if isinstance(task, str):
        if (by_message and task in ("payload", "topic")) or _is_task_id(task, qlik):
            return None
        if not by_message:
            return f"not a task id; a task is named with task = {{name = {shown(task)}}}"
        if task.lower() in ("payload", "topic"):
            return f'did you mean "{task.lower()}"?'
        return (
            'neither "payload" nor "topic" nor a task id; a task is named with '
            f"task = {{name = {shown(task)}}}"
        )
    forms = '{name = "..."}, {tag = "..."}, {property = "...", value = "..."} or {app = "..."}'
    if set(task) not in ({"name"}, {"tag"}, {"property", "value"}, {"app"}):
        return f"write one of {forms}"
    if not all(task.values()):
        return "an empty text finds nothing; write the name"
    return None


def _is_task_id(text: str, qlik: QlikConfig | None) -> bool:
    is_managed = qlik is not None and qlik.edition == "client-managed"
    return bool(GUID.fullmatch(text) or (not is_managed and _CLOUD_ID.fullmatch(text)))


def _task_shown(task: str | dict[str, str]) -> str:
    if isinstance(task, str):
        return shown(task)
    return "{" + ", ".join(f"{key} = {shown(value)}" for key, value in task.items()) + "}"


def _recorders(config: Config, report: ReportProblem) -> None:
    for where, text, about in recorder_problems(config):
        report(where, text, *about)
    for where, text in path_problems(config):
        report(where, text, "path")


def _start_advice(config: Config) -> Iterator[str]:
    starting = [(number, rule) for number, rule in enumerate(config.access.rule, 1) if rule.start]
    if starting and config.http.bind is None:
        yield (
            "[[access.rule]] `start` has no effect: it is for starts over HTTP; add [http] with "
            'bind = "127.0.0.1:8080"'
        )
    for number, rule in starting:
        if not fnmatchcase(HTTP_CLIENT, rule.client_id):
            yield (
                f"[[access.rule]] {number} `start` has no effect: over HTTP, the client id is"
                f" {HTTP_CLIENT}, which `client_id` {shown(rule.client_id)} does not match"
            )


def _advice(config: Config) -> Iterator[str]:
    if config.service.event_log and sys.platform != "win32":
        yield "[service] `event_log` has no effect: this system has no Windows event log"
    for number, listener in enumerate(config.listener, 1):
        host, _ = parse_bind(listener.bind)
        if not is_loopback(host) and listener.tls is None:
            yield (
                f"[[listener]] {number} ({listener.bind}) has no `tls`: passwords and payloads "
                "cross the network unencrypted"
            )
    yield from port_advice(config)
    yield from bridge_advice(config)
    yield from recorder_advice(config)
    if not config.listener and config.http.bind is None and config.access != AccessConfig():
        yield "[access] has no effect: listener = [], so no client can connect"
    if (config.access.operators or config.access.viewers) and config.access.users_file is None:
        yield (
            "[access] `operators` and `viewers` mean users of a users file, which is missing: "
            "every user of this machine may look and act"
        )
    rules = config.access.rule
    if rules and config.access.anonymous:
        # As the broker compares: the name of a client without one is the empty text.
        fitting = dict.fromkeys(rule.user for rule in rules if fnmatchcase("", rule.user))
        allowed = " or ".join(f"user {shown(user)}" for user in fitting)
        yield (
            f"[[access.rule]]: clients without a name have only what rules for {allowed} allow"
            if allowed
            else "[[access.rule]]: no rule is for clients without a name, so they may do nothing; "
            'add one with user = "" or user = "*"'
        )
    if rules and not any(rule.publish or rule.subscribe for rule in rules):
        yield (
            "[[access.rule]]: no rule allows anything, so no client may publish or subscribe; add a"
            ' rule with `publish = ["#"]` and `subscribe = ["#"]` beside those with `deny` or'
            " `start`"
        )
    yield from _start_advice(config)
    if config.qlik is not None and config.qlik.edition == "simulated":
        yield '[qlik] `edition` is "simulated": no task of a real server is started'
    if config.outcome and config.qlik is None:
        yield "[[outcome]] has no effect: no Qlik server is configured; add [qlik]"
    if config.qlik is not None and not config.trigger:
        yield "[qlik]: there is no [[trigger]], so no message starts a task"
