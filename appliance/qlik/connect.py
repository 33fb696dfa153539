"""From ``[qlik]`` to a ``QlikServer``: the way in, the secrets, the certificate files.

Secrets are read here, when the connection is made, and nowhere else. Nothing is sent, so a server
that is down does not keep the appliance from starting. Not for: finding out why a connection does
not work (diagnosis.py).
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import certifi

from appliance.clock import steady
from appliance.config.files import SECRET_KEYS, qlik_secret
from appliance.config.sign_in import header_value_problem
from appliance.config.tables import QlikConfig
from appliance.errors import ConfigError, NoPermissionError
from appliance.qlik.client_managed import ClientManaged
from appliance.qlik.cloud import Cloud
from appliance.qlik.cloud_api import CloudApi
from appliance.qlik.cloud_login import ApiKey, OAuth, TokenSource
from appliance.qlik.data_files import DataFiles
from appliance.qlik.masked_server import MaskedServer
from appliance.qlik.server import QlikServer
from appliance.qlik.transport import Transport
from appliance.secret import Secret

_AGENT = "qlik-mqtt-appliance"
_NTLM_AGENT = "Windows"
"""The proxy offers Windows sign-in only to a User-Agent that says this; others get the form."""


def connect(config: QlikConfig, *, clock: Callable[[], int] = time.time_ns) -> QlikServer:
    """Make the client for the configured server. Nothing is sent yet.

    Edition ``simulated`` starts the embedded simulated server and talks to it over HTTP;
    ``close()`` stops it.

    Args:
        config: the ``[qlik]`` table.
        clock: our time in nanoseconds since the epoch.

    Raises:
        ConfigError: a certificate or secret can't be used, or NTLM's package is missing.
        NoPermissionError: a file may not be read.
    """
    if config.edition == "simulated":
        # Imported here, because only the simulated server needs an HTTP server.
        from appliance.qlik.embedded import EmbeddedQlik  # noqa: PLC0415  # see above

        return EmbeddedQlik(config.timeout, clock=clock)
    if config.edition == "cloud":
        return _cloud(config, clock)
    return _client_managed(config, clock)


def tls_context(config: QlikConfig) -> ssl.SSLContext:
    """What ``[qlik]`` says of certificates, tried out on the spot.

    Without ``ca_file``, the authorities of the system (which may hold a company's own) and those
    of Mozilla that certifi brings (the system's may be missing in a single binary) are trusted.

    Raises:
        ConfigError: a file is not what it should be.
        NoPermissionError: a file may not be read.
    """
    if config.ca_file is None:
        context = ssl.create_default_context()
        context.load_verify_locations(certifi.where())
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _tried("ca_file", config.ca_file, lambda: context.load_verify_locations(config.ca_file))
        # Signature, dates and name are verified. Only the strictness about a certificate's form
        # that Python 3.13 turned on is not asked of a private authority, such as a Qlik site's.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    pair = config.certificate
    if pair is not None:
        password = _NoPassword()
        try:
            _tried(
                "certificate",
                f"{pair.certfile}, {pair.keyfile}",
                lambda: context.load_cert_chain(pair.certfile, pair.keyfile, password=password),
            )
        except ConfigError as error:
            if not password.asked:
                raise
            raise ConfigError(
                f"[qlik] `certificate` {pair.keyfile}: the key is protected by a password; export "
                "it from the QMC without one"
            ) from error
    return context


def _client_managed(config: QlikConfig, clock: Callable[[], int]) -> QlikServer:
    url = config.url.rstrip("/").removesuffix("/qrs")
    headers = {"User-Agent": _AGENT, "Accept": "application/json, text/plain"}
    settings: dict[str, Any] = {}
    jwt = qlik_secret(config, "jwt")
    through_proxy = True
    if config.header is not None:
        given = config.header.value
        headers[config.header.name] = _in_header(given.reveal() if given else config.user)
    elif jwt is not None:
        headers["Authorization"] = f"Bearer {jwt.reveal()}"
    elif config.ntlm:
        headers["User-Agent"] = _NTLM_AGENT
        settings["auth"] = _ntlm(config)
    else:
        through_proxy = False
        headers["X-Qlik-User"] = qlik_user(config.user)
    transport = Transport(
        url,
        timeout_s=float(config.timeout),
        headers=headers,
        tls=tls_context(config) if url.startswith("https:") else None,
        has_certificate=config.certificate is not None,
        ca_file=config.ca_file,
        secrets=_secrets(config),
        clock=clock,
        **settings,
    )
    return _masked(ClientManaged(transport, through_proxy=through_proxy), transport)


def data_files(
    config: QlikConfig, server: object = None, *, clock: Callable[[], int] = time.time_ns
) -> DataFiles:
    """Make the client for the data files of the configured tenant. Nothing is sent yet.

    It has connections of its own, so that a long upload delays no start of a task.

    Args:
        config: the ``[qlik]`` table.
        server: what ``connect`` made, for edition ``simulated``.
        clock: our time in nanoseconds since the epoch.

    Raises:
        ConfigError: the edition has no data files, or a secret can't be used.
        NoPermissionError: a file may not be read.
    """
    if config.edition == "simulated":
        from appliance.qlik.embedded import EmbeddedQlik  # noqa: PLC0415  # as in ``connect``

        if isinstance(server, EmbeddedQlik):
            config = server.as_cloud(config)
    if config.edition != "cloud":
        raise ConfigError(
            f'[qlik] `edition` "{config.edition}" has no data files; `upload` needs Qlik Cloud'
        )
    transport, source = _tenant(config, clock)
    return DataFiles(CloudApi(transport, source), urlsplit(config.url).hostname or config.url)


def _cloud(config: QlikConfig, clock: Callable[[], int]) -> QlikServer:
    transport, source = _tenant(config, clock)
    return _masked(Cloud(transport, source), transport)


def _tenant(config: QlikConfig, clock: Callable[[], int]) -> tuple[Transport, TokenSource]:
    url = config.url.rstrip("/")
    transport = Transport(
        url,
        timeout_s=float(config.timeout),
        headers={"User-Agent": _AGENT, "Accept": "application/json"},
        tls=tls_context(config) if url.startswith("https:") else None,
        ca_file=config.ca_file,
        secrets=_secrets(config),
        clock=clock,
    )
    source: TokenSource
    key = qlik_secret(config, "api_key")
    if key is not None:
        source = ApiKey(key)
    else:
        secret = qlik_secret(config, "client_secret")
        if not config.client_id or secret is None:
            raise ConfigError(
                "[qlik] has no way to sign in to Qlik Cloud; set `api_key_file`, or `client_id` "
                "and `client_secret_file`"
            )
        source = OAuth(transport, config.client_id, secret, clock=steady(clock))
    return transport, source


def _masked(server: QlikServer, transport: Transport) -> QlikServer:
    return MaskedServer(server, transport.mask, lambda: transport.clock_offset_s)


def _secrets(config: QlikConfig) -> list[Secret]:
    given = [config.header.value if config.header else None]
    given += [qlik_secret(config, name) for name in SECRET_KEYS]
    return [secret for secret in given if secret]


def _in_header(value: str) -> str:
    if problem := header_value_problem(value):
        raise ConfigError(f"[qlik] `header`: the value (not shown): {problem}")
    return value


def qlik_user(user: str) -> str:
    r"""The value of the X-Qlik-User header for ``directory\name``.

    Raises:
        ConfigError: the user has another form.
    """
    directory, separator, name = user.partition("\\")
    if not separator or not directory or not name or ";" in user:
        raise ConfigError(
            f"[qlik] `user` {user!r}: a user is directory, backslash, name; write for example "
            r"'INTERNAL\sa_repository', in single quotes"
        )
    if problem := header_value_problem(user):
        raise ConfigError(f"[qlik] `user` {user!r}: {problem}")
    return f"UserDirectory={directory};UserId={name}"


def _ntlm(config: QlikConfig) -> Callable[[], Any]:
    try:
        from requests_ntlm import HttpNtlmAuth  # noqa: PLC0415  # an optional extra
    except ImportError:
        raise ConfigError(
            "[qlik] `ntlm` needs a package that is not installed; install it with "
            "pip install 'qlik-mqtt-appliance[ntlm]', or sign in with a certificate"
        ) from None
    password = qlik_secret(config, "password") or Secret("")
    return lambda: HttpNtlmAuth(config.user, password.reveal())


class _NoPassword:
    """Answers OpenSSL's question for a password, which it would ask on the terminal otherwise."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self) -> str:
        self.asked = True
        return ""


def _tried(key: str, files: str, load: Callable[[], None]) -> None:
    try:
        load()
    except PermissionError:
        raise NoPermissionError(
            f"[qlik] `{key}` {files}: this user may not read it; change the file's rights"
        ) from None
    except FileNotFoundError:
        raise ConfigError(
            f"[qlik] `{key}` {files}: no such file; put it there or name another"
        ) from None
    except ssl.SSLError as error:
        reason = error.reason or ""
        if "KEY_VALUES_MISMATCH" in reason:
            what = "the key does not belong to the certificate; take both from one export"
        else:
            what = (
                "not in PEM form; in the QMC's certificate export choose the format "
                '"Platform independent PEM-format"'
            )
        raise ConfigError(f"[qlik] `{key}` {files}: {what}") from None
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"[qlik] `{key}` {files}: can't be read: {said}") from None
