"""What the pages offer about bridges for copying is accepted by ``appliance check``."""

import re
import shutil
from pathlib import Path

import certificates
import pytest

from appliance.cli import main

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "bridges.md").read_text("utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = [
    pytest.param(text, id=f"{path.name}-{number}")
    for path in PAGES
    for number, text in enumerate(
        re.findall(r"```toml\n(.*?)```", path.read_text("utf-8"), re.DOTALL), 1
    )
    # What is made from another program's configuration is tested with that.
    if "[[bridge]]" in text and path.name != "from-butler.md"
]


@pytest.fixture(scope="module")
def pems(tmp_path_factory):
    """Certificates that the files named in the examples are copies of."""
    return certificates.make(tmp_path_factory.mktemp("pems"))


def write_files(text: str, folder: Path, pems: certificates.Certificates) -> None:
    """Write the files that an example names."""
    sources = {"ca_file": pems.root, "certfile": pems.client, "keyfile": pems.client_key}
    for key, name in re.findall(r'(\w+) = "(\w+\.(?:pem|txt))"', text):
        if key == "password_file":
            (folder / name).write_text("secret\n")
        else:
            shutil.copy(sources[key], folder / name)
        (folder / name).chmod(0o600)


def test_there_are_examples():
    """Every broker and cloud of the page has one."""
    assert len(EXAMPLES) >= 13


@pytest.mark.parametrize("text", EXAMPLES)
def test_an_example_passes_check(text, tmp_path, pems, capsys):
    """The example is valid as it stands, and there is nothing about it to warn of."""
    write_files(text, tmp_path, pems)
    (tmp_path / "config.toml").write_text(text, "utf-8")
    assert main(["check", "-c", str(tmp_path / "config.toml")]) == 0
    meaning, _, warnings = capsys.readouterr().out.partition("Please check these")
    assert "bridge" in meaning
    assert "[[bridge]]" not in warnings


def test_links_lead_somewhere():
    """Files and headings that the page refers to are there."""
    for name in re.findall(r"\]\((\w+\.md)", PAGE):
        assert (ROOT / "docs" / name).exists(), name
    headings = {
        re.sub(r"[^\w -]", "", h).lower().replace(" ", "-")
        for h in re.findall(r"^#+ (.*)$", PAGE, re.M)
    }
    for anchor in re.findall(r"\]\(#([\w-]+)\)", PAGE):
        assert anchor in headings, anchor
