"""Who is told by mail: what tasks name, and owners of apps, as the Qlik server has them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from notice_rig import Inbox, Sender, notice, notify, task_list
from tasks_rig import START_TOPIC, Rig, client_of

from appliance.cli import main
from appliance.config.tables import NotifyConfig
from appliance.counters import Counter
from appliance.errors import EXIT_CONFIG
from appliance.model import Task
from appliance.qlik.cloud import Cloud
from appliance.qlik.cloud_login import ApiKey
from appliance.qlik.server import Owner
from appliance.qlik.simulated import FaultKind, Outcome, SimulatedQlik
from appliance.qlik.simulated.site import SimulatedUser
from appliance.qlik.transport import Transport
from appliance.secret import Secret
from appliance.tasks.catalog import TaskList
from appliance.tasks.notice import Notice
from appliance.tasks.receivers import MOST, Receivers, is_address
from appliance.tasks.task_facts import TaskFacts

# Apprise loads every one of its plugins, and some of them use what Python has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
APP = "5f8b1c2e-0d4a-4c55-9a1b-7e3d2f6a9b10"


def failing(qlik: SimulatedQlik, **settings: object):  # noqa: ANN201
    return qlik.add_task(
        "Sales",
        duration_s=0.02,
        outcomes=(Outcome.FAIL,),
        app_id=APP,
        app_name="Shop",
        **settings,
    )


def test_owner_and_named_receivers_get_a_letter_of_their_own(
    mailbox: Inbox, tmp_path: Path
) -> None:
    """Beside the receiver of the URL, who is not written to twice. With text and title of the
    template, in which the app stands."""
    with SimulatedQlik() as qlik:
        task = failing(qlik, properties=(("SendTo", "ann@example.com; OPS@example.com"),))
        qlik.site.add_user(SimulatedUser("LAB", "bob", ("bob@example.com",)), APP)
        table = notify(
            f"{mailbox.url}&cc=cc@example.com",
            to_property="SendTo",
            to_owner=True,
            title="{app}",
            log="none",
        )
        with Rig(tmp_path / "tasks.db", client_of(qlik), notify=(table,)) as rig:
            rig.source.put(START_TOPIC, task.id)
            letters = mailbox.letters(3)
    found = sorted(sorted(one) for one in mailbox.receivers)
    assert found == [
        ["ann@example.com"],
        ["bob@example.com"],
        ["cc@example.com", "ops@example.com"],
    ]
    assert {one["Subject"] for one in letters} == {"Shop"}


def test_only_those_that_the_task_names_are_told(mailbox: Inbox) -> None:
    """With ``to_url = false``. A notice is one for ``at_most``, however many it is sent to."""
    tasks = task_list(Task("t", "T", properties=(("To", "ann@example.com,bob@example.com"),)))
    table = notify(mailbox.url, to_property="To", to_url=False, at_most=2, on=("lost",))
    execution = msgspec.structs.replace(notice("T", "lost").execution, task_id="t")
    with Sender(table, facts=TaskFacts(tasks, None)) as sender:
        for _ in range(3):
            sender.notices.offer(Notice("lost", execution))
        sender.counted.wait_for(5)
    assert mailbox.receivers == [["ann@example.com"], ["bob@example.com"]] * 2
    assert sender.counted.arrived.count(Counter.NOTICES_LEFT_OUT) == 1


@pytest.mark.parametrize(
    ("fields", "is_told"),
    [
        ({}, True),
        ({"owners": (r"lab\*",)}, True),
        ({"owners": (r"LAB\ann",)}, False),
        ({"not_owners": (r"LAB\BOB",)}, False),
        ({"owners": (r"LAB\*",), "not_owners": (r"*\bob",)}, False),
    ],
)
def test_owners_are_chosen_by_name(fields: dict, is_told: bool) -> None:
    facts = TaskFacts(TaskList(None), _Server(Owner(r"LAB\bob", ("bob@example.com",))))
    config = NotifyConfig(to_owner=True, **fields)
    found = Receivers(config, facts, print, "notify 1").of(Task("t", "T", app_id=APP))
    assert found == ["bob@example.com"] * is_told


class _Server:
    """Answers who owns an app."""

    def __init__(self, owner: Owner | None) -> None:
        self.asked = 0
        self._owner = owner

    def owner(self, _app_id: str) -> Owner | None:
        self.asked += 1
        return self._owner


@pytest.mark.parametrize("path", ["/qrs/app/", "/qrs/user/"])
def test_a_server_that_refuses_costs_a_receiver_and_no_notice(
    mailbox: Inbox, tmp_path: Path, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The others are told, and the log says who is missing and why."""
    with SimulatedQlik() as qlik:
        task = failing(qlik)
        qlik.fail(FaultKind.STATUS, path=path, status=403)
        table = notify(mailbox.url, to_owner=True, log="none")
        with Rig(tmp_path / "tasks.db", client_of(qlik), notify=(table,)) as rig:
            rig.source.put(START_TOPIC, task.id)
            mailbox.letters(1)
            rig.wait_until(lambda: rig.engine.counters().get(Counter.NOTICE_RECEIVERS_LEFT_OUT))
    assert (
        "notify 1: a receiver is left out: the owner of the app can't be asked for" in caplog.text
    )
    assert mailbox.receivers == [["ops@example.com"]]


def test_who_owns_an_app_is_asked_once_in_a_while() -> None:
    """And of a thousand apps at most it is remembered."""
    now = [0.0]
    server = _Server(Owner("a", ()))
    facts = TaskFacts(TaskList(None), server, monotonic=lambda: now[0])
    for _ in range(3):
        facts.owner(APP)
    assert server.asked == 1
    now[0] = 601.0
    facts.owner(APP)
    assert server.asked == 2
    for number in range(1001):
        facts.owner(str(number))
    assert len(facts._owners) == 1000


def test_the_owner_in_qlik_cloud_is_the_one_that_the_app_names() -> None:
    with SimulatedQlik() as qlik:
        failing(qlik)
        user = SimulatedUser("", "auth0|1", ("bob@example.com",), name="Bob")
        qlik.site.add_user(user, APP)
        cloud = Cloud(Transport(qlik.url), ApiKey(Secret(qlik.cloud.api_key)))
        assert cloud.owner(APP) == Owner("Bob", ("bob@example.com",))
        user.emails = ()
        assert cloud.owner(APP) == Owner("Bob", ())


# --- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "ann",
        "ann@example",
        "ann@example.com\r\nBcc: all@example.com",
        "ann@example.com?cc=all@example.com",
        "ann@example.com/all@example.com",
        '"a b"@example.com',
        "Ann <ann@example.com>",
        "ann@exa mple.com",
        "@example.com",
        "a..b@example.com",
        "ann@-example.com",
        f"{'x' * 250}@example.com",
        "änn@example.com",
        "",
    ],
)
def test_only_plain_addresses_are_taken(text: str) -> None:
    assert not is_address(text)


@given(
    st.lists(st.text("ab.-_'@\r\n <>,;?&/\\\"é", max_size=5), min_size=1, max_size=4).map("@".join)
)
def test_what_is_taken_begins_no_header_and_no_argument(address: str) -> None:
    if is_address(address):
        assert address.isascii()
        assert not set(address.partition("@")[2]) - set(
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-."
        )
        assert not set(address) & set("\r\n\t <>,;:\"'\\()[]") - {"'"}


def test_a_flood_of_receivers_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """Twenty beside those of the URL; what is no address is left out, and said on one line."""
    counted: list[Counter] = []
    many = ",".join(f"u{number}@example.com" for number in range(MOST + 5))
    task = Task("t", "T", properties=(("To", f"nobody\u202e,{many}"), ("Other", "x@example.com")))
    facts = TaskFacts(TaskList(None), None)
    receivers = Receivers(NotifyConfig(to_property="To"), facts, counted.append, "notify 1")
    assert receivers.of(task) == [f"u{number}@example.com" for number in range(MOST)]
    assert counted == [Counter.NOTICE_RECEIVERS_LEFT_OUT] * 6
    assert "nobody\\u202e is no e-mail address" in caplog.text
    assert receivers.of(None) == []


def test_receivers_of_a_webhook_are_a_configuration_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As is a placeholder that is none, with the one that was meant."""
    path = tmp_path / "config.toml"
    path.write_text('[[notify]]\nurl = "json://127.0.0.1"\nto_owner = true\n')
    assert main(["check", "-c", str(path)]) == EXIT_CONFIG
    assert "notify 1: to_owner adds receivers of mail" in capfd.readouterr().err
    path.write_text('[[notify]]\nurl = "json://127.0.0.1"\ntitle = "{tsk}"\n')
    assert main(["check", "-c", str(path)]) == EXIT_CONFIG
    assert "{tsk} is no placeholder; did you mean {task}?" in capfd.readouterr().err
    path.write_text('[[notify]]\nurl = "mailto://127.0.0.1"\nto_url = false\n')
    assert main(["check", "-c", str(path)]) == EXIT_CONFIG
    assert "nobody would be told" in capfd.readouterr().err
    path.write_text('[[notify]]\nurl = "json://127.0.0.1"\ntitle = "a\\nb"\n')
    assert main(["check", "-c", str(path)]) == EXIT_CONFIG
    assert "a title is one line" in capfd.readouterr().err
