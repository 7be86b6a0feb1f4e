"""A server process, and wrk that loads it."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

FOLDER = Path(__file__).parent
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Application:
    """An ASGI application, and what it needs in its environment."""

    name: str
    folder: Path = FOLDER
    environ: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Load:
    """What a load of some seconds has found."""

    rate: float
    """Requests a second."""
    cpu: float
    """Seconds of the server's own processes for each request."""
    median: float
    """Seconds until the whole answer was there, for half of the requests."""
    late: float
    """The same for 99 of 100."""
    refused: float
    """The share of the requests that was refused; `rate` is that of the others."""


class Server:
    """A process that serves an application on loopback."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int) -> None:
        self._process = process
        self._port = port
        self.url = f"http://127.0.0.1:{port}"

    @property
    def cpu(self) -> float:
        """Return the seconds of processor that it and its workers have used."""
        return sum(_cpu(pid) for pid in _family(self._process.pid))

    @property
    def pid(self) -> int:
        """Return the number of its process."""
        return self._process.pid

    @property
    def worker(self) -> int:
        """Return the number of the process that answers, where that is one: the last to start."""
        return _family(self._process.pid)[-1]

    @property
    def memory(self) -> float:
        """Return the most memory that it and its workers have used, each for itself, in MB."""
        return sum(_memory(pid) for pid in _family(self._process.pid))

    def get(self, path: str) -> bytes:
        """Return the body of an answer. Raises RuntimeError for an error."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            msg = f"{self.url}{path}: {answer.status} {body.decode(errors='replace')}"
            raise RuntimeError(msg)
        return body

    def load(
        self,
        work: str,
        ids: Sequence[str],
        *,
        connections: int,
        seconds: int,
        prefix: str,
        may_refuse: bool = False,
    ) -> Load:
        """Load it for some seconds. Raises RuntimeError where a request fails, or is refused."""
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write("\n".join(ids))
            file.flush()
            words = ["wrk", "-t1", "--timeout", "60s", f"-c{connections}", f"-d{seconds}s"]
            words += [
                "--latency",
                "-s",
                str(FOLDER / "requests.lua"),
                self.url,
                "--",
                work,
                file.name,
                prefix,
            ]
            before = self.cpu
            found = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        rate, count = (
            re.search(r"Requests/sec:\s*(\S+)", found),
            re.search(r"(\d+) requests", found),
        )
        failed = re.search(r"Non-2xx or 3xx responses: (\d+)", found)
        is_bad = "Socket errors" in found or (failed is not None and not may_refuse)
        if rate is None or count is None or is_bad:
            msg = f"{self.url}, {work}: {found}"
            raise RuntimeError(msg)
        requests = int(count[1])
        refused = int(failed[1]) / requests if failed else 0.0
        return Load(
            rate=float(rate[1]) * (1 - refused),
            cpu=(self.cpu - before) / requests,
            median=_latency(found, 50),
            late=_latency(found, 99),
            refused=refused,
        )


UVICORN = "uvicorn --loop uvloop --http httptools --no-access-log --log-level warning"
"""Uvicorn as fast as it can: no log of requests."""


@contextmanager
def serve(application: Application, command: str = UVICORN) -> Generator[Server]:
    """Run a command that serves an application on a port; uvicorn with one worker unless given."""
    port = _free_port()
    program, *options = command.split()
    words = [str(Path(sys.executable).with_name(program)), *options]
    words += [application.name, "--port", str(port)]
    environ = {**os.environ, **application.environ}
    with tempfile.TemporaryFile("w+b") as output:
        process = subprocess.Popen(
            words, cwd=application.folder, env=environ, stdout=output, stderr=output
        )
        try:
            _wait(process, port, output.name)
            yield Server(process, port)
        finally:
            process.terminate()
            process.wait()
            output.seek(0)
            sys.stderr.write(output.read().decode())


def _latency(found: str, percent: int) -> float:
    line = re.search(rf"\s{percent}%\s+([\d.]+)(us|ms|s|m)\s*\n", found)
    if line is None:
        msg = f"wrk says nothing of its {percent}th percentile: {found}"
        raise RuntimeError(msg)
    return float(line[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60}[line[2]]


def require_wrk() -> None:
    """Exit where there is no wrk."""
    if shutil.which("wrk") is None:
        sys.exit("wrk makes the load: apt-get install wrk")


def _family(pid: int) -> list[int]:
    children = [
        int(child)
        for thread in Path(f"/proc/{pid}/task").iterdir()
        for child in (thread / "children").read_text().split()
    ]
    return [pid, *(one for child in children for one in _family(child))]


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _memory(pid: int) -> float:
    found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def _wait(process: "subprocess.Popen[bytes]", port: int, name: object) -> None:
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/")  # a socket may listen before anybody answers
            connection.getresponse().read()
        except OSError:
            time.sleep(0.02)
        else:
            return
        finally:
            connection.close()
    msg = f"no server on port {port} within 30 s ({name})"
    raise RuntimeError(msg)
