"""``appliance web`` as its user runs it, and browsers: one by hand, and Chromium by WebDriver."""

from __future__ import annotations

import base64
import contextlib
import http.cookies
import json
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import aiohttp
import pytest
from appliance_process import DEADLINE_S, free_port, until
from attached_appliance import PASSWORD

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
needs_chromium = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs Chromium and its driver: apt install chromium-driver"
)


class WebProcess:
    """The command, at an appliance process that runs; ends with its ``with`` block."""

    def __init__(self, appliance, *arguments: str, own_group: bool = False) -> None:
        self._arguments = [
            sys.executable, "-m", "appliance", "web", "127.0.0.1", "--port", str(appliance.port),
            "--bind", "127.0.0.1:0", *arguments,
        ]  # fmt: skip
        self._folder = appliance.folder
        self._own_group = own_group
        self.lines: list[str] = []

    def __enter__(self) -> WebProcess:
        self.process = subprocess.Popen(
            self._arguments,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=self._own_group,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        found = until(lambda: re.search(r" (https?)://127.0.0.1:(\d+)/", self.said), "its address")
        self.scheme, self.port = found[1], int(found[2])
        self.origin = f"{self.scheme}://127.0.0.1:{self.port}"
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        self.process.stdout.close()

    def _read(self) -> None:
        with contextlib.suppress(ValueError):  # closed, while a child of it has the other end
            for line in self.process.stdout:
                self.lines.append(line)

    @property
    def said(self) -> str:
        return "".join(self.lines)

    def terminals(self) -> list[int]:
        """Process ids of the terminals."""
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(each) for each in found.split()]


class Browser:
    """What a browser does, request by request; ``origin``: what it says of its page."""

    def __init__(self, web: WebProcess, origin: str | None = None, **settings) -> None:
        self.web = web
        self.headers = {"Origin": web.origin if origin is None else origin}
        self._settings = settings

    async def __aenter__(self) -> Browser:
        self.http = aiohttp.ClientSession(
            self.web.origin,
            cookie_jar=aiohttp.CookieJar(unsafe=True, treat_as_secure_origin=[self.web.origin]),
            connector=aiohttp.TCPConnector(ssl=False),
            timeout=aiohttp.ClientTimeout(total=DEADLINE_S),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.close()

    async def sign_in(self, name="admin", password=PASSWORD, **extra):
        """Returns status and text of the page."""
        async with self.http.post(
            "/sign-in",
            data={"name": name, "password": password},
            headers=self.headers | extra,
            allow_redirects=False,
        ) as answer:
            return answer.status, await answer.text(), answer

    async def get(self, path="/", **extra):
        async with self.http.get(path, headers=extra, allow_redirects=False) as answer:
            return answer.status, await answer.text(), answer

    def terminal(self, columns=100, rows=30, **extra):
        return self.http.ws_connect(
            f"/ws?width={columns}&height={rows}", headers=self.headers | extra, max_msg_size=0
        )


async def seen(socket, wanted: str) -> str:
    """Read until the terminal has drawn ``wanted``; returns its text without what is no text."""
    drawn, end_s = "", time.monotonic() + DEADLINE_S / 3
    while wanted not in drawn:
        message = await socket.receive(DEADLINE_S)
        if time.monotonic() > end_s:
            raise AssertionError(f"{wanted!r} never came; drawn was: {drawn[-3000:]}")
        if message.type is not aiohttp.WSMsgType.BINARY:
            raise AssertionError(
                f"{wanted!r} never came, but {message}; drawn was: {drawn[-2000:]}"
            )
        drawn += re.sub(
            r"\x1b(\[[0-9;?$<>=]*[A-Za-z]|.)", "", message.data.decode("utf-8", "replace")
        )
    return drawn


async def typed(socket, keys: str) -> None:
    await socket.send_str('["focus"]')
    await socket.send_str(json.dumps(["stdin", keys]))


class Chromium:
    """A headless Chromium, by WebDriver (https://www.w3.org/TR/webdriver2/)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Chromium:
        port = free_port()
        self._driver = subprocess.Popen(
            [DRIVER, f"--port={port}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._base = f"http://127.0.0.1:{port}"
        until(lambda: self.ask("GET", "/status")["ready"], "the driver")
        options = {
            "binary": CHROMIUM,
            "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,800",
                     f"--user-data-dir={self._folder}"],
        }  # fmt: skip
        wanted = {
            "acceptInsecureCerts": True,
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        session = self.ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._base += f"/session/{session['sessionId']}"
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self.ask("DELETE", "")
        self._driver.terminate()
        self._driver.wait(DEADLINE_S)

    def ask(self, method: str, path: str, body: object = None):
        data = None if method == "GET" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self._base + path, data, method=method)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
            return json.load(answer)["value"]

    def go(self, url: str) -> None:
        self.ask("POST", "/url", {"url": url})

    def run(self, script: str):
        return self.ask("POST", "/execute/sync", {"script": script, "args": []})

    def type(self, selector: str, text: str) -> None:
        found = self.ask("POST", "/element", {"using": "css selector", "value": selector})
        (element,) = found.values()
        self.ask("POST", f"/element/{element}/value", {"text": text})

    def press(self, text: str) -> None:
        keys = [{"type": kind, "value": one} for one in text for kind in ("keyDown", "keyUp")]
        self.ask("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": keys}]})

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.ask("GET", "/screenshot")))

    def errors(self) -> list[str]:
        """What the pages' console said that is an error."""
        found = self.ask("POST", "/se/log", {"type": "browser"})
        return [each["message"] for each in found if each["level"] == "SEVERE"]
