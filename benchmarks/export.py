"""Measure what a list of a million users costs, and whom it holds up."""

import asyncio
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import machine
from contender import SERVICE, fill, migrate
from load import Application, Server, serve
from report import Report, Row, Table
from rounds import interleave, is_quick

from stillroom.postgres import Cluster, temporary_cluster, with_asyncpg

METHOD = """\
The users service, one worker of uvicorn, lists {users:,} users: one JSON array, read by a client
that takes what comes. psql sends the same JSON by COPY ... TO STDOUT to a file that keeps nothing.
Meanwhile another client asks the service for one user, again and again, and the longest answer
counts; the memory is what the server's peak has grown by, after a list of 10,000 that does not
count. {rounds} rounds, in an order that changes; medians. All of it shares {cores} cores."""

SELECT = (
    "SELECT row_to_json(r) FROM (SELECT id, email, full_name FROM users ORDER BY users.id) AS r"
)


@dataclass(frozen=True)
class Export:
    """What a list has cost."""

    wall: float
    first_byte: float = 0
    memory: float = 0
    longest: float = 0


def main() -> None:
    """Measure, and write the results."""
    users, rounds = (200_000, 2) if is_quick(__doc__) else (1_000_000, 7)
    before = machine.load()
    with ExitStack() as stack:
        cluster = stack.enter_context(temporary_cluster())
        migrate(cluster)
        url = cluster.url("larder")
        application = Application("run:server", SERVICE, {"DB_CONFIG": with_asyncpg(url)})
        asyncio.run(fill(url, 10_000))
        server = stack.enter_context(serve(application))
        server.get("/api/user/get-users")
        (one, *_) = asyncio.run(fill(url, users))
        found = interleave(
            {
                "the service": lambda: _by_http(server, one),
                "psql, COPY": lambda: _by_psql(cluster),
            },
            rounds,
        )
    described = machine.describe(before)
    method = METHOD.format(users=users, rounds=rounds, cores=described.get("cores", "two"))
    Report(
        "export",
        "What does a list of a million rows cost?",
        method,
        described,
        _tables(found),
        is_busy=machine.is_busy(),
    ).write()


def _by_http(server: Server, one: str) -> Export:
    Path(f"/proc/{server.pid}/clear_refs").write_text("5")  # forget the peak
    memory = server.memory
    with _Asking(server, f"/api/user/get-user?id={one}") as asking:
        connection = HTTPConnection(urlsplit(server.url).netloc, timeout=60)
        began = time.perf_counter()
        connection.request("GET", "/api/user/get-users")
        answer = connection.getresponse()
        last = answer.read(1)
        first_byte = time.perf_counter() - began
        while part := answer.read(1 << 20):
            last = part[-1:]
        wall = time.perf_counter() - began
        connection.close()
    if (answer.status, last) != (200, b"]"):
        msg = f"the list has broken off: {answer.status} {last!r}"
        raise RuntimeError(msg)
    return Export(wall, first_byte, server.memory - memory, asking.longest)


def _by_psql(cluster: Cluster) -> Export:
    words = [*cluster.psql_command("larder"), "--no-psqlrc"]
    began = time.perf_counter()
    subprocess.run(
        [*words, "--command", f"COPY ({SELECT}) TO STDOUT"], check=True, stdout=subprocess.DEVNULL
    )
    return Export(time.perf_counter() - began)


class _Asking:
    """Ask for something again and again, and know the longest answer, in seconds."""

    def __init__(self, server: Server, path: str) -> None:
        self.longest = 0.0
        self._server = server
        self._path = path
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._is_over.wait(0.005):
            began = time.perf_counter()
            self._server.get(self._path)
            self.longest = max(self.longest, time.perf_counter() - began)


def _tables(found: Mapping[str, list[Export]]) -> list[Table]:
    ours, psql = found["the service"], found["psql, COPY"]
    walls = [Row(name, [it.wall for it in exports]) for name, exports in found.items()]
    ratio = [a.wall / b.wall for a, b in zip(ours, psql, strict=True)]
    return [
        Table("the whole list", "s", walls),
        Table("the whole list, against psql", "times", [Row("the service", ratio, target=2)]),
        Table(
            "the first byte",
            "ms",
            [Row("the service", [1000 * it.first_byte for it in ours], target=100)],
        ),
        Table(
            "the longest answer to another request meanwhile",
            "ms",
            [Row("the service", [1000 * it.longest for it in ours], target=50)],
        ),
        Table(
            "growth of the server's memory",
            "MB",
            [Row("the service", [it.memory for it in ours], target=20)],
        ),
    ]


if __name__ == "__main__":
    main()
