"""What the configuration promises: one clear line a problem, safe defaults, paths and secrets."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.config.checks import advice
from appliance.config.files import all_secrets, anonymous_allowed, check_files, read_secret
from appliance.config.reading import load, loads
from appliance.config.tables import Config, ListenerConfig, QlikConfig
from appliance.config.values import (
    format_duration,
    format_size,
    is_loopback,
    parse_bind,
    parse_duration,
    parse_size,
)
from appliance.secret import Secret
from appliance.config.checks import check
from appliance.config.problems import Problems
from appliance.config.decoder import Decoder
from appliance.errors import ConfigError
from appliance.tasks.selector import TaskSelector
from appliance.tasks.triggers import Trigger

MINIMAL = r"""
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:1883"
[access]
users_file = "users.txt"
[qlik]
edition = "client-managed"
url = "https://sense.example.com:4242"
user = 'INTERNAL\sa_repository'
certificate = {certfile = "client.pem", keyfile = "client_key.pem"}
ca_file = "root.pem"
[[trigger]]
topic = "qliksense/start_task"
task = "payload"
[[recorder]]
topic = "/demo/integers"
path = "recordings/integers.json"
format = "json"
"""
TIMER = "[[timer]]\nname = 'tick'\npublish = {topic = 'a'}\n"
CERTIFICATE = 'certificate = {certfile = "a", keyfile = "b"}\n'
MANAGED = '[qlik]\nedition = "client-managed"\nurl = "https://sense:4242"\nuser = \'D\\u\'\n'
CLOUD = '[qlik]\nedition = "cloud"\nurl = "https://t.eu.qlikcloud.com"\n'
SIMULATED = '[qlik]\nedition = "simulated"\n'
GUID = "2CE4DC25-9d8c-4d0c-8e57-7d0bd4a7ea34"


def problems(text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loads(text, environ=environ)
    return str(caught.value).split("\n")


def test_the_documented_minimal_example_means_what_it_says(tmp_path: Path) -> None:
    """The example that users are given stays valid, and its paths are where they are said to be."""
    file = tmp_path / "config.toml"
    file.write_text(MINIMAL)
    config = load(file)
    assert config.file == str(file)
    assert config.service.data_dir == str(tmp_path / "data")
    assert config.recorder[0].path == str(tmp_path / "data" / "recordings" / "integers.json")
    assert config.access.users_file == str(tmp_path / "users.txt")
    assert config.qlik is not None
    assert config.qlik.user == r"INTERNAL\sa_repository"
    assert config.qlik.ca_file == str(tmp_path / "root.pem")
    assert config.trigger[0].task == "payload"


def test_an_empty_file_is_a_safe_appliance(tmp_path: Path) -> None:
    """Without any key there is one listener, reachable from this machine only."""
    (tmp_path / "config.toml").write_text("")
    config = load(tmp_path / "config.toml")
    assert config.service.data_dir == str(tmp_path / "data")
    assert config.is_loopback_only
    assert [each.bind for each in config.listener] == ["127.0.0.1:1883"]
    assert [each.name for each in config.listener] == ["mqtt"]
    assert config.qlik is None


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    """Each wrong key has its own line that begins with the file and names table, number and key."""
    file = tmp_path / "my.toml"
    file.write_text(
        """
[service]
nmae = "x"
run_for = 10
[[listener]]
[[listener]]
bind = "127.0.0.1:1884"
max_connections = 0
[listeners]
[[access.rule]]
[[access.rule]]
publish = ["ok", "a/#/b"]
[journal]
sync = "alwyas"
max_size = "many"
[[recorder]]
format = "xml"
topic = "a"
""",
    )
    with pytest.raises(ConfigError) as caught:
        load(file)
    lines = str(caught.value).split("\n")
    assert all(line.startswith(f"{file}: ") for line in lines)
    said = [line.removeprefix(f"{file}: ") for line in lines]
    assert sorted(said) == sorted(
        [
            "[listeners]: this table is not known; did you mean [[listener]]?",
            "[service] `nmae`: this key is not known; did you mean `name`?",
            '[service] `run_for`: value 10: a duration has a unit; write for example "10s"',
            "[[listener]] 2 `max_connections`: value 0: too small; the minimum is 1",
            '[[access.rule]] 2 `publish[2]`: value "a/#/b": not a topic filter: # stands alone and '
            "as the last level: plant/#",
            '[journal] `sync`: value "alwyas": did you mean "always"?',
            '[journal] `max_size`: value "many": not a size; write for example "64KB", "1MiB" or '
            '"10GB"',
            '[[recorder]] 1 `format`: value "xml": write one of "json", "jsonl", "csv", "parquet", "qvd"',
            "[[recorder]] 1 `path`: this key is missing; write for example "
            'path = "recordings/integers.json"',
        ]
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[qlik]\nuser = "INTERNAL\\sa"', "line 2, column 19.*single quotes"),
        ("[service]\nname = x", "line 2, column 8.*write text in quotes"),
        ("[service\n", "line 1, column 9"),
        ("a = 1\na = 2", "line 2"),
        ("a = " + "[" * 5000, "nested|recursion|line 1"),
    ],
    ids=["backslash", "no quotes", "bracket", "twice", "nested"],
)
def test_a_syntax_error_has_line_column_and_fix(text: str, said: str) -> None:
    """Who mistypes TOML is told where and how to write it."""
    [line] = problems(text)
    assert re.search(said, line), line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("listener = []", "no client could connect"),
        ("[listener]\nbind = '127.0.0.1:1'", r"write \[\[listener\]\]"),
        ("[[service]]\nname = 'x'", r"write \[service\] with single"),
        ("service = 3", r"write \[service\] above"),
        ("[service]\nname = 'a/b'", "one level of a topic"),
        ("[service]\nname = '$SYS'", "belong to the broker"),
        ("[service]\nname = 'a+'", "no wildcards"),
        ("[service]\nname = ''", "at least one character"),
        ("[service]\nlog_level = 'LOUD'", 'write one of "debug", "info"'),
        ("[service]\nrun_for = '0s'", "the minimum is 1ms"),
        ("[service]\ndata_dir = ''", "can't be empty"),
        ("[[listener]]\nbind = '1883'", 'write "host:port"'),
        ("[[listener]]\nbind = '::1:1883'", r"\[::1\]:1883"),
        ("[[listener]]\nbind = '127.0.0.1:99999'", "0 to 65535"),
        ("[[listener]]\nbind = '*:1883'", "0.0.0.0"),
        ("[[listener]]\n[[listener]]\n", r"2 `bind`.*listener\]\] 1 has this port"),
        ("[[listener]]\nname='a'\n[[listener]]\nname='a'\nbind='127.0.0.1:2'", "2 `name`.*taken"),
        ("[[listener]]\nbind = '0.0.0.0:1883'", "1 `bind`.*clients must sign in.*users_file"),
        ("[[listener]]\nbind = 'plc.local:1883'", "clients must sign in"),
        ("[access]\nanonymous = true\n[[listener]]\nbind = '[::]:1'", "`anonymous`.*remove"),
        ("[[listener]]\ntls = {certfile = 'x'}", "`tls.keyfile`: this key is missing"),
        ("[[listener]]\ntls = true", "table in braces"),
        (
            "[[listener]]\ntls = {certfile = 'x', keyfile = 'x', crl_file = 'x'}",
            "`tls.crl_file`.*add `client_ca`",
        ),
        (
            "[[listener]]\ntls = {certfile = 'x', keyfile = 'x', identity_as_username = true}",
            "`tls.identity_as_username`.*add `client_ca`",
        ),
        ("[limits]\nmax_packet_size = '1GB'", "too large; the maximum is"),
        ("[limits]\nmax_packet_size = '12XB'", "not a size"),
        ("[limits]\nmax_inflight_per_client = true", "whole number"),
        ("[access]\nanonymous = 'yes'", "true or false"),
        ("[access]\nrule = 'x'", "`rule`"),
        (
            "[[trigger]]\ntopic='a'\ntask='payload'",
            r"\[\[trigger\]\] 1: no Qlik server is configured",
        ),
        (f"{SIMULATED}[[trigger]]\ntopic='a'\ntask='Reload Sales'", r'\{name = "Reload Sales"\}'),
        (f"{SIMULATED}[[trigger]]\ntopic='a'\ntask='Payload'", 'did you mean "payload"'),
        (f"{SIMULATED}[[trigger]]\ntopic='a'\ntask='topic'", "exactly one"),
        (f"{SIMULATED}[[trigger]]\ntopic='a/+/+'\ntask='topic'", "exactly one"),
        (f"{SIMULATED}[[trigger]]\ntopic='a'\ntask={{nam='x'}}", "write one of"),
        (f"{SIMULATED}[[trigger]]\ntopic='a'\ntask={{name=''}}", "finds nothing"),
        (f"{SIMULATED}[[trigger]]\ntopic='a'\ntask={{name=3}}", "texts in quotes"),
        (f"{SIMULATED}[[trigger]]\ntopic='a'\ntask=3", "braces, for example"),
        (f"{SIMULATED}[[trigger]]\ntopic=''\ntask='payload'", "at least one character"),
        (
            f"{SIMULATED}[[trigger]]\ntopic='a'\ntask='payload'\ndebounce_max='1s'",
            "`debounce`, which is missing",
        ),
        (
            f"{SIMULATED}[[trigger]]\ntopic='a'\ntask='payload'\ndebounce='1m'\ndebounce_max='1s'",
            "shorter than `debounce`",
        ),
        (
            f"{SIMULATED}[[trigger]]\ntopic='a'\ntask='payload'\ndebounce='1m'\nfresh_within='1m'",
            "so the data would always be late",
        ),
        (
            f"{SIMULATED}[[trigger]]\ntopic='a'\ntask='payload'\nfresh_within='1m'\n"
            "[[trigger]]\ntopic='a'\ntask={name='x'}",
            "`fresh_within`, which counts by the name",
        ),
        (f"{MANAGED}", "no way to sign in"),
        (f"{MANAGED}{CERTIFICATE}[allow]\ntasks = ['673f0c21a7d94e5b8c10f2bb']", "not a task id"),
        (f"{MANAGED}{CERTIFICATE}ntlm = true\npassword='x'", "keep one of them"),
        (f"{MANAGED}ntlm = true", "NTLM needs the password"),
        (f"{MANAGED}{CERTIFICATE}api_key = 'k'", 'edition = "cloud"'),
        (f"{MANAGED}{CERTIFICATE}password='x'\npassword_file='y'", "keep one of the two"),
        (f"{MANAGED}header = {{name = 'a: b'}}", "name of an HTTP header"),
        (
            f"{MANAGED}{CERTIFICATE}[[trigger]]\ntopic='a'\ntask={{app='x'}}\nvariables={{a='1'}}",
            "takes no variables",
        ),
        (
            f"{CLOUD}api_key_file = 'k'\n[[trigger]]\ntopic='a'\ntask={{app='x'}}\n"
            + "variables={"
            + ", ".join(f"v{one} = 'x'" for one in range(21))
            + "}",
            "at most 20",
        ),
        (
            f"{CLOUD}api_key_file = 'k'\n[[trigger]]\ntopic='a'\ntask={{app='x'}}\n"
            f"variables={{a='{'x' * 257}'}}",
            "at most 256",
        ),
        (
            f"{SIMULATED}[[trigger]]\ntopic='a'\ntask='payload'\nvariables={{a=1}}",
            "texts in quotes",
        ),
        (
            f"{SIMULATED}[[timer]]\nname='a'\nevery='1h'\npublish={{topic='x'}}\npartial=true",
            "`task` is missing",
        ),
        (f"{MANAGED.replace('https', 'http')}{CERTIFICATE}", "write https://"),
        (f"{MANAGED.replace('https://sense:4242', 'sense')}{CERTIFICATE}", "not an address"),
        (f"{MANAGED.replace('https://', 'https://me:pw@')}{CERTIFICATE}", r"value \(not shown\)"),
        ('[qlik]\nedition = "client-managed"\nurl="https://x"\n' + CERTIFICATE, "`user`.*missing"),
        (MANAGED.replace("D\\u", "u") + CERTIFICATE, "directory, backslash, name"),
        (CLOUD, "no way to sign in"),
        (CLOUD + "client_id = 'x'", "`client_secret_file`.*missing"),
        (CLOUD + "client_id = 'x'\napi_key = 'y'", "keep one of them"),
        (CLOUD + "api_key = 'y'\nntlm = true", "client-managed"),
        ('[qlik]\nedition = "cloud"\napi_key = "y"', "`url`.*missing"),
        ("[qlik]\nedition = 'server'", "write one of"),
        ("[qlik]\nurl = 'https://x'", "`edition`: this key is missing"),
        ("[allow]\ntasks = ['Reload']", "not a task id"),
        ("[allow]\nproperties = [{property = 'x'}]", r"`properties\[1\].value`"),
        (
            "[[recorder]]\ntopic='a'\npath='x.json'\n[[recorder]]\ntopic='b'\npath='y/../x.json'",
            r"\[\[recorder\]\] 1 writes this file",
        ),
        ("[[recorder]]\ntopic='a'\npath='.'", "this is `data_dir`; write for example"),
        (f"{TIMER}every='0.5s'", "`every`.*too small; the minimum is 1s"),
        (f"{TIMER}", '`every`: this key is missing; write for example every = "15m"'),
        (f"{TIMER}every='1m'\ncron='* * * * *'", "`every`: `cron` says when, too"),
        (f"{TIMER}cron='* * * *'", "`cron`.*five fields"),
        (f"{TIMER}cron='61 * * * *'", "`cron`.*bad minute.*five fields"),
        (f"{TIMER}cron='0 0 30 2 *'", "`cron`.*(never|bad)"),
        (f"{TIMER}cron='* * */20 * 1L'", "`cron`.*never comes"),
        (f"{TIMER}cron='* * * * * *'", "`cron`.*five fields"),
        (f"{TIMER}cron='* * * * *'\ntimezone='../../etc/passwd'", "`timezone`.*Europe/Berlin"),
        (f"{TIMER}cron='* * * * *'\ntimezone='Europe/Berlim'", "`timezone`.*Europe/Berlin"),
        (f"{TIMER}every='1m'\nevry='1m'", "`evry`: this key is not known; did you mean `every`"),
        (f"{TIMER}every='1m'\ntopic='a'", "`topic`: it belongs to `silence`"),
        (f"{TIMER}silence='1m'\ntopic='a#'", "`topic`.*not a topic filter"),
        (f"{TIMER}silence='1m'", "`topic`: this key is missing; `silence` needs it"),
        (f"{TIMER.replace('tick', 't/ck')}every='1m'", "`name`.*letters, digits"),
        (f"{TIMER}every='1m'\n{TIMER}every='1m'", r"\[\[timer\]\] 2 `name`.*taken"),
        ("[[timer]]\nname='a'\nevery='1m'", "does nothing"),
        ("[[timer]]\nname='a'\nevery='1m'\npublish={topic='#'}", "`publish.topic`"),
        (f"[[timer]]\nname='a'\nevery='1m'\ntask='{GUID}'", "no Qlik server is configured"),
        (f"{SIMULATED}[[timer]]\nname='a'\nevery='1m'\ntask='payload'", "not a task id"),
        ("[metrics]\nbind='0.0.0.0:9464'", '"127.0.0.1:9464", or add remote = true'),
        ("[metrics]\nbind='127.0.0.1:1883'", r"\[\[listener\]\] 1 has this port"),
        ("[metrics]\nbind='9464'", "not an address"),
        ("[http]\nbind='127.0.0.1:1883'", r"\[\[listener\]\] 1 has this port"),
        ("[http]\nbind='127.0.0.1:80'\n[metrics]\nbind='127.0.0.1:80'", r"\[http\] has this port"),
        ("[http]\nbind='8080'", "not an address"),
        ("[http]\nbind='0.0.0.0:8080'", "clients must sign in; add .*users_file"),
        (
            "[access]\nusers_file='u'\nanonymous=true\n[http]\nbind='0.0.0.0:8080'",
            r"\[http\] .*can be reached from other machines; remove `anonymous`",
        ),
        ("[ui]\nkeys = {pause = ['f5']}", "texts in quotes within the braces"),
        ("[qlick]\nurl = 'x'", r"did you mean \[qlik\]"),
        ("[[bridge]]\nhost = 'x'", r"\[\[bridge\]\] 1 `name`: this key is missing"),
        ("[[zebra]]\nhost = 'x'", r"\[\[zebra\]\]: .*not known; known here: "),
    ],
)
def test_a_mistake_is_named_with_its_fix(text: str, said: str) -> None:
    """One mistake gives one line that says what to write instead."""
    [line] = problems(text)
    assert re.search(said, line), line


@pytest.mark.parametrize(
    "text",
    [
        f"{MANAGED}{CERTIFICATE}",
        f"{MANAGED}ntlm = true\npassword_file = 'p'",
        f"{MANAGED}header = {{name = 'hdr-usr'}}",
        f"{MANAGED}jwt_file = 'j'",
        f"{MANAGED.replace('https://sense:4242', 'http://127.0.0.1:4242')}{CERTIFICATE}",
        CLOUD + "api_key_file = 'k'\n[[trigger]]\ntopic='a'\ntask={app='x'}\nvariables={v='1'}",
        f"{MANAGED}{CERTIFICATE}[[trigger]]\ntopic='a'\ntask={{app='x'}}\npartial=true",
        CLOUD + "client_id = 'x'\nclient_secret_file = 'y'",
        f"{SIMULATED}[[trigger]]\ntopic='a/+'\ntask='topic'",
        f"{SIMULATED}[[trigger]]\ntopic='a'\ntask='{{{GUID}}}'",
        f"{SIMULATED}[[trigger]]\ntopic='a'\ntask={{property='p', value='v'}}\nwhen={{a=1}}",
        "[[listener]]\nbind='127.0.0.1:0'\n[[listener]]\nbind='127.0.0.1:0'",
        "[[listener]]\nbind='127.0.0.1:1'\n[[listener]]\nbind='[::1]:1'",
        "[access]\nusers_file='u'\n[[listener]]\nbind='0.0.0.0:1883'",
        f"{TIMER}every='1m'\ncatch_up=true",
        f"{TIMER}cron='30 6 * * MON-FRI'\ntimezone='Europe/Berlin'",
        f"{SIMULATED}[[timer]]\nname='a'\nevery='1s'\ntask={{name='x'}}",
        "[[timer]]\nname='a b-c_d.e'\nsilence='1m'\ntopic='a/#'",
        "[metrics]\nbind='0.0.0.0:9464'\nremote=true",
        "[access]\nusers_file='u'\n[http]\nbind='0.0.0.0:8080'",
        "[metrics]\nbind='127.0.0.1:0'\n[ui]\ntheme='x'\n[ui.keys]\npause='f5,space'",
        f"{CLOUD}api_key='k'\n[[trigger]]\ntopic='a'\ntask='673f0c21a7d94e5b8c10f2bb'",
        f"{CLOUD}api_key='k'\n[allow]\ntasks=['673f0c21a7d94e5b8c10f2bb']",
    ],
)
def test_what_the_documentation_allows_is_accepted(text: str) -> None:
    """Every documented way to sign in, to name a task and to bind is valid."""
    config = loads(text)
    assert len({each.name for each in config.listener}) == len(config.listener)


def test_a_task_written_as_a_guid_is_the_same_in_any_form() -> None:
    """Braces and capitals of a task id make no difference."""
    config = loads(f"{SIMULATED}[[trigger]]\ntopic='a'\ntask='{{{GUID}}}'")
    assert Trigger(config.trigger[0], 1).fixed == TaskSelector("id", GUID.lower())


def test_credentials_of_the_packaged_unit_need_no_variable(monkeypatch) -> None:
    """An administrator's command, which systemd gives no variable, reads the same configuration as
    the service: the credentials are where systemd keeps them. A variable that is set counts."""
    text = MINIMAL.replace("client_key.pem", "${CREDENTIALS_DIRECTORY}/secret_client_key.pem")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    keyfile = Path(loads(text).qlik.certificate.keyfile)
    assert keyfile.parts[-4:] == (
        "run",
        "credentials",
        "appliance.service",
        "secret_client_key.pem",
    )
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(Path("/elsewhere").absolute()))
    assert Path(loads(text).qlik.certificate.keyfile).parts[-2:] == (
        "elsewhere",
        "secret_client_key.pem",
    )


def test_secrets_come_from_the_environment_and_are_never_shown() -> None:
    """A secret stands in no text form of the configuration and in no error about it."""
    config = loads(CLOUD + "api_key = '${KEY}'", environ={"KEY": "hunter2"})
    assert config.qlik is not None
    assert config.qlik.api_key == Secret("hunter2")
    assert "hunter2" not in repr(config) + str(config.qlik.api_key)
    [line] = problems(CLOUD + "api_key = '${KEY}hunter3'")
    assert "KEY is not set" in line
    assert "hunter3" not in line
    [line] = problems(CLOUD + "client_id='a'\nclient_secret = ['hunter4']")
    assert "hunter4" not in line


def test_a_secret_file_may_end_with_a_line_break(tmp_path: Path) -> None:
    """A secret written with an editor is read without the blanks around it."""
    file = tmp_path / "secret"
    file.write_text("  hunter2\r\n")
    secret = read_secret(None, str(file))
    assert secret == Secret("hunter2")
    assert read_secret(Secret("first"), str(file)) == Secret("first")
    assert read_secret(None, None) is None
    file.write_text("\n")
    with pytest.raises(ConfigError, match="is empty"):
        read_secret(None, str(file))
    with pytest.raises(ConfigError, match="can't be read"):
        read_secret(None, str(tmp_path / "missing"))


def test_the_log_is_told_every_secret(tmp_path: Path) -> None:
    """A secret can be masked in each way to configure it; a missing file is another check's business."""
    (tmp_path / "jwt.txt").write_text("from-a-file\n")
    text = MANAGED + "header = {name = 'h', value = '${H}'}\n"
    config = loads(text, environ={"H": "from-the-environment"})
    assert all_secrets(config) == (Secret("from-the-environment"),)
    config = loads(f"{MANAGED}jwt_file = 'jwt.txt'", file=str(tmp_path / "config.toml"))
    assert all_secrets(config) == (Secret("from-a-file"),)
    assert all_secrets(loads(f"{MANAGED}jwt_file = 'missing.txt'")) == ()
    assert all_secrets(loads("")) == ()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\xff\xfe[\x00", "save it as UTF-8"),
        (b"# ok\n# gr\xfc\xdfe\n", "line 2: byte 0xfc is not UTF-8"),
        (b"#" * (10 * 1024 * 1024 + 1), "longer than 10 MiB"),
    ],
    ids=["utf-16", "latin-1", "huge"],
)
def test_a_file_that_is_no_utf8_text_is_named(tmp_path: Path, data: bytes, said: str) -> None:
    """What Windows editors and mistaken names hand us is told apart."""
    file = tmp_path / "config.toml"
    file.write_bytes(data)
    with pytest.raises(ConfigError, match=said):
        load(file)


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    """A file saved by Notepad is read."""
    file = tmp_path / "config.toml"
    file.write_bytes(b'\xef\xbb\xbf[service]\r\nname = "plant"\r\n')
    assert load(file).service.name == "plant"


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    """A user without a configuration is told the command that writes one."""
    with pytest.raises(ConfigError, match="appliance init"):
        load(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="not a file"):
        load(tmp_path)


def test_files_that_keys_name_are_looked_at_on_demand(tmp_path: Path) -> None:
    """Loading opens nothing; the check names every missing file with its key."""
    file = tmp_path / "config.toml"
    file.write_text(
        MINIMAL
        + '[[listener]]\nbind = "127.0.0.1:8883"\ntls = {certfile = "s.pem", keyfile = "k.pem"}\n'
    )
    config = load(file)
    found = check_files(config)
    keys = ["tls.certfile", "tls.keyfile", "certificate.certfile", "certificate.keyfile", "ca_file"]
    assert [re.search(r"`(.*?)`", each)[1] for each in found] == keys
    for name in ("s.pem", "k.pem", "client.pem", "client_key.pem"):
        (tmp_path / name).write_text("x")
    (tmp_path / "root.pem").mkdir()
    [line] = check_files(config)
    assert "is a folder" in line


@pytest.mark.parametrize(
    ("table", "keys"),
    [
        (f"{SIMULATED}[[trigger]]\ntopic='a'\nexpire='5'\ntask='b'", ["expire", "task"]),
        (
            f"{SIMULATED}[[trigger]]\ntopic='a'\nexpire='5'\ntask='payload'\ndebounce_max='1s'",
            ["expire", "debounce_max"],
        ),
        ("[[recorder]]\ntopic='a#'\npath='tasks.db'", ["topic", "path"]),
        ("[[listener]]\nbind='here'\nmax_connections=0", ["max_connections", "bind"]),
        (
            f"{TIMER}cron='* *'\ncatch_up=1\ntimezone='X'",
            ["catch_up", "timezone", "cron"],
        ),
        (f"{MANAGED.replace('https', 'http')}{CERTIFICATE}timeout=5", ["timeout", "url"]),
    ],
)
def test_one_mistake_does_not_hide_another_in_its_table(table: str, keys: list[str]) -> None:
    """A table with two mistakes is corrected in one go."""
    said = [re.search("`(.*?)`", line)[1] for line in problems(table)]
    assert said == keys


@pytest.mark.parametrize(
    ("table", "key"),
    [
        (f"{SIMULATED}[[trigger]]\ntopic='a#'\ntask='topic'", "topic"),
        (
            f"{SIMULATED}[[trigger]]\ntopic='a'\ntask='payload'\ndebounce=5\ndebounce_max='1s'",
            "debounce",
        ),
        (f"{TIMER}every=5\n", "every"),
        (f"{TIMER}silense='5m'\ntopic='a'", "silense"),
        ("[[notify]]\nurl=5", "url"),
    ],
)
def test_a_mistake_is_not_told_again_by_what_follows_from_it(table: str, key: str) -> None:
    """One mistake is one line, also when another key is judged by it."""
    [line] = problems(table)
    assert f"`{key}`" in line


@pytest.mark.parametrize(
    "path",
    [
        "journal.db",
        "JOURNAL.db-wal",
        "journal.db-shm",
        "journal.db.high",
        "tasks.db",
        "recorders.db",
        "sub/../recorders.db-wal",
        "appliance.lock",
        "health.json",
        "ui.json",
        "logs/appliance.log",
        "logs/mine.json",
        "../my.toml",
        "../users.txt",
        "../root.pem",
        "..",
    ],
)
def test_no_recorder_writes_what_the_appliance_keeps_or_reads(tmp_path: Path, path: str) -> None:
    """A slip in `path` can not cost the journal, the users or a key: the file is refused."""
    file = tmp_path / "my.toml"
    file.write_text(MINIMAL.replace("recordings/integers.json", path))
    with pytest.raises(ConfigError) as caught:
        load(file)
    [line] = str(caught.value).split("\n")
    assert "[[recorder]] 1 `path`: value " in line
    assert "write for example" in line


@pytest.mark.skipif(sys.platform != "win32", reason="names that Windows alone reserves")
@pytest.mark.parametrize("path", ["con.json", "AUX", "recordings/nul.csv", "recordings/a:b.json"])
def test_a_recording_has_no_name_that_windows_reserves(path: str) -> None:
    """Such a recording would go to a console, into a hidden stream or nowhere."""
    with pytest.raises(ConfigError, match="Windows has for no file"):
        loads(MINIMAL.replace("recordings/integers.json", path))


@pytest.mark.parametrize("path", ["journal.json", "a/journal.db.json", "logs.csv", "../other.json"])
def test_a_recording_may_be_named_much_like_a_file_of_the_appliance(path: str) -> None:
    """Only the very files are refused."""
    loads(MINIMAL.replace("recordings/integers.json", path))


def test_folders_devices_and_second_names_are_no_recordings(tmp_path: Path) -> None:
    """The check looks which file it really is, and never takes a folder for a file."""
    (tmp_path / "data" / "folder").mkdir(parents=True)
    users = tmp_path / "users.txt"
    users.write_text("")
    (tmp_path / "data" / "same.json").hardlink_to(users)
    paths = {
        "folder": "this is a folder",
        "same.json": "this is the file of [access] `users_file`",
    }
    if sys.platform != "win32":  # there its name is refused before anything is opened
        paths[os.devnull] = "this is a device"
    refused(tmp_path, {**paths, "fine.json": ""})


@pytest.mark.not_in_wine("Wine 8 makes no symbolic links")
def test_links_to_the_appliance_s_files_are_no_recordings(tmp_path: Path) -> None:
    """The check looks where a path really leads."""
    (tmp_path / "data").mkdir()
    users = tmp_path / "users.txt"
    users.write_text("")
    (tmp_path / "data" / "link.json").symlink_to("journal.db")
    (tmp_path / "data" / "users.json").symlink_to(users)
    refused(
        tmp_path,
        {
            "link.json": "this is a database of the appliance",
            "users.json": "this is the file of [access] `users_file`",
        },
    )


def refused(tmp_path: Path, paths: dict[str, str]) -> None:
    """Recorders with these paths are refused for these reasons, in this order."""
    recorders = "".join(f"[[recorder]]\ntopic = 'a'\npath = '{path}'\n" for path in paths)
    (tmp_path / "config.toml").write_text(f"[access]\nusers_file = 'users.txt'\n{recorders}")
    found = check_files(load(tmp_path / "config.toml"))
    said = [text for text in paths.values() if text]
    assert len(found) == len(said)
    for number, (line, text) in enumerate(zip(found, said, strict=True), 1):
        assert f"[[recorder]] {number} `path`: value " in line
        assert text in line


def test_anonymous_only_while_nobody_else_could_come_in(tmp_path: Path) -> None:
    """Without users, loopback clients need no password; with a users file everybody needs one."""
    users = tmp_path / "users.txt"
    text = f"[access]\nusers_file = '{users.as_posix()}'\n"
    assert anonymous_allowed(loads(""))
    assert anonymous_allowed(loads(text))
    assert not anonymous_allowed(loads("[access]\nanonymous = false"))
    outside = text + "[[listener]]\nbind = '0.0.0.0:1883'"
    assert not anonymous_allowed(loads(outside))
    [line] = check_files(loads(outside))
    assert "no client could sign in" in line
    users.write_text("")
    assert not anonymous_allowed(loads(text))


def test_what_is_allowed_and_unwise_is_said() -> None:
    """Passwords over an open network are allowed, and the check says what that means. So is an event
    log on a system that has none."""
    event_log = "[service]\nevent_log=true\n"
    config = loads(
        event_log + "[access]\nusers_file='u'\n[[listener]]\nbind='0.0.0.0:1883'\n" + SIMULATED
    )
    text = "\n".join(advice(config))
    assert "unencrypted" in text
    assert "simulated" in text
    assert ("event_log" in text) == (sys.platform != "win32")


@given(st.integers(0, 10**12))
def test_a_duration_shown_is_a_duration_read(milliseconds: int) -> None:
    """What the appliance prints as a duration can be written into the file."""
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=0.0005)


@given(st.integers(0, 2**62))
def test_a_size_shown_is_a_size_read(size: int) -> None:
    """What the appliance prints as a size can be written into the file."""
    shown = format_size(size)
    assert parse_size(shown) == size or size > 2**53


@given(st.text(max_size=20))
def test_odd_values_are_refused_with_a_sentence(text: str) -> None:
    """Any text in place of a duration, size or address: a value or a ValueError."""
    for parse in (parse_duration, parse_size, parse_bind):
        try:
            parse(text)
        except ValueError as error:
            assert len(str(error)) > 10


_TOML = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "bind",
                    "tls",
                    "rule",
                    "topic",
                    "task",
                    "edition",
                    "x",
                    "path",
                    "value",
                    "name",
                    "host",
                    "subscribe",
                    "publish",
                    "remove_prefix",
                    "version",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from([*Config.__struct_fields__, "y"]), _TOML, max_size=4))
def test_no_document_makes_a_traceback(document: dict[str, object]) -> None:
    """Any TOML at all is a configuration or a ConfigError, never another exception."""
    found = Problems("f")
    config = Decoder(found, "/", {}).decode(document)
    check(config, found)
    try:
        found.raise_if_any()
    except ConfigError as error:
        assert all(line.startswith("f: ") for line in str(error).split("\n"))
    else:
        advice(config)


@pytest.mark.parametrize(
    ("host", "inside"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True),
     ("0.0.0.0", False), ("::", False), ("192.168.1.5", False), ("example.com", False)],
)  # fmt: skip
def test_loopback_is_what_no_other_machine_reaches(host: str, inside: bool) -> None:
    """The rule that decides about anonymous access knows loopback addresses."""
    assert is_loopback(host) is inside


def test_parts_can_be_made_by_hand_for_other_tests() -> None:
    """The structs are plain values: equal when equal, not to be changed."""
    assert ListenerConfig(bind="127.0.0.1:0") == ListenerConfig(bind="127.0.0.1:0")
    with pytest.raises(AttributeError):
        QlikConfig(edition="simulated").url = "x"
    assert msgspec.structs.replace(Config(), file="x").file == "x"


@pytest.mark.posix("home folders and absolute paths have another form there")
def test_a_path_may_begin_with_the_home_folder_or_a_variable(tmp_path: Path) -> None:
    """`~` and ${NAME} work in paths, so that service managers can pass credentials' folders."""
    config = loads(
        f"{MANAGED}jwt_file = '${{CREDENTIALS}}/jwt'\nca_file = '~/root.pem'",
        environ={"CREDENTIALS": "/run/c"},
    )
    assert config.qlik is not None
    assert config.qlik.jwt_file == "/run/c/jwt"
    assert config.qlik.ca_file == str(Path.home() / "root.pem")


@pytest.mark.parametrize(
    "text",
    [
        '[service]\ndata_dir = "C:\\new\\tables"',
        '[[recorder]]\ntopic = "a"\npath = "C:\\recordings\\new.json"',
        '[access]\nusers_file = "C:\\backup\\users.txt"',
    ],
)
def test_a_path_with_an_escape_is_told_with_the_fix(text: str) -> None:
    """A backslash in double quotes made a line feed, tab or backspace of a letter."""
    with pytest.raises(ConfigError, match="single quotes") as caught:
        loads(text)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("topic", ["$SYS/x", "$desk/reply/a", "appliance/status", "appliance"])
def test_a_timer_does_not_publish_in_the_appliances_name(topic: str) -> None:
    """The broker's and the appliance's own topics are refused."""
    text = f"[[timer]]\nname = 'a'\nevery = '1h'\npublish = {{topic = '{topic}'}}"
    with pytest.raises(ConfigError, match="another topic"):
        loads(text)
