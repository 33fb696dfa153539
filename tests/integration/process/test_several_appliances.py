"""Two appliances on one broker and one Qlik server; one of them is killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from appliance_process import ApplianceProcess, until
from site_of_appliances import site

TASKS, BURST, ROUNDS = 20, 10, 5

pytestmark = pytest.mark.campaign


def journaled(appliance: ApplianceProcess) -> int:
    """How many messages of the publisher an appliance has in its journal."""
    done = subprocess.run(
        [sys.executable, "-m", "appliance", "export", "-t", "start", "-c", appliance.config],
        capture_output=True,
        check=True,
    )
    return len(done.stdout.splitlines())


def test_one_of_two_appliances_is_killed_half_way(tmp_path: Path) -> None:
    """1,000 messages for 20 tasks: each message has a run that began after it, none is lost, and
    there is little more than one start for each burst of messages.

    While the one is down, its share of the messages waits at the broker.
    """
    with site(tmp_path, TASKS, 0.2) as here:
        first = here.add("first", share=True, others=True)
        second = here.add("second", share=True, others=True)
        rounds_done = 0
        waiting = 0

        def after_round() -> None:
            nonlocal rounds_done
            rounds_done += 1
            if rounds_done == ROUNDS // 2:
                first.kill()

        here.after_round = after_round
        left = here.publish(BURST, ROUNDS, TASKS, 1.2)
        before = journaled(first)
        assert journaled(first) + journaled(second) < TASKS * BURST * ROUNDS
        first.begin()
        first.wait_for_line("is connected to")
        until(
            lambda: journaled(first) + journaled(second) >= TASKS * BURST * ROUNDS,
            "every message is in a journal",
        )
        waiting = journaled(first) - before
        until(lambda: here.result(left, TASKS * ROUNDS).unanswered == 0, "each message is answered")
        here.wait_until_quiet(3.0)
        result = here.result(left, TASKS * ROUNDS)
        print(f"{result}, {waiting} waited at the broker")
        assert result.messages == TASKS * BURST * ROUNDS
        assert waiting > 0
        assert result.unanswered == 0
        assert result.starts <= 1.5 * result.bursts
