"""``appliance check``: the problems of a configuration, or its meaning in plain words."""

from __future__ import annotations

import argparse
import datetime as dt
import errno
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.broker.revocation import load_revocation_lists
from appliance.broker.users import Users
from appliance.commands import client_id_advice
from appliance.commands.bridge_meaning import bridge_meaning
from appliance.commands.lines import print_item, print_line
from appliance.commands.notify_meaning import notify_meaning
from appliance.commands.recorder_meaning import recorder_meaning, try_databases
from appliance.config.certificates import dates_in, ended
from appliance.config.checks import advice
from appliance.config.exposed_files import exposed_files
from appliance.config.files import anonymous_allowed, check_files
from appliance.config.outcome_topics import states_of, topic_of
from appliance.config.reading import load
from appliance.config.tables import (
    AllowConfig,
    Config,
    QlikConfig,
    TimerConfig,
    TriggerConfig,
)
from appliance.config.upload_topics import upload_advice
from appliance.config.values import (
    format_duration,
    format_size,
    is_loopback,
    parse_bind,
)
from appliance.errors import EXIT_OK, ApplianceError, ConfigError
from appliance.finding import Finding
from appliance.tasks import notify_urls
from appliance.tasks.conditions import Condition
from appliance.tasks.loops import find_loops

if TYPE_CHECKING:
    from appliance.broker.plugin_classes import PluginClass


def execute(options: argparse.Namespace) -> int:
    """Check one configuration; raises ``ConfigError`` with all problems, one a line."""
    config = load(options.config)
    problems = [*check_files(config), *_deeper(config)]
    if problems:
        raise ConfigError("\n".join(problems))
    print_line(f"{options.config} is valid. It means:")
    for head, text in _meaning(config):
        print_item(f"  {head:<12}", text)
    warnings = [
        *advice(config),
        *client_id_advice.advice(config),
        *(loop.text for loop in find_loops(config)),
        *upload_advice(config),
        *_ended(config),
        *exposed_files(config),
    ]
    if warnings:
        print_line("Please check these:")
    for text in warnings:
        print_item("  ", text)
    if options.connect:
        return _connect(config)
    return EXIT_OK


def _connect(config: Config) -> int:
    findings = [
        *_try_qlik(config),
        *_try_uploads(config),
        *_try_bridges(config),
        *_try_databases(config),
    ]
    return next((each.exit_code for each in findings if each.level == "bad"), EXIT_OK)


def _try_qlik(config: Config) -> list[Finding]:
    if config.qlik is None:
        what = "Qlik server" if config.bridge else "server"
        print_line(f"There is no [qlik] table, so no {what} is tried.")
        return []
    # The HTTP client takes its time.
    from appliance.commands.task_review import review  # noqa: PLC0415
    from appliance.qlik.diagnosis import diagnose  # noqa: PLC0415

    print_line("Trying the Qlik server:")
    return _shown(diagnose(config.qlik, review=lambda tasks, apps: review(config, tasks, apps)))


def _try_uploads(config: Config) -> list[Finding]:
    if not any(recorder.upload for recorder in config.recorder):
        return []
    from appliance.qlik.data_files_trial import try_uploads  # noqa: PLC0415  as in ``_try_qlik``

    return _shown(try_uploads(config))


def _try_bridges(config: Config) -> list[Finding]:
    if not config.bridge:
        return []
    from appliance.bridge.trial import try_bridges  # noqa: PLC0415  it imports the broker's rooms

    print_line("Trying the brokers of bridges:")
    return _shown(try_bridges(config))


def _try_databases(config: Config) -> list[Finding]:
    if not any(recorder.database for recorder in config.recorder):
        return []
    print_line("Trying the databases of recorders:")
    return _shown(try_databases(config))


def _shown(findings: list[Finding]) -> list[Finding]:
    for finding in findings:
        print_item(f"  {finding.level:<5}", finding.text)
    return findings


def _deeper(config: Config) -> Iterator[str]:
    """Problems that need the files and rules themselves."""
    shown = config.file or "configuration"
    for number, listener in enumerate(config.listener, 1):
        tls = listener.tls
        if tls is not None:
            where = f"{shown}: [[listener]] {number} `tls"
            yield from pair_problem(f"{where}.certfile`", tls.certfile, tls.keyfile)
            if tls.client_ca:
                yield from authority_problem(f"{where}.client_ca`", tls.client_ca)
            if tls.crl_file:
                yield from _revocation_problem(f"{where}.crl_file`", tls.crl_file)
    if (own := config.http.tls) is not None:
        yield from pair_problem(f"{shown}: [http] `tls.certfile`", own.certfile, own.keyfile)
    for number, bridge in enumerate(config.bridge, 1):
        if bridge.tls is not None:
            where = f"{shown}: [[bridge]] {number} `tls"
            if bridge.tls.certfile and bridge.tls.keyfile:
                yield from pair_problem(
                    f"{where}.certfile`", bridge.tls.certfile, bridge.tls.keyfile
                )
            if bridge.tls.ca_file:
                yield from authority_problem(f"{where}.ca_file`", bridge.tls.ca_file)
    qlik = config.qlik
    if qlik is not None and qlik.edition != "simulated":
        if pair := qlik.certificate:
            yield from pair_problem(f"{shown}: [qlik] `certificate`", pair.certfile, pair.keyfile)
        if qlik.ca_file:
            yield from authority_problem(f"{shown}: [qlik] `ca_file`", qlik.ca_file)
    for number, trigger in enumerate(config.trigger, 1):
        if trigger.when is not None:
            try:
                Condition(trigger.when, where=f"{shown}: [[trigger]] {number}")
            except ConfigError as error:
                yield str(error)
    yield from (f"{shown}: {text}" for text in notify_urls.problems(config.notify))
    if config.ui.theme or config.ui.keys:
        from appliance.process.ui_settings import ui_settings  # noqa: PLC0415  it imports the UI

        try:
            ui_settings(config)
        except ConfigError as error:
            yield str(error)
    if config.access.plugins:
        yield from _plugin_problems(config, shown)
    try:
        data_dir = _data_dir(config)
    except OSError as error:
        yield (
            f"{shown}: [service] `data_dir`: {config.service.data_dir}: {error.strerror}; "
            'name a folder, for example "data"'
        )
    else:
        if data_dir:
            from appliance.engine import databases  # noqa: PLC0415  it imports the engine's rooms

            yield from databases.problems(data_dir)
    if config.access.users_file is not None:
        try:
            Users(config.access.users_file)
        except ApplianceError as error:
            yield str(error)


def _plugin_problems(config: Config, shown: str) -> Iterator[str]:
    from appliance.broker.plugin_classes import sign_in_problem  # noqa: PLC0415  it imports amqtt

    try:
        classes = _plugins(config)
    except ConfigError as error:
        yield from (f"{shown}: {line}" for line in str(error).split("\n"))
        return
    problem = sign_in_problem(config.access, classes, is_loopback_only=config.is_loopback_only)
    if problem is not None:
        yield f"{shown}: {problem}"


def pair_problem(where: str, certfile: str, keyfile: str) -> Iterator[str]:
    """Problems of a certificate and its private key. Missing files are reported elsewhere."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # An empty passphrase: otherwise OpenSSL would ask for it at the terminal.
        context.load_cert_chain(certfile, keyfile, password="")
    except (FileNotFoundError, PermissionError):
        return
    except OSError as error:  # ssl.SSLError is one too
        yield (
            f"{where}: {_pair_reason(error, certfile, keyfile)}; a PEM certificate and the private "
            "key that belongs to it, without a passphrase, are wanted"
        )


def _pair_reason(error: OSError, certfile: str, keyfile: str) -> str:
    """The reason in words: OpenSSL reports "PEM lib" for nearly every problem."""
    if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
        return f"{certfile} and {keyfile}: certificate and key don't belong together"
    if b"CERTIFICATE-----" not in _head(certfile):
        return f"{certfile} holds no certificate"
    key = _head(keyfile)
    if b"PRIVATE KEY-----" not in key:
        return f"{keyfile} holds no private key"
    if b"ENCRYPTED" in key:
        return f"{keyfile} is protected by a passphrase"
    return f"{certfile} and {keyfile}: {_tls_reason(error)}"


def _head(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(1024 * 1024)


def authority_problem(where: str, path: str) -> Iterator[str]:
    """Problems of a file of authorities. A missing file is reported elsewhere."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except (FileNotFoundError, PermissionError):
        return
    except OSError as error:
        yield f"{where}: {path}: {_tls_reason(error)}; PEM certificates are wanted"


def _revocation_problem(where: str, path: str) -> Iterator[str]:
    try:
        load_revocation_lists(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), path)
    except (FileNotFoundError, PermissionError):
        return
    except OSError as error:
        yield f"{where}: {path}: {_tls_reason(error)}; a revocation list in PEM form is wanted"


def _ended(config: Config) -> Iterator[str]:
    """Certificates that have expired. A start does not fail of them: a clock may be wrong."""
    authorities, own = [], []
    for number, listener in enumerate(config.listener, 1):
        if listener.tls:
            own.append((f"[[listener]] {number} `tls.certfile`", listener.tls.certfile))
            if listener.tls.client_ca:
                where = f"[[listener]] {number} `tls.client_ca`"
                authorities.append((where, listener.tls.client_ca))
    if config.http.tls:
        own.append(("[http] `tls.certfile`", config.http.tls.certfile))
    for bridge in config.bridge:
        if bridge.tls and bridge.tls.certfile:
            own.append((f"[[bridge]] {bridge.name} `tls.certfile`", bridge.tls.certfile))
        if bridge.tls and bridge.tls.ca_file:
            authorities.append((f"[[bridge]] {bridge.name} `tls.ca_file`", bridge.tls.ca_file))
    qlik = config.qlik
    if qlik is not None and qlik.edition != "simulated":
        if qlik.certificate:
            own.append(("[qlik] `certificate.certfile`", qlik.certificate.certfile))
        if qlik.ca_file:
            authorities.append(("[qlik] `ca_file`", qlik.ca_file))
    for where, path in authorities:
        if found := ended(path):
            yield (
                f"{where}: the authority has expired: {path} has only the {found.shown}; export "
                "it again"
            )
    now = dt.datetime.now(dt.UTC)
    for where, path in own:
        for first in dates_in(path)[:1]:
            if first.ends < now:
                yield f"{where}: {path} has the {first.shown}; replace it by a new one"


def _tls_reason(error: OSError) -> str:
    reason = getattr(error, "reason", None) or ""
    return f"can't be used ({str(reason).lower().replace('_', ' ') or error})"


def _meaning(config: Config) -> Iterator[tuple[str, str]]:
    service = config.service
    until = f", stops after {format_duration(service.run_for)}" if service.run_for else ""
    yield "service", f"{service.name}, data in {service.data_dir}{until}"
    for listener in config.listener:
        secure = "TLS" if listener.tls else "no TLS"
        if listener.tls and listener.tls.client_ca:
            secure = "TLS with client certificates"
            if listener.tls.identity_as_username:
                secure += " that name the user"
        kind = "WebSocket" if listener.transport == "websocket" else "MQTT"
        yield (
            "listener",
            f"{listener.name}: {kind} at {listener.bind}, {secure}, {_reach(listener.bind)}",
        )
    if config.http.bind is not None:
        secure = "TLS" if config.http.tls else "no TLS"
        calls = ", with Butler's calls" if config.http.butler else ""
        yield "http", f"{config.http.bind}, {secure}, {_reach(config.http.bind)}{calls}"
    if config.metrics.bind is not None:
        yield "metrics", f"{config.metrics.bind}, no password, {_reach(config.metrics.bind)}"
    if not config.listener:
        yield "listener", "none; no client can connect, and messages come in by bridges"
    for bridge in config.bridge:
        yield from bridge_meaning(bridge)
    plugins = _plugins(config)
    if config.listener:
        yield "access", _access(config, asks_plugins=any(each.authenticates for each in plugins))
    if config.access.client_ids:
        yield "client ids", f"{_list(config.access.client_ids)}; no others"
    for rule in config.access.rule:
        what = f"publish {_list(rule.publish)}, subscribe {_list(rule.subscribe)}"
        if rule.deny:
            what += f", deny {_list(rule.deny)}"
        if rule.start:
            what += f", start {_list(rule.start)}"
        who = f"user {rule.user}" if rule.user else "clients without a name"
        who += f", client {rule.client_id}" if rule.client_id != "*" else ""
        yield "rule", f"{who}: {what}"
    for plugin in plugins:
        yield "plugin", f"{plugin.path} {plugin.roles}"
    journal = config.journal
    kept = "on disk" if journal.sync == "always" else "safe from a killed process"
    bounds = f"{format_duration(journal.keep)} or {format_size(journal.max_size)}"
    yield "journal", f"acknowledged means {kept}; kept for {bounds}"
    if data_dir := _data_dir(config):
        from appliance.engine import databases  # noqa: PLC0415  it imports the engine's rooms

        for name, version in databases.outdated(data_dir).items():
            present = databases.LAYOUTS[name].version
            yield "data", f"the next start upgrades {name} from format {version} to {present}"
    yield "qlik", _qlik(config) if config.qlik else "none; no tasks are started"
    for trigger in config.trigger:
        name = f"{trigger.name}: " if trigger.name else ""
        yield "trigger", f"{name}{_trigger(trigger)}"
    if config.allow != AllowConfig():
        yield "allow", "only the tasks that [allow] lists may be started"
    elif config.qlik:
        yield "allow", "every task that the user may start"
    for outcome in config.outcome:
        what = f"{topic_of(outcome)}: {outcome.form} when {' or '.join(states_of(outcome))}"
        yield "outcome", what + (f", tasks {_list(outcome.tasks)}" if outcome.tasks else "")
    for timer in config.timer:
        yield "timer", f"{timer.name}: {_timer(timer)}"
    for recorder in config.recorder:
        yield "recorder", recorder_meaning(recorder)
    for notify in config.notify:
        yield "notify", notify_meaning(notify)


def _reach(bind: str) -> str:
    """Who may connect to an address."""
    return "this machine only" if is_loopback(parse_bind(bind)[0]) else "other machines too"


def _data_dir(config: Config) -> Path | None:
    """The data directory, if there is one. Raises ``OSError`` if no folder can be there."""
    path = Path(config.service.data_dir)
    if path.is_dir():
        return path
    if path.exists():
        raise NotADirectoryError(errno.ENOTDIR, "this is a file", str(path))
    return None


def _plugins(config: Config) -> tuple[PluginClass, ...]:
    if not config.access.plugins:
        return ()
    from appliance.broker.plugin_classes import plugin_classes  # noqa: PLC0415  it imports amqtt

    return plugin_classes(config.access)


def _access(config: Config, *, asks_plugins: bool) -> str:
    path = config.access.users_file
    users = ""
    if path is not None and Path(path).exists():
        count = len(Users(path).names())
        users = f"{count} user{'' if count == 1 else 's'} in {path}"
    if asks_plugins and not config.access.anonymous:
        return f"clients must sign in; {users + '; ' if users else ''}plugins are asked"
    if not anonymous_allowed(config):
        return f"clients must sign in; {users or 'there are no users yet'}"
    return "clients need no password" + (f"; {users}" if users else "")


def _list(filters: tuple[str, ...]) -> str:
    return ", ".join(filters) or "nothing"


def _qlik(config: Config) -> str:
    qlik = config.qlik
    assert qlik is not None
    others = ", asked for runs of other appliances before each start"
    more = others if config.has_other_appliances else ""
    if qlik.keep_script_logs is not None:
        more += f", script logs of failed reloads kept for {format_duration(qlik.keep_script_logs)}"
    return f"{_server(qlik)}{more}"


def _server(qlik: QlikConfig) -> str:
    if qlik.edition == "simulated":
        return "simulated within the appliance"
    ways = ("certificate", "header", "jwt", "jwt_file", "ntlm", "api_key", "api_key_file")
    way = next((each for each in ways if getattr(qlik, each)), "client_id")
    names = {"ntlm": "NTLM", "jwt": "a JWT", "api_key": "an API key", "client_id": "OAuth"}
    how = names.get(way.removesuffix("_file"), f"a {way}")
    user = f" as {qlik.user}" if qlik.user else ""
    return f"{qlik.edition} at {qlik.url}{user}, with {how}"


def _target(task: str | dict[str, str]) -> str:
    match task:
        case "payload":
            return "the task that the payload names"
        case "topic":
            return "the task that the topic's level names"
        case {"name": name}:
            return f"the task {name}"
        case {"tag": tag}:
            return f"all tasks with tag {tag}"
        case {"property": name, "value": value}:
            return f"all tasks with {name} = {value}"
        case {"app": app}:
            return f"a reload of app {app}"
        case _:
            return f"task {str(task).strip('{}').lower()}"


def _trigger(trigger: TriggerConfig) -> str:
    parts = [f"a message on {trigger.topic} starts {_target(trigger.task)}"]
    if trigger.partial:
        parts.append("partially")
    if trigger.variables:
        parts.append(f"with {', '.join(trigger.variables)}")
    if trigger.all_or_nothing:
        parts.append("all or nothing")
    if trigger.when:
        parts.append(f"when {', '.join(trigger.when)} fit")
    if trigger.debounce:
        parts.append(f"after {format_duration(trigger.debounce)} of quiet")
    if trigger.cooldown:
        parts.append(f"at most once in {format_duration(trigger.cooldown)}")
    if trigger.fresh_within:
        parts.append(f"data is late after {format_duration(trigger.fresh_within)}")
    return ", ".join(parts)


def _timer(timer: TimerConfig) -> str:
    if timer.silence is not None:
        when = f"when nothing came on {timer.topic} for {format_duration(timer.silence)}, an alarm"
    elif timer.every is not None:
        when = f"every {format_duration(timer.every)}"
    else:
        when = f"at {timer.cron} ({timer.timezone})"
    acts = []
    if timer.task is not None:
        acts.append(_target(timer.task))
        if timer.partial:
            acts.append("partially")
        if timer.variables:
            acts.append(f"with {', '.join(timer.variables)}")
    if timer.publish is not None:
        acts.append(f"a message on {timer.publish.topic}")
    return ", ".join([when, *acts])
