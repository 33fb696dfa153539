"""A configured secret is found in every form in which a server or a library repeats it."""

import base64
import html
import json
import time
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.known_secrets import KnownSecrets
from appliance.secret import Secret

_FORMS = {
    "as it is": lambda secret: secret,
    "percent-encoded": lambda secret: quote(secret, ""),
    "in a query": quote_plus,
    "small hexadecimal digits": lambda secret: quote(secret, "").lower(),
    "JSON": json.dumps,
    "JSON in UTF-8": lambda secret: json.dumps(secret, ensure_ascii=False),
    "Python": repr,
    "bytes in Python": lambda secret: repr(secret.encode()),
    "HTML": html.escape,
    "read as Latin-1": lambda secret: secret.encode().decode("latin-1"),
    "Basic": lambda secret: base64.b64encode(f"user:{secret}".encode()).decode(),
    "base64 of an odd place": lambda secret: base64.b64encode(f"u:{secret}!".encode()).decode(),
    "base64url": lambda secret: base64.urlsafe_b64encode(f"us:{secret}".encode()).decode(),
}


@pytest.mark.parametrize("form", _FORMS)
@pytest.mark.parametrize("secret", ["hunter2-and-more", 'p"ä/ss&w<o>rd%+ €', "back\\slash'quote"])
def test_each_form_of_a_secret_is_masked(form: str, secret: str) -> None:
    """What stands around it stays."""
    if form == "small hexadecimal digits" and quote(secret, "").lower() == quote(secret, ""):
        pytest.skip("the same as it is")
    written = _FORMS[form](secret)
    masked = KnownSecrets(Secret(secret)).mask(f"before {written} after")
    assert masked.replace('"', "").replace("'", "").replace("b*", "*") == "before *** after"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", " ", "\\n", "\\r\\n", "\n  "])
def test_a_secret_of_several_lines_is_masked_with_other_line_ends(end: str) -> None:
    """No line of it is left, alone either."""
    lines = ["first-line-of-it", "second-line-of-it", "third-line-of-it"]
    known = KnownSecrets(Secret("\n".join(lines)))
    assert "line-of-it" not in known.mask(f"b'Bearer {end.join(lines)}'")
    assert "line-of-it" not in known.mask(lines[1])


@given(st.text(), st.text(min_size=4, max_size=40), st.text())
def test_no_text_shows_a_secret(before: str, secret: str, after: str) -> None:
    """Whatever stands beside it (unless the mask itself spells it)."""
    masked = KnownSecrets(Secret(secret)).mask(f"{before}{secret}{after}")
    assert secret not in masked or "*" in secret


def test_a_text_without_a_secret_stays_as_it_is() -> None:
    """An innocent text, and a secret too short to look for."""
    text = "the connection was refused (https://sense.example.com:4242), aGVsbG8gd29ybGQ="
    assert KnownSecrets(Secret("hunter2-and-more"), Secret("con")).mask(text) == text


def test_a_word_of_base64_is_masked_whole_and_nothing_beside_it() -> None:
    """Several of them, at both ends of the text, and what is before an equals sign stays."""
    secret = "hunter2-and-more"
    code = base64.b64encode(f"user:{secret}:x".encode()).decode()
    masked = KnownSecrets(Secret(secret)).mask(f"{code}; header={code} ({code})\n{code}")
    assert masked == "***; header=*** (***)\n***"


def test_a_long_text_of_a_server_costs_no_more_than_its_length() -> None:
    """A body of base64 held a worker, or a line of log the loop, for minutes."""
    code = base64.b64encode(b"hunter2-and-more").decode()
    text = "QUJD" * 50_000 + code + "QUJD" * 50_000
    began = time.process_time()
    assert KnownSecrets(Secret("hunter2-and-more")).mask(f"a {text} b") == "a *** b"
    assert time.process_time() - began < 5.0, "quadratic: that would be minutes"
