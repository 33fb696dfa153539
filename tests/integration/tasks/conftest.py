"""Receivers of notices."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from notice_rig import Inbox, mail_inbox, webhook_inbox


@pytest.fixture
def webhook() -> Iterator[Inbox]:
    with webhook_inbox() as inbox:
        yield inbox


@pytest.fixture
def mailbox() -> Iterator[Inbox]:
    with mail_inbox() as inbox:
        yield inbox
