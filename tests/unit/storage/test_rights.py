"""Other users of the machine read nothing that they were not given."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.config.exposed_files import exposed_files
from appliance.config.tables import (
    AccessConfig,
    AccessPlugin,
    Config,
    ListenerConfig,
    NotifyConfig,
    TlsConfig,
)
from appliance.config.values import ReadPath, Settings
from appliance.errors import UsageError
from appliance.ops.backup import _check_link
from appliance.secret import Secret
from appliance.storage import copies, rights

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def usual_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_init_writes_a_file_for_its_owner(tmp_path: Path) -> None:
    """Secrets are written into it."""
    path = tmp_path / "new" / "config.toml"
    command = [sys.executable, "-m", "appliance", "init", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700, "the process begins with umask 077"


@pytest.mark.parametrize(("umask", "expected"), [(0o077, 0o600), (0o027, 0o640), (0o022, 0o644)])
def test_existing_files_get_the_rights_that_count_now(
    tmp_path: Path, umask: int, expected: int
) -> None:
    """In the data directory; what a link names is not changed."""
    outside = tmp_path / "outside"
    outside.write_text("x")
    data = tmp_path / "data"
    (data / "recordings").mkdir(parents=True)
    old = data / "recordings" / "old.json"
    old.write_text("[]")
    old.chmod(0o666)
    (data / "link").symlink_to(outside)
    assert rights.apply(umask, data) == 1
    assert mode(old) == expected
    assert mode(outside) == 0o644
    assert rights.apply(umask, data) == 0


def test_files_outside_the_data_directory_are_put_right(tmp_path: Path) -> None:
    """Recordings may be anywhere; a link that stands there is not followed."""
    data, recording, foreign = tmp_path / "data", tmp_path / "all.csv", tmp_path / "foreign"
    data.mkdir()
    for path in (recording, foreign):
        path.write_text("x")
        path.chmod(0o644)
    link = tmp_path / "link.csv"
    link.symlink_to(foreign)
    before = os.umask(0o077)
    try:
        assert rights.apply(0o027, data, [recording, link, tmp_path / "missing"]) == 1
    finally:
        os.umask(before)
    assert (mode(recording), mode(foreign)) == (0o640, 0o644)


def test_nobody_else_may_write_into_the_data_directory(tmp_path: Path) -> None:
    """Else another user could replace the journal or leave requests there; reading is not taken."""
    data = tmp_path / "data"
    (data / "recordings").mkdir(parents=True)
    for folder in (data, data / "recordings"):
        folder.chmod(0o777)
    (data / "link").symlink_to(tmp_path)
    outside = mode(tmp_path)
    assert rights.apply(0o027, data) == 2
    assert mode(data) == mode(data / "recordings") == 0o755
    assert mode(tmp_path) == outside
    assert rights.apply(0o027, data) == 0


def test_check_warns_of_files_that_everybody_can_change(tmp_path: Path) -> None:
    """The configuration, which may name code to run, and each file that it names, once."""
    path, authority, users = (tmp_path / name for name in ("config.toml", "ca.pem", "users.txt"))
    for each in (path, authority, users):
        each.write_text("x")
        each.chmod(0o602)
    tls = TlsConfig(certfile="none", keyfile="none", client_ca=ReadPath(str(authority)))
    config = Config(
        file=str(path),
        listener=(ListenerConfig(tls=tls),),
        access=AccessConfig(users_file=ReadPath(str(users))),
    )
    found = list(exposed_files(config))
    assert all("can change" in line for line in found)
    assert [
        str(each) in line for each, line in zip((path, users, authority), found, strict=True)
    ] == [True] * 3


def test_check_warns_of_plain_secrets_of_plugins(tmp_path: Path) -> None:
    """In settings of any depth, and in the files that they name; not of what the environment has."""
    path, key = tmp_path / "config.toml", tmp_path / "key.txt"
    path.write_text('settings = {auth = [{secret = "a\\"b"}], key_file = "key.txt"}\n')
    key.write_text("x")

    def config(settings: dict[str, object]) -> Config:
        plugin = AccessPlugin(plugin_class="x.Y", settings=Settings(settings))
        return Config(file=str(path), access=AccessConfig(plugins=(plugin,)))

    plain = config({"auth": [{"secret": Secret('a"b')}]})
    assert [str(path) in line for line in exposed_files(plain)] == [True]
    named = config({"key_file": ReadPath(str(key))})
    assert ["settings.key_file" in line for line in exposed_files(named)] == [True]
    assert not [*exposed_files(config({"secret": Secret("from the environment")}))]
    for each in (path, key):
        each.chmod(0o600)
    assert not [*exposed_files(plain), *exposed_files(named)]


def test_a_copy_is_its_owners_and_follows_no_link(tmp_path: Path) -> None:
    """Backup and restore: a link in the place of the copy is replaced, a link on the way refused."""
    source, outside, target = (tmp_path / name for name in ("source", "outside", "target"))
    source.write_text("new")
    outside.write_text("kept")
    target.symlink_to(outside)
    copies.copy_file(source, target)
    assert (outside.read_text(), target.read_text(), mode(target)) == ("kept", "new", 0o600)
    (tmp_path / "folder").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="is a link"):
        _check_link(tmp_path, tmp_path / "folder" / "source")
    _check_link(tmp_path, tmp_path / "source")


def test_check_warns_of_secrets_that_everybody_can_read(tmp_path: Path) -> None:
    """In the configuration itself, and in the files that it names."""
    path, secret = tmp_path / "config.toml", tmp_path / "url.txt"
    path.write_text("url = 'json://x'")
    secret.write_text("x")
    plain = Config(file=str(path), notify=(NotifyConfig(url=Secret("json://x")),))
    named = Config(file=str(path), notify=(NotifyConfig(url_file=ReadPath(str(secret))),))
    assert [str(path) in line for line in exposed_files(plain)] == [True]
    assert [str(secret) in line for line in exposed_files(named)] == [True]
    path.chmod(0o640)
    secret.chmod(0o600)
    assert not [*exposed_files(plain), *exposed_files(named)]
