"""amqtt's own plugins for HTTP, JWT, databases and LDAP, each against the real thing."""

from __future__ import annotations

import importlib.util
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp.web
import certificates
import jwt
import pytest
from amqtt.contexts import Action
from amqtt.contrib.auth_db.managers import TopicManager, UserManager
from broker_rig import Rig, Wire, plugin
from ldap_server import ADMIN, SCHEMA, SLAPD, LdapServer, ldap_server

from appliance.config.tables import ListenerConfig, TlsConfig
from appliance.counters import Counter

REFUSED, UNAVAILABLE = 4, 3


async def answer(rig: Rig, username: str | None, password: str | None) -> int:
    """The return code of a CONNECT; 0: it was accepted."""
    wire = await rig.socket()
    sent = None if password is None else password.encode()
    wire.send(wire.connect_packet("c1", username=username, password=sent))
    found = await wire.expect(2)
    wire.abort()
    return found.body[1]


async def acked(wire: Wire, topic: str) -> list[int]:
    """Publish at QoS 1; the acknowledgement leaves before the message comes back."""
    return (await wire.publish_acked(topic)).codes


# --- HTTP -----------------------------------------------------------------------------------------


class Directory:
    """A server that knows one user, and what it may do."""

    def __init__(self) -> None:
        self.port = 0
        self.asked: list[dict[str, Any]] = []
        self.fails = False

    async def user(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        found = await request.json()
        self.asked.append(found)
        if self.fails:
            raise aiohttp.web.HTTPInternalServerError
        is_right = (found["username"], found["password"]) == ("anna", "right")
        return aiohttp.web.json_response({"ok": is_right})

    async def acl(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        found = dict(await request.post())
        self.asked.append(found)
        may = {"a": "1", "b": "2", "a/#": "4"}.get(found["topic"]) == found["acc"]
        return aiohttp.web.Response(status=200 if may else 403)


@pytest.fixture
async def directory() -> AsyncIterator[Directory]:
    found = Directory()
    app = aiohttp.web.Application()
    app.router.add_post("/user", found.user)
    app.router.add_post("/acl", found.acl)
    runner = aiohttp.web.AppRunner(app)
    await runner.setup()
    site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.port = runner.addresses[0][1]
    yield found
    await runner.cleanup()


def http(name: str, port: int, **settings: object) -> Any:
    settings = {"host": "127.0.0.1", "port": port, "request_method": "post", **settings}
    return plugin(f"amqtt.contrib.http.{name}", **settings)


async def test_http_authentication(tmp_path: Path, directory: Directory) -> None:
    """A server with the answers in JSON lets clients in."""
    auth = http("UserAuthHttpPlugin", directory.port)
    async with Rig(tmp_path / "d", plugins=(auth,), anonymous=False) as rig:
        assert await answer(rig, "anna", "right") == 0
        assert await answer(rig, "anna", "wrong") == REFUSED
        assert directory.asked[0] == {
            "username": "anna", "password": "right", "client_id": "c1"
        }  # fmt: skip
        directory.fails = True
        assert await answer(rig, "anna", "right") == REFUSED


async def test_http_server_that_is_down(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The client is told to try again, and the password stands nowhere."""
    auth = http("UserAuthHttpPlugin", 1)
    async with Rig(tmp_path / "d", plugins=(auth,), anonymous=False) as rig:
        assert await answer(rig, "anna", "right-s3cret") == UNAVAILABLE
        assert rig.counters[Counter.LOGINS_REFUSED_PLUGIN_FAILED] == 1
    assert "plugin 1 (UserAuthHttpPlugin) failed with ClientConnectorError" in caplog.text
    assert "s3cret" not in caplog.text


async def test_http_topics(tmp_path: Path, directory: Directory) -> None:
    """By status code, asked with a form: publish, subscribe and receive have numbers of their own."""
    topics = http("TopicAuthHttpPlugin", directory.port, params_mode="form", response_mode="status")
    async with Rig(tmp_path / "d", plugins=(topics,)) as rig:
        wire = await rig.wire(5, username="anna")
        assert await wire.subscribe("a/#", "b") == [0, 0x87]
        assert (await wire.publish_acked("b")).codes == [0]
        assert (await wire.publish_acked("a")).codes == [0x87]
        rig.door.publish("a", b"from elsewhere")
        assert (await wire.message()).payload == b"from elsewhere"


async def test_amqtts_log_of_events(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It has no methods of the events' names, and hears them all the same."""
    caplog.set_level("INFO")
    events = plugin("amqtt.plugins.logging_amqtt.EventLoggerPlugin")
    async with Rig(tmp_path / "d", plugins=(events,)) as rig:
        await rig.wire()
        await rig.until(lambda: "'on_broker_client_connected' EVENT FIRED" in caplog.text)


async def test_client_certificates(tmp_path: Path) -> None:
    """A plugin may look at the certificate that the client showed to the listener."""
    files = certificates.make(tmp_path / "tls", uri="spiffe://example.com/device/press-1")
    tls = TlsConfig(certfile=files.server, keyfile=files.server_key, client_ca=files.root)
    context = ssl.create_default_context(cafile=files.root)
    context.load_cert_chain(files.client, files.client_key)
    by_certificate = plugin("amqtt.contrib.cert.UserAuthCertPlugin", uri_domain="example.com")
    async with Rig(
        tmp_path / "d",
        plugins=(by_certificate,),
        anonymous=False,
        listeners=(ListenerConfig(name="tls", bind="127.0.0.1:0", tls=tls),),
    ) as rig:
        for client_id, code in (("press-1", 0), ("press-2", REFUSED)):
            wire = await Wire.open(rig.port, tls=context)
            wire.send(wire.connect_packet(client_id))
            assert (await wire.expect(2)).body[1] == code
            await wire.close()


# --- JWT ------------------------------------------------------------------------------------------

KEY = "a key of more than thirty-two bytes for HS256"


def token(**claims: object) -> str:
    return jwt.encode({"sub": "anna", "exp": time.time() + 60, **claims}, KEY, algorithm="HS256")


async def test_jwt(tmp_path: Path) -> None:
    """The password is a token that says who it is and what it may do."""
    settings = {"publish_claim": "pub", "subscribe_claim": "sub_to", "receive_claim": "get"}
    plugins = (
        plugin("amqtt.contrib.jwt.UserAuthJwtPlugin", secret_key=KEY, user_claim="sub"),
        plugin(
            "amqtt.contrib.jwt.TopicAuthJwtPlugin", keep_password=True, secret_key=KEY, **settings
        ),
    )
    async with Rig(tmp_path / "d", plugins=plugins, anonymous=False) as rig:
        assert await answer(rig, "anna", token(exp=time.time() - 60)) == REFUSED
        assert await answer(rig, "berta", token()) == REFUSED
        assert await answer(rig, "anna", "no token") == REFUSED
        claims = {"pub": ["press/+/state"], "sub_to": ["press/#"], "get": ["press/1/state"]}
        wire = await rig.wire(5, username="anna", password=token(**claims).encode())
        assert await wire.subscribe("press/#", "other") == [0, 0x87]
        for topic in ("press/2/state", "press/1/state"):
            assert await acked(wire, topic) == [0]
        assert (await wire.message()).topic == "press/1/state"
        await wire.nothing_more()
        assert rig.counters[Counter.DELIVERIES_REFUSED_NOT_ALLOWED] == 1


# --- a database -----------------------------------------------------------------------------------


async def test_database(tmp_path: Path) -> None:
    """Users and their topics in a SQLite file, by way of SQLAlchemy."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'auth.db'}"
    async with UserManager(url) as users, TopicManager(url) as topics:
        await users.db_sync()
        await users.create_user_auth("anna", "right")
        await topics.create_topic_auth("anna")
        await topics.add_allowed_topic("anna", "press/#", Action.PUBLISH)
        await topics.add_allowed_topic("anna", "press/1", Action.SUBSCRIBE)
        await topics.add_allowed_topic("anna", "press/1", Action.RECEIVE)
    plugins = (
        plugin("amqtt.contrib.auth_db.UserAuthDBPlugin", connection=url),
        plugin("amqtt.contrib.auth_db.TopicAuthDBPlugin", connection=url),
    )
    async with Rig(tmp_path / "d", plugins=plugins, anonymous=False) as rig:
        assert await answer(rig, "anna", "wrong") == REFUSED
        assert await answer(rig, "berta", "right") == REFUSED
        wire = await rig.wire(5, username="anna", password=b"right")
        assert await wire.subscribe("press/1", "press/2") == [0, 0x87]
        assert (await wire.publish_acked("other")).codes == [0x87]
        assert await acked(wire, "press/1") == [0]
        assert (await wire.message()).topic == "press/1"


# --- LDAP -----------------------------------------------------------------------------------------

needs_ldap = pytest.mark.skipif(
    SLAPD is None or not SCHEMA.exists() or importlib.util.find_spec("ldap") is None,
    reason="needs slapd (Debian: slapd) and python-ldap (pip install -e '.[ldap]')",
)


@pytest.fixture
def ldap(tmp_path: Path) -> Any:
    with ldap_server(tmp_path / "ldap") as server:
        yield server


def of_ldap(name: str, server: LdapServer, **settings: object) -> Any:
    return plugin(
        f"amqtt.contrib.ldap.{name}",
        server=server.url,
        base_dn="dc=example,dc=com",
        user_attribute="uid",
        bind_dn=ADMIN[0],
        bind_password=ADMIN[1],
        **settings,
    )


@pytest.mark.campaign
@needs_ldap
async def test_ldap_authentication(tmp_path: Path, ldap: LdapServer) -> None:
    """A bind as the client; no name that is a filter, and no bind without a password."""
    plugins = (of_ldap("UserAuthLdapPlugin", ldap),)
    async with Rig(tmp_path / "d", plugins=plugins, anonymous=False) as rig:
        assert await answer(rig, "anna", "anna's password") == 0
        assert await answer(rig, "anna", "wrong") == REFUSED
        assert await answer(rig, "berta", "anna's password") == REFUSED
        for name in ("*", "an*", "anna)(uid=*", "a\\6ena", ""):
            assert await answer(rig, name, "anna's password") == REFUSED, name
        rig.access._failures._failures.clear()  # else each answer is slower than the one before
        assert await answer(rig, "anna", "") == REFUSED
        assert await answer(rig, "anna", None) == REFUSED


@needs_ldap
async def test_ldap_server_that_restarts(tmp_path: Path, ldap: LdapServer) -> None:
    """While it is down clients are told to try again; once it is back, they come in."""
    plugins = (of_ldap("UserAuthLdapPlugin", ldap),)
    async with Rig(tmp_path / "d", plugins=plugins, anonymous=False) as rig:
        assert await answer(rig, "anna", "anna's password") == 0
        ldap.stop()
        ldap.start()
        assert await answer(rig, "anna", "anna's password") == 0
        ldap.stop()
        assert await answer(rig, "anna", "anna's password") == UNAVAILABLE


@needs_ldap
async def test_ldap_topics(tmp_path: Path, ldap: LdapServer) -> None:
    """What a user may publish, subscribe to and receive stands in its entry."""
    plugins = (
        of_ldap("UserAuthLdapPlugin", ldap),
        of_ldap(
            "TopicAuthLdapPlugin",
            ldap,
            publish_attribute="description",
            subscribe_attribute="employeeType",
            receive_attribute="departmentNumber",
        ),
    )
    async with Rig(tmp_path / "d", plugins=plugins, anonymous=False) as rig:
        wire = await rig.wire(5, username="anna", password=b"anna's password")
        assert await wire.subscribe("press/#", "other") == [0, 0x87]
        assert (await wire.publish_acked("press/1/other")).codes == [0x87]
        for topic in ("press/2/state", "press/1/state"):
            assert await acked(wire, topic) == [0]
        assert (await wire.message()).topic == "press/1/state"
        await wire.nothing_more()
