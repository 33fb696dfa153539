"""What the configuration promises about ``[[bridge]]`` and about an appliance without listeners."""

from __future__ import annotations

import re
import socket
import sys
from pathlib import Path

import pytest

from appliance.config.changes import changes, with_changes_at_once
from appliance.config.checks import advice
from appliance.config.exposed_files import exposed_files
from appliance.config.files import all_secrets, bridge_password, check_files
from appliance.config.reading import load, loads, recheck
from appliance.config.tables import Config
from appliance.errors import ConfigError
from appliance.secret import Secret

ROOT = Path(__file__).parents[3]
HEAD = "[[bridge]]\nname = 'plant'\nhost = 'broker.example.com'\n"
IN, OUT = "[[bridge.subscribe]]\n", "[[bridge.publish]]\n"
SECOND = "[[bridge]]\nname = 'second'\nhost = 'BROKER.example.com.'\n"
BOTH = f"{HEAD}VERSION{IN}topic = 'plant/#'\n{OUT}topic = 'appliance/tasks/#'\n"


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loads(text, environ={})
    return str(caught.value).split("\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEAD.replace("plant", "a b"), r"`name`: value \"a b\": a name has 1 to 64 letters"),
        (HEAD.replace("plant", ""), "`name`: value \"\""),
        (HEAD + HEAD, r"\[\[bridge\]\] 2 `name`: .*\[\[bridge\]\] 1 has this name; choose"),
        (HEAD.replace("broker", "mqtt://broker"), "`host`: .*only the host's name"),
        (HEAD.replace("broker", "me:hunter2@broker"), r"`host`: value \(not shown\): .*`password_file`"),
        (HEAD.replace(".com", ".com:1884"), "`host`: .*write host = \"broker.example.com\" and port = 1884"),
        (HEAD.replace(".com", ".com/mqtt"), "`host`: .*use `path`"),
        (HEAD.replace("broker.example.com", "[::1]"), "`host`: .*without brackets"),
        (HEAD.replace("broker.example.com", ""), "`host`: .*it is empty"),
        (HEAD.replace("broker", "a..b"), "`host`: .*not a host name"),
        (HEAD.replace("broker", "a b"), "`host`: .*not a host name"),
        (HEAD.replace("broker", "*"), "`host`: .*not a host name"),
        (HEAD.replace("broker.example.com", "localhost"), "`host`: .*listener.* 1 of this appliance"),
        ("[[bridge]]\nname='x'", "`host`: this key is missing"),
        (HEAD + "port = 70000", "`port`: .*too large"),
        (HEAD + "path = '/ws'", "`path`: it is for transport"),
        (HEAD + "transport = 'websocket'\npath = 'ws'", "`path`: .*begins with /"),
        (HEAD + "transport = 'websocket'\npath = '/a b'", "`path`: .*no blanks"),
        (HEAD + "version = 5", "`version`: value 5: did you mean \"5\""),
        (HEAD + "username = ''", "`username`: .*empty"),
        (HEAD + r'username = "a\u0000b"', "`username`: .*control character"),
        (HEAD + r'client_id = "a\nb"', "`client_id`: .*control character"),
        (HEAD + f"client_id = '{'x' * 65536}'", "`client_id`: .*longer than 65535"),
        (HEAD + "password = 'x'", "`password`: MQTT 3.1.1 has no password without a user name"),
        (HEAD + "password_file = 'x'", "`password_file`: MQTT 3.1.1 has no password without"),
        (HEAD + "username = 'u'\npassword='x'\npassword_file='y'", "`password`: .*keep one of the two"),
        (HEAD + "password = '${NOT_SET}'\nusername = 'u'", "NOT_SET is not set"),
        (HEAD + "tls = {certfile = 'a'}", "`tls.keyfile`: this key is missing"),
        (HEAD + "tls = {keyfile = 'a'}", "`tls.certfile`: this key is missing"),
        (HEAD + "tls = {server_name = 'a:8883'}", "`tls.server_name`: .*the port goes into"),
        (HEAD + "tls = {alpn = ['mqtt', '']}", r"`tls.alpn\[2\]`: .*1 to 255 ASCII"),
        (HEAD + "tls = {ca = 'x'}", "`tls.ca`: this key is not known; did you mean `ca_file`|known here"),
        (HEAD + "keepalive = '1s'", "`keepalive`: .*the minimum is 5s"),
        (HEAD + "keepalive = '1d'", "`keepalive`: .*too large"),
        (HEAD + "max_rate = 0", "`max_rate`: .*too small"),
        (HEAD + f"{IN}topic = 'a'\nqos = 2", r"`subscribe\[1\].qos`: value 2: QoS 2 gives no more.*write 1"),
        (HEAD + f"{OUT}topic = 'a'\nqos = 2", r"`publish\[1\].qos`: value 2: QoS 2 gives no more"),
        (HEAD + f"{IN}topic = 'a/#/b'", r"`subscribe\[1\].topic`: .*not a topic filter"),
        (HEAD + f"{IN}qos = 1", r"`subscribe\[1\].topic`: this key is missing"),
        (HEAD + "[bridge.subscribe]\ntopic = 'a'", r"write \[\[bridge.subscribe\]\]"),
        ("[bridge]\nname='a'\nhost='h'", r"write \[\[bridge\]\]"),
        (HEAD + f"{IN}topic = '$share/g/a/#'", r"topic = \"a/#\" and share = \"g\""),
        (HEAD + f"{IN}topic = 'a'\nshare = 'a/b'", r"`subscribe\[1\].share`: .*no /, \+ or #"),
        (HEAD + f"{IN}topic = 'a'\nlocal_prefix = 'x/+/'", r"`subscribe\[1\].local_prefix`: .*plain text"),
        (HEAD + f"{IN}topic = 'a/+'\nremove_prefix = 'a/+'", r"`subscribe\[1\].remove_prefix`: .*plain"),
        (HEAD + f"{OUT}topic = 'a'\nremote_prefix = '#'", r"`publish\[1\].remote_prefix`: .*plain text"),
        (HEAD + f"{IN}topic = 'plant/#'\nremove_prefix = 'plants/'",
         'no topic of "plant/#" begins with it; write the beginning of the filter, "plant/"'),
        (HEAD + f"{IN}topic = '+/state'\nremove_prefix = 'plant/'", 'not every topic of "\\+/state" begins'),
        (HEAD + f"{IN}topic = 'plant'\nremove_prefix = 'plant/'", 'no topic of "plant" begins'),
        (HEAD + f"{IN}topic = 'plant'\nremove_prefix = 'plant'", "nothing would be left; add `local_prefix`"),
        (HEAD + f"{OUT}topic = 'plant'\nremove_prefix = 'plant'", "nothing would be left; add `remote_prefix`"),
        (HEAD + f"{IN}topic = 'a'\nlocal_prefix = 'appliance/'", "local_prefix`: .*the appliance's own"),
        (HEAD + f"{IN}topic = 'appliance/tasks/#'", r"`subscribe\[1\].topic`: .*the appliance's own.*elsewhere"),
        (HEAD + f"{IN}topic = 'x/appliance/status'\nremove_prefix = 'x/'", "the appliance's own"),
        (HEAD + f"{IN}topic = '$SYS/broker/#'", r"`subscribe\[1\].topic`: .*begin with \$ belong to"),
        (HEAD + f"{IN}topic = 'a'\nlocal_prefix = '$x/'", r"local_prefix`: .*begin with \$"),
        (HEAD + f"{OUT}topic = '$SYS/#'", r"no message here has a topic that begins with \$"),
        (HEAD + f"{IN}topic = 'plant/#'\n{IN}topic = 'plant/+/state'",
         r'`subscribe\[2\].topic`: value "plant/\+/state": it overlaps "plant/#" \(subscribe\[1\]\)'),
        (BOTH.replace("VERSION", "").replace("appliance/tasks", "plant/cmd"),
         r'`publish\[1\].topic`: value "plant/cmd/#": it overlaps "plant/#" \(subscribe\[1\]\).*come in again'),
        (BOTH.replace("VERSION", "") + "remote_prefix = 'plant/'",
         r'value "appliance/tasks/#" \(there "plant/appliance/tasks/#"\): it overlaps "plant/#"'),
        (f"{HEAD}{OUT}topic = 'a/#'\n{SECOND}version = '5'\n{IN}topic = '+/b'",
         r'\[\[bridge\]\] 1 `publish\[1\].topic`: .*\(\[\[bridge\]\] 2 subscribe\[1\]\).*of both bridges'),
        (f"{HEAD}client_id = 'x'\n{SECOND}client_id = 'x'",
         r"\[\[bridge\]\] 2 `client_id`: .*\[\[bridge\]\] 1 has this client id at the same broker"),
        (
            f"{HEAD}{IN}topic = 'a'\nkeepalive = '9s'",
            r"`subscribe\[1\].keepalive`: .*a key of \[\[bridge\]\] itself; write it there, above",
        ),
        (HEAD + "ca_file = 'a'", "`ca_file`: this key is not known; it belongs into `tls`"),
        (HEAD + "topic = 'a/#'", "`topic`: .*it belongs into `subscribe` or `publish`"),
        (HEAD + "tls = true", "`tls`: value true: a table in braces is wanted; write for example {}"),
        ("listener = []", r"\[listener\]: no client could connect, and no \[\[bridge\]\] brings"),
        (f"[service]\nlistener = []\n{HEAD}", r"\[service\] `listener`: .*at the beginning of the file"),
        (HEAD + f"{IN}topic = 'a'\n" * 0 + "subscribe = ["
         + ", ".join(f"{{topic = 'a{number}'}}" for number in range(101)) + "]", "at most 100"),
        ("".join(HEAD.replace("plant", f"p{number}") for number in range(51)), "at most 50"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_bridge_is_named_with_its_fix(text: str, said: str) -> None:
    """One mistake gives one line that says what to write instead."""
    [line] = problems(text)
    assert re.search(said, line), line
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("bind", "host", "is_own"),
    [
        ("127.0.0.1", "localhost", True), ("0.0.0.0", "127.0.0.7", True), ("0.0.0.0", "localhost", True),
        ("0.0.0.0", socket.gethostname().upper(), True), ("[::1]", "127.0.0.1", False),
        ("0.0.0.0", "198.51.100.7", False), ("0.0.0.0", "::1", False), ("127.0.0.1", "127.0.0.2", False),
        ("0.0.0.0", "broker.example.com", False), ("[::]", "localhost", True),
    ],
)  # fmt: skip
def test_a_bridge_to_the_appliance_itself_is_refused(bind: str, host: str, is_own: bool) -> None:
    """Its messages would come in again as news, for ever."""
    text = f"[access]\nusers_file = 'u'\n[[listener]]\nbind = '{bind}:1883'\n"
    text += f"[[bridge]]\nname = 'x'\nhost = '{host}'\n"
    if is_own:
        [line] = problems(text)
        assert "is [[listener]] 1 of this appliance" in line
    else:
        assert loads(text).bridge


def test_every_mistake_is_said_at_once() -> None:
    """Each key of each bridge has its line, and a wrong value is not told again by what follows."""
    said = problems(
        f"{HEAD}port = 0\n{IN}topic = 'a'\nlocal_prefix = '+'\n{OUT}topic = 5\n"
        f"{SECOND}keepalive = 3\nversion = '4'\n{IN}topic = 'a/#'\n{IN}topic = 'a/b'\n"
    )
    keys = [re.search(r"\d `(.*?)`", line)[1] for line in said]
    assert keys == [
        "port",
        "publish[1].topic",
        "version",
        "keepalive",
        "subscribe[1].local_prefix",
        "subscribe[2].topic",
    ]


@pytest.mark.parametrize(
    "text",
    [
        HEAD,
        f"listener = []\n{HEAD}",
        BOTH.replace("VERSION", ""),
        BOTH.replace("VERSION", "version = '5'\n").replace("appliance/tasks", "plant/cmd"),
        f"{HEAD}{OUT}topic = 'a/#'\n{SECOND}port = 1884\n{IN}topic = '+/b'",
        f"{HEAD}{IN}topic = 'appliance/#'\nlocal_prefix = 'other/'\n",
        f"{HEAD}{IN}topic = '$SYS/#'\nremove_prefix = '$SYS/'\nlocal_prefix = 'sys/'\n",
        f"{HEAD}{IN}topic = 'a/#'\nshare = 'g'\n{IN}topic = 'b/#'\n",
        f"{HEAD}{IN}topic = 'plant/+/x'\nremove_prefix = 'pla'\nlocal_prefix = 'fac'\n",
        f"{HEAD}{OUT}topic = '#'\nremote_prefix = 'site4/'\n",
        f"{HEAD}version = '5'\npassword = 'x'\n",
        HEAD.replace("broker.example.com", "::1"),
        HEAD.replace("broker", "bücher"),
        f"{HEAD}transport = 'websocket'\npath = '/mqtt?x=%20'\ntls = {{alpn = ['mqtt']}}\n",
        HEAD.replace("broker.example.com", "127.0.0.1") + "port = 1884",
    ],
)
def test_what_the_documentation_allows_is_accepted(text: str) -> None:
    """Both ways, prefixes that end within a level, and an appliance that only bridges."""
    config = loads(text)
    assert config.bridge
    recheck(config)


@pytest.mark.parametrize(
    ("keys", "address"),
    [
        ("", "h:1883"), ("tls = {}", "h:8883"), ("transport = 'websocket'", "h:80"),
        ("transport = 'websocket'\ntls = {}", "h:443"), ("port = 7", "h:7"),
        ("host = '::1'", "[::1]:1883"),
    ],
)  # fmt: skip
def test_the_usual_port(keys: str, address: str) -> None:
    """A port is needed only where it is another than the usual one."""
    host = "" if "host" in keys else "host = 'h'\n"
    assert loads(f"[[bridge]]\nname = 'a'\n{host}{keys}").bridge[0].address == address


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEAD, "plant: nothing goes in or out"),
        (HEAD, "(broker.example.com:1883) has no `tls`: payloads cross the network unencrypted"),
        (HEAD + "username = 'u'\npassword = 'x'", "has no `tls`: the password and all payloads cross"),
        (HEAD + "tls = {}\nport = 1883", "`port`: 1883 is unusual here; the usual one is 8883"),
        (HEAD + "port = 8883", "8883 being usual with `tls`"),
        (HEAD + "client_id = 'twenty-four-characters..'", "`client_id` has 24 bytes"),
        (HEAD + "follow_redirects = true", "`follow_redirects` has no effect"),
        (HEAD + "session_expiry = '1h'", "`session_expiry` has no effect"),
        (HEAD + "session_expiry = '0s'", "`session_expiry` has no effect"),
        (HEAD + f"{OUT}topic = 'a/#'\n{OUT}topic = 'a/+/b'", "`publish[2]` has no effect: `publish[1]`"),
        (f"{HEAD}client_id = 'x'\n{SECOND}client_id = 'x'\nport = 1884", "for ever"),
        (f"{HEAD}{OUT}topic = 'a/#'\n{SECOND}port = 1884\n{IN}topic = '+/b'", "would go in a circle"),
        (HEAD + f"{IN}topic = '#'", "would begin with $ or appliance/ are left out"),
        (HEAD + f"{IN}topic = 'a/+/b'\nremove_prefix = 'a/'", "would begin with $ or appliance/ are left"),
        (HEAD + f"version = '5'\nsession_expiry = '0s'\n{IN}topic = 'a'", "is lost, in spite of qos = 1"),
        (HEAD + f"{IN}topic = 'a'\nshare = 'g'\nretained = true", "`retained` has no effect with `share`"),
        (HEAD + f"{IN}topic = 'a'\nshare = 'g'", "instead of going to the others"),
        (f"{HEAD}{IN}topic = 'a/#'\n{SECOND}{IN}topic = 'a/b'", "comes in twice and counts twice"),
    ],
)  # fmt: skip
def test_what_is_allowed_and_unwise_is_said(text: str, said: str) -> None:
    """A setting that may be a mistake has a line of its own."""
    found = [line for line in advice(loads(text)) if said in line]
    assert len(found) == 1
    assert found[0].startswith("[[bridge]] ")


def test_what_is_as_it_should_be_has_no_advice() -> None:
    """Nothing is said about a bridge with TLS, or one to this machine."""
    for keys in ("tls = {}\n", "port = 1884\n"):
        host = "127.0.0.1" if "port" in keys else "broker.example.com"
        text = f"[[bridge]]\nname = 'a'\nhost = '{host}'\n{keys}version = '5'\n{IN}topic = 'a/#'\n"
        assert advice(loads(text)) == []
    shared = f"{HEAD}tls = {{}}\n{IN}topic = 'a'\nshare = 'g'\n"
    both = loads(shared + shared.replace("plant", "second"))
    assert not [line for line in advice(both) if "twice" in line]


@pytest.mark.parametrize(
    ("share", "said", "asked"),
    [
        ("", "", False),
        ("share = 'g'", "", True),
        ("share = 'g'", "other_appliances = false", False),
        ("", "other_appliances = true", True),
    ],
)
def test_with_a_shared_subscription_the_qlik_server_is_asked_before_each_start(
    share: str, said: str, asked: bool
) -> None:
    """Unless the configuration says otherwise."""
    qlik = f"[qlik]\nedition = 'simulated'\n{said}\n"
    config = loads(f"{HEAD}tls = {{}}\n{IN}topic = 'a'\n{share}\n{qlik}")
    assert config.has_other_appliances is asked


def test_the_password_of_a_bridge_is_a_secret_like_others(tmp_path: Path) -> None:
    """It is masked in the log, never shown, read from a file, and a file without one is named."""
    (tmp_path / "pw.txt").write_text("from-a-file\n", "utf-8")
    text = f"{HEAD}username = 'u'\npassword = '${{PW}}'\n{SECOND}username = 'u'\npassword_file = 'pw.txt'\n"
    file = tmp_path / "config.toml"
    config = loads(text, file=str(file), environ={"PW": "hunter2"})
    assert all_secrets(config) == (Secret("hunter2"), Secret("from-a-file"))
    assert [bridge_password(each) for each in config.bridge] == list(all_secrets(config))
    assert "hunter2" not in repr(config)
    assert check_files(config) == []
    (tmp_path / "pw.txt").write_text("\n", "utf-8")
    [line] = check_files(config)
    assert "[[bridge]] 2 `password_file`: " in line
    assert "the file is empty" in line
    (tmp_path / "pw.txt").unlink()
    [line] = check_files(config)
    assert "its name is not shown, it may be the secret itself" in line
    assert "pw.txt" not in line


def test_files_of_tls_are_looked_at(tmp_path: Path) -> None:
    """A missing certificate, key or authority is named with the bridge's number."""
    text = f"{HEAD}tls = {{ca_file = 'ca.pem', certfile = 'a.pem', keyfile = 'b.pem'}}\n"
    said = check_files(loads(text, file=str(tmp_path / "c.toml")))
    assert [re.search(r"1 `(.*?)`", line)[1] for line in said] == [
        "tls.ca_file",
        "tls.certfile",
        "tls.keyfile",
    ]
    assert all("does not exist" in line for line in said)


@pytest.mark.skipif(sys.platform == "win32", reason="modes of files are POSIX's")
def test_a_secret_that_others_can_read_is_told(tmp_path: Path) -> None:
    """In the file itself, and in the files that hold a password or a key."""
    file, password, key = (tmp_path / each for each in ("config.toml", "pw.txt", "key.pem"))
    for each in (password, key):
        each.write_text("x", "utf-8")
    file.write_text(
        f"{HEAD}username = 'u'\npassword = 'hunter2'\n"
        f"{SECOND}username = 'u'\npassword_file = 'pw.txt'\n"
        "tls = {certfile = 'key.pem', keyfile = 'key.pem'}\n",
        "utf-8",
    )
    for each in (file, password, key):
        each.chmod(0o644)
    said = list(exposed_files(load(file)))
    assert said[0].startswith(f"{file} has a secret")
    assert [line.split(":")[0] for line in said[1:]] == [
        "[[bridge]] 2 `password_file`",
        "[[bridge]] 2 `tls.keyfile`",
    ]
    for each in (file, password, key):
        each.chmod(0o600)
    assert list(exposed_files(load(file))) == []


def test_a_reload_names_bridges_and_takes_all_of_them_at_once() -> None:
    """Every key of a bridge counts at once, and so do a new one and one that is gone."""
    old = loads(f"{HEAD}{SECOND}")
    new = loads(f"{HEAD}keepalive = '30s'\nversion = '5'\n{IN}topic = 'a'\n"
                "[[bridge]]\nname = 'third'\nhost = 'x'\n")  # fmt: skip
    found = changes(old, new)
    assert [each.where for each in found] == [
        "[[bridge]] plant version",
        "[[bridge]] plant keepalive",
        "[[bridge]] plant subscribe",
        "[[bridge]] second (is gone)",
        "[[bridge]] third (is new)",
    ]
    assert not any(each.waits for each in found)
    assert with_changes_at_once(old, new).bridge == new.bridge


def test_the_example_that_init_writes_is_valid_without_its_comment_signs() -> None:
    """A newcomer removes them and has a bridge."""
    text = (ROOT / "appliance" / "config" / "example.toml").read_text("utf-8")
    block = text[text.index("# [[bridge]]") :].partition("\n\n")[0]
    config = loads(block.replace("# ", "", 1).replace("\n# ", "\n"))
    assert (config.bridge[0].name, config.bridge[0].used_port) == ("plant", 8883)
    assert advice(config) == []


def test_an_appliance_without_listeners() -> None:
    """It needs a bridge; without the key there is the usual listener, also beside bridges."""
    assert loads(f"listener = []\n{HEAD}").listener == ()
    assert loads(f"listener = []\n{HEAD}").is_loopback_only
    assert [each.bind for each in loads(HEAD).listener] == ["127.0.0.1:1883"]
    assert Config().listener


def test_access_without_listeners_is_said_to_be_of_no_use() -> None:
    """Users and rules are about clients, and there are none."""
    text = f"listener = []\n[access]\nusers_file = 'u'\n{HEAD}tls = {{}}\n{IN}topic = 'a/b'"
    assert advice(loads(text)) == [
        "[access] has no effect: listener = [], so no client can connect"
    ]


def test_a_reload_opens_and_closes_no_listener() -> None:
    """Listeners wait for the next start; a bridge that is all there is can not go at once."""
    without, usual = loads(f"listener = []\n{HEAD}"), loads("")
    mixed = with_changes_at_once(without, usual)
    assert mixed.listener == ()
    with pytest.raises(ConfigError, match="no client could connect"):
        recheck(mixed)
    assert with_changes_at_once(usual, without).listener == usual.listener
    [waiting] = [each for each in changes(usual, without) if each.waits]
    assert waiting.where == "[[listener]] mqtt (is gone)"
