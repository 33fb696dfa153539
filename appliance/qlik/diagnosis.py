"""Tries a connection to Qlik step by step and reports each problem with its fix in sentences.

For ``appliance check --connect``. Every step is a look: nothing is started or changed on the
server. Not for: watching a server while the appliance runs (appliance.tasks).
"""

from __future__ import annotations

import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from appliance.config.certificates import dates_of
from appliance.config.tables import QlikConfig
from appliance.errors import ApplianceError
from appliance.finding import Finding
from appliance.model import Task, TaskKind
from appliance.qlik.connect import connect, tls_context
from appliance.qlik.failures import StatusError, exception_error
from appliance.qlik.masked_server import MaskedServer
from appliance.qlik.server import QlikError, QlikServer

_CLOCK_TOLERANCE_S = 60.0
_EXPIRY_WARNING_DAYS = 30
_REPOSITORY_PORT = 4242
_ALWAYS_NAMED = (TaskKind.RELOAD, TaskKind.EXTERNAL_PROGRAM, TaskKind.USER_SYNC)


Review = Callable[[Sequence[Task], Callable[[], Sequence[Task]]], Iterable[Finding]]
"""Holds something against the server's list of tasks; the second argument asks for its apps."""


def diagnose(
    config: QlikConfig,
    *,
    clock: Callable[[], int] = time.time_ns,
    review: Review = lambda _tasks, _apps: (),
) -> list[Finding]:
    """Try the configured connection; the findings are in the order of the steps.

    It stops at the first step that makes the later ones pointless. Takes at most a few times
    ``config.timeout``. Raises nothing that is expected. ``review`` adds findings about the tasks.
    """
    return list(_steps(config, clock, review))


def _steps(config: QlikConfig, clock: Callable[[], int], review: Review) -> Iterator[Finding]:
    try:
        server = connect(config, clock=clock)
    except ApplianceError as error:
        yield Finding("bad", str(error), error.exit_code)
        return
    try:
        if config.edition != "simulated":
            network = list(_network(config))
            yield from network
            if any(finding.level == "bad" for finding in network):
                return
        yield from _service(config, server, review)
    finally:
        server.close()


def _network(config: QlikConfig) -> Iterator[Finding]:
    """Name, port and TLS, each with its own error, before the first request."""
    parts = urlsplit(config.url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    where = f"{host}:{port}"
    try:
        connection = socket.create_connection((host, port), timeout=float(config.timeout))
    except (OSError, UnicodeError) as error:
        yield Finding("bad", _connect_problem(error, host, port))
        return
    with connection:
        if parts.scheme != "https":
            yield Finding("ok", f"{where} accepts connections (without TLS: loopback only).")
            return
        yield _tls(config, connection, host, port)


def _connect_problem(error: Exception, host: str, port: int) -> str:
    where = f"{host}:{port}"
    if isinstance(error, socket.gaierror | UnicodeError):
        return (
            f"The host name {host} can't be resolved. Check [qlik] url and the DNS of this machine."
        )
    if isinstance(error, ConnectionRefusedError):
        return (
            f"{where} refused the connection: nothing listens there. The Repository Service uses "
            "port 4242, a virtual proxy port 443; check [qlik] url and that the service runs."
        )
    if isinstance(error, TimeoutError):
        return (
            f"{where} did not answer: a firewall may be in between, or the machine is down. Port "
            "4242 is often closed between networks; ask for it to be opened, or go through a "
            "virtual proxy on port 443."
        )
    return f"{where} can't be reached ({error}). Check [qlik] url and the network."


def _tls(config: QlikConfig, connection: socket.socket, host: str, port: int) -> Finding:
    where = f"{host}:{port}"
    context = tls_context(config)
    try:
        with context.wrap_socket(connection, server_hostname=host) as secured:
            certificate = secured.getpeercert() or {}
            version = secured.version()
    except ssl.SSLCertVerificationError as error:
        text = str(_tls_problem(config, error, where))
        names = _names_at(config, host, port) if error.verify_code in {62, 64} else []
        if names:
            text += f" The certificate is for: {', '.join(names)}."
        if error.verify_code == 10 and (last := _last_day(config, host, port)):
            text += f" The server's own {last}."
        return Finding("bad", text)
    except (ssl.SSLError, OSError) as error:
        return Finding("bad", str(_tls_problem(config, error, where)))
    days = _days_left(certificate)
    if days is not None and days < _EXPIRY_WARNING_DAYS:
        return Finding(
            "warn",
            f"{where} has a certificate that ends in {days} days. Renew it on the Qlik server.",
        )
    return Finding("ok", f"{where} speaks {version} and its certificate is trusted.")


def _tls_problem(config: QlikConfig, error: Exception, where: str) -> QlikError:
    return exception_error(
        error,
        f"TLS https://{where}",
        timeout_s=float(config.timeout),
        has_certificate=config.certificate is not None,
        ca_file=config.ca_file,
    )


def _names_at(config: QlikConfig, host: str, port: int) -> Sequence[str]:
    """The names in a trusted certificate with another name; no data is sent over the connection."""
    context = tls_context(config)
    context.check_hostname = (
        False  # Only the name is not checked, since it is read here; the chain is verified.
    )
    try:
        with (
            socket.create_connection((host, port), timeout=float(config.timeout)) as second,
            context.wrap_socket(second, server_hostname=host) as secured,
        ):
            certificate: Mapping[str, Any] = secured.getpeercert() or {}
    except (OSError, ssl.SSLError):
        return []
    return [str(value) for _, value in certificate.get("subjectAltName", ())]


def _last_day(config: QlikConfig, host: str, port: int) -> str:
    """Until when a certificate that was not accepted is valid; no data is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # Only the dates are read, for a message.
    try:
        with (
            socket.create_connection((host, port), timeout=float(config.timeout)) as second,
            context.wrap_socket(second, server_hostname=host) as secured,
        ):
            found = dates_of(secured.getpeercert(binary_form=True) or b"")
    except (OSError, ssl.SSLError):
        return ""
    return f"certificate is valid until {found.ends:%Y-%m-%d}" if found else ""


def _days_left(certificate: Mapping[str, Any]) -> int | None:
    ends = certificate.get("notAfter")
    if not isinstance(ends, str):
        return None
    return int((ssl.cert_time_to_seconds(ends) - time.time()) // 86400)


def _service(config: QlikConfig, server: QlikServer, review: Review) -> Iterator[Finding]:
    try:
        info = server.check()
    except QlikError as error:
        yield Finding("bad", str(error) + _more(config, error), error.exit_code)
        return
    yield Finding("ok", f"{server.label} answers: {info.text}, in {info.rtt_s * 1000:.0f} ms.")
    if isinstance(server, MaskedServer):
        yield from _clock(server.clock_offset_s)
    try:
        tasks = server.tasks()
    except QlikError as error:
        yield Finding("bad", f"The tasks can't be listed. {error}", error.exit_code)
        return
    yield _visible(config, tasks)
    if tasks:  # else nothing can be compared, and that is said
        yield from review(tasks, server.apps)
    if isinstance(server, MaskedServer):
        yield from _interfaces(server)
    try:
        running = server.running()
    except QlikError as error:
        yield Finding("bad", f"Executions can't be followed. {error}", error.exit_code)
        return
    yield Finding("ok", f"Executions can be read; {len(running)} under way now.")


def _clock(offset_s: float) -> Iterator[Finding]:
    if abs(offset_s) > _CLOCK_TOLERANCE_S:
        direction = "ahead of" if offset_s > 0 else "behind"
        yield Finding(
            "warn",
            f"The server's clock is {abs(offset_s):.0f} seconds {direction} this machine's. Let "
            "both follow a time server: tokens and certificates depend on it.",
        )


def _interfaces(server: MaskedServer) -> Iterator[Finding]:
    """Which interface for tasks a Qlik Cloud tenant offers."""
    try:
        if offered := server.offered():
            yield Finding("ok", offered)
    except QlikError as error:
        yield Finding("bad", f"The interface for tasks can't be found out. {error}")


def _visible(config: QlikConfig, tasks: Sequence[Task]) -> Finding:
    if not tasks:
        user = config.user or "the configured user"
        return Finding(
            "warn",
            f"No tasks are visible to {user}. If there are some, the user lacks rights: add a "
            "security rule with Read and Update on ReloadTask_*, ExternalProgramTask_*, App_*, "
            "ExecutionResult_* and ExecutionSession_* (in Qlik Cloud: access to the apps' spaces).",
        )
    if config.edition == "cloud":
        apps = sum(task.id == task.app_id.lower() for task in tasks)
        return Finding("ok", f"{apps} apps and {len(tasks) - apps} tasks are visible.")
    counts = Counter(task.kind for task in tasks)
    named = [kind for kind in TaskKind if kind in _ALWAYS_NAMED or counts[kind]]
    kinds = ", ".join(f"{counts[kind]} {kind.text}" for kind in named)
    disabled = sum(not task.enabled for task in tasks)
    return Finding("ok", f"{len(tasks)} tasks are visible ({kinds}; {disabled} disabled).")


def _more(config: QlikConfig, error: QlikError) -> str:
    """Advice that needs the whole configuration."""
    parts = urlsplit(config.url)
    if config.edition != "client-managed" or not isinstance(error, StatusError):
        return ""
    prefix = parts.path.strip("/")
    if error.status == 404 and parts.port == _REPOSITORY_PORT and prefix:
        return f" Port 4242 has no virtual proxies: remove /{prefix} from [qlik] url."
    if error.status == 404 and prefix:
        return f" There may be no virtual proxy with the prefix {prefix!r} (QMC, Virtual proxies)."
    return ""
