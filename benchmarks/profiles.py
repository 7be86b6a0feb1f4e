"""Measure whose code a request runs: where the time goes that is left."""

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from threading import Thread

import machine
import uvloop
from contender import CONNECTIONS, SERVICE, Contender, Work, migrate, serve_users
from load import Application, require_wrk
from orm import WORKS as ORM
from orm import fill, repeat
from report import Report, Row, Table
from rounds import interleave

from stillroom.postgres import temporary_cluster, with_asyncpg

METHOD = """\
py-spy looks {rate} times a second which function the process is in, for {seconds} s, {rounds}
times: at the only worker of `stillroom serve` while wrk asks it by {connections} connections, and
at a process that does ordinary ORM code in read sessions. A figure is the share of the looks, the
median of the rounds. What is written in C counts for the Python function that called it: parsing
and writing HTTP for uvicorn, validation by Pydantic for FastAPI, the protocol for asyncpg; what
nobody called, which is uvloop and the system's part of reading and writing, for the event loop."""

RATE = 500

WORKS = [
    Work("get one", "get", 1000),
    Work("list 1,000", "list", 1000),
    Work("create", "create", 1000),
    Work("90 % get, 10 % create", "mix", 1000),
]

OWNERS = {
    "/asyncio/runners.py": "the event loop",
    "/site-packages/uvicorn/": "uvicorn",
    "/site-packages/starlette/": "Starlette",
    "/site-packages/fastapi/": "FastAPI",
    "/src/stillroom/": "Stillroom",
    "/site-packages/sqlalchemy/": "SQLAlchemy",
    "/site-packages/asyncpg/": "asyncpg",
    "/service/": "the service's own code",
}
"""Whose function it is, by the path of its file."""

OTHERS = "others, the standard library above all"


def main() -> None:
    """Measure, and write the results."""
    require_wrk()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round: less than a minute")
    parser.add_argument("--repeat", nargs=2, help=argparse.SUPPRESS)  # be what is looked at
    arguments = parser.parse_args()
    if arguments.repeat is not None:
        uvloop.run(repeat(*arguments.repeat))
        return
    seconds, rounds = (2, 1) if arguments.quick else (6, 3)
    before = machine.load()
    with ExitStack() as stack:
        cluster = stack.enter_context(temporary_cluster(settings={"random_page_cost": "1.1"}))
        migrate(cluster)
        service = stack.enter_context(
            serve_users(0, Application("run:server", SERVICE), cluster, "stillroom serve")
        )
        methods: dict[str, Callable[[], Mapping[str, float]]] = {
            work.name: partial(_of_service, service, work, seconds) for work in WORKS
        }
        cluster.create_database("orm")
        url = with_asyncpg(cluster.url("orm"))
        uvloop.run(fill(url))
        for name in ORM:
            methods[name] = partial(_of_orm, url, name, seconds)
        found = interleave(methods, rounds)
    Report(
        "profiles",
        "Whose code does a request run?",
        METHOD.format(rate=RATE, seconds=seconds, rounds=rounds, connections=CONNECTIONS),
        machine.describe(before),
        [_table(name, shares) for name, shares in found.items()],
        is_busy=machine.is_busy(),
    ).write()


def _of_service(service: Contender, work: Work, seconds: int) -> Mapping[str, float]:
    loading = Thread(target=service.measure, args=[work], kwargs={"seconds": seconds})
    loading.start()
    shares = _look(service.server.worker, seconds)
    loading.join()
    return shares


def _of_orm(url: str, name: str, seconds: int) -> Mapping[str, float]:
    words = [sys.executable, __file__, "--repeat", url, name]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it has begun
        shares = _look(process.pid, seconds)
        process.terminate()
    return shares


def _look(pid: int, seconds: int) -> Mapping[str, float]:
    """Return the share of each owner in what a process does, in percent."""
    with tempfile.NamedTemporaryFile("r", suffix=".txt") as file:
        spy = str(Path(sys.executable).with_name("py-spy"))
        words = [spy, "record", "--pid", str(pid), "--duration", str(seconds), "--rate", str(RATE)]
        words += ["--format", "raw", "--full-filenames", "--nonblocking", "--output", file.name]
        subprocess.run(words, check=True, capture_output=True)
        lines = file.read().splitlines()
    looks: Counter[str] = Counter()
    for line in lines:
        if found := re.fullmatch(r"(.*) (\d+)", line):  # it cannot tell what each stack is
            looks[_owner(found[1].rpartition(";")[2])] += int(found[2])
    return {name: 100 * looks[name] / looks.total() for name in looks}


def _owner(frame: str) -> str:
    found = re.search(r"\((.*):\d+\)$", frame)
    path = found[1] if found else ""
    return next((owner for part, owner in OWNERS.items() if part in path), OTHERS)


def _table(name: str, rounds: Sequence[Mapping[str, float]]) -> Table:
    rows = [
        Row(owner, [shares.get(owner, 0.0) for shares in rounds])
        for owner in (*OWNERS.values(), OTHERS)
    ]
    rows = [row for row in rows if row.median]
    return Table(name, "% of the processor's time", sorted(rows, key=lambda row: -row.median))


if __name__ == "__main__":
    main()
