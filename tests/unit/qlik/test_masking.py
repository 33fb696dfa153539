"""Secrets in what a Qlik server says never reach log, UI or topics."""

import string

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from appliance.qlik.masking import (
    _masked,
    _patterns,
    mask,
    mask_last_lines,
    mask_line,
    mask_log,
)

# What a password is made of, without the few characters that end a value in every one of the
# forms below.
_SECRETS = st.text(string.ascii_letters + string.digits + "!#%*+?^~|", min_size=8, max_size=40)

_FORMS = [
    "Provider=SQLNCLI11;Server=db1;UID=loader;PWD={secret};Database=sales",
    'LIB CONNECT "Driver=Oracle;XUserId=loader;XPassword={secret};"',
    "Password = {secret}",
    "password: {secret}",
    '"password": "{secret}"',
    "'client_secret' : '{secret}'",
    "Password={{{secret}}};Port=1433",
    "api_key={secret}",
    "X-Api-Key: {secret}",
    "Authorization: Bearer {secret}",
    "https://loader:{secret}@db.example.com/sales",
    "AccountKey={secret};EndpointSuffix=core",
    'PASSWORD="{secret}',
    "CREATE USER loader IDENTIFIED BY {secret}",
    "the password is {secret}",
    "?sv=2021&sig={secret}",
    "-----BEGIN RSA PRIVATE KEY-----\n{secret}\n-----END RSA PRIVATE KEY-----",
]


@pytest.mark.parametrize("form", _FORMS)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(secret=_SECRETS)
def test_no_form_of_secret_gets_through(form: str, secret: str) -> None:
    """For any password, none of the forms in which sources carry one shows it."""
    assume(secret not in form.format(secret=""))  # a word of the form itself gives nothing away
    assert secret not in mask(form.format(secret=secret)).replace("***", "")


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(before=st.text(max_size=200), secret=_SECRETS, after=st.text(max_size=200))
def test_surroundings_do_not_help_a_secret(before: str, secret: str, after: str) -> None:
    """Text of any kind around a connection string does not switch the masking off."""
    masked = mask_line(f"{before}\nServer=db1;Password={secret};Port=1433 {after}")
    assert f"Password={secret}" not in masked


def test_passwords_with_blanks_and_semicolons_are_masked_whole() -> None:
    """A quoted password does not end at a semicolon, an unquoted one not at a blank."""
    assert mask('Password="two; parts";Port=1') == 'Password="***";Port=1'
    assert mask("Password=two words;Port=1") == "Password=***;Port=1"


def test_what_helps_to_find_the_fault_stays() -> None:
    """The error itself, server, user, table and file names are left as they are."""
    line = "Error: Table 'sales' not found on Server=db1;UID=loader;Database=dwh (line 14)"
    assert mask(line) == line


def test_tokens_are_masked_without_a_name_beside_them() -> None:
    """A JSON Web Token is recognised by its looks."""
    token = "eyJhbGciOiJSUzI1NiJ9.eyJ1c2VyIjoibWUifQ.c2lnbmF0dXJl"
    assert token not in mask(f"login with {token} failed")


@pytest.mark.parametrize(
    "part",
    [
        "password ",
        "secret",
        "eyJ-",
        "password='",
        "ab://x:",
        "Bearer ",
        "-----BEGIN PRIVATE KEY-----",
    ],
)
def test_a_hostile_line_costs_linear_time(part: str) -> None:
    """No pattern runs away on a long line (one that did would meet the test's time limit)."""
    mask_line(part * (100_000 // len(part)))


def test_a_key_over_several_lines_is_masked() -> None:
    """The lines of a log are looked at together."""
    log = "loading\n-----BEGIN PRIVATE KEY-----\nMIIEvQIBADAN\nBgkqhkiG9w0B\n-----END PRIVATE KEY-----\ndone"
    shown = mask_last_lines(log, 50)
    assert not any("MIIE" in line or "Bgkq" in line for line in shown)
    assert shown[-1] == "done"


def test_a_line_is_cut_only_after_masking() -> None:
    """A cut never separates a secret from the name that gives it away."""
    line = "x" * 1990 + "Password=Sommer2026"
    assert "Sommer" not in mask_line(line)
    assert len(mask_line("y" * 5000)) == 2000


WORDS = st.sampled_from(
    "password PassPhrase pwd secret Token api_key Access-Key credentials Authorization sig"
    " client_assertion IDENTIFIED BY Bearer Basic Negotiate NTLM eyJhbGciOi.eyJz.x ftp://u:p@h"
    " -----BEGIN PRIVATE\u0020KEY----- = : ; \" ' is was for Changing task state from Started to"
    " ſecret Kennwort to\u212aen".split(" ")
)


@given(st.lists(WORDS | st.text(max_size=6), max_size=12), st.sampled_from(["", " ", "="]))
def test_the_quick_look_misses_nothing_that_the_patterns_find(parts: list[str], by: str) -> None:
    """Most texts hold nothing secret, and are not searched seven times for it."""
    text = slowly = by.join(parts)
    for pattern in _patterns():
        slowly = pattern.sub(_masked, slowly)
    assert mask(text) == slowly


@settings(deadline=None, max_examples=6, suppress_health_check=[HealthCheck.too_slow])
@given(
    parts=st.lists(st.tuples(st.sampled_from(_FORMS), st.integers(0, 200)), max_size=4),
    key_lines=st.integers(0, 600),
)
def test_a_long_log_is_masked_as_if_it_were_in_one_piece(
    parts: list[tuple[str, int]], key_lines: int
) -> None:
    """Wherever its pieces end: behind a harmless line, and not within a key of many lines."""
    lines = []
    for form, harmless in parts:
        lines += [form.format(secret="Sommer2026"), *["0001 LOAD a FROM b;" * 3] * harmless]
    key = ["-----BEGIN PRIVATE KEY-----", *["MIIEvQ" * 10] * key_lines, "-----END PRIVATE KEY-----"]
    text = "\r\n".join([*lines, *key, *lines])
    masked = mask_log(text)
    assert masked == mask(text)
    assert "Sommer2026" not in masked
    assert "MIIEvQ" not in masked


def test_a_key_that_never_ends_is_masked_to_the_end() -> None:
    text = "-----BEGIN PRIVATE KEY-----\n" + "MIIEvQ\n" * 100_000
    assert mask_log(text) == "-----BEGIN PRIVATE KEY-----***"
