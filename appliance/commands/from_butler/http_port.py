"""``restServerConfig``: the ``[http]`` table, at which Butler's calls are answered.

Not for: the calls (http_api/butler/).
"""

from __future__ import annotations

from appliance.commands.check import pair_problem
from appliance.commands.from_butler import starts
from appliance.commands.from_butler.draft import Draft
from appliance.commands.from_butler.section import Section
from appliance.commands.from_butler.toml_table import TomlTable
from appliance.config.values import is_loopback

_PORT = 8080
_MOST_KEYS = 1_000_000
_PUBLISH = "mqttPublishMessage"


def port_of(butler: Section) -> int:
    """The port of Butler's calls; 0 if they are off."""
    rest = butler.section("restServerConfig")
    if not rest or not rest.is_on():
        return 0
    return rest.port("serverPort") or _PORT


def take_rule(butler: Section, draft: Draft) -> None:
    """Add the access rule that keeps calls from starting tasks, where Butler's do not."""
    endpoints = butler.section("restServerEndpointsEnable")
    is_off = not endpoints.is_on("senseStartTask")
    if not port_of(butler) or not (is_off or starts.lists_nothing(butler)):
        return
    draft.add(
        TomlTable(
            "[[access.rule]]",
            {"user": "*", "publish": ["#"], "subscribe": ["#"]},
            comment="Butler's calls start no task. Nor do these, as soon as there are users: there "
            "is no `start` in the rule. Operators may, and without a users file that is everybody "
            "on this machine.",
        )
    )
    draft.findings.differs(
        endpoints.key("senseStartTask") if is_off else "startTaskFilter",
        "calls start no task, and [[access.rule]] without `start` says that here. It counts for "
        'users, so add one ("appliance user add NAME"): without a users file, everybody on this '
        "machine is an operator and may start every task",
    )


def take(butler: Section, draft: Draft) -> None:
    """Add ``[http]``, if Butler's calls are on."""
    rest, findings = butler.section("restServerConfig"), draft.findings
    if not rest.enabled():
        return
    port, host = port_of(butler), rest.text("serverHost")
    rest.used("backgroundServerPort")
    table = TomlTable(
        "[http]",
        {"bind": f"127.0.0.1:{port}"},
        comment="Butler's calls (/v4/...), and more: docs/http.md.",
    )
    findings.differs(
        rest.key("serverPort"),
        "Butler has this port, so while both run on one machine, write another one in [http] bind",
    )
    tls = rest.section("tls")
    if tls and tls.flag("enable", True):
        _tls(tls, table, draft)
    tls.used("cert", "key")
    tls.leave(
        "ca", "clients of the HTTP port need no certificate; users and tokens say who they are"
    )
    if host and not is_loopback(host):
        table.remarks["bind"] = "for other machines: its address, and users"
        findings.differs(
            rest.key("serverHost"),
            "the calls are answered on this machine only. For other machines: add users "
            '("appliance user add NAME"), then write this address in [http] bind. Butler asks for '
            "no password; callers send one, or a token",
        )
    keys = butler.section("keyValueStore").number("maxKeysPerNamespace")
    if keys is not None and 0 < keys <= _MOST_KEYS:
        table.keys["max_keys"] = keys
    butler.section("keyValueStore").used("enable")
    endpoints = butler.section("restServerEndpointsEnable")
    if endpoints:
        findings.differs(
            endpoints.path,
            "calls are not switched on one by one: all that the appliance has are answered, and "
            "[[access.rule]] says who may start tasks and publish",
        )
        findings.read(endpoints.path)
    if any(each.name == "bridge" for each in draft.tables) and endpoints.is_on(_PUBLISH):
        findings.differs(
            endpoints.key(_PUBLISH),
            "a call publishes at the appliance. The broker that Butler connects to gets the "
            "message only if a [[bridge.publish]] has its topic: add those of your load scripts",
        )
    draft.add(table)


def _tls(tls: Section, table: TomlTable, draft: Draft) -> None:
    certfile, keyfile = draft.located(tls.text("cert")), draft.located(tls.text("key"))
    problems = ["the files of its certificate are not there"]
    if certfile is not None and keyfile is not None:
        problems = list(pair_problem(tls.path, str(certfile), str(keyfile)))
        table.keys["tls"] = {
            "certfile": draft.written(certfile),
            "keyfile": draft.written(keyfile),
        }
    if problems:
        table.keys["tls"] = {"certfile": "server.pem", "keyfile": "server_key.pem"}
        why = "; ".join(problems)
        table.missing = f'Not in effect yet, because {why}. Then remove the "# " below.'
        draft.findings.differs(tls.path, f"the HTTP port is not in effect yet: {why}")
