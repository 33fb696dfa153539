"""Turns every failure of a request into ``QlikError``.

That is a sentence for the operator, a label for a table cell, and whether the request may be made
again (docs/qlik.md, "Retrying a start").

Not for: retrying (appliance.tasks).
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from http.client import BadStatusLine, UnknownProtocol

from appliance.config.certificates import ended
from appliance.qlik.masking import mask_line
from appliance.qlik.server import QlikError, RetryPolicy

_RETRY_AFTER_LIMIT_S = 86400.0
_TEXT_LIMIT = 200

# OpenSSL's X509_V_ERR_* numbers, as ssl.SSLCertVerificationError.verify_code has them.
_NOT_YET_VALID = 9
_EXPIRED = 10
_WRONG_NAME = frozenset({62, 64})
_UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21, 27})
# Alerts with which a server refuses a handshake, as OpenSSL names them (RFC 8446, section 6.2).
# With TLS 1.3 they arrive after the client has sent its request, which the server never reads.
_REFUSING_ALERTS = (
    "ACCESS_DENIED",
    "BAD_CERTIFICATE",
    "CERTIFICATE_EXPIRED",
    "CERTIFICATE_REQUIRED",
    "CERTIFICATE_REVOKED",
    "CERTIFICATE_UNKNOWN",
    "HANDSHAKE_FAILURE",
    "UNKNOWN_CA",
    "UNSUPPORTED_CERTIFICATE",
)
_NOT_TLS = (
    "WRONG_VERSION_NUMBER",
    "HTTP_REQUEST",
    "PACKET_LENGTH_TOO_LONG",
    "RECORD_LAYER_FAILURE",
)
_DENYING = frozenset({401, 403})
_DONE_WITH = frozenset({408, 500, 501, 503})
"""The server itself has given up the request (RFC 9110, sections 15.5.9, 15.6.1, 15.6.2, 15.6.4).
With 502 and 504 a gateway answers, and the server behind it may still work on the request."""
_PROXY_ERRORS = frozenset({"InvalidProxyURL", "InvalidSchema", "ProxyError", "ProxySchemeUnknown"})
"""Names of exceptions; the second is that of a proxy whose kind needs a package (SOCKS)."""
_QUOTING = (ValueError, BadStatusLine, UnknownProtocol)
"""Errors whose text quotes a part of the answer: a part of a secret would not be known as one."""
_OLD_TLS = ("PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL")


class StatusError(QlikError):
    """The server answered with a status that is not a success."""

    def __init__(
        self,
        text: str,
        *,
        where: str = "",
        status: int,
        retry: RetryPolicy,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(
            text,
            where=where,
            label=str(status),
            retry=retry,
            retry_after_s=retry_after_s,
            is_denied=status in _DENYING,
            is_reached=True,
            is_answered=status in _DONE_WITH,
        )
        self.status = status


@contextlib.contextmanager
def not_sent_yet() -> Iterator[None]:
    """What fails here fails before the POST that it is for, so that may be sent another time."""
    try:
        yield
    except QlikError as error:
        if error.retry is RetryPolicy.LOOK_FIRST:
            error.retry = RetryPolicy.SAFE
        raise


def closed_error(where: str) -> QlikError:
    return QlikError(
        "The connection to the Qlik server was closed because the appliance stops.",
        where=where,
        label="closed",
        retry=RetryPolicy.LOOK_FIRST,
    )


def given_up_error(where: str, *, is_sent: bool) -> QlikError:
    return QlikError(
        "No answer came before the server answered other calls again, so the connection was given "
        "up.",
        where=where,
        label="no answer",
        retry=RetryPolicy.LOOK_FIRST if is_sent else RetryPolicy.SAFE,
        is_reached=True,
        is_given_up=True,
    )


def login_page_error(where: str) -> QlikError:
    return QlikError(
        "The proxy answered with its login page, so the login was not accepted. Check "
        "the virtual proxy's prefix in [qlik] url, and its header name or JWT settings (for NTLM: "
        "user and password). Port 4242 with a client certificate needs no proxy.",
        where=where,
        label="login page",
        retry=RetryPolicy.NEVER,
        is_denied=True,
        is_page=True,
    )


def not_json_error(where: str, status: int) -> QlikError:
    return QlikError(
        f"The answer (status {status}) is not the JSON that a Qlik server sends. Check "
        "that [qlik] url leads to a Qlik server and to nothing in between.",
        where=where,
        label="not JSON",
        retry=RetryPolicy.LOOK_FIRST,
        is_answered=True,
    )


def unexpected_error(where: str, what: str) -> QlikError:
    return QlikError(
        f"The server's answer has an unexpected form ({what}).",
        where=where,
        label="bad answer",
        retry=RetryPolicy.LOOK_FIRST,
        is_answered=True,
    )


def too_large_error(where: str, limit: int) -> QlikError:
    return QlikError(
        f"The answer is larger than {limit // (1024 * 1024) or 1} MiB and was not read "
        "to its end. Give the configured user rights to fewer tasks, or check that [qlik] url "
        "leads to a Qlik server.",
        where=where,
        label="too large",
        retry=RetryPolicy.LOOK_FIRST,
    )


def too_many_values_error(where: str, most: int) -> QlikError:
    return QlikError(
        f"The answer has more than {most} values and was not unpacked. Give the configured user "
        "rights to fewer tasks, or check that [qlik] url leads to a Qlik server.",
        where=where,
        label="too large",
        retry=RetryPolicy.LOOK_FIRST,
    )


def too_slow_error(where: str, limit_s: float) -> QlikError:
    return QlikError(
        f"The answer was not complete after {limit_s:.3g} seconds. Raise [qlik] timeout if "
        "the server is known to be this slow.",
        where=where,
        label="timeout",
        retry=RetryPolicy.LOOK_FIRST,
    )


def log_limit_error(where: str, limit: str, *, label: str) -> QlikError:
    return QlikError(
        f"The script log did not end within {limit}, so its end was not read. Look at it on the "
        "server.",
        where=where,
        label=label,
        retry=RetryPolicy.LOOK_FIRST,
    )


def status_error(
    where: str, status: int, body: str, headers: Mapping[str, str], *, advice: str = ""
) -> StatusError:
    """The error for an answer with a status of 300 or more.

    Args:
        where: method and address.
        status: the HTTP status.
        body: the answer's text; a short masked part of it is shown.
        headers: of the answer, for ``Retry-After``.
        advice: what to do, where the caller knows better than the status does.
    """
    said = _said(body, headers)
    retry = RetryPolicy.NEVER
    wait_s = None
    if status == 429:
        retry, wait_s = RetryPolicy.SAFE, retry_after(headers)
        what = "The server's request limit was reached"
        advice = advice or "The appliance waits as long as the server asked."
    elif status >= 500 or status == 408:
        retry, wait_s = RetryPolicy.LOOK_FIRST, retry_after(headers)
        what = f"The server has a problem (status {status})"
        advice = advice or "See the server's Repository log; the service may be starting."
    elif status == 400:
        what = "The server did not accept the request (status 400)"
        if "http request header is incorrect" in body.lower():
            advice = (
                "Add the host name of [qlik] url to the host allow list of the virtual proxy "
                "(QMC, Virtual proxies, Advanced)."
            )
        advice = advice or "Check the task id and that [qlik] url is that of a Qlik server."
    elif status == 401:
        what = "The login was not accepted (status 401)"
        advice = advice or "Check the token, key or password in [qlik]; it may have expired."
    elif status == 403:
        what, default = _forbidden(body)
        advice = advice or default
    elif status == 404:
        what = "The server knows nothing at this address (status 404)"
        advice = advice or (
            "Check [qlik] url (port 4242 without a prefix, or the virtual proxy's prefix), or "
            "the id that was asked for."
        )
    else:
        what = f"The server answered with status {status}"
        advice = advice or "Check [qlik] url."
    return StatusError(
        f"{what}{said}. {advice}", where=where, status=status, retry=retry, retry_after_s=wait_s
    )


def _forbidden(body: str) -> tuple[str, str]:
    lower = body.lower()
    if "xsrf" in lower:
        return (
            "The server's XSRF check failed (status 403)",
            (
                "Something between the appliance and the server removes the X-Qlik-Xrfkey header "
                "or the query; check the proxy in between."
            ),
        )
    if "inactive" in lower:
        return (
            "The account is inactive (status 403)",
            "Activate the user of [qlik] user in the QMC.",
        )
    return (
        "The user may not do this (status 403)",
        (
            "Give the user of [qlik] user a security rule with Read and Update on ReloadTask_*, "
            "ExternalProgramTask_*, App_*, ExecutionResult_*, ExecutionSession_* (docs/qlik.md)."
        ),
    )


def _said(body: str, headers: Mapping[str, str]) -> str:
    kind = headers.get("content-type", "").lower()
    text = " ".join(body.split())
    if not text or "html" in kind or text.startswith("<"):
        return ""
    shown = mask_line(text)
    return f': "{shown[:_TEXT_LIMIT]}"'


def http_date_s(text: str) -> float | None:
    """The time of an HTTP header in seconds since 1970, ``None`` if it is not one."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError, OSError):
        # OSError: Windows has no such time. OverflowError: a number of twenty digits.
        return None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The Retry-After header in seconds (RFC 9110, 10.2.3: seconds or a date), at most a day.

    A date is one of the server's clock, which the Date header shows; ours may differ.
    """
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        until_s = http_date_s(value)
        if until_s is None:
            return None
        now_s = http_date_s(headers.get("date", ""))
        seconds = until_s - (time.time() if now_s is None else now_s)
    # A NaN fails both comparisons and so becomes 0.
    return min(seconds, _RETRY_AFTER_LIMIT_S) if seconds > 0 else 0.0


def exception_error(
    error: Exception,
    where: str,
    *,
    timeout_s: float,
    has_certificate: bool,
    mask: Callable[[str], str] = str,
    ca_file: str | None = None,
    is_sent: bool = True,
) -> QlikError:
    """The error for a request that got no answer.

    Args:
        error: what urllib3, requests, http.client or the socket raised.
        where: method and address.
        timeout_s: the limit that a timeout ran into.
        has_certificate: whether a client certificate is configured.
        mask: replaces the secrets of the request in a text; they may stand in the error's.
        ca_file: the configured authorities, to say whether these have expired.
        is_sent: whether any byte of the request may have left.
    """
    causes = list(_causes(error))
    names = {type(cause).__name__ for cause in causes}
    if "NameResolutionError" in names or "gaierror" in names:
        return QlikError(
            "The host name can't be resolved. Check [qlik] url and the DNS of this machine.",
            where=where,
            label="no such host",
            retry=RetryPolicy.SAFE,
        )
    tls = next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None)
    if tls is not None:
        told = tls_error(tls, where, has_certificate=has_certificate, ca_file=ca_file)
        if told is not None:
            return told
    is_timeout = bool(names & {"ReadTimeoutError", "TimeoutError"})
    if "ConnectTimeoutError" in names or (is_timeout and not is_sent):
        return QlikError(
            f"No connection within {timeout_s:.3g} seconds. Check host and port in [qlik] "
            "url, and the firewall in between.",
            where=where,
            label="no answer",
            retry=RetryPolicy.SAFE,
        )
    if names & _PROXY_ERRORS:
        return QlikError(
            "The HTTP proxy of the environment (HTTPS_PROXY) can't be used. Set NO_PROXY "
            "for the Qlik server, or correct the proxy's address.",
            where=where,
            label="HTTP proxy",
            retry=RetryPolicy.SAFE,
        )
    if "ConnectionRefusedError" in names:
        return QlikError(
            "The connection was refused, so no program listens there. Check host and "
            "port in [qlik] url (4242 for the Repository Service, 443 for a proxy) and that the "
            "service runs.",
            where=where,
            label="refused",
            retry=RetryPolicy.SAFE,
        )
    if "NewConnectionError" in names:
        return QlikError(
            f"No connection ({_short(causes[-1], mask)}). Check host and port in [qlik] "
            "url and the network.",
            where=where,
            label="no route",
            retry=RetryPolicy.SAFE,
        )
    if is_timeout:
        return QlikError(
            f"Connected, but no answer within {timeout_s:.3g} seconds. The server may be "
            "overloaded; raise [qlik] timeout if that is usual.",
            where=where,
            label="timeout",
            retry=RetryPolicy.LOOK_FIRST,
        )
    if names & {"InvalidURL", "LocationParseError", "LocationValueError"}:
        return QlikError(
            "This is not an address. Write [qlik] url as https://host:port.",
            where=where,
            label="bad url",
            retry=RetryPolicy.NEVER,
        )
    if any(_is_unsendable(cause) for cause in causes):
        return QlikError(
            "The request was not sent, because a header can't carry the sign-in. Check "
            "[qlik] user, header and the secret: no line breaks, and Latin-1 letters alone.",
            where=where,
            label="bad header",
            retry=RetryPolicy.NEVER,
        )
    hint = ""
    if where.partition(" ")[2].startswith("https:"):
        # With TLS 1.3 a server that requires another client certificate may close the connection.
        hint = (
            " On port 4242 it may also not accept our client certificate: is it of this site?"
            if has_certificate
            else " On port 4242 it demands a client certificate: set [qlik] certificate."
        )
    return QlikError(
        "The connection ended before the answer was complete "
        f"({_short(causes[-1], mask)}). The server may have restarted.{hint}",
        where=where,
        label="dropped",
        retry=RetryPolicy.LOOK_FIRST if is_sent else RetryPolicy.SAFE,
        is_reached=False,
    )


def tls_error(
    error: ssl.SSLError, where: str, *, has_certificate: bool, ca_file: str | None = None
) -> QlikError | None:
    """The error for TLS that could not be established.

    ``None`` if the error does not prove that: it may be a connection that ended later on, when
    the request had been sent, and then nothing may be called safe to repeat.

    Args:
        error: what the ssl module raised.
        where: method and address.
        has_certificate: whether a client certificate is configured.
        ca_file: the configured authorities, to say whether these have expired.
    """
    name = f"{getattr(error, 'reason', '')} {error}".upper().replace(" ", "_")
    label = "certificate"
    code = getattr(error, "verify_code", None)
    if code in _WRONG_NAME:
        what = (
            "The server's certificate is for another host name. Use the name in the certificate "
            "for [qlik] url (a Qlik server's certificate has the name it was installed with)"
        )
    elif code == _EXPIRED and ca_file and (authority := ended(ca_file)):
        what = (
            f"The authority in ca_file has expired: {ca_file} has only the {authority.shown} (or "
            "the clock of this machine is wrong). Export root.pem again from the QMC"
        )
    elif code == _EXPIRED:
        what = (
            "The server's certificate has expired (or the clock of this machine is wrong). Renew "
            "it on the Qlik server"
        )
    elif code == _NOT_YET_VALID:
        what = (
            "The server's certificate is not valid yet: the clock of this machine or of the "
            "server is wrong"
        )
    elif code in _UNKNOWN_AUTHORITY:
        what = (
            "The server's certificate is signed by an authority that is not trusted here. Set "
            "[qlik] ca_file to the root.pem of the certificate export in the QMC"
        )
    elif isinstance(error, ssl.SSLCertVerificationError):
        what = f"The server's certificate can't be verified ({_short(error)})"
    elif any(sign in name for sign in _NOT_TLS):
        label = "no TLS"
        what = "There is no TLS on this port. Check the port in [qlik] url"
    elif any(sign in name for sign in _OLD_TLS):
        label = "no TLS"
        what = (
            "The server speaks only versions of TLS that are no longer safe. Enable TLS 1.2 there"
        )
    elif any(sign in name for sign in _REFUSING_ALERTS):
        what = (
            "The server did not accept the client certificate. Export it again from the QMC "
            "(format PEM) and check that it is of this site"
            if has_certificate
            else "The server demands a client certificate. Set [qlik] certificate to client.pem "
            "and client_key.pem of the certificate export in the QMC"
        )
    else:
        return None
    return QlikError(f"{what}.", where=where, label=label, retry=RetryPolicy.SAFE)


def _is_unsendable(error: BaseException) -> bool:
    """Whether ``http.client`` or requests refused a header of the request itself."""
    return type(error).__name__ in {"UnicodeEncodeError", "InvalidHeader"} or (
        type(error) is ValueError and str(error).startswith("Invalid header")
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and everything inside it, outermost first.

    requests and urllib3 hand the cause over as an argument or a ``reason``, not only as
    ``__cause__``.
    """
    waiting: list[BaseException] = [error]
    seen: set[int] = set()
    while waiting:
        current = waiting.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        inner = [getattr(current, "reason", None), *current.args]
        inner += [current.__cause__, current.__context__]
        waiting += [cause for cause in inner if isinstance(cause, BaseException)]


def _short(error: BaseException | None, mask: Callable[[str], str] = str) -> str:
    if error is None:
        return "unknown"
    if isinstance(error, _QUOTING) and not isinstance(error, OSError):
        return f"not HTTP, {type(error).__name__}"
    text = str(getattr(error, "strerror", None) or error) or type(error).__name__
    return mask_line(mask(text))[:_TEXT_LIMIT]
