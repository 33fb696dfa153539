"""What becomes of a configuration of Butler: ``appliance init --from-butler``."""

from __future__ import annotations

import re
import stat
import sys
from pathlib import Path
from typing import Any

import certificates
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance import cli
from appliance.config import butler_cron as cron
from appliance.commands.from_butler.convert import Converted, convert, convert_document
from appliance.commands.from_butler.yaml_tree import Item, parse_yaml
from appliance.config.reading import load, loads
from appliance.config.tables import Config
from appliance.errors import ConfigError
from appliance.tasks import notify_urls

# Apprise imports deprecated modules on some Python versions.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

DATA = Path(__file__).parents[2] / "data" / "butler"
FULL = (DATA / "full.yaml").read_text("utf-8")
A, B, C = (f"4f8d2c11-7a35-4c0e-9b61-2d9f0e6b7a0{n}" for n in (1, 2, 3))
GUID = "4f8d2c11-7a35-4c0e-9b61-2d9f0e6b7a09"
MQTT = """
Butler:
  mqttConfig:
    enable: true
    brokerHost: broker.example.com
    brokerPort: 1884
    subscriptionRootTopic: plant/#
    taskStartTopic: plant/start
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Butler's folder, with its configuration, schedules and certificates."""
    folder = tmp_path / "butler"
    (folder / "config").mkdir(parents=True)
    for file in DATA.glob("*.yaml"):
        (folder / "config" / file.name).write_bytes(file.read_bytes())
    certificates.make(folder / "certificates")
    return folder


def converted(folder: Path, text: str) -> tuple[Config, Converted]:
    source = folder / "production.yaml"
    source.write_text(text, "utf-8")
    made = convert(source, folder / "new.toml")
    return loads(made.text, file=str(folder / "new.toml")), made


@pytest.fixture(scope="module")
def butler() -> Item:
    """The full configuration, read once."""
    return parse_yaml(FULL, "full.yaml")


def test_a_full_configuration_becomes_one_that_check_accepts(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Broker, topics, Qlik server, filter, schedules, receivers and calls: each has its table."""
    monkeypatch.chdir(site)
    assert cli.main(["init", "--from-butler", "config/full.yaml", "appliance.toml"]) == 0
    out = capsys.readouterr().out
    assert "1 [[bridge]]" in out and "3 [[outcome]]" in out and "2 [[timer]]" in out
    assert cli.main(["check", "-c", "appliance.toml"]) == 0
    config = load("appliance.toml")

    bridge = config.bridge[0]
    assert (bridge.host, bridge.used_port) == ("broker.example.com", 1883)
    assert [each.topic for each in bridge.subscribe] == ["qliksense/#"]
    assert {each.topic for each in bridge.publish} == {each.topic for each in config.outcome}
    assert [(each.topic, each.task) for each in config.trigger] == [
        ("qliksense/start_task", "payload")
    ]
    assert {(each.form, each.topic) for each in config.outcome} == {
        ("task_failure", "qliksense/task_failure"),
        ("task_failure_full", "qliksense/task_failure_full"),
        ("task_aborted", "qliksense/task_aborted"),
    }

    assert config.qlik is not None and config.qlik.certificate is not None
    assert config.qlik.edition == "client-managed"
    assert config.qlik.url == "https://sense.example.com:4242"
    assert config.qlik.user == "Internal\\sa_repository"
    assert Path(config.qlik.certificate.certfile) == site / "certificates" / "client.pem"
    assert Path(config.qlik.certificate.keyfile) == site / "certificates" / "client_key.pem"
    assert Path(config.qlik.ca_file or "") == site / "certificates" / "root.pem"
    assert config.qlik.keep_script_logs == 30 * 86400

    assert set(config.allow.tasks) == {A, B, C}  # the schedules start A and B
    assert config.allow.tags == ("startTask1",)
    assert [(each.property, each.value) for each in config.allow.properties] == [
        ("taskGroup", "tasks1")
    ]
    assert config.http.bind == "127.0.0.1:8080"
    assert config.http.butler
    assert config.service.log_level == "debug"


def test_each_kind_of_notice_goes_to_its_receivers(site: Path) -> None:
    """Mail, Slack, Teams and webhooks keep event, limit, custom properties, owners and title."""
    made = convert(site / "config" / "full.yaml", site / "new.toml")
    config = loads(made.text, file=str(site / "new.toml"))
    names = {Path(each.url_file or "").stem: each for each in config.notify}
    failed = names["notify_mail_failed"]
    assert failed.on == ("failed",)
    assert failed.to_property == "Butler_FailedAlertSendToEmail"
    assert failed.to_owner
    assert failed.every == 600
    assert failed.title == 'Reload failed: "{task}"'
    address = made.secrets["notify_mail_failed.txt"]
    assert address.startswith("mailtos://mail.example.com:587/")
    assert "mode=starttls" in address
    assert "to=anna%40example.com%2Cbert%40example.com" in address
    assert "pass=SECRET%26%2Fmail%3Fword" in address

    assert (failed.owners, failed.not_owners) == ((), ())
    aborted = names["notify_mail_aborted"]
    assert aborted.to_owner and aborted.owners == ("PLANT\\anna",)
    assert aborted.not_owners == ("PLANT\\bert",)
    assert "bert" not in made.secrets["notify_mail_aborted.txt"]
    # With Butler the custom property decides about the common receivers alone.
    common, personal = names["notify_mail_succeeded"], names["notify_mail_succeeded_2"]
    assert [(each.property, each.value) for each in common.properties] == [
        ("Butler_SuccessAlertEnableEmail", "Yes")
    ]
    assert common.to_property == "" and personal.properties == ()
    assert personal.to_property == "Butler_SuccessAlertSendToEmail"

    assert made.secrets["notify_slack_failed.txt"].startswith("slack://Qlik%20Sense@T1JJ3T3L2/")
    assert "%23sense-task-failure" in made.secrets["notify_slack_failed.txt"]
    assert names["notify_slack_failed"].log == "none"
    assert "logic.azure.com" in made.secrets["notify_teams_failed.txt"]
    assert made.secrets["notify_webhook_failed.txt"] == (
        "jsons://tickets.example.com:8443/new?method=POST&-token=SECRET-ticket\n"
    )
    assert made.secrets["notify_webhook_failed_2.txt"].startswith("form://bell.example.com/ring?")


@pytest.mark.parametrize(
    ("recipients", "to", "said"),
    [
        ("[Anna B <a@example.com>, b@example.com]", "a%40example.com%2Cb%40example.com", ""),
        ("b@example.com; c@example.com", "b%40example.com%2Cc%40example.com", ""),
        ("['<Email address 1>', '']", "", "nobody is left"),
        ("[nobody]", "", "no e-mail address"),
    ],
)
def test_receivers_of_mail_are_found_or_the_event_is_listed(
    recipients: str, to: str, said: str, tmp_path: Path
) -> None:
    """A mail program takes a name and several addresses in a value. No mail is no silence."""
    _, made = converted(
        tmp_path,
        f"""{MQTT}
  emailNotification:
    enable: true
    reloadTaskFailure:
      enable: true
      rateLimit: 60
      tailScriptLogLines: 5
      fromAddress: q@example.com
      recipients: {recipients}
    smtp:
      host: mail.example.com
""",
    )
    assert any(f"to={to}" in each for each in made.secrets.values()) == bool(to)
    reasons = " ".join(made.findings.left_out)
    assert said in reasons
    assert "not a key of Butler" not in reasons


def test_schedules_become_timers_and_the_others_are_listed(site: Path) -> None:
    """A schedule that can't be a timer is named with the reason, a stopped one is a comment."""
    made = convert(site / "config" / "full.yaml", site / "new.toml")
    config = loads(made.text, file=str(site / "new.toml"))
    assert [(each.name, each.cron or each.every, each.task) for each in config.timer] == [
        ("Every 30 sec", 30.0, A),
        ("Weekday mornings - sales", "30 6 * * 1-5", B),
    ]
    assert config.timer[1].timezone == "Europe/Stockholm"
    assert config.timer[0].id == "task-1"  # callers of /v4/schedules know it
    assert '# cron = "0 7 * * MON-FRI"' in made.text
    left = "\n".join(f"{reason} {paths}" for reason, paths in made.findings.left_out.items())
    for name in ("Not a schedule", "Thrice a minute", "No task", "butlerSchedule[1].tags"):
        assert name in left


def test_only_a_schedule_that_butler_runs_is_in_effect(tmp_path: Path) -> None:
    """Butler starts `start` and `started`; with any other state, or none, no task is started."""
    states = ("start", "started", "stop", "stopped", "on", "Started", "''", "true", "")
    (tmp_path / "jobs.yaml").write_text(
        "butlerSchedule:\n"
        + "".join(
            f"- {{name: n{n}, cronSchedule: '@daily', timezone: UTC, qlikSenseTaskId: {A}, id: x,"
            f" startupState: {state}}}\n"
            for n, state in enumerate(states)
        )
    )
    config, made = converted(
        tmp_path, f"{MQTT}\n  scheduler:\n    enable: true\n    configfile: jobs.yaml\n"
    )
    assert [each.name for each in config.timer] == ["n0", "n1"]
    said = [each for each in made.findings.different if "it is stopped" in each]
    assert len(said) == 7 and sum("is not `started`" in each for each in said) == 5
    # Callers know an id: that of two entries can be only one of them.
    assert len({each.id for each in config.timer}) == 2
    assert any('("n1"): its id is that of an entry above' in e for e in made.findings.different)


def test_no_secret_is_shown_or_stands_in_the_new_file(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Passwords, tokens and addresses of webhooks are in files that only the user can read."""
    monkeypatch.chdir(site)
    assert cli.main(["init", "--from-butler", "config/full.yaml", "appliance.toml"]) == 0
    shown = capsys.readouterr()
    assert "SECRET" not in shown.out + shown.err
    assert "SECRET" not in (site / "appliance.toml").read_text("utf-8")
    files = list(site.glob("notify_*.txt"))
    assert len(files) == 8
    if sys.platform != "win32":
        for file in (*files, site / "appliance.toml"):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("change", [(), ("enable: true", "enable: false")])
def test_every_key_of_butler_is_known(change: tuple[str, str], site: Path) -> None:
    """No key of it is called unknown or misspelled, whether its section is on or off."""
    document = parse_yaml(FULL.replace(*change) if change else FULL, "full.yaml")
    made = convert_document(document, site / "config" / "full.yaml", site / "new.toml")
    assert not [
        (paths, reason)
        for reason, paths in made.findings.left_out.items()
        if "not a key of Butler" in reason
    ]


def test_every_key_is_taken_over_or_listed(site: Path, butler: Item) -> None:
    """No value of the file goes by in silence."""
    made = convert(site / "config" / "full.yaml", site / "new.toml")
    content = butler.value
    assert isinstance(content, dict)
    assert list(made.findings.unread(content["Butler"])) == []
    listed = " ".join(path for paths in made.findings.left_out.values() for path in paths)
    for name in ("udpServerConfig", "serviceMonitor", "heartbeat", "influxDb", "qlikSenseLicense",
                 "mqttConfig.serviceRunningTopic", "thirdPartyToolsCredentials"):  # fmt: skip
        assert name in listed
    assert "dockerHealthCheck" in made.findings.off
    unknown = convert_document(
        parse_yaml(MQTT + "  mqtConfig:\n    enable: true\n", "x"), site / "x", site / "y"
    )
    assert any("is mqttConfig meant?" in each for each in unknown.findings.left_out)


@pytest.mark.parametrize(
    ("change", "bridged", "listens"),
    [
        ((), "broker.example.com:1884", 1883),
        (("broker.example.com", "localhost"), "localhost:1884", 1883),
        (("broker.example.com\n    brokerPort: 1884", "127.0.0.1"), "127.0.0.1:1883", 1884),
        (("    enable: true\n", ""), "broker.example.com:1884", 1883),
        (("enable: true", "enable: false"), None, 1883),
        (("broker.example.com", "<FQDN or IP of MQTT server>"), None, 1883),
        (("brokerPort: 1884", "brokerPort: '1884'"), "broker.example.com:1884", 1883),
        (("brokerPort: 1884", "brokerPort: none"), "broker.example.com:1883", 1883),
    ],
)
def test_a_short_configuration_has_a_bridge_where_there_is_a_broker(
    change: tuple[str, str], bridged: str | None, listens: int, tmp_path: Path
) -> None:
    """Else the appliance is the broker. Its own port is never that of a broker on this machine."""
    config, _ = converted(tmp_path, MQTT.replace(*change) if change else MQTT)
    assert [each.address for each in config.bridge] == ([bridged] if bridged else [])
    assert [each.bind for each in config.listener] == [f"127.0.0.1:{listens}"]
    assert config.trigger[0].topic == "plant/start"
    if bridged:
        assert config.bridge[0].subscribe[0].topic == "plant/#"
    assert config.qlik is not None and config.qlik.edition == "simulated"


def test_azure_event_grid_is_a_bridge_with_a_certificate(site: Path) -> None:
    """Without the certificate the bridge is a comment, and the file is valid all the same."""
    text = (
        MQTT
        + """    taskFailureTopic: plant/failed
    azureEventGrid:
      enable: true
      clientId: butler-1
      clientCertFile: certificates/client.pem
      clientKeyFile: certificates/client_key.pem
"""
    )
    config, made = converted(site, text)
    assert any("one session" in each for each in made.findings.different)
    bridge = config.bridge[0]
    assert (bridge.version, bridge.username, bridge.client_id) == ("5", "butler-1", "butler-1")
    assert bridge.tls is not None
    assert Path(bridge.tls.certfile or "") == site / "certificates" / "client.pem"
    config, made = converted(site, text.replace("client_key.pem", "none.pem"))
    assert config.bridge == ()
    assert "# [[bridge.publish]]" in made.text
    assert any("the bridge is not in effect" in each for each in made.findings.different)


def test_without_apprise_notices_are_comments(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is optional, so the file has to be valid without it."""
    monkeypatch.setattr(notify_urls.importlib.util, "find_spec", lambda _name: None)
    made = convert(site / "config" / "full.yaml", site / "new.toml")
    assert loads(made.text, file=str(site / "new.toml")).notify == ()
    assert "# [[notify]]" in made.text
    assert "qlik-mqtt-appliance[notify]" in made.text


def test_without_a_certificate_the_real_server_is_a_comment(tmp_path: Path) -> None:
    """The file is valid at once, and says what is missing; no task of the server is started."""
    config, made = converted(
        tmp_path,
        f"""{MQTT}
  configQRS:
    host: sense.example.com
    headers:
      X-Qlik-User: UserDirectory=PLANT; UserId=qlik
  cert:
    clientCert: <path/to/cert/client.pem>
""",
    )
    assert config.qlik is not None and config.qlik.edition == "simulated"
    assert '# url = "https://sense.example.com:4242"' in made.text
    assert "# user = 'PLANT\\qlik'" in made.text
    assert "the file of cert.clientCert is not there" in made.text


def test_a_filter_that_lists_nothing_starts_nothing(tmp_path: Path) -> None:
    """Butler's calls start no task then. An empty [allow] would mean every task.

    The rule counts for users, so the list says to add one.
    """
    text = f"""{MQTT}
  restServerConfig:
    enable: true
    serverPort: 1883
  startTaskFilter:
    enable: true
    allowTask:
      taskId:
      tag: []
"""
    config, made = converted(tmp_path, text)
    assert any("appliance user add" in each for each in made.findings.different)
    assert config.allow.tasks == ()
    assert [each.start for each in config.access.rule] == [()]
    assert config.http.bind == "127.0.0.1:1883"
    assert config.listener[0].bind == "127.0.0.1:1884"
    config, _ = converted(
        tmp_path, text.replace("enable: true\n    allow", "enable: false\n    allow")
    )
    assert config.access.rule == ()


def test_a_switch_that_is_neither_true_nor_false_puts_nothing_into_effect(site: Path) -> None:
    """YAML's reader in Butler has `no` as a text: it must not start tasks or open a port here."""
    text = FULL.replace("enable: true", "enable: no").replace("enable: false", "enable: 'off'")
    config, made = converted(site / "config", text.replace("senseStartTask: true", ""))
    assert (config.timer, config.notify, config.bridge) == ((), (), ())
    assert config.http.bind is None
    listed = " ".join(path for paths in made.findings.left_out.values() for path in paths)
    for name in ("scheduler", "emailNotification", "restServerConfig", "mqttConfig.enable"):
        assert name in listed.split()
    # The filter protects: what can't be read does not open it.
    assert config.allow.tags == ("startTask1",)
    for switch, starts in (("true", 0), ("no", 1)):
        config, _ = converted(
            site / "config", FULL.replace("senseStartTask: true", f"senseStartTask: {switch}")
        )
        assert len(config.access.rule) == starts


def test_a_published_message_of_a_call_needs_a_way_to_the_old_broker(tmp_path: Path) -> None:
    """Butler's call publishes there; here at the appliance, and that is said. So is the port."""
    text = f"{MQTT}\n  restServerConfig:\n    enable: true\n"
    for each, is_said in (
        (text, True),
        (text + "  restServerEndpointsEnable:\n    mqttPublishMessage: false\n", False),
        (text.replace("enable: true", "enable: false", 1), False),
    ):
        _, made = converted(tmp_path, each)
        assert any("[[bridge.publish]]" in line for line in made.findings.different) == is_said
        assert any("serverPort: Butler has this port" in e for e in made.findings.different)


def test_keys_of_older_versions_are_read(tmp_path: Path) -> None:
    """Spellings that Butler had once, and `configFile`, which its documentation has."""
    (tmp_path / "jobs.yaml").write_text(
        f"butlerSchedule:\n- {{name: n, cronSchedule: '@daily', timezone: UTC, qlikSenseTaskId: {A}, startupState: start}}\n"
    )
    config, made = converted(
        tmp_path,
        f"""{MQTT}
  scheduler:
    enable: true
    configFile: jobs.yaml
  emailNotification:
    enable: true
    reladTaskFailure:
      enable: true
      fromAdress: a@example.com
      toAdress: [b@example.com]
    smtp:
      host: mail.example.com
""",
    )
    assert config.timer[0].cron == "0 0 * * *"
    assert made.secrets["notify_mail_failed.txt"].startswith("mailto://mail.example.com:25/")


@pytest.mark.parametrize(
    ("written", "timer"),
    [
        ("*/10 * * * * *", cron.Times(every="10s")),
        ("* * * * * *", cron.Times(every="1s")),
        ("0 30 6 * * *", cron.Times(cron="30 6 * * *")),
        ("0 */2 * * *", cron.Times(cron="0 */2 * * *")),
        ("0-30/5 6-18 * * 1-5", cron.Times(cron="0-30/5 6-18 * * 1-5")),
        ("@hourly", cron.Times(cron="0 * * * *")),
    ],
)
def test_times_mean_the_same(written: str, timer: cron.Times) -> None:
    """Five fields, six with seconds that are even, and words."""
    assert cron.read(written) == timer


@pytest.mark.parametrize("written", ["", "@reboot", "61 * * * *", "*/7 * * * * *", "a b c d e f"])
def test_times_that_no_timer_has_are_told(written: str) -> None:
    """They are listed with the reason; nothing is guessed."""
    assert cron.read(written).problem


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "there is no section Butler"),
        ("- Butler", "there is no section Butler"),
        ("Butler: yes", "there is no section Butler"),
        ("Butler:\n  a: [1, 2\n  b: 3\n", "line 3"),
        ("Butler:\n\ta: 1\n", "line 2"),
        ("Butler:\n  a: 1\n  b: 2\n  a: 3\n", "line 4: the key \"a\" stands in line 2"),
        ("Butler:\n  a: !!python/object/apply:os.system ['true']\n", "line 2: the tag"),
        ("Butler: &a [*a]\n", "nested too deeply"),
        ("Butler:\n  a: " + "[" * 100_000, "nested too deeply"),
        ("Butler:\n" + "- " * 100_000, "nested too deeply"),
        ("Butler:\n  ? {a: 1}\n  : 2\n", "line 2: a key is one word"),
        ("Butler: {}\n---\nButler: {}\n", "line 2"),
        ("Butler: \x01\n", "not YAML"),
        ("a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
            f"{n}: &{n} [{', '.join(['*' + p] * 9)}]\n"
            for p, n in zip("abcdefgh", "bcdefghi", strict=True)
        ), "more than 50000 values"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_configuration_is_refused_with_its_place(
    text: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bad YAML, tags, doubled keys, and aliases that stand for millions: a sentence, no traceback."""
    file = tmp_path / "bad.yaml"
    file.write_text(text, "utf-8")
    assert cli.main(["init", "--from-butler", str(file), str(tmp_path / "new.toml")]) == 78
    error = capsys.readouterr().err
    assert told in error
    assert "bad.yaml" in error
    assert not (tmp_path / "new.toml").exists()


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As is one that is not UTF-8."""
    file = tmp_path / "none.yaml"
    assert cli.main(["init", "--from-butler", str(file), str(tmp_path / "new.toml")]) == 78
    assert "none.yaml" in capsys.readouterr().err
    file.write_bytes(b"Butler:\n  a: \xff\n")
    assert cli.main(["init", "--from-butler", str(file), str(tmp_path / "new.toml")]) == 78
    assert "line 2" in capsys.readouterr().err


@pytest.mark.parametrize("existing", ["appliance.toml", "notify_mail_failed.txt"])
def test_no_file_is_overwritten_and_none_is_left_half_done(
    existing: str, site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All files are written, or none."""
    monkeypatch.chdir(site)
    (site / existing).write_text("mine")
    before = sorted(site.iterdir())
    assert cli.main(["init", "--from-butler", "config/full.yaml", "appliance.toml"]) == 64
    assert existing in capsys.readouterr().err
    assert sorted(site.iterdir()) == before
    assert (site / existing).read_text() == "mine"


def test_the_example_of_the_documentation_is_what_the_command_makes(tmp_path: Path) -> None:
    """docs/from-butler.md shows a configuration before and after, and others that are valid."""
    page = (DATA.parents[2] / "docs" / "from-butler.md").read_text("utf-8")
    before, schedule, *_ = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    after, narrow = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    certificates.make(tmp_path / "certificates")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "schedule.yaml").write_text(schedule, "utf-8")
    source = tmp_path / "config" / "production.yaml"
    source.write_text(before, "utf-8")
    made = convert(source, tmp_path / "config.toml")
    assert made.text.partition("\n# Taken over, and different")[0] == after
    assert list(made.secrets) == ["notify_mail_failed.txt"]
    assert loads(narrow).bridge[0].version == "3.1.1"


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=True), st.text(max_size=20),
    st.sampled_from(["<placeholder>", "${HOME}", "qliksense/+", "appliance/tasks/x", "0", "a\\b", "{x}", "x" * 5000, "a\nb"]),
)  # fmt: skip
VALUES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=3),
    st.dictionaries(st.sampled_from(["enable", "name", "value", "x"]), SCALARS, max_size=3),
)


def item(value: Any) -> Item:
    if isinstance(value, dict):
        return Item({key: item(each) for key, each in value.items()}, 1)
    if isinstance(value, list):
        return Item(tuple(item(each) for each in value), 1)
    return Item(value, 1)


def plain(each: Item) -> Any:
    if isinstance(each.value, dict):
        return {key: plain(value) for key, value in each.value.items()}
    return [plain(one) for one in each.value] if isinstance(each.value, tuple) else each.value


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list)
        else ()
    )
    return [path, *(each for key, value in children for each in places(value, (*path, key)))]


PLAIN: Any = plain(parse_yaml(FULL, "full.yaml"))["Butler"]
TAKEN = [
    path
    for path in places(PLAIN)
    if path and path[0] in ("mqttConfig", "configQRS", "cert", "startTaskFilter", "scheduler", "restServerConfig",
                            "emailNotification", "slackNotification", "teamsNotification", "webhookNotification",
                            "scriptLog", "logLevel", "restServerEndpointsEnable")
]  # fmt: skip


def changed(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy with another value at a place; without the place if the value is ``...``."""
    if not path:
        return value
    key, *rest = path
    if isinstance(tree, dict):
        if not rest and value is ...:
            return {name: each for name, each in tree.items() if name != key}
        return {**tree, key: changed(tree.get(key), tuple(rest), value)}
    if isinstance(tree, list) and isinstance(key, int) and key < len(tree):
        return [changed(e, tuple(rest), None if value is ... else value) if n == key else e
                for n, e in enumerate(tree)]  # fmt: skip
    return tree


CHANGES = st.lists(
    st.tuples(st.sampled_from(TAKEN), st.one_of(st.just(...), VALUES)), min_size=3, max_size=30
)


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(CHANGES)
def test_whatever_the_values_are_the_result_is_valid(
    site: Path, changes: list[tuple[tuple[Any, ...], Any]]
) -> None:
    """Wrong types, missing keys, any text: a file that the appliance takes, and no traceback."""
    made_of(changes, site)


@pytest.mark.campaign
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(CHANGES)
def test_whatever_the_values_are_the_result_is_valid_many_times(
    site: Path, changes: list[tuple[tuple[Any, ...], Any]]
) -> None:
    """The same, with more of them."""
    made_of(changes, site)


def made_of(changes: list[tuple[tuple[Any, ...], Any]], site: Path) -> None:
    tree = PLAIN
    for path, value in changes:
        tree = changed(tree, path, value)
    made = convert_document(item({"Butler": tree}), site / "config" / "full.yaml", site / "n.toml")
    config = loads(made.text, file=str(site / "n.toml"))
    assert config.listener and config.trigger
    assert "SECRET" not in made.text
