"""Tries the brokers of bridges, for ``appliance check --connect``: sign-in, then filter by filter.

The try has a client id of its own, a session that ends with it, and a group of its own for shared
subscriptions. So a running bridge is not disturbed, takes no message less, and nothing is left at
the broker. Not for: connections that carry messages (connection.py).
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from msgspec.structs import replace as _replace

from appliance.bridge.causes import Cause, Causes, HandshakeError, Kind
from appliance.bridge.redirect import Redirects
from appliance.bridge.share_probe import ShareProbe
from appliance.bridge.transport import Address, open_transport
from appliance.bridge.trial_connection import EndedError, TrialConnection
from appliance.broker.work import Turns
from appliance.config.files import bridge_password
from appliance.config.tables import BridgeConfig, BridgeSubscribeConfig, Config
from appliance.counters import Counter
from appliance.errors import (
    EXIT_CONFIG,
    EXIT_NO_PERMISSION,
    EXIT_UNAVAILABLE,
    ApplianceError,
)
from appliance.finding import Finding
from appliance.known_secrets import KnownSecrets
from appliance.log.sanitize import escape
from appliance.mqtt.client_packets import ConnAck, ConnectOptions, SubAck
from appliance.mqtt.packets import SubscribeOptions
from appliance.mqtt.reasons import FAILURE
from appliance.secret import Secret

_MOST_S = 60.0
"""How long the try of one bridge takes at most."""
_MOST_NAMED = 10
_LONGEST_PROBE_S = 3.0
_EXPIRY_WARNING_DAYS = 30
_SUFFIX = "-check"
_TOPIC_ADVICE = "check `topic`, and what the broker permits this user"

_EXIT_CODES = {
    Kind.PASSWORD: EXIT_NO_PERMISSION,
    Kind.NOT_AUTHORIZED: EXIT_NO_PERMISSION,
    Kind.BANNED: EXIT_NO_PERMISSION,
    Kind.CLIENT_CERTIFICATE: EXIT_NO_PERMISSION,
    Kind.SUBSCRIPTION: EXIT_NO_PERMISSION,
    Kind.FILES: EXIT_CONFIG,
    Kind.VERSION: EXIT_CONFIG,
    Kind.CLIENT_ID: EXIT_CONFIG,
    Kind.WEBSOCKET: EXIT_CONFIG,
}
"""As for a Qlik server: 77 where the broker does not let the bridge, 78 where ``[[bridge]]`` is
wrong, and 69 for what may pass by itself."""
_UNSPOKEN_VERSION = frozenset({Kind.VERSION, Kind.CLOSED_EARLY, Kind.NO_ANSWER, Kind.PROTOCOL})
"""How brokers answer a CONNECT of a version that they don't speak."""
_BY_CLIENT_ID = frozenset({Kind.CLIENT_ID, Kind.NOT_AUTHORIZED, Kind.CLOSED_EARLY})

T = TypeVar("T")


def try_bridges(config: Config) -> list[Finding]:
    """Try every bridge at the same time; the findings are in the order of the file.

    Takes at most a minute. Raises nothing that is expected.
    """
    return asyncio.run(_try_all(config))


async def _try_all(config: Config) -> list[Finding]:
    turns = Turns(asyncio.get_running_loop())
    executor = ThreadPoolExecutor(4, "files of bridges")
    try:
        trials = [_Trial(each, config.service.name, executor, turns) for each in config.bridge]
        found = await asyncio.gather(*(each.findings() for each in trials))
    finally:
        executor.shutdown(wait=False)
    return [each for of_one in found for each in of_one]


class _Accepted(NamedTuple):
    connection: TrialConnection
    answer: ConnAck


class _Trial:
    """The try of one bridge."""

    def __init__(
        self, config: BridgeConfig, service_name: str, executor: Executor, turns: Turns
    ) -> None:
        self._config = config
        self._executor = executor
        self._turns = turns
        self._service_name = service_name
        self._client_id = (config.client_id or f"{service_name}-{config.name}") + _SUFFIX
        self._found: list[Finding] = []
        self._causes = Causes(KnownSecrets(), has_certificate=False, has_tls=False)
        self._was_made = False
        self._home = Address(config.host, config.used_port)
        self._redirects = Redirects(config.follow_redirects, config.used_port)

    async def findings(self) -> list[Finding]:
        """What was found, in the order of the steps."""
        try:
            async with asyncio.timeout(_MOST_S):
                await self._steps()
        except TimeoutError:
            self._say("bad", f"the try was not done within {_MOST_S:.0f} s, and was given up")
        except EndedError as ended:
            self._not_connected(ended.cause)
        return self._found

    def _say(self, level: str, text: str, exit_code: int = EXIT_UNAVAILABLE) -> None:
        where = f"[[bridge]] {self._config.name}"
        self._found.append(Finding(level, f"{where}: {text}.", exit_code))

    def _bad(self, cause: Cause) -> None:
        self._say("bad", str(cause), _EXIT_CODES.get(cause.kind, EXIT_UNAVAILABLE))

    def _not_connected(self, cause: Cause) -> None:
        where = f"{self._address}, client id {escape(self._client_id)}"
        self._bad(_replace(cause, text=f"{where}: {cause.text}"))

    async def _steps(self) -> None:
        config = self._config
        try:
            password = await asyncio.to_thread(bridge_password, config)
        except ApplianceError as error:
            self._say("bad", str(error), error.exit_code)
            return
        tls = config.tls
        self._causes = Causes(
            KnownSecrets() if password is None else KnownSecrets(password),
            has_certificate=tls is not None and tls.certfile is not None,
            has_tls=tls is not None,
        )
        version = 5 if config.version == "5" else 4
        accepted = await self._first(password, version)
        if accepted is None:
            return
        self._say_accepted(accepted)
        await self._subscribe(accepted, lambda: self._connect(password, version))
        if config.publish:
            self._say("note", "publishing is not tried, since others would get the message")

    @property
    def _address(self) -> Address:
        return self._redirects.address or self._home

    async def _first(self, password: Secret | None, version: int) -> _Accepted | None:
        """Connect, also to where the broker sends the bridge. Notes a failure."""
        while True:
            try:
                return await self._connect(password, version)
            except EndedError as ended:
                cause = await self._explained(ended.cause, password, version)
                before = self._address
                if not self._redirects.follow(cause, is_stable=False):
                    self._redirects.address = before
                    self._not_connected(cause)
                    return None
                self._say("note", f"{before} names another server, {self._address}")

    async def _connect(self, password: Secret | None, version: int) -> _Accepted:
        """Raises ``EndedError``."""
        config = self._config
        options = ConnectOptions(
            version=version,
            client_id=self._client_id,
            clean_start=True,
            keepalive_s=round(config.keepalive),
            username=config.username,
            password=password,
        )
        connection = TrialConnection(options, self._causes)
        try:
            answer = await self._within(self._open(connection))
        except (OSError, UnicodeError, ValueError, ApplianceError, HandshakeError) as error:
            await connection.goodbye()
            raise EndedError(self._causes.of_error(error)) from None
        except BaseException:
            await connection.goodbye()
            raise
        finally:
            self._was_made = connection.was_made
        if answer.reason:
            reason, server = answer.reason_string, answer.server_reference
            connection.is_open = False  # it takes no DISCONNECT
            await connection.goodbye()
            raise EndedError(self._refusal(answer.reason, version, reason, server))
        return _Accepted(connection, answer)

    async def _open(self, connection: TrialConnection) -> ConnAck:
        config = self._config
        await open_transport(
            config,
            self._address,
            connection,
            executor=self._executor,
            turns=self._turns,
            count=_count_nothing,
        )
        return await connection.connack()

    def _refusal(self, code: int, version: int, reason: str, server: str) -> Cause:
        return self._causes.of_connack(code, version, reason, server=server)

    async def _within(self, awaited: Awaitable[T]) -> T:
        return await asyncio.wait_for(awaited, self._config.connect_timeout)

    async def _explained(self, cause: Cause, password: Secret | None, version: int) -> Cause:
        """The cause, with what another attempt tells about it."""
        if cause.kind in _UNSPOKEN_VERSION and self._was_made:
            other = 4 if version == 5 else 5
            right = "5" if other == 5 else "3.1.1"
            try:
                accepted = await self._connect(password, other)
                await accepted.connection.goodbye()
            except EndedError as ended:
                if ended.cause.kind in _UNSPOKEN_VERSION:
                    return cause
                more = f"with MQTT {right} it says: {ended.cause.text}"
                return _replace(cause, text=f"{cause.text}, and {more}")
            text = f"{cause.text}, but it accepts MQTT {right}"
            return Cause(Kind.VERSION, text, f'write version = "{right}"', cause.code)
        if cause.kind is Kind.QUOTA:
            more = "; or the bridge is connected now, and the broker permits one session a user"
            return _replace(cause, advice=f"{cause.advice}{more}".removeprefix("; "))
        if cause.kind in _BY_CLIENT_ID:
            more = f"; or the broker permits certain client ids, and no {_SUFFIX} at their end"
            return _replace(cause, advice=f"{cause.advice}{more}".removeprefix("; or "))
        return cause

    def _say_accepted(self, accepted: _Accepted) -> None:
        config, (connection, answer) = self._config, accepted
        how = f", {connection.tls}" if connection.tls else ""
        if config.username is not None:
            how += f", user {escape(config.username)}"
        self._say(
            "ok",
            f"{self._address} accepts the connection: MQTT {config.version}"
            f"{how}, client id {escape(self._client_id)}",
        )
        if (certificate := connection.certificate) is not None:
            left = certificate.ends - dt.datetime.now(dt.UTC)
            if left.days < _EXPIRY_WARNING_DAYS:
                text = f"the broker's certificate ends in {left.days} days: renew it there"
                self._say("warn", text)
        if answer.maximum_qos < 1 and any(each.qos for each in config.publish):
            self._say("warn", "the broker takes messages at QoS 0 only, so one may get lost")
        if not answer.retain_available and any(each.retained for each in config.publish):
            self._say(
                "warn", "the broker keeps no retained messages; set `retained = false` in `publish`"
            )

    async def _subscribe(
        self, accepted: _Accepted, connect: Callable[[], Awaitable[_Accepted]]
    ) -> None:
        granted = []
        connection: TrialConnection | None = accepted.connection
        try:
            for each in self._config.subscribe:
                if connection is None:
                    connection = (await connect()).connection
                try:
                    answer = await self._within(connection.subscribe(_options(each)))
                except (EndedError, TimeoutError) as error:
                    await connection.goodbye()
                    connection = None
                    self._bad(_lost(each, error))
                    continue
                if self._judge(each, answer):
                    granted.append(escape(each.topic))
            if (
                connection is not None
                and granted
                and any(each.share for each in self._config.subscribe)
            ):
                await self._probe(connection, accepted.answer)
        finally:
            if connection is not None:
                await connection.goodbye()
        if granted:
            more = f" and {len(granted) - _MOST_NAMED} more" if len(granted) > _MOST_NAMED else ""
            self._say("ok", f"the broker grants {', '.join(granted[:_MOST_NAMED])}{more}")

    async def _probe(self, connection: TrialConnection, answer: ConnAck) -> None:
        """See whether the broker hands on what it grants to a shared subscription."""
        wait_s = min(float(self._config.connect_timeout), _LONGEST_PROBE_S)
        probe = ShareProbe(
            self._config.subscribe,
            name=self._config.name,
            service_name=self._service_name,
            installation=_SUFFIX[1:],
            version=5 if self._config.version == "5" else 4,
            wait_s=0.0,  # it is asked when the time is over
            clock=asyncio.get_running_loop().time,
        )
        probe.begin(is_available=answer.shared_subscriptions_available)
        try:
            if (wanted := probe.next_packet()) is not None:
                suback = await self._within(connection.ask(wanted))
                if (publish := probe.answered(max(suback.codes))) is not None:
                    payload = publish.partition(probe.topic.encode())[2].lstrip(b"\0")
                    await asyncio.wait_for(connection.comes_back(publish, payload), wait_s)
                    self._say("ok", "shared subscriptions work there")
                    return
        except TimeoutError:
            probe.is_late()
        except EndedError:
            self._say("warn", "the broker closes the connection at the test of `share`")
            return
        if probe.problem:
            self._say("warn", f"`share`: {probe.problem}".replace(" in 0 s", f" in {wait_s:g} s"))

    def _judge(self, config: BridgeSubscribeConfig, answer: SubAck) -> bool:
        """Note what the broker says of a filter; returns whether it grants it as it should."""
        code = max(answer.codes)
        shown = escape(config.topic)
        if code >= FAILURE:
            cause = self._causes.of_code(code, answer.reason_string)
            text = f"the broker refuses the subscription to {shown}: {cause.text}"
            self._bad(_replace(cause, kind=Kind.SUBSCRIPTION, text=text, advice=_TOPIC_ADVICE))
            return False
        if code < config.qos:
            self._say(
                "warn",
                f"the broker grants {shown} at QoS {code} instead of {config.qos}, so a message "
                "may get lost",
            )
        return code >= config.qos


def _options(config: BridgeSubscribeConfig) -> SubscribeOptions:
    topic: str = config.topic
    if config.share:
        # A member more of the real group would take messages from the others.
        topic = f"$share/{config.share}{_SUFFIX}/{topic}"
    return SubscribeOptions(topic_filter=topic, qos=config.qos, retain_handling=2)


def _lost(config: BridgeSubscribeConfig, error: Exception) -> Cause:
    did = "did not answer" if isinstance(error, TimeoutError) else "closed the connection at"
    text = f"the broker {did} the subscription to {escape(config.topic)}"
    if isinstance(error, EndedError) and error.cause.code:
        text += f" ({error.cause.text})"
    return Cause(Kind.SUBSCRIPTION, text, _TOPIC_ADVICE)


def _count_nothing(_counter: Counter) -> None:
    """What a try refuses is in its findings."""
