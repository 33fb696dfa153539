"""Random keys, clicks, pastes and resizes every 30 ms on the real program.

The appliance has a simulated Qlik server, clients with odd names publish, and the program's log
says whether the UI failed. The seed is in the message of a failure; ``STORM_SEED`` sets another
one, ``STORM_SECONDS`` a longer storm of the campaign. POSIX terminals only.
"""

import contextlib
import os
import random
import threading
import time

from appliance_process import ApplianceProcess, free_port
from terminal_storm import Terminal, failures, storm

from appliance.errors import ApplianceError
from appliance.mqtt.client import Client, Target

SEED = os.environ.get("STORM_SEED", "1")
SECONDS = float(os.environ.get("STORM_SECONDS", "30"))
"""Of the campaign: some 1000 keys, clicks, pastes and resizes."""
CONFIG = """
[service]
data_dir = "data"
[[listener]]
bind = "127.0.0.1:PORT"
[qlik]
edition = "simulated"
[ui]
keys = { quit = "f12" }
[[trigger]]
name = "start"
topic = "qliksense/start_task"
task = "payload"
[[timer]]
name = "nightly"
every = "5s"
publish = { topic = "plant/nightly", payload = "x" }
[[recorder]]
topic = "#"
path = "all.jsonl"
format = "jsonl"
"""
CLIENTS = ('x" since:zz', "plc-1", "[red]", "a\u202eb", "日本 é", "*")
TOPICS = ("qliksense/start_task", 'a/"b/c', "[x]/{y}", "plant/日本/\u202e", "a//b", "$odd")


@contextlib.contextmanager
def traffic(port, chance):
    """Clients that publish until the block ends; the broker may come and go."""
    stop = threading.Event()

    def publish(client_id):
        while not stop.is_set():
            target = Target("127.0.0.1", port, client_id=client_id)
            with contextlib.suppress(ApplianceError, OSError), Client(target) as client:
                while not stop.wait(0.03):
                    number = chance.randrange(1000)
                    topic = chance.choice((*TOPICS[:-1], f"plant/line{number % 40}"))
                    body = b"Reload Sales" if number % 3 else bytes([number % 256]) * (number % 90)
                    client.publish(topic, body, qos=1, retain=number % 7 == 0)
            stop.wait(0.2)

    threads = [threading.Thread(target=publish, args=(one,)) for one in CLIENTS[:3]]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)


def weather(command, folder, log, seed, seconds):
    """Storms on one program after the other, since keys may end one in order."""
    chance = random.Random(seed)
    sent = []
    left_s = seconds
    while left_s > 0:
        terminal = Terminal(command, folder)
        try:
            terminal.wait(b"\x1b[?1049h")
            began_s = time.monotonic()
            storm(terminal, chance, began_s + left_s, sent)
            left_s -= time.monotonic() - began_s
        finally:
            terminal.close()
        if "attach" not in command:
            assert terminal.process.returncode == 0
    found = failures(log)
    assert not found, f"seed {seed}: {found}; sent last: {' '.join(sent)}"


def at_the_appliance(folder, seed, seconds):
    """A storm on the terminal UI of an appliance that runs in it."""
    port = free_port()
    (folder / "config.toml").write_text(CONFIG.replace("PORT", str(port)), "utf-8")
    command = ["-m", "appliance", "run", "-c", str(folder / "config.toml")]
    with traffic(port, random.Random(seed)):
        weather(command, folder, folder / "data" / "logs" / "appliance.log", seed, seconds)


def attached(folder, seed, seconds):
    """A storm on a terminal UI that is attached to an appliance."""
    with ApplianceProcess(folder, CONFIG) as process:
        process.start()
        command = ["-m", "appliance", "attach", "127.0.0.1", "--port", str(process.port)]
        log = folder / "state" / "appliance" / "attach.log"
        with traffic(process.port, random.Random(seed)):
            weather(command, folder, log, seed, seconds)
            assert process.process.poll() is None or process.exit_code() == 0
