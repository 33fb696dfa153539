"""``configQRS``, ``cert`` and ``scriptLog``: the ``[qlik]`` table.

Not for: ``configEngine`` (other_keys.py): the appliance needs no engine.
"""

from __future__ import annotations

import re

from appliance.commands.check import authority_problem, pair_problem
from appliance.commands.from_butler.draft import Draft
from appliance.commands.from_butler.section import Section
from appliance.commands.from_butler.toml_table import TomlTable, Value
from appliance.config.sign_in import header_value_problem

_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:.]{2,45}")
_USER = re.compile(
    r"\s*UserDirectory\s*=\s*([^\\;]+?)\s*;\s*UserId\s*=\s*([^\\;]+?)\s*", re.IGNORECASE
)
_USUAL_USER = r"INTERNAL\sa_repository"
_PORT = 4242


def take(butler: Section, draft: Draft) -> None:
    """Add ``[qlik]``.

    Where something is missing that signing in needs, the table is a comment, and a simulated
    server stands in for the real one: the file is valid, and no task of a real server is started.
    """
    qrs, findings = butler.section("configQRS"), draft.findings
    problems: list[str] = []
    table = TomlTable("[qlik]", {"edition": "client-managed"})
    table.keys["url"] = _url(qrs, problems)
    table.keys["user"] = _user(qrs, draft)
    table.keys |= _certificates(butler.section("cert"), qrs, draft, problems)
    if not qrs.flag("rejectUnauthorized", True):
        findings.differs(
            qrs.key("rejectUnauthorized"),
            "false, and the appliance always verifies the server's certificate: `ca_file` has to be"
            " the authority that signed it (root.pem), and the host in `url` has to be a name that "
            "is in it",
        )
    way = qrs.text("authentication")
    if way and way.lower() != "certificates":
        qrs.leave(
            "authentication", "the appliance signs in with the certificate; docs/qlik.md has others"
        )
    _script_logs(butler.section("scriptLog"), draft, table)
    if problems:
        table.missing = (
            f"Not in effect yet, because {'; '.join(problems)}. When that is put right, remove the"
            ' "# " below and the table [qlik] with "simulated".'
        )
        draft.add(table)
        table = TomlTable(
            "[qlik]",
            {"edition": "simulated"},
            comment="Stands in for the server until then: no task of a real server is started.",
        )
        if "keep_script_logs" in draft.tables[-1].keys:
            table.keys["keep_script_logs"] = draft.tables[-1].keys["keep_script_logs"]
        findings.differs("configQRS", f"[qlik] is not in effect yet: {'; '.join(problems)}")
    else:
        table.comment = "The Qlik server that runs the tasks."
    draft.add(table)


def _url(qrs: Section, problems: list[str]) -> str:
    host = qrs.text("host")
    if not _HOST.fullmatch(host):
        problems.append(f"{qrs.key('host')} names no server")
        host = "sense.example.com"
    port = qrs.port("port") or _PORT
    if not qrs.flag("useSSL", True):
        qrs.findings.differs(qrs.key("useSSL"), "false, and the appliance uses https only")
    host = f"[{host}]" if ":" in host else host
    return f"https://{host}:{port}"


def _user(qrs: Section, draft: Draft) -> str:
    written = qrs.text("headerValue")  # before Butler 5
    qrs.used("headerKey")
    headers = qrs.section("headers")
    old = headers.text("X-Qlik-User")
    for header in headers.sections("static"):
        if header.text("name").lower() == "x-qlik-user":
            written = header.text("value")
        else:
            header.used("value")
            draft.findings.leave(header.path, "the appliance sends only the user to the server")
    match = _USER.fullmatch(written or old)
    user = f"{match[1]}\\{match[2]}" if match else _USUAL_USER
    if match is None or header_value_problem(user):
        text = rf"there is no user in it that can be read; {_USUAL_USER} is written"
        draft.findings.differs(headers.key("static"), text)
        return _USUAL_USER
    return user


def _certificates(
    cert: Section, qrs: Section, draft: Draft, problems: list[str]
) -> dict[str, Value]:
    """The keys ``certificate`` and ``ca_file``; ``cert`` and so on in ``configQRS`` are older."""
    places = {
        "certfile": (cert, "clientCert", qrs.text("cert"), "client.pem"),
        "keyfile": (cert, "clientCertKey", qrs.text("key"), "client_key.pem"),
        "ca_file": (cert, "clientCertCA", qrs.text("ca"), "root.pem"),
    }
    names: dict[str, str] = {}
    files: dict[str, str] = {}
    for key, (section, name, older, usual) in places.items():
        text = section.text(name) or older
        found = draft.located(text)
        names[key] = draft.written(found) if found else usual
        if found:
            files[key] = str(found)
        else:
            problems.append(f"the file of {section.key(name)} is not there")
    if "certfile" in files and "keyfile" in files:
        problems.extend(pair_problem("cert", files["certfile"], files["keyfile"]))
    if "ca_file" in files:
        problems.extend(authority_problem("cert.clientCertCA", files["ca_file"]))
    pair: Value = {"certfile": names["certfile"], "keyfile": names["keyfile"]}
    return {"certificate": pair, "ca_file": names["ca_file"]}


def _script_logs(script_log: Section, draft: Draft, table: TomlTable) -> None:
    kept = script_log.section("storeOnDisk").section("clientManaged").section("reloadTaskFailure")
    if not kept.enabled():
        return
    table.keys["keep_script_logs"] = "30d"
    kept.used("logDirectory")
    draft.findings.differs(
        kept.key("logDirectory"),
        "script logs are kept in the folder script-logs of `data_dir`, for 30 days: [qlik] "
        "keep_script_logs",
    )
