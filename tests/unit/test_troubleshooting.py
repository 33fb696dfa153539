"""docs/troubleshooting.md and docs/bridges.md quote the appliance: a changed message breaks this."""

import re
from pathlib import Path

import pytest
from quoted_texts import quoted, texts

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")

OF_OTHERS = {
    "condition failed": "systemd",
    "bad user name or password": "MQTT clients",
    "not authorized": "MQTT clients",
    "unacceptable protocol version": "MQTT clients",
    "identifier rejected": "MQTT clients",
    "server busy": "MQTT clients",
    "server unavailable": "MQTT clients",
    "packet too large": "MQTT clients",
    "certificate revoked": "OpenSSL",
    "CRL has expired": "OpenSSL",
    "certificate verify failed": "OpenSSL",
}
"""Quoted texts of other programs, and whose they are."""


@pytest.mark.parametrize("text", quoted(PAGE))
def test_a_quoted_message_is_one_of_the_appliance(text):
    """The text is in the source as it is quoted, or it is known to be another program's."""
    if text in OF_OTHERS:
        return
    assert any(text.lower() in one for one in texts()), f"no message has {text!r}"


def test_the_texts_of_others_are_quoted():
    """The list of other programs' texts has none that the page does not quote."""
    assert set(OF_OTHERS) <= set(quoted(PAGE))


def test_a_message_that_is_not_in_the_source_is_found():
    """The check sees a difference of one word, so that it does not pass by accident."""
    assert quoted('| "the port is used" | `"code"` |') == ["the port is used"]
    assert not any("the port is used" in one for one in texts())
    assert any("the port is in use" in one for one in texts())


def test_the_quoted_texts_of_bridges_are_those_of_the_appliance():
    """A cause whose words change has to be changed in the page."""
    page = (ROOT / "docs" / "bridges.md").read_text("utf-8")
    section = page[page.index("## Troubleshooting") : page.index("## Sources")]
    known = texts()
    found = quoted(section)
    assert len(found) > 20
    for text in found:
        assert any(text.lower() in one for one in known), text


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)]+)\)", PAGE))))
def test_every_link_leads_somewhere(link):
    """The page and the heading exist."""
    name, _, anchor = link.partition("#")
    target = ROOT / "docs" / name
    assert target.exists()
    if anchor:
        titles = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.MULTILINE)
        made = {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in titles}
        assert anchor in made
