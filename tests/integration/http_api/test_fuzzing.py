"""Whatever is asked: schemathesis makes requests of the OpenAPI document, right and wrong ones.

Every answer must be one that the document has, and none an internal error. Butler's calls turn values
of other types into those that they want, as Butler does, so what is refused there is left out.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from http_site import PASSWORD
from qlik_http_site import QlikHttpSite

from appliance.counters import Counter
from appliance.qlik.simulated import Outcome, SimulatedTask, Site

SETTINGS = """
[checks]
# What may be asked depends on what there is: tasks, executions, keys that were used.
positive_data_acceptance.enabled = false
# The appliance takes more than the document promises, for example null where a value may be left out.
negative_data_rejection.enabled = false

[[operations]]
include-tag = "butler"
# Butler's 404 in place of 405.
checks.unsupported_method.enabled = false

[[operations]]
include-path = ["/tasks/{task}/start", "/tasks/start"]
# "start" and "x/start" may be names of tasks.
checks.unsupported_method.enabled = false
checks.allow_header_conformance.enabled = false
"""
TIMERS = """
[[timer]]
name = "nightly"
cron = "0 3 1 1 *"
task = {name = "Quick"}
"""
SECONDS = 45


def site_of_tasks() -> Site:
    site = Site(trigger_delay_s=0.0, concurrency=50)
    site.add_task(SimulatedTask("Quick", duration_s=0.05, tags=("nightly",)))
    site.add_task(SimulatedTask("Failing", duration_s=0.05, outcomes=(Outcome.FAIL,)))
    return site


@pytest.mark.campaign
@pytest.mark.timeout(600)
def test_no_request_has_an_answer_that_is_not_documented(tmp_path: Path) -> None:
    """Each call with right and wrong parameters and bodies, and one after the other."""
    settings = tmp_path / "schemathesis.toml"
    settings.write_text(SETTINGS, "utf-8")
    with QlikHttpSite(
        site_of_tasks(),
        tmp_path / "site",
        TIMERS,
        users=("boss",),
        access='operators = ["boss"]\n',
        http="max_requests = 1_000_000",
    ) as site:
        for topic in ("plant/a", "a"):
            site.ask("POST", f"/messages/{topic}?retain=true", "boss", data=b'{"x": 1}')
        site.start("Failing", "boss", "60")
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("schemathesis")),
                *("--config-file", str(settings)),
                *("run", f"{site.url}/openapi.json", "--no-color", "--continue-on-failure"),
                *("--auth", f"boss:{PASSWORD}"),
                *("--max-time", str(SECONDS), "--request-timeout", "60"),
                *("--seed", os.environ.get("FUZZING_SEED", "1")),
            ],
            cwd=tmp_path,
            capture_output=True,
            encoding="utf-8",
            timeout=500,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        made = int(re.search(r"(\d+) generated", said)[1])
        assert made > 100
        assert site.appliance.counters[Counter.HTTP_REQUESTS_FAILED] == 0
        assert site.ask("POST", "/messages/after", "boss", data=b"").status_code == 200
