"""A real server, as production starts it."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from tests.conftest import SERVICE


@dataclass(frozen=True)
class Server:
    """A server's supervisor, its port on the loopback, its log and its database."""

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

    @property
    def worker(self) -> int:
        """Return the pid of the process that serves."""
        return int(Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text())

    def peak_memory(self) -> int:
        """Return the most memory that the worker has had since `forget_peak_memory`, in bytes."""
        status = Path(f"/proc/{self.worker}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024

    def forget_peak_memory(self) -> None:
        """Set the peak to what the worker has now; see clear_refs in proc(5)."""
        Path(f"/proc/{self.worker}/clear_refs").write_text("5")


@contextmanager
def serve(url: str, log: Path) -> Generator[Server]:
    """Run the server on a database; it need not be there."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("stillroom"), "serve", "--port", "0"],
            stdout=out,
            stderr=out,
            cwd=SERVICE,
            env={**os.environ, "DB_CONFIG": url},
        )
        try:
            wait_until(lambda: _port(log) > 0 or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            yield Server(process.pid, _port(log), log, url)
        finally:
            process.terminate()
            try:
                code = process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise
    assert code == 0, log.read_text()


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


def _port(log: Path) -> int:
    said = re.search(r"^Serving run:server on http://127\.0\.0\.1:(\d+), ", log.read_text(), re.M)
    return int(said[1]) if said else 0
