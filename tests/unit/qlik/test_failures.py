"""Errors of the Qlik client: what an operator reads, and what may be repeated."""

import ssl
import time
from email.utils import formatdate

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.qlik.failures import exception_error, retry_after, status_error, tls_error
from appliance.qlik.server import RetryPolicy

_WHERE = "POST https://sense:4242/qrs/task/x/start/synchronous"


@pytest.mark.parametrize(
    ("status", "retry"),
    [
        (400, RetryPolicy.NEVER), (401, RetryPolicy.NEVER), (403, RetryPolicy.NEVER), (404, RetryPolicy.NEVER),
        (429, RetryPolicy.SAFE), (408, RetryPolicy.LOOK_FIRST), (500, RetryPolicy.LOOK_FIRST),
        (502, RetryPolicy.LOOK_FIRST), (503, RetryPolicy.LOOK_FIRST), (504, RetryPolicy.LOOK_FIRST),
    ],
)  # fmt: skip
def test_what_may_be_repeated(status: int, retry: RetryPolicy) -> None:
    """The retry table of docs/qlik.md."""
    error = status_error(_WHERE, status, "", {})
    assert error.retry is retry
    assert error.label == str(status)
    assert _WHERE in str(error)


@pytest.mark.parametrize(
    ("status", "body", "advice"),
    [
        (403, "XSRF prevention check failed. Possible XSRF discovered.", "X-Qlik-Xrfkey"),
        (403, "Forbidden: Your account is inactive.", "Activate the user"),
        (403, "Forbidden", "security rule"),
        (400, "<html>The http request header is incorrect</html>", "host allow list"),
        (401, "", "may have expired"),
        (404, "No matching endpoint found", "4242"),
        (503, "", "may be starting"),
    ],
)
def test_the_text_says_what_to_do(status: int, body: str, advice: str) -> None:
    """Each known refusal comes with the step that fixes it."""
    assert advice in str(status_error(_WHERE, status, body, {}))


def test_what_the_server_said_is_shown_masked_and_short() -> None:
    """The server's own words help, but neither its pages nor its secrets do."""
    text = str(status_error(_WHERE, 500, "failed: Password=Sommer2026;" + "x" * 5000, {}))
    assert "failed: Password=***;" in text
    assert len(text) < 600
    assert "<html>" not in str(status_error(_WHERE, 500, "<html>long page</html>", {}))


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (62, "another host name"),
        (64, "another host name"),
        (10, "has expired"),
        (9, "clock"),
        (19, "root.pem"),
        (20, "root.pem"),
        (7, "can't be verified"),
    ],
)
def test_certificate_errors_say_what_to_do(code: int, advice: str) -> None:
    """Wrong name, unknown authority, expiry and wrong clocks are told apart."""
    error = ssl.SSLCertVerificationError("certificate verify failed")
    error.verify_code = code
    told = tls_error(error, _WHERE, has_certificate=True)
    assert told is not None
    assert advice in str(told)
    assert told.retry is RetryPolicy.SAFE


def test_a_tls_connection_that_ends_is_not_called_unestablished() -> None:
    """It may have ended after the request was sent, so it is never safe to repeat unseen."""
    for error in (
        ssl.SSLEOFError(8, "EOF occurred in violation of protocol"),
        ssl.SSLZeroReturnError(6, "TLS/SSL connection has been closed"),
        ssl.SSLError(1, "[SSL: BAD_RECORD_MAC] decryption failed"),
    ):
        assert tls_error(error, _WHERE, has_certificate=True) is None
        told = exception_error(error, _WHERE, timeout_s=1, has_certificate=True)
        assert (told.label, told.retry) == ("dropped", RetryPolicy.LOOK_FIRST)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=30))
def test_retry_after_is_bounded_whatever_it_says(value: str) -> None:
    """No Retry-After header makes the appliance wait longer than a day, or crash."""
    seconds = retry_after({"retry-after": value})
    assert seconds is None or 0 <= seconds <= 86400


def test_retry_after_in_both_forms() -> None:
    """RFC 9110 allows seconds and a date."""
    assert retry_after({"retry-after": "13"}) == 13
    assert retry_after({"retry-after": "nan"}) == 0
    assert retry_after({}) is None
    seconds = retry_after({"retry-after": formatdate(time.time() + 3600, usegmt=True)})
    assert seconds is not None
    assert 3500 < seconds <= 3600
    behind = {
        "date": "Sun, 29 Nov 2026 04:00:00 GMT",
        "retry-after": "Sun, 29 Nov 2026 04:00:20 GMT",
    }
    assert retry_after(behind) == 20, "the server's clock counts, not ours"
