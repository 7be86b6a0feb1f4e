"""A real server process, as `uvicorn run:server` starts it."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from tests.conftest import SERVICE

BACKLOG = 1024
"""How many clients may knock at once."""


@dataclass(frozen=True)
class Server:
    """A server process, its port on the loopback, its log and its database."""

    pid: int
    port: int
    log: Path
    url: str

    @property
    def address(self) -> str:
        """Return the URL of the server."""
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> HTTPConnection:
        """Open a connection that is never opened anew: when the server cuts it, that is seen."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.connect()
        connection.auto_open = 0
        return connection

    def wait_for_status(self, status: int, path: str = "/api/user/get-users") -> None:
        """Wait until a GET answers with this status."""

        def answers() -> bool:
            with closing(self.connect()) as connection:
                connection.request("GET", path)
                return connection.getresponse().status == status

        wait_until(answers, lambda: f"no {status} for {path}:\n{self.log.read_text()[-2000:]}")

    def peak_memory(self) -> int:
        """Return the most memory that the process has had since `forget_peak_memory`, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024

    def forget_peak_memory(self) -> None:
        """Set the peak to what the process has now; see clear_refs in proc(5)."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")


@contextmanager
def serve(url: str, log: Path) -> Generator[Server]:
    """Run the server on a database, from a socket that listens already; it need not answer yet."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listening,
        log.open("wb") as out,
    ):
        descriptor = listening.fileno()
        process = subprocess.Popen(
            # Longer than any client here thinks: whoever uses a connection again in the moment in
            # which the server closes it as idle gets no answer.
            [
                *(sys.executable, "-m", "uvicorn", "run:server"),
                *("--fd", str(descriptor), "--timeout-keep-alive", "60"),
            ],
            pass_fds=[descriptor],
            stdout=out,
            stderr=out,
            cwd=SERVICE,
            env={**os.environ, "DB_CONFIG": url},
        )
        try:
            yield Server(process.pid, listening.getsockname()[1], log, url)
        finally:
            process.terminate()
            try:
                code = process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise
    assert code in {0, -15}, log.read_text()


def wait_until(
    holds: Callable[[], bool],
    complaint: Callable[[], str] = lambda: "waited in vain",
    seconds: float = 20.0,
) -> None:
    """Wait for a condition; fail when it does not come."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, complaint()
        time.sleep(0.02)
