"""What the configuration says about plugins: found, converted, and every problem in words."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from amqtt.contrib.http import RequestMethod

from appliance.broker.plugin_classes import plugin_classes, sign_in_problem
from appliance.commands.check import execute
from appliance.config.files import all_secrets, check_files
from appliance.config.reading import loads
from appliance.secret import Secret
from appliance.errors import ConfigError

ROOT = Path(__file__).parents[3]
HTTP = 'class = "amqtt.contrib.http.UserAuthHttpPlugin"'
LATER = 'class = "plugins_for_tests.Later"'


def problems(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        plugin_classes(loads(text).access)
    return str(caught.value)


def entry(*lines: str) -> str:
    return "[[access.plugins]]\n" + "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (['class = "Plain"'], "`class`: 'Plain' is not a module and a class"),
        (['class = "a b.C"'], "is not a module and a class"),
        (['class = "nowhere.at_all.Plugin"'], "there is no module nowhere; install the package"),
        (['class = "amqtt.nowhere.Plugin"'], "there is no module amqtt.nowhere in the amqtt"),
        (
            ['class = "amqtt.contrib.http.Nothing"'],
            "amqtt.contrib.http has no class Nothing; plugins in it: AuthHttpPlugin, UserAuth",
        ),
        (['class = "plugins_for_tests.NotAPlugin"'], "is no amqtt plugin"),
        (['class = "plugins_for_tests.NotAsync"'], "NotAsync.authenticate is not a coroutine"),
        ([HTTP], "`settings.host`: this key is missing"),
        (
            [HTTP, 'settings = {host = "h", port = 1, uri = "/u"}'],
            "`settings`: `uri` is not known; known here: `host`, `port`,",
        ),
        (
            [HTTP, 'settings = {host = "h", port = "1"}'],
            "`settings.port`: not of the type that is wanted (int)",
        ),
        (
            [HTTP, 'settings = {host = "h", port = 1, response_mode = "xml"}'],
            '`settings.response_mode`: write one of "status", "json", "text"',
        ),
    ],
)
def test_problems_say_what_and_where(lines: list[str], told: str) -> None:
    """Each with the number of its table; the second is told as well as the first."""
    found = problems(entry(*lines) + entry(*lines)).split("\n")
    assert [each.partition(" `")[0] for each in found] == [
        "[[access.plugins]] 1",
        "[[access.plugins]] 2",
    ]
    assert told in found[0]


@pytest.mark.parametrize(
    ("module", "name", "missing", "install"),
    [
        ("ldap", "UserAuthLdapPlugin", "ldap", "qlik-mqtt-appliance[ldap]"),
        ("jwt", "UserAuthJwtPlugin", "jwt", "qlik-mqtt-appliance[plugins]"),
        ("http", "UserAuthHttpPlugin", "aiohttp", "qlik-mqtt-appliance[plugins]"),
    ],
)
def test_a_package_that_is_missing_is_named(
    module: str, name: str, missing: str, install: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the command that brings it."""
    monkeypatch.delitem(sys.modules, f"amqtt.contrib.{module}", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)  # Python's way to say that there is none
    told = problems(entry(f'class = "amqtt.contrib.{module}.{name}"'))
    assert f"needs the module {missing}, which is not installed" in told
    assert f"pip install '{install}'" in told


def test_settings_are_converted(tmp_path: Path) -> None:
    """Choices from their text, secrets from files and the environment."""
    (tmp_path / "key.txt").write_text("from the file\n")
    text = entry(HTTP, 'settings = {host = "${HOST}", port = 1, request_method = "POST"}') + entry(
        LATER, 'settings = {secret_key_file = "key.txt", hosts = ["a", "${HOST}"]}'
    )
    config = loads(text, file=str(tmp_path / "config.toml"), environ={"HOST": "a-host"})
    http, later = plugin_classes(config.access)
    assert http.settings == {"host": "a-host", "port": 1, "request_method": RequestMethod.POST}
    assert later.settings == {"secret_key": "from the file", "hosts": ["a", "a-host"]}
    assert Secret("from the file") in all_secrets(config)


def test_what_a_variable_or_file_lacks_is_told(tmp_path: Path) -> None:
    """By the checks that all other keys have too."""
    with pytest.raises(ConfigError, match="`settings.*`secret_key`: the environment variable NO"):
        loads(entry(LATER, 'settings = {secret_key = "${NO}"}'), environ={})
    config = loads(
        entry(LATER, 'settings = {secret_key_file = "gone.txt"}'), file=str(tmp_path / "c.toml")
    )
    [told] = check_files(config)
    assert "[[access.plugins]] 1 `settings.secret_key_file`" in told
    assert "gone.txt does not exist" in told


@pytest.mark.parametrize(
    "setting",
    ['bind_password = "s3cret"', 'api_token = "s3cret"', 'secret_key = "s3cret"',
     'connection = "postgresql://user:s3cret@host/db"', 'inner = {password = "s3cret"}',
     'passwords = ["s3cret"]'],
)  # fmt: skip
def test_secrets_are_not_shown(setting: str) -> None:
    """Neither in the configuration's text form nor in messages; the log masks them."""
    config = loads(entry(LATER, f"settings = {{{setting}}}"))
    assert "s3cret" not in repr(config)
    assert any("s3cret" in each.reveal() for each in all_secrets(config))
    assert Secret("s3cret") in all_secrets(config)
    assert "s3cret" not in problems(entry(LATER, f"settings = {{{setting}, wrong = 1}}"))


def test_check_says_what_plugins_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In words, without settings; or what is wrong, with the file's name."""
    file = tmp_path / "config.toml"
    file.write_text(
        entry(LATER, 'settings = {secret_key = "s3cret"}')
        + entry('class = "plugins_for_tests.Listener"')
        + entry('class = "plugins_for_tests.Topics"')
    )

    class Options:
        config = str(file)
        connect = False

    execute(Options)  # type: ignore[arg-type]
    said = capsys.readouterr().out
    assert "clients must sign in; plugins are asked" in said
    assert "plugins_for_tests.Later is asked about clients" in said
    assert "plugins_for_tests.Listener hears events" in said
    assert "plugins_for_tests.Topics is asked about topics" in said
    assert "s3cret" not in said
    file.write_text(entry('class = "nowhere.Plugin"'))
    with pytest.raises(ConfigError, match=r"config\.toml: \[\[access\.plugins\]\] 1 `class`"):
        execute(Options)  # type: ignore[arg-type]


def test_a_listener_that_others_reach_needs_somebody_who_authenticates() -> None:
    """An event plugin is not enough, and neither is none."""
    listener = '[[listener]]\nbind = "0.0.0.0:1883"\n'
    with pytest.raises(ConfigError, match="clients must sign in"):
        loads(listener)
    for name, is_enough in (("Listener", False), ("Topics", False), ("Auth", True)):
        config = loads(listener + entry(f'class = "plugins_for_tests.{name}"'))
        classes = plugin_classes(config.access)
        problem = sign_in_problem(config.access, classes, is_loopback_only=False)
        assert (problem is None) is is_enough, name


EXAMPLES = re.findall(
    r"```toml\n(.*?)```", (ROOT / "docs" / "access.md").read_text(encoding="utf-8"), re.DOTALL
)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_examples_of_the_documentation_are_valid(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each as it stands: the classes are there and take these settings."""
    (tmp_path / "ldap.txt").write_text("secret")
    text = EXAMPLES[number]
    environ = {"MQTT_JWT_KEY": "a key of more than thirty-two bytes for HS256"}
    config = loads(text, file=str(tmp_path / "config.toml"), environ=environ)
    if "contrib.ldap" in text:
        pytest.importorskip("ldap", reason="needs python-ldap (pip install -e '.[ldap]')")
    plugin_classes(config.access)
