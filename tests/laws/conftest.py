"""A real server process for the laws, one a driver."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from stillroom.manager import DatabaseSessionManager
from stillroom.postgres import Cluster
from tests.conftest import DRIVERS, NewDatabase
from tests.laws.models import Base
from tests.pgbouncer import DEBIAN, LATER, run_pgbouncer
from tests.processes import eventually

PASSWORD = "the-password-of-the-laws"
"""What no log may show; the server asks for none."""


@dataclass
class Service:
    """A running server process, seen from outside: over HTTP and in its database."""

    client: httpx2.Client
    url: str
    log: Path
    database: psycopg.Connection[Any]

    def rows(self, name: str, table: str = "items") -> int:
        """Count the rows of this name that are committed."""
        query = sql.SQL("SELECT count(*) FROM {} WHERE name = %s").format(sql.Identifier(table))
        row = self.database.execute(query, (name,)).fetchone()
        return int(row[0]) if row else 0

    def statements(self, pattern: str) -> int:
        """Count the statements like this one that PostgreSQL is running."""
        row = self.database.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND state = 'active' AND pid <> pg_backend_pid() AND query LIKE %s",
            (pattern,),
        ).fetchone()
        return int(row[0]) if row else 0

    def open_transactions(self) -> int:
        """Count the transactions of the service that are open and idle."""
        row = self.database.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND state LIKE 'idle in transaction%'"
        ).fetchone()
        return int(row[0]) if row else 0

    def in_use(self) -> int:
        """Ask the service how many connections its pool has handed out."""
        return int(self.client.get("/pool").json()["in_use"])


SLOWER_WAYS = ["older PostgreSQL", *(f"asyncpg through {kind}" for kind in (DEBIAN, LATER))]
WAYS = [*DRIVERS, *(pytest.param(way, marks=pytest.mark.full) for way in SLOWER_WAYS)]
"""The drivers and servers on which each law is tried."""


@pytest.fixture(scope="module", params=WAYS)
def service(
    request: pytest.FixtureRequest, new_database: NewDatabase, tmp_path_factory: Any
) -> Iterator[Service]:
    """Serve the laws' application from a process of its own, each way to a database."""
    driver, _, pooler = request.param.partition(" through ")
    if driver in DRIVERS:
        bare = new_database()
    else:
        bare, driver = older_database(request), "asyncpg"
    given = make_url(bare).set(drivername=f"postgresql+{driver}", password=PASSWORD)
    url = given.render_as_string(hide_password=False)
    asyncio.run(create_tables(url))
    log = tmp_path_factory.mktemp("laws") / "server.log"
    with ExitStack() as stack:
        if pooler:
            url = stack.enter_context(run_pgbouncer(pooler, bare)).url(bare, driver)
        yield stack.enter_context(serving(url, bare, log))
    assert "Traceback" not in (text := log.read_text()) or "Application shutdown" in text, text
    assert PASSWORD not in text


@contextmanager
def serving(url: str, bare: str, log: Path) -> Generator[Service]:
    """Run the laws' application; the URL without a driver leads to PostgreSQL itself."""
    with (
        serve(["-m", "tests.laws.app", url], log) as address,
        httpx2.Client(base_url=address, timeout=30) as client,
        psycopg.connect(bare, autocommit=True) as database,
    ):
        wait_until(lambda: answers(client))
        yield Service(client, url, log, database)


def older_database(request: pytest.FixtureRequest) -> str:
    """Create a database on the oldest PostgreSQL that Debian's folders have; skip without one."""
    cluster: Cluster = request.getfixturevalue("older_cluster")
    name = f"laws_{uuid4().hex}"
    cluster.create_database(name)
    return cluster.url(name)


@contextmanager
def serve(command: list[str], log: Path) -> Generator[str]:
    """Run Python with a listening socket as its last argument; give the address."""
    with socket.create_server(("127.0.0.1", 0)) as listening, log.open("wb") as output:
        number = str(listening.fileno())
        process = subprocess.Popen(
            [sys.executable, *command, number],
            pass_fds=[listening.fileno()],
            stdout=output,
            stderr=output,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            process.terminate()
            process.wait(20)


def answers(client: httpx2.Client) -> bool:
    """Say whether the server answers yet."""
    return client.get("/pool").status_code == 200


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for a condition; fail when it does not come."""
    assert eventually(holds), "waited in vain"


async def create_tables(url: str) -> None:
    """Create the laws' tables."""
    manager = DatabaseSessionManager(Base.metadata)
    manager.init(make_url(url))
    async with manager.connect() as connection:
        await manager.create_all(connection)
    await manager.close()
