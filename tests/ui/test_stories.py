"""An operator's questions, answered by keys on a real appliance at 80x24.

Each story says which keys bring the answer. How long that takes is not tested: it depends on the
machine.
"""

import json
import shutil
import subprocess
import sys

import pytest
from appliance_process import free_port, until
from tmux_window import Window

from appliance.counters import Counter
from appliance.mqtt.client import Client, Target
from appliance.qlik.simulated import Outcome, SimulatedQlik, SimulatedTask

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX terminal"),
]

ERROR = (
    "Error: The following error occurred: Table 'HR.Employees' not found in the connection 'HR on "
    "sql07 (read only)', the login was accepted but the schema has no such table. Check the "
    "connection HR and the rights of its user."
)
CONFIG = """
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:PORT"
[qlik]
edition = "client-managed"
url = "URL"
header = {name = "X-Qlik-User", value = "UserDirectory=INTERNAL;UserId=sa"}
[metrics]
bind = "127.0.0.1:MONITORING"
[[trigger]]
topic = "qliksense/start_task"
task = "payload"
[[trigger]]
name = "quality"
topic = "plant/+/done"
task = {name = "Reload HR"}
when = {state = "done"}
[[trigger]]
name = "later"
topic = "later"
task = {name = "Reload Stock"}
debounce = "1h"
[[trigger]]
name = "sales"
topic = "sales"
task = {name = "Reload Sales"}
fresh_within = "1s"
"""


class Site:
    """An appliance in a terminal, its Qlik server, and a client that publishes."""

    def __init__(self, folder):
        self.folder = folder
        self.hr = SimulatedTask(
            "Reload HR", outcomes=(Outcome.FAIL,), duration_s=0.2, error_text=ERROR
        )
        self.stock = SimulatedTask("Reload Stock", duration_s=0.2)
        self.sales = SimulatedTask("Reload Sales", outcomes=(Outcome.NEVER,), app_name="Sales")
        self.server = SimulatedQlik([self.hr, self.stock, self.sales])
        self.port, monitoring = free_port(), free_port()
        config = CONFIG.replace("PORT", str(self.port)).replace("MONITORING", str(monitoring))
        (folder / "config.toml").write_text(config.replace("URL", self.server.start()), "utf-8")
        self.window = Window(folder, f"{sys.executable} -m appliance run; exec cat")
        self.window.wait("✓ all well")

    def publish(self, topic, payload):
        with Client(Target("127.0.0.1", self.port, client_id="plc-1")) as client:
            client.publish(topic, payload, qos=1, retain=False)

    def press(self, *keys):
        """Press keys one by one, as a person does: each is answered before the next."""
        for key in keys:
            self.window.keys(key)

    def health(self):
        """What ``appliance health`` says."""
        command = [sys.executable, "-m", "appliance", "health", "--json"]
        run = subprocess.run(command, cwd=self.folder, capture_output=True, timeout=60, check=False)
        return json.loads(run.stdout)

    def close(self):
        self.window.close()
        self.server.stop()


@pytest.fixture
def site(tmp_path):
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed")
    opened = Site(tmp_path)
    yield opened
    opened.close()


def words(text):
    return " ".join(text.split())


def test_the_reload_that_failed_at_night(site):
    """Why: ``!``. Its cause: ``Enter``, ``m``. Start it again: ``r``, ``y`` where it is seen."""
    window = site.window
    site.publish("qliksense/start_task", site.hr.id.encode())
    window.wait("▲ Reload HR failed", "more: !")
    site.press("!")
    text = window.wait("── Why", "r start it again", "Script log, last lines")
    assert ERROR in words(text)
    site.press("Enter")
    text = window.wait("── Execution 1", "by       plc-1  on qliksense/start_task")
    assert ERROR in words(text)
    site.press("m")
    window.wait("topic    qliksense/start_task")
    site.press("!")
    window.wait("── Why")
    site.press("r")
    window.wait("Start Reload HR again?")
    site.press("y")
    until(lambda: site.hr.runs == 2, "the task was started again")

    def told():
        found = {part["name"]: part for part in site.health()["parts"]}
        return found["failing tasks"]["text"] == "Reload HR (failed)" and found

    assert until(told, "health names the task")["failing tasks"]["level"] == "warn"


def test_a_waiting_start(site):
    """A debounce: ``3``, ``Enter`` says why and until when, ``f`` starts it now."""
    window = site.window
    site.publish("later", b"x")
    window.wait("1◌")
    site.press("3")
    window.wait("RULE / TIMER", "waiting in 59:")
    site.press("Enter")
    window.wait(
        "Waits for quiet (debounce).", "It is tried next at", "f starts it now", "x takes it back"
    )
    site.press("f")
    until(lambda: site.stock.runs == 1, "the wait was ended")


def test_an_outage_and_its_end(site):
    """The first line names the server and the start; ``!`` says since when, and ``f`` asks now."""
    window = site.window
    port = int(site.server.url.rpartition(":")[2])
    site.server.stop()
    site.publish("qliksense/start_task", site.stock.id.encode())
    text = window.wait("✗ Qlik away", "server away, next 0:0", "Reload Stock")
    assert "in 0:00" not in text
    window.wait("waits", "+1 more: !")
    site.press("!")
    text = window.wait("── Why", "It is away since", "f ask the server now")
    assert "The connection was refused, so no program listens there." in words(text)
    assert "(GET http://127.0.0.1:" in words(text)
    site.press("Down")
    window.wait("f start it now", "takes it back")
    site.server = SimulatedQlik(site=site.server.site, port=port)
    site.server.start()
    site.press("f")
    until(lambda: site.stock.runs == 1, "the start went out")
    window.wait("✓ all well")


def test_is_the_sales_app_fresh_and_if_not_why(site):
    """The first line names what is late; ``7`` says since when and why, ``m`` by which message."""
    window = site.window
    site.publish("sales", b"order 4711")
    window.wait("▲ Reload Sales stale", "(fresh_within 1 s)")
    site.press("7")
    window.wait("1 late", "app Sales", "stale since", "(1 message, first ", "why It runs for 0:")
    site.press("m")
    window.wait("topic    sales", "order 4711")
    site.press("Escape")
    window.wait("[7]Fresh")
    site.server.site.finish(site.sales.id, Outcome.SUCCESS)
    window.wait("all fresh", "● Reload Sales", "✓ all well", "(1 message, 1 run)")


def test_what_is_behind_noted(site):
    """``!`` names what was refused, how often, and what it means."""
    window = site.window
    site.publish("qliksense/start_task", b"nonsense")
    window.wait("▲ 1 noted !")
    site.press("!")
    text = window.wait("noted since the start 1", f"{Counter.MESSAGES_REJECTED.label}: 1 since ")
    assert words(Counter.MESSAGES_REJECTED.text) in words(text)


def test_a_message_that_started_nothing(site):
    """Live marks it; ``Enter`` says which condition did not hold, and what was found."""
    window = site.window
    site.publish("plant/7/done", b'{"state": "running"}')
    window.wait("plant/7/done", "» not met")
    site.press("Enter")
    window.wait('Trigger quality: state = "done" does not hold: found "running".')


def test_everything_is_held_for_an_hour(site):
    """``H 1h Enter disks Enter`` holds it, ``!`` says what waits, ``H Enter`` lets it go."""
    window = site.window
    window.keys("H")
    window.wait("No task is started meanwhile.")
    site.press("1", "h", "Enter", *"disks", "Enter")
    window.wait("▲ all held until")
    for _ in range(2):
        site.publish("qliksense/start_task", site.stock.id.encode())
    window.wait("◌")
    assert not site.stock.runs

    def told():
        found = {part["name"]: part for part in site.health()["parts"]}
        return ": disks; 1 start waits" in found["holds"]["text"] and found

    assert until(told, "health names the hold")["holds"]["level"] == "warn"
    site.press("!")
    window.wait("What waits:", "Reload Stock #1  since", "H release it, or change it")
    site.press("H")
    window.wait("Release")
    site.press("Enter")
    window.wait("✓ all well")
    until(lambda: site.stock.runs == 1, "the merged start went out, once")
    site.press("5")
    window.wait("releases everything")


def test_a_failure_that_is_known(site):
    """``! a``, a note, ``Enter``: all is well, until the task fails again."""
    window = site.window
    site.publish("qliksense/start_task", site.hr.id.encode())
    window.wait("▲ Reload HR failed", "more: !")
    site.press("!")
    window.wait("a acknowledge")
    site.press("a")
    window.wait("until it happens again")
    site.press(*"4711", "Enter")
    window.wait("✓ all well", "acknowledged 1", "a take it back")
    until(lambda: site.health()["status"] == "ok", "health agrees")
    site.publish("qliksense/start_task", site.hr.id.encode())
    window.wait("▲ Reload HR failed")


def test_what_floods_the_broker_and_since_when(site):
    """``2 s s`` puts it on top with its share; ``v`` there plots what it sends."""
    window = site.window
    site.publish("plant/1/temp", b'{"t": 21.5}')
    for number in range(4):
        site.publish("camera/7/frames", b'{"frame": %d, "pixels": "%s"}' % (number, b"x" * 5000))
    window.wait("camera/7/frames")
    site.press("2")
    window.wait("camera/7/frames", "plant/1/temp")
    for order in ("name", "bytes a second", "messages", "bytes"):
        site.press("s")
        window.wait(f"sorted by {order}")
    site.press("Home")
    text = window.wait("▌  camera/7/frames")
    row = next(line for line in text.split("\n") if "camera/7/frames" in line)
    assert row.split()[-2] != "100%"
    assert any(part.endswith("%") and int(part[:-1]) > 90 for part in row.split())
    site.press("v")
    window.wait("── camera/7/frames ── 1 hour", "1 frame", "all read")
