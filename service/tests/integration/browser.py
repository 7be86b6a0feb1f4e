"""A headless Chromium, spoken to over a pipe: https://chromedevtools.github.io/devtools-protocol/."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--window-size=1200,1400",
    "--remote-debugging-pipe",
]

# Chromium reads commands from descriptor 3 and writes to descriptor 4.
_START = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); \
os.execv(sys.argv[3], sys.argv[3:])"

_SECONDS = 60.0


class Page:
    """The one page of a browser, and all that it has asked for and complained about."""

    def __init__(self, commands: int, events: int) -> None:
        self._commands = commands
        self._events = events
        self._unread = b""
        self._number = 0
        self._session: str | None = None
        self.requests: list[str] = []
        self.failures: list[str] = []
        self.complaints: list[str] = []

    def open(self, url: str) -> None:
        """Go to an address, with everything under watch from the start."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.send(f"{domain}.enable")
        self.send("Page.navigate", url=url)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; what happens meanwhile is noted."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._number:
            self._note(answer)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """Wait until an expression is true, and return its value."""
        deadline = time.monotonic() + _SECONDS
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < deadline, (expression, self.complaints, self.failures)
            time.sleep(0.05)
        return value

    def click(self, selector: str) -> None:
        """Click on an element as soon as it is there."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.wait_for(f"{element} !== null")
        self.evaluate(f"{element}.click()")

    def screenshot(self, file: Path) -> None:
        """Write what is seen as a PNG."""
        file.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            part = os.read(self._events, 1 << 20)
            assert part, "Chromium has ended"
            self._unread += part
        message, _, self._unread = self._unread.partition(b"\0")
        received: dict[str, Any] = json.loads(message)
        return received

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])
            case "Network.loadingFailed":
                self.failures.append(parameters["errorText"])
            case "Log.entryAdded" if parameters["entry"]["level"] == "error":
                self.complaints.append(parameters["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.complaints.append(str(parameters["exceptionDetails"]))
            case _:
                pass


@contextmanager
def browse(profile: Path) -> Generator[Page]:
    """Run Chromium with a profile of its own."""
    chromium = shutil.which("chromium") or missing("Chromium", "chromium")
    command_read, command_write = _pipe()
    event_read, event_write = _pipe()
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", _START, str(command_read), str(event_write), chromium),
            *(*OPTIONS, f"--user-data-dir={profile}"),
        ],
        pass_fds=[command_read, event_write],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(command_read)
    os.close(event_write)
    page = Page(command_write, event_read)
    try:
        yield page
        os.write(command_write, b'{"id": 0, "method": "Browser.close"}\0')
        process.wait(30)
    finally:
        os.close(command_write)
        os.close(event_read)
        process.kill()
        process.wait()


def missing(what: str, package: str) -> NoReturn:
    """Skip the test, saying what to install; fail it where everything has to be there."""
    reason = f"needs {what}: apt-get install {package}"
    if os.environ.get("STILLROOM_REQUIRE_DEBIAN"):
        pytest.fail(reason)
    pytest.skip(reason)


def _pipe() -> tuple[int, int]:
    """Make a pipe whose descriptors are none of those that Chromium expects."""
    low = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in low]
    for end in low:
        os.close(end)
    return high[0], high[1]
