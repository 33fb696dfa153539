"""Causes as the log writes them: it masks what looks like a secret, and these do not."""

from __future__ import annotations

import pytest

from appliance.bridge.causes import Causes
from appliance.known_secrets import KnownSecrets
from appliance.log.sanitize import SecretMasker


@pytest.mark.parametrize("version", [4, 5])
def test_written_whole(version):
    """An advice that follows the word password is not taken for one."""
    causes = Causes(KnownSecrets(), has_certificate=False, has_tls=True)
    for code in range(0x80, 0x100):
        text = str(causes.of_connack(code, version))
        assert SecretMasker().apply(text) == text
